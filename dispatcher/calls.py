"""A call in the dispatcher, its states, and the control connection that it belongs to."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

from dispatcher.pptp.connection import Connection
from fastpath.layout import ENDING, Session
from ops.networks import Network
from ops.ranges import format_address

Handle = tuple[int, int]


class CallState(Enum):
    """Of a call in the dispatcher; what the client hears of it is the connection's."""

    INSTALLING = "installing"  # Outgoing-Call-Reply waits for the worker
    STARTING = "starting"
    UP = "up"
    ENDING = "ending"  # End was said, Ended has not come


class CallEvent(Enum):
    INSTALLED = "installed"
    ADMIT = "admit"
    UP = "up"
    END = "end"


_S = CallState
_E = CallEvent
# What may happen when. Ended may come in any state and is the end.
TABLE: Final[dict[tuple[CallState, CallEvent], CallState]] = {
    (_S.INSTALLING, _E.INSTALLED): _S.STARTING,
    (_S.INSTALLING, _E.END): _S.ENDING,
    (_S.STARTING, _E.ADMIT): _S.STARTING,
    (_S.STARTING, _E.UP): _S.UP,
    (_S.STARTING, _E.END): _S.ENDING,
    (_S.UP, _E.ADMIT): _S.UP,
    (_S.UP, _E.END): _S.ENDING,
}


@dataclass(slots=True, eq=False)
class Control:
    """A control connection: its protocol, its ends, and its calls by their numbers."""

    number: int
    peer: int  # host-order IPv4
    peer_port: int
    local: int
    protocol: Connection
    calls: dict[int, Call] = field(default_factory=dict)


@dataclass(slots=True, eq=False)
class Call:
    """A record in use."""

    index: int
    generation: int
    sid: int
    worker: int
    call_id: int
    peer_call_id: int
    peer: int
    state: CallState
    control: Control | None  # None: its control connection is gone
    number: int = 0  # in that control connection
    accepted: bool = False  # Outgoing-Call-Reply said yes
    accepted_at: float = 0.0
    refused: bool = False  # it said no: counted there, and no end
    was_up: bool = False
    user: str = ""
    user_mark: int = 0  # for whom it counts, once it is admitted: see `_mark`
    realm_mark: int = 0
    address: int = 0
    local: int = 0
    prefixes6: tuple[Network, ...] = ()  # that it holds
    cause: str = ""
    reason: str = ""
    soft: bool = False
    ending_since: float = 0.0

    @property
    def handle(self) -> Handle:
        return self.index, self.generation


def found_in(s: Session) -> CallState:
    """What a record says of a call whose dispatcher died."""
    if s.allot == ENDING:
        return CallState.ENDING
    if s.up_ns:
        return CallState.UP
    return CallState.STARTING if s.answered else CallState.INSTALLING


def mark(name: str) -> int:
    """A name as a number for the record, where a successor finds it: 64 bits, 0 for none."""
    if not name:
        return 0
    octets = name.encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(octets, digest_size=8).digest(), "little") or 1


def matches(call: Call, by: str, value: str) -> bool:
    match by:
        case "all":
            return True
        case "sid":
            return f"{call.sid:016x}" == value.lower().rjust(16, "0")
        case "username":
            return call.user == value
        case "ip":
            return call.address != 0 and format_address(call.address) == value
        case "csid":
            return format_address(call.peer) == value
        case "if":
            return str(call.index) == value
        case _:
            return False
