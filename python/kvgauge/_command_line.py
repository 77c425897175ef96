"""The command line of ``python -m kvgauge.perplexity``: flags, result, progress and errors."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import time
from typing import Callable, NoReturn, Optional

from . import __version__

PROGRAM = "python -m kvgauge.perplexity"
_DEFAULT_WINDOWS = 20
#: The shortest window with a prefix and a scored target that depends on it.
_LEAST_CONTEXT = 4


def print_result(text: str) -> None:
    """To stdout, with question marks for characters that the console lacks. A reader that went away
    (`| head`) is no error."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    try:
        sys.stdout.write(text.encode(encoding, "replace").decode(encoding))
        sys.stdout.flush()
    except BrokenPipeError:
        # Python flushes once more at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class Progress:
    """On stderr, on a terminal only, in one line that is written over. Notes appear everywhere."""

    def __init__(self) -> None:
        self.visible = sys.stderr.isatty()
        self._total = 0
        self._done = 0
        self._start = 0.0

    def _show(self, text: str) -> None:
        if self.visible:
            sys.stderr.write(f"\r\x1b[K{text}")
            sys.stderr.flush()

    def stage(self, what: str) -> None:
        self._show(what)

    def begin(self, tokens: int) -> None:
        self._total, self._done, self._start = tokens, 0, time.perf_counter()
        self._show("evaluating")

    def advanced(self, tokens: int) -> None:
        self._done += tokens
        elapsed = max(time.perf_counter() - self._start, 1e-9)
        left = (self._total - self._done) * elapsed / self._done
        share = 100 * self._done // self._total
        rate = self._done / elapsed
        self._show(f"evaluating {share:3} %  {rate:.0f} tokens/s  {left:.0f} s left")

    def clear(self) -> None:
        self._show("")

    def note(self, text: str) -> None:
        self.clear()
        print(f"note: {text}", file=sys.stderr)


def report_problem(message: str, hint: str, status: int) -> int:
    """Writes both lines to stderr; returns ``status``."""
    if sys.stderr.isatty():
        sys.stderr.write("\r\x1b[K")
    for word, text in (("error", message), ("hint", hint)):
        print(f"{word}: {' '.join(text.split())}", file=sys.stderr)
    return status


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(report_problem(message, f"{PROGRAM} --help lists what can be asked for", 2))


def _at_least(least: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"expected a whole number, found {text!r}") from None
        if number < least:
            raise argparse.ArgumentTypeError(f"expected at least {least}, found {number}")
        return number

    return parse


def _window_count(text: str) -> Optional[int]:
    return None if text == "all" else _at_least(1)(text)


def _limit(expected: str, most: float = sys.float_info.max) -> Callable[[str], float]:
    """A number from 0 to ``most``."""

    def parse(text: str) -> float:
        with contextlib.suppress(ValueError):
            number = float(text)
            if 0.0 <= number <= most:
                return number
        raise argparse.ArgumentTypeError(f"expected {expected}, found {text!r}")

    return parse


def parser() -> argparse.ArgumentParser:
    """Of all flags, the names of ``kvgauge validate`` where it has the same."""
    flags = _Parser(
        prog=PROGRAM,
        allow_abbrev=False,
        description="What does compressing the KV cache cost this model on this text? As `kvgauge "
        "validate`, with the model run by transformers and the cache passed through files.",
        epilog="Exit status: 0 done; 1 done, and a limit was missed (--strict); 2 the request or "
        "the input is wrong; 3 anything else.",
    )
    add = flags.add_argument
    add("--model", required=True, help="OWNER/NAME[@REVISION], a folder, or a .gguf file")
    add("--gguf-file", metavar="NAME", help="a GGUF file of that folder or repository")
    add("--text", required=True, metavar="FILE", help="UTF-8 text")
    add(
        "--context",
        type=_at_least(_LEAST_CONTEXT),
        metavar="N",
        help="tokens in a window; the first half is compressed [default: 2048, or the model's "
        "maximum]",
    )
    add(
        "--windows",
        type=_window_count,
        default=_DEFAULT_WINDOWS,
        metavar="N|all",
        help="windows to evaluate [default: 20, fewer if the text is shorter]",
    )
    add(
        "--first-window",
        type=_at_least(0),
        default=0,
        metavar="N",
        help="index of the first window, from 0",
    )
    add(
        "--codec",
        action="append",
        metavar="NAME",
        help="codec to try; repeat for several [default: int4-g64]",
    )
    add(
        "--bos",
        choices=("auto", "always", "never"),
        default="auto",
        help="whether a beginning-of-sequence token replaces a window's first [default: auto]",
    )
    add(
        "--cache-dtype",
        choices=("f32", "f16", "bf16"),
        default="f32",
        help="type of the cache in the files [default: f32]",
    )
    add(
        "--attention",
        choices=("sdpa", "eager"),
        help="how transformers computes attention [default: sdpa, eager for models without it]",
    )
    add("--device", default="cpu", help="where the model runs: cpu, cuda, mps [default: cpu]")
    add("--threads", type=_at_least(1), metavar="N", help="CPU threads [default: all]")
    add(
        "--max-ppl-change",
        "--max-ppl-increase",
        dest="max_ppl_change",
        type=_limit("a percentage, 0 or more"),
        default=1.0,
        metavar="PERCENT",
        help="largest accepted change of the perplexity, up or down [default: 1]",
    )
    add(
        "--max-kld",
        type=_limit("nats a token, 0 or more"),
        metavar="NATS",
        help="largest accepted mean KL divergence [default: any]",
    )
    add(
        "--min-top1",
        type=_limit("a share from 0 to 1", 1.0),
        metavar="SHARE",
        help="smallest accepted share of targets that keep their likeliest token [default: any]",
    )
    add(
        "--max-bytes-per-token",
        type=_limit("bytes a token, 0 or more"),
        metavar="BYTES",
        help="largest accepted cache, bytes a token of a full context [default: any]",
    )
    add("--strict", action="store_true", help="exit with status 1 unless every codec passes")
    add("--json", action="store_true", help="print one JSON object instead of the table")
    add("--output", metavar="FILE", help="also write the JSON object to a file")
    add("--force", action="store_true", help="replace a file that is no result of kvgauge")
    add("--version", action="version", version=f"kvgauge {__version__}")
    return flags
