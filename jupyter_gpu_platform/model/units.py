"""Sizes and durations as people write and read them: ``16GiB``, ``2h30m``. Shared by the magic and the command line."""

from __future__ import annotations

import re

from .. import errors

_SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*")
_DURATION_PART = re.compile(r"(\d+(?:\.\d+)?)([a-z]+)")
#: bytes; single letters as in ``free -h`` and PyTorch's messages: powers of two
_SIZE_UNITS: dict[str, int] = {
    "": 1,
    "b": 1,
    **{letter: 1024**power for power, letter in enumerate("kmgt", start=1)},
    **{f"{letter}ib": 1024**power for power, letter in enumerate("kmgt", start=1)},
    **{f"{letter}b": 1000**power for power, letter in enumerate("kmgt", start=1)},
}
_SECONDS = {"s": 1, "sec": 1, "m": 60, "min": 60, "h": 3600, "d": 86400, "w": 7 * 86400}


def parse_size(text: str) -> int:
    """Read a size as bytes: ``16GiB`` and ``16G`` are powers of two, ``16GB`` of ten, a bare number is bytes.

    :raises InvalidRequest: it is not a size.
    """
    match = _SIZE.fullmatch(text)
    unit = _SIZE_UNITS.get(match[2].lower()) if match else None
    if match is None or unit is None:
        raise errors.InvalidRequest(f"{text!r} is not a size", hint="Write it like 512MiB, 16GiB or 1.5TB.")
    return round(float(match[1]) * unit)


def parse_duration(text: str) -> float:
    """Read a duration as seconds: ``90s``, ``45m``, ``2h30m``, ``1d``; a bare number is seconds.

    :raises InvalidRequest: it is not a duration, or is zero.
    """
    compact = text.replace(" ", "").lower()
    if re.fullmatch(r"\d+(\.\d+)?", compact):
        compact += "s"
    parts = _DURATION_PART.findall(compact)
    known = "".join(number + unit for number, unit in parts) == compact and all(unit in _SECONDS for _, unit in parts)
    seconds = sum(float(number) * _SECONDS[unit] for number, unit in parts) if known else 0.0
    if seconds <= 0:
        raise errors.InvalidRequest(f"{text!r} is not a duration", hint="Write it like 90s, 45m, 2h30m or 1d.")
    return seconds


def format_size(size: int) -> str:
    """Write bytes for people: ``16 GiB``."""
    amount = float(size)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if amount < 1024:
            return f"{amount:.3g} {unit}"
        amount /= 1024
    return f"{amount:.3g} TiB"


def format_duration(seconds: float) -> str:
    """Write seconds for people, in the two largest units: ``2h 30m``, ``45s``, ``0.3s``."""
    if seconds < 9.95:
        return f"{max(seconds, 0):.1f}s"
    whole = round(seconds)
    parts = [(whole // 86400, "d"), (whole // 3600 % 24, "h"), (whole // 60 % 60, "m"), (whole % 60, "s")]
    first = next(index for index, (count, _) in enumerate(parts) if count)
    return " ".join(f"{count}{unit}" for count, unit in parts[first : first + 2] if count)
