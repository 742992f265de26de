"""What an Accounting-Request says, RFC 2866, 2869: from a session's facts and counters."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, fields
from enum import IntEnum
from ipaddress import IPv6Address
from typing import Any, Final

import msgpack

from fastpath.layout import Session
from ops.networks import Network
from ops.ranges import format_address
from workers.policy import Policy
from workers.radius.attributes import A, integer, prefix6, text
from workers.radius.packets import VALUE_MAX, Attributes
from workers.radius.requests import Caller, Nas, identity, place
from workers.session import Saved


class Status(IntEnum):
    """Acct-Status-Type, RFC 2866 section 5.1."""

    START = 1
    STOP = 2
    INTERIM = 3
    ON = 7
    OFF = 8


BY_RADIUS: Final = 1  # Acct-Authentic
BY_US: Final = 2
NAS_REBOOT: Final = 11
NAS_REQUEST: Final = 10
NAS_ERROR: Final = 9

# Causes of ops.metrics.END_CAUSES -> Acct-Terminate-Cause, RFC 2866 section 5.10.
CAUSES: Final[dict[str, int]] = {
    "user_request": 1,
    "lost_carrier": 2,
    "lost_service": 3,
    "echo_timeout": 2,
    "idle_timeout": 4,
    "session_timeout": 5,
    "admin_reset": 6,
    "admin_reboot": 7,
    "auth_failed": 17,  # User Error
    "worker_lost": NAS_ERROR,
    "poison": NAS_ERROR,
    "internal_error": NAS_ERROR,
    "no_gre": 2,
    "volume_limit": NAS_REQUEST,
}


@dataclass(frozen=True, slots=True)
class Facts:
    """What a session is, once it is up; all that its records need beside counters."""

    sid: str
    index: int
    generation: int
    calling: str
    called: str
    address: int
    connection: int
    user: str
    method: str
    source: str
    up_unix: float
    interim_s: int = -1
    classes: tuple[bytes, ...] = ()
    interface_id: bytes = b""
    prefix6: str = ""
    delegated6: str = ""
    address6: str = ""

    def pack(self) -> bytes:
        """For the journal and for the way between processes."""
        values = [getattr(self, f.name) for f in fields(self)]
        packed: bytes = msgpack.packb(values, unicode_errors="surrogateescape")
        return packed

    @classmethod
    def unpack(cls, data: bytes) -> Facts:
        """The inverse; ValueError if it is none."""
        try:
            values = msgpack.unpackb(data, use_list=False, unicode_errors="surrogateescape")
            return cls(*values)
        except (TypeError, msgpack.exceptions.UnpackException) as e:
            raise ValueError(f"no facts of a session: {e}") from None

    @classmethod
    def of(
        cls,
        session: Session,
        saved: Saved,
        up_unix: float,
        granted6: Sequence[tuple[bytes, int]] = (),
    ) -> Facts:
        """From the record and the blob; `granted6` as Table.granted6 has it."""
        six = [str(Network(*net)) if net[1] else "" for net in granted6] or ["", "", ""]
        policy = Policy.thaw(saved.policy)
        return cls(
            sid=f"{session.sid:016x}",
            index=session.index,
            generation=session.generation,
            calling=format_address(session.peer_address),
            called=format_address(session.local_address),
            address=session.address,
            connection=session.connection,
            user=saved.user,
            method=saved.auth,
            source=policy.source,
            up_unix=up_unix,
            interim_s=policy.interim_s,
            classes=policy.classes,
            interface_id=policy.interface_id,
            prefix6=six[0],
            delegated6=six[1],
            address6=six[2].partition("/")[0],
        )

    def changed(self, changes: dict[str, Any]) -> Facts:
        """After a CoA-Request."""
        own = {"interim_s", "classes"} & set(changes)
        if not own:
            return self
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return Facts(**values | {name: changes[name] for name in own})

    @property
    def caller(self) -> Caller:
        """As requests have it."""
        return Caller(self.sid, self.index, self.calling, self.called)


@dataclass(frozen=True, slots=True)
class Counters:
    """Inner octets and packets of a session; input is from the subscriber."""

    input_octets: int = 0
    input_packets: int = 0
    output_octets: int = 0
    output_packets: int = 0
    seconds: int = 0

    @classmethod
    def of(cls, session: Session, now_ns: int) -> Counters:
        """From the record, which has the same names from the concentrator's side."""
        up = session.up_ns
        return cls(
            session.rx_bytes,
            session.rx_packets,
            session.tx_bytes,
            session.tx_packets,
            max(0, now_ns - up) // 1_000_000_000 if up else 0,
        )

    def attributes(self) -> Attributes:
        """64 bit as 32 and gigawords, RFC 2869 sections 5.1 and 5.2."""
        return (
            (A.ACCT_SESSION_TIME, integer(self.seconds)),
            (A.ACCT_INPUT_OCTETS, integer(self.input_octets)),
            (A.ACCT_OUTPUT_OCTETS, integer(self.output_octets)),
            (A.ACCT_INPUT_GIGAWORDS, integer(self.input_octets >> 32)),
            (A.ACCT_OUTPUT_GIGAWORDS, integer(self.output_octets >> 32)),
            (A.ACCT_INPUT_PACKETS, integer(self.input_packets)),
            (A.ACCT_OUTPUT_PACKETS, integer(self.output_packets)),
        )


def session_record(
    status: Status, nas: Nas, facts: Facts, counters: Counters | None = None, cause: int = 0
) -> Attributes:
    """Start, Interim or Stop; Event-Timestamp and Acct-Delay-Time are the sender's."""
    by_radius = facts.source == "radius"
    return (
        (A.ACCT_STATUS_TYPE, integer(status)),
        (A.USER_NAME, text(facts.user)),
        *place(nas, facts.caller),
        (A.FRAMED_IP_ADDRESS, integer(facts.address)),
        *(((A.FRAMED_INTERFACE_ID, facts.interface_id),) if facts.interface_id else ()),
        *(((A.FRAMED_IPV6_PREFIX, prefix6(facts.prefix6)),) if facts.prefix6 else ()),
        *(((A.DELEGATED_IPV6_PREFIX, prefix6(facts.delegated6)),) if facts.delegated6 else ()),
        *(((A.FRAMED_IPV6_ADDRESS, IPv6Address(facts.address6).packed),) if facts.address6 else ()),
        *((A.CLASS, value[:VALUE_MAX]) for value in facts.classes),
        (A.ACCT_AUTHENTIC, integer(BY_RADIUS if by_radius else BY_US)),
        (A.ACCT_TUNNEL_CONNECTION, text(str(facts.connection))),
        *(counters.attributes() if counters is not None else ()),
        *(((A.ACCT_TERMINATE_CAUSE, integer(cause)),) if status is Status.STOP else ()),
    )


def instance_record(status: Status, nas: Nas, epoch: int) -> Attributes:
    """Accounting-On and -Off, RFC 2866 section 5.1."""
    return (
        (A.ACCT_STATUS_TYPE, integer(status)),
        *identity(nas),
        (A.ACCT_SESSION_ID, text(f"{epoch:08x}")),
        (A.ACCT_AUTHENTIC, integer(BY_RADIUS)),
    )


def timed(attributes: Attributes, event_unix: float, now_unix: float) -> Attributes:
    """With when it happened: both ways to say it, since servers read one or the other."""
    return (
        *attributes,
        (A.EVENT_TIMESTAMP, integer(int(event_unix))),
        (A.ACCT_DELAY_TIME, integer(max(0, int(now_unix - event_unix)))),
    )


def pack(attributes: Attributes) -> bytes:
    """Attributes for the journal."""
    packed: bytes = msgpack.packb([(int(kind), value) for kind, value in attributes])
    return packed


def unpack(data: bytes) -> Attributes:
    """The inverse."""
    return tuple((int(kind), bytes(value)) for kind, value in msgpack.unpackb(data))


def up_unix(up_ns: int) -> float:
    """The time of day at which a session came up, of its CLOCK_MONOTONIC; 0: unknown."""
    return time.time() - max(0, time.monotonic_ns() - up_ns) / 1e9 if up_ns else 0.0
