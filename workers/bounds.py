"""What ends a session that is up: time, idleness, volume; the data thread watches them.

They stand in the record, so that a worker's successor has them from its first second on. An
event says which was reached; whether it still holds is judged here.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

from fastpath.layout import Session
from ops.settings import Settings
from workers.policy import Policy

SAID: Final = struct.Struct("=QQ")  # of the data thread: a kind, and the bound's value
FIELDS: Final = ("ends_ns", "idle_s", "volume_up", "volume_down", "volume")  # from kind 1 on
CAUSES: Final = (
    "session_timeout",
    "idle_timeout",
    "volume_limit",
    "volume_limit",
    "volume_limit",
)
WAYS: Final = {"volume_up": "from the subscriber", "volume_down": "to it", "volume": "both ways"}


@dataclass(frozen=True, slots=True)
class Bounds:
    """As Table.set_bounds takes them; 0: none."""

    ends_ns: int = 0
    idle_s: int = 0
    idle_by: int = 0
    volume_up: int = 0
    volume_down: int = 0
    volume: int = 0

    @classmethod
    def of(cls, session: Session) -> Bounds:
        """As the record has them."""
        return cls(
            session.ends_ns,
            session.idle_s,
            session.idle_by,
            session.volume_up,
            session.volume_down,
            session.volume,
        )


def timeout_s(settings: Settings, policy: Policy) -> int:
    """Seconds that the session may last; 0: any number."""
    return max(0, policy.session_timeout_s or settings.limits.session_timeout_s)


def bounds_of(settings: Settings, policy: Policy, since: float) -> Bounds:
    """What holds for a session whose time runs from `since` (CLOCK_MONOTONIC, s) on."""
    lasts = timeout_s(settings, policy)
    idle = policy.idle_timeout_s or settings.limits.idle_timeout_s
    return Bounds(
        ends_ns=int((since + lasts) * 1e9) if lasts else 0,
        idle_s=min(max(0, idle), 0xFFFFFFFF),
        idle_by=int(settings.limits.idle_by == "subscriber"),
        volume_up=max(0, policy.volume_up),
        volume_down=max(0, policy.volume_down),
        volume=max(0, policy.volume),
    )


@dataclass(frozen=True, slots=True)
class Reached:
    """One that was reached: the record's field, the cause of the end, a sentence."""

    field: str
    cause: str
    reason: str


def reached(data: bytes, session: Session, lasts: int) -> Reached | None:
    """What an event says; None where the record has another bound by now. `lasts` is the
    session's timeout in seconds, for the sentence."""
    kind, value = SAID.unpack(data)
    field = FIELDS[kind - 1]
    if getattr(session, field) != value:
        return None
    match field:
        case "ends_ns":
            reason = f"Session-Timeout of {lasts} s"
        case "idle_s":
            whose = " from the subscriber" if session.idle_by else ""
            reason = f"no data{whose} for {value} s"
        case _:
            octets = {
                "volume_up": session.rx_bytes,
                "volume_down": session.tx_bytes,
                "volume": session.rx_bytes + session.tx_bytes,
            }[field]
            reason = f"{octets} octets {WAYS[field]}, {value} are allowed"
    return Reached(field, CAUSES[kind - 1], reason)
