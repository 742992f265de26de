"""Rates as people write them: `512k`, `10M`, `1G`, bits in a second; two are `DOWN/UP`.

Down is to the subscriber. A leaf: configuration, chap-secrets and the command line read them.
"""

from __future__ import annotations

import re
from typing import Final

LEAST: Final = 8_000
MOST: Final = 1_000_000_000_000
UNLIMITED: Final = -1  # said: none, not even the general one
_UNITS: Final = {"": 1, "k": 1_000, "M": 1_000_000, "G": 1_000_000_000}
_RATE: Final = re.compile(r"(\d{1,13})([kKmMgG]?)")


def parse_rate(text: str, bare: int = 0) -> int:
    """bit/s; `bare`: what a number without a unit is multiplied by, 0: it is none.

    "none" is UNLIMITED, 0 nothing said; ValueError says what is wrong.
    """
    if text == "none":
        return UNLIMITED
    found = _RATE.fullmatch(text)
    if found is None:
        raise ValueError(f'{text!r} is no rate, such as "512k", "10M", "1G" or "none"')
    unit = found[2].lower() if found[2] in "kK" else found[2].upper()
    scale = _UNITS[unit] if unit else bare
    rate = int(found[1]) * scale
    if int(found[1]) and not scale:
        raise ValueError(f"{text!r} has no unit: write {text}k or {text}M")
    if rate and not LEAST <= rate <= MOST:
        raise ValueError(f"{text!r} is not from 8k to 1000G")
    return rate


def parse_pair(text: str, bare: int = 0) -> tuple[int, int]:
    """`DOWN/UP`, or one rate for both: (down, up)."""
    down, slash, up = text.partition("/")
    first = parse_rate(down, bare)
    return first, parse_rate(up, bare) if slash else first


def format_rate(rate: int) -> str:
    """The shortest text that parse_rate reads as this; "none" for no rate."""
    if rate <= 0:
        return "none"
    for unit, scale in (("G", 1_000_000_000), ("M", 1_000_000)):
        if rate % scale == 0:
            return f"{rate // scale}{unit}"
    return f"{rate / 1000:g}k" if rate % 1000 else f"{rate // 1000}k"
