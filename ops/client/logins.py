"""What clients say about their sessions, event by event."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True)
class Logins:
    """The sessions of one client process."""

    addresses: dict[int, str] = field(default_factory=dict)  # of those up now
    seconds: list[float] = field(default_factory=list)  # set-up times
    failed: list[str] = field(default_factory=list)
    causes: Counter[str] = field(default_factory=Counter)
    lost: int = 0
    device: str = ""
    began: float = 0.0  # CLOCK_MONOTONIC
    ended: float = 0.0
    all_after: float | None = None  # seconds until no login was on its way any more
    closing: bool = False  # what ends now, ends because we want it
    counters: dict[str, int] | None = None  # of the packet path, when they were told last

    def note(self, line: Mapping[str, Any]) -> None:
        """One event of the client."""
        match line.get("event"):
            case "start":
                self.device, self.began = line["tun"], line["at"]
            case "up":
                self.addresses[line["i"]] = line["address"]
                self.seconds.append(line["seconds"])
            case "failed":
                self.failed.append(f"{line['cause']}: {line['reason']}")
                self.causes[line["cause"]] += 1
            case "down":
                self.addresses.pop(line["i"], None)
                if not self.closing:
                    self.lost += 1
            case "all":
                self.all_after, self.ended = line["seconds"], line["at"]
            case "counters":
                self.counters = line["counters"]
