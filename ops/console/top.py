"""What [metrics] says of series of single sessions: how many, and whether with names."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from ops import settings

PREFIX: Final = "top:"


@dataclass(frozen=True, slots=True)
class Top:
    """The `number` busiest sessions; 0: none."""

    number: int
    names: bool

    @classmethod
    def of(cls, metrics: settings.Metrics) -> Top:
        """From settings, whose form has been checked."""
        number = metrics.sessions.removeprefix(PREFIX)
        return cls(int(number) if number else 0, metrics.session_names)


NO_TOP: Final = Top(0, False)
