"""The error of a command line: message, hint and exit status."""

from __future__ import annotations


class Problem(Exception):
    """Something the user should know instead of a result: what it is, what to do about it, and
    the exit status it maps to (2: the request or the input is wrong; 3: anything else)."""

    def __init__(self, message: str, hint: str, exit_status: int = 2) -> None:
        super().__init__(message)
        self.hint = hint
        self.exit_status = exit_status


def first_line(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), "") or type(error).__name__
