"""One thing that a check found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

Level = Literal["error", "warning", "note"]

# error: subscribers stay out, or the service does not start; warning: some will suffer, or
# all under load; note: good to know.
LEVELS: Final[tuple[Level, ...]] = ("error", "warning", "note")


@dataclass(frozen=True, slots=True)
class Finding:
    """What is so, where, and the command or key that mends it ("": nothing needs to)."""

    level: Level
    where: str
    what: str
    mend: str = ""
