"""Figures, intervals and verdicts of a measurement, all worked out by ``kvgauge figures``."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Dict, List, Mapping, Optional

from ._binaries import KVGAUGE, CompressionError, json_object
from ._problem import Problem

#: Exit status of the binary where a codec misses a limit, under ``--strict``.
_LIMIT_MISSED = 1


@dataclass(frozen=True)
class Limits:
    """Limits that a codec must keep to, each an interval's but the last. ``max_ppl_change``:
    percent, up or down. ``max_kld``: nats a token. ``min_top1``: share of targets, 0…1.
    ``max_bytes_per_token``: bytes of the cache."""

    max_ppl_change: float = 1.0
    max_kld: Optional[float] = None
    min_top1: Optional[float] = None
    max_bytes_per_token: Optional[float] = None

    def arguments(self) -> List[str]:
        """The flags of the binary."""
        named = {
            "--max-ppl-change": self.max_ppl_change,
            "--max-kld": self.max_kld,
            "--min-top1": self.min_top1,
            "--max-bytes-per-token": self.max_bytes_per_token,
        }
        return [f"{flag}={limit!r}" for flag, limit in named.items() if limit is not None]


@dataclass(frozen=True)
class Figures:
    """``result``: the object of ``kvgauge figures --json``, whose ``baseline`` and ``codecs`` are
    those of ``kvgauge validate --json``. ``limit_missed``: whether a codec does not pass."""

    result: Dict[str, Any]
    limit_missed: bool


def check_binary() -> None:
    """Raises where there is no ``kvgauge``, or one that cannot work out figures."""
    path = KVGAUGE.find()
    try:
        KVGAUGE.run(["figures", "--help"])
    except CompressionError as error:
        if error.exit_status != 2:
            raise
        raise Problem(
            f"{path}: expected a kvgauge that knows the command `figures`, found an older one",
            "package and binary have to be of one version: install kvgauge anew, or set "
            f"{KVGAUGE.variable} to the binary's path",
        ) from error


def work_out(measurement: Mapping[str, Any], limits: Limits) -> Figures:
    """Raises ``CompressionError``."""
    status, printed = KVGAUGE.run(
        ["figures", "-", "--json", "--strict", *limits.arguments()],
        standard_input=_bytes(measurement),
        accepted=(0, _LIMIT_MISSED),
    )
    return Figures(json_object(KVGAUGE, printed), status == _LIMIT_MISSED)


def table(measurement: Mapping[str, Any], limits: Limits) -> str:
    """The figures for a terminal, with the subject above and the verdicts below; ends with a
    newline. Raises ``CompressionError``."""
    arguments = ["figures", "-", *limits.arguments()]
    _, printed = KVGAUGE.run(arguments, standard_input=_bytes(measurement))
    return printed.decode("utf-8")


def _bytes(measurement: Mapping[str, Any]) -> bytes:
    return json.dumps(measurement, allow_nan=False).encode()
