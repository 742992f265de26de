"""What a source of accounts says about a session, whichever source it was.

Secrets, configuration and RADIUS all fill one of these; admission, the link, the data
path and accounting read it. It is frozen into the session's blob, so a successor of the
worker goes by the same words. "Nothing said" is each field's default.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any


@dataclass(frozen=True, slots=True)
class Policy:
    """Addresses are host-order numbers, rates bit/s, bursts and volumes octets, times s.

    *Up* is from the subscriber, *down* to it.
    """

    source: str = ""  # "secrets", "users", "radius": who answered
    # addresses
    address: int = 0  # Framed-IP-Address; 0: from the pool
    pool: str = ""  # Framed-Pool; "": the account's or the default one
    routes: tuple[str, ...] = ()  # Framed-Route, "PREFIX/LENGTH [gateway [metric]]"
    dns: tuple[int, ...] = ()
    wins: tuple[int, ...] = ()
    interface_id: bytes = b""  # Framed-Interface-Id, 8 octets
    prefix6: str = ""  # Framed-IPv6-Prefix
    pool6: str = ""  # Framed-IPv6-Pool
    delegated6: str = ""  # Delegated-IPv6-Prefix
    delegated_pool6: str = ""  # Delegated-IPv6-Prefix-Pool
    routes6: tuple[str, ...] = ()  # Framed-IPv6-Route
    dns6: tuple[str, ...] = ()
    address_lists: tuple[str, ...] = ()  # sets that the address is put into
    # limits; 0: none
    sessions: int = 0  # of this user at once (Port-Limit)
    session_timeout_s: int = 0
    idle_timeout_s: int = 0
    volume_up: int = 0
    volume_down: int = 0
    volume: int = 0  # both together
    # shaping; 0: none, burst 0: from the rate
    rate_up: int = 0
    rate_down: int = 0
    burst_up: int = 0
    burst_down: int = 0
    filter: str = ""  # Filter-Id: the name of a filter
    # accounting
    interim_s: int = -1  # Acct-Interim-Interval; -1: as configured, 0: none
    classes: tuple[bytes, ...] = ()  # Class, sent back in each accounting record
    reply: str = ""  # Reply-Message

    def freeze(self) -> dict[str, Any]:
        """What differs from "nothing said", for the blob."""
        return {
            f.name: getattr(self, f.name)
            for f in fields(self)
            if getattr(self, f.name) != f.default
        }

    @classmethod
    def thaw(cls, said: dict[str, Any]) -> Policy:
        """The inverse; a field this version does not know is left out."""
        known = {f.name for f in fields(cls)}
        return cls(**{name: value for name, value in said.items() if name in known})


NOTHING_SAID = Policy()
