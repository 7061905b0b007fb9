"""Byte counts as people write them: ``900MiB``, ``1.2GB``, ``500M``."""

import re
from fractions import Fraction

from cadcpp.errors import ConfigError

_SIZE = re.compile(r"\s*([0-9]{1,18}(?:\.[0-9]{1,18})?)\s*(?:([kmgt])(i?b)?|b)?\s*", re.IGNORECASE)
_POWERS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}


def parse_size(text: str) -> int:
    """The number of bytes that ``text`` means.

    ``kB MB GB TB`` are powers of 1000. ``KiB MiB GiB TiB`` and the bare letters ``K M G T`` are powers
    of 1024, as in the memory tools of Linux. Case does not matter.
    """
    match = _SIZE.fullmatch(text)
    if match is None:
        raise ConfigError(f"not a size: {text!r}; write a number and a unit, such as 900MiB, 1.2GB or 123456")
    number, letter, ending = (group or "" for group in match.groups())
    base = 1000 if ending.lower() == "b" else 1024
    return int(Fraction(number) * base ** _POWERS[letter.lower()])


def format_size(n_bytes: int) -> str:
    """Three digits and a decimal unit: ``1.19 GB``, ``88.2 MB``, ``512 B``."""
    if abs(n_bytes) < 1000:
        return f"{n_bytes} B"
    value = float(n_bytes)
    for unit in ("kB", "MB", "GB", "TB"):
        value /= 1000
        # 999.5 and more would print as 1e+03
        if abs(value) < 999.5:
            return f"{_three_digits(value)} {unit}"
    return f"{value:.0f} TB"


def _three_digits(value: float) -> str:
    n_decimals = 2 if abs(value) < 9.995 else 1 if abs(value) < 99.95 else 0
    return f"{value:.{n_decimals}f}"
