"""The fifteen control messages of RFC 2637 section 2, as values and as octets.

One frozen dataclass a message, its layout one line, fields in the order of the
RFC's figure. Length, type and magic are checked once, in `decode`; the header's
length field is never trusted: it must be the length that the type has. Reserved
fields are sent as zero and not looked at (RFC 2637: "This field MUST be 0" binds
the sender; clients are known to leave rubbish there).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from struct import Struct
from typing import ClassVar, Final, Self

# -- numbers of the RFC

PORT: Final = 1723
MAGIC: Final = 0x1A2B3C4D
CONTROL_MESSAGE: Final = 1  # PPTP message type; 2, management, is not defined
VERSION: Final = 0x0100
HEADER: Final = Struct(">HHLHH")  # length, PPTP message type, magic, control type, reserved0


class ControlType(IntEnum):
    """Control message types, section 1.4."""

    START_REQUEST = 1
    START_REPLY = 2
    STOP_REQUEST = 3
    STOP_REPLY = 4
    ECHO_REQUEST = 5
    ECHO_REPLY = 6
    OUTGOING_REQUEST = 7
    OUTGOING_REPLY = 8
    INCOMING_REQUEST = 9
    INCOMING_REPLY = 10
    INCOMING_CONNECTED = 11
    CLEAR_REQUEST = 12
    DISCONNECT_NOTIFY = 13
    WAN_ERROR_NOTIFY = 14
    SET_LINK_INFO = 15


class GeneralError(IntEnum):
    """General error codes, section 2.16; they go with result "general error"."""

    NONE = 0
    NOT_CONNECTED = 1
    BAD_FORMAT = 2
    BAD_VALUE = 3
    NO_RESOURCE = 4
    BAD_CALL_ID = 5
    PAC_ERROR = 6


class StartResult(IntEnum):
    """Start-Control-Connection-Reply, section 2.2."""

    OK = 1
    GENERAL_ERROR = 2
    ALREADY_EXISTS = 3
    NOT_AUTHORIZED = 4
    BAD_VERSION = 5


class StopReason(IntEnum):
    """Stop-Control-Connection-Request, section 2.3."""

    NONE = 1
    PROTOCOL = 2
    LOCAL_SHUTDOWN = 3


class OutgoingResult(IntEnum):
    """Outgoing-Call-Reply, section 2.8."""

    CONNECTED = 1
    GENERAL_ERROR = 2
    NO_CARRIER = 3
    BUSY = 4
    NO_DIAL_TONE = 5
    TIME_OUT = 6
    DO_NOT_ACCEPT = 7


class IncomingResult(IntEnum):
    """Incoming-Call-Reply, section 2.10."""

    CONNECT = 1
    GENERAL_ERROR = 2
    DO_NOT_ACCEPT = 3


class DisconnectResult(IntEnum):
    """Call-Disconnect-Notify, section 2.13. Windows sends 0 [MS-PTPT 1.3]."""

    LOST_CARRIER = 1
    GENERAL_ERROR = 2
    ADMIN_SHUTDOWN = 3
    REQUEST = 4


OK: Final = 1  # result of Stop- and Echo-Reply


class RemoteError(Exception):
    """The peer broke the protocol: `answer` is what to send before closing, if anything."""

    def __init__(self, text: str, answer: Message | None = None) -> None:
        super().__init__(text)
        self.text = text
        self.answer = answer


def text_field(text: str, size: int = 64) -> bytes:
    """A host name, vendor or number: octets, cut to `size`, padded with zeros."""
    return text.encode("utf-8", "replace")[:size].ljust(size, b"\0")


def field_text(field: bytes) -> str:
    """What stands before the first zero octet; escape it before it meets a terminal."""
    return field.partition(b"\0")[0].decode("utf-8", "backslashreplace")


class _Wire:
    """Octets of a message: header, then its fields by LAYOUT."""

    TYPE: ClassVar[ControlType]
    LAYOUT: ClassVar[Struct]
    __slots__: tuple[str, ...] = ()

    def encode(self) -> bytes:
        # A dataclass's slots are its fields, in order.
        body = self.LAYOUT.pack(*[getattr(self, name) for name in self.__slots__])
        length = HEADER.size + self.LAYOUT.size
        head = HEADER.pack(length, CONTROL_MESSAGE, MAGIC, self.TYPE, 0)
        return head + bytes(body)

    @classmethod
    def unpack(cls, frame: bytes) -> Self:
        return cls(*cls.LAYOUT.unpack_from(frame, HEADER.size))


@dataclass(frozen=True, slots=True)
class StartRequest(_Wire):
    """Start-Control-Connection-Request, section 2.1; 156 octets."""

    TYPE: ClassVar = ControlType.START_REQUEST
    LAYOUT: ClassVar = Struct(">HxxLLHH64s64s")

    version: int = VERSION
    framing: int = 3
    bearer: int = 3
    max_channels: int = 0
    firmware: int = 0
    host_name: bytes = bytes(64)
    vendor: bytes = bytes(64)


@dataclass(frozen=True, slots=True)
class StartReply(_Wire):
    """Start-Control-Connection-Reply, section 2.2; 156 octets."""

    TYPE: ClassVar = ControlType.START_REPLY
    LAYOUT: ClassVar = Struct(">HBBLLHH64s64s")

    version: int = VERSION
    result: int = StartResult.OK
    error: int = 0
    framing: int = 3
    bearer: int = 3
    max_channels: int = 0
    firmware: int = 0
    host_name: bytes = bytes(64)
    vendor: bytes = bytes(64)


@dataclass(frozen=True, slots=True)
class StopRequest(_Wire):
    """Stop-Control-Connection-Request, section 2.3; 16 octets."""

    TYPE: ClassVar = ControlType.STOP_REQUEST
    LAYOUT: ClassVar = Struct(">Bxxx")

    reason: int = StopReason.NONE


@dataclass(frozen=True, slots=True)
class StopReply(_Wire):
    """Stop-Control-Connection-Reply, section 2.4; 16 octets."""

    TYPE: ClassVar = ControlType.STOP_REPLY
    LAYOUT: ClassVar = Struct(">BBxx")

    result: int = OK
    error: int = 0


@dataclass(frozen=True, slots=True)
class EchoRequest(_Wire):
    """Echo-Request, section 2.5; 16 octets."""

    TYPE: ClassVar = ControlType.ECHO_REQUEST
    LAYOUT: ClassVar = Struct(">L")

    identifier: int


@dataclass(frozen=True, slots=True)
class EchoReply(_Wire):
    """Echo-Reply, section 2.6; 20 octets."""

    TYPE: ClassVar = ControlType.ECHO_REPLY
    LAYOUT: ClassVar = Struct(">LBBxx")

    identifier: int
    result: int = OK
    error: int = 0


@dataclass(frozen=True, slots=True)
class OutgoingRequest(_Wire):
    """Outgoing-Call-Request, section 2.7; 168 octets."""

    TYPE: ClassVar = ControlType.OUTGOING_REQUEST
    LAYOUT: ClassVar = Struct(">HHLLLLHHHxx64s64s")

    call_id: int  # the sender's; 0 is valid, Windows uses it
    serial: int = 0
    min_bps: int = 300
    max_bps: int = 100_000_000
    bearer: int = 3
    framing: int = 3
    window: int = 64
    delay: int = 0  # packet processing delay, 1/10 s
    number_length: int = 0
    number: bytes = bytes(64)
    subaddress: bytes = bytes(64)


@dataclass(frozen=True, slots=True)
class OutgoingReply(_Wire):
    """Outgoing-Call-Reply, section 2.8; 32 octets."""

    TYPE: ClassVar = ControlType.OUTGOING_REPLY
    LAYOUT: ClassVar = Struct(">HHBBHLHHL")

    call_id: int  # the sender's
    peer_call_id: int
    result: int = OutgoingResult.CONNECTED
    error: int = 0
    cause: int = 0
    speed: int = 0
    window: int = 0
    delay: int = 0
    channel: int = 0


@dataclass(frozen=True, slots=True)
class IncomingRequest(_Wire):
    """Incoming-Call-Request, section 2.9; 220 octets."""

    TYPE: ClassVar = ControlType.INCOMING_REQUEST
    LAYOUT: ClassVar = Struct(">HHLLHH64s64s64s")

    call_id: int
    serial: int = 0
    bearer: int = 0
    channel: int = 0
    dialed_length: int = 0
    dialing_length: int = 0
    dialed: bytes = bytes(64)
    dialing: bytes = bytes(64)
    subaddress: bytes = bytes(64)


@dataclass(frozen=True, slots=True)
class IncomingReply(_Wire):
    """Incoming-Call-Reply, section 2.10; 24 octets."""

    TYPE: ClassVar = ControlType.INCOMING_REPLY
    LAYOUT: ClassVar = Struct(">HHBBHHxx")

    call_id: int
    peer_call_id: int
    result: int = IncomingResult.CONNECT
    error: int = 0
    window: int = 0
    delay: int = 0


@dataclass(frozen=True, slots=True)
class IncomingConnected(_Wire):
    """Incoming-Call-Connected, section 2.11; 28 octets."""

    TYPE: ClassVar = ControlType.INCOMING_CONNECTED
    LAYOUT: ClassVar = Struct(">HxxLHHL")

    peer_call_id: int
    speed: int = 0
    window: int = 0
    delay: int = 0
    framing: int = 0


@dataclass(frozen=True, slots=True)
class ClearRequest(_Wire):
    """Call-Clear-Request, section 2.12; 16 octets. Call ID of the sender (the PNS)."""

    TYPE: ClassVar = ControlType.CLEAR_REQUEST
    LAYOUT: ClassVar = Struct(">Hxx")

    call_id: int


@dataclass(frozen=True, slots=True)
class DisconnectNotify(_Wire):
    """Call-Disconnect-Notify, section 2.13; 148 octets. Call ID of the sender (the PAC)."""

    TYPE: ClassVar = ControlType.DISCONNECT_NOTIFY
    LAYOUT: ClassVar = Struct(">HBBHxx128s")

    call_id: int
    result: int = DisconnectResult.REQUEST
    error: int = 0
    cause: int = 0
    statistics: bytes = bytes(128)


@dataclass(frozen=True, slots=True)
class WanErrorNotify(_Wire):
    """WAN-Error-Notify, section 2.14; 40 octets. Call ID of the receiver."""

    TYPE: ClassVar = ControlType.WAN_ERROR_NOTIFY
    LAYOUT: ClassVar = Struct(">HxxLLLLLL")

    peer_call_id: int
    crc_errors: int = 0
    framing_errors: int = 0
    hardware_overruns: int = 0
    buffer_overruns: int = 0
    timeout_errors: int = 0
    alignment_errors: int = 0


@dataclass(frozen=True, slots=True)
class SetLinkInfo(_Wire):
    """Set-Link-Info, section 2.15; 24 octets. Call ID of the receiver."""

    TYPE: ClassVar = ControlType.SET_LINK_INFO
    LAYOUT: ClassVar = Struct(">HxxLL")

    peer_call_id: int
    send_accm: int = 0xFFFFFFFF
    receive_accm: int = 0xFFFFFFFF


Message = (
    StartRequest
    | StartReply
    | StopRequest
    | StopReply
    | EchoRequest
    | EchoReply
    | OutgoingRequest
    | OutgoingReply
    | IncomingRequest
    | IncomingReply
    | IncomingConnected
    | ClearRequest
    | DisconnectNotify
    | WanErrorNotify
    | SetLinkInfo
)
MESSAGES: Final[tuple[type[Message], ...]] = (
    StartRequest,
    StartReply,
    StopRequest,
    StopReply,
    EchoRequest,
    EchoReply,
    OutgoingRequest,
    OutgoingReply,
    IncomingRequest,
    IncomingReply,
    IncomingConnected,
    ClearRequest,
    DisconnectNotify,
    WanErrorNotify,
    SetLinkInfo,
)
BY_TYPE: Final[dict[int, type[Message]]] = {int(kind.TYPE): kind for kind in MESSAGES}
LENGTHS: Final[dict[int, int]] = {
    number: HEADER.size + kind.LAYOUT.size for number, kind in BY_TYPE.items()
}
MAX_LENGTH: Final = max(LENGTHS.values())


def check_header(head: bytes) -> int:
    """The length of the message that begins with these 12 octets, or RemoteError.

    A stranger that does not know the magic gets no answer. One that speaks PPTP, but
    not with these messages, gets a Stop-Control-Connection-Request before the close.
    """
    length, kind, magic, control, _ = HEADER.unpack_from(head)
    if magic != MAGIC:
        raise RemoteError(f"magic cookie {magic:08x}, not {MAGIC:08x}: this is not PPTP")
    if kind != CONTROL_MESSAGE:
        raise RemoteError(f"PPTP message type {kind}, not 1", StopRequest(StopReason.PROTOCOL))
    expected = LENGTHS.get(control)
    if expected is None:
        raise RemoteError(f"control message type {control}", StopRequest(StopReason.PROTOCOL))
    if length != expected:
        name = ControlType(control).name
        raise RemoteError(
            f"{name} with length {length}, not {expected}", StopRequest(StopReason.PROTOCOL)
        )
    return expected


def decode(frame: bytes) -> Message:
    """The message that `frame` holds, exactly; RemoteError if it holds none."""
    if len(frame) < HEADER.size:
        raise RemoteError(f"{len(frame)} octets, shorter than a header")
    length = check_header(frame)
    kind = BY_TYPE[int.from_bytes(frame[8:10], "big")]
    if len(frame) != length:
        raise RemoteError(
            f"{kind.__name__} in {len(frame)} octets, not {length}",
            StopRequest(StopReason.PROTOCOL),
        )
    return kind.unpack(frame)
