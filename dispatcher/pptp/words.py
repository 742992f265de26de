"""Control messages in words, for who traces a connection. Any octets give words."""

from __future__ import annotations

from dataclasses import fields
from enum import IntEnum
from typing import Final

from dispatcher.pptp.messages import (
    HEADER,
    DisconnectNotify,
    DisconnectResult,
    GeneralError,
    IncomingReply,
    IncomingResult,
    Message,
    OutgoingReply,
    OutgoingResult,
    RemoteError,
    StartReply,
    StartResult,
    StopReason,
    StopRequest,
    check_header,
    decode,
    field_text,
)

NAMES: Final[dict[str, str]] = {
    "StartRequest": "Start-Control-Connection-Request",
    "StartReply": "Start-Control-Connection-Reply",
    "StopRequest": "Stop-Control-Connection-Request",
    "StopReply": "Stop-Control-Connection-Reply",
    "EchoRequest": "Echo-Request",
    "EchoReply": "Echo-Reply",
    "OutgoingRequest": "Outgoing-Call-Request",
    "OutgoingReply": "Outgoing-Call-Reply",
    "IncomingRequest": "Incoming-Call-Request",
    "IncomingReply": "Incoming-Call-Reply",
    "IncomingConnected": "Incoming-Call-Connected",
    "ClearRequest": "Call-Clear-Request",
    "DisconnectNotify": "Call-Disconnect-Notify",
    "WanErrorNotify": "WAN-Error-Notify",
    "SetLinkInfo": "Set-Link-Info",
}
RESULTS: Final[dict[type, type[IntEnum]]] = {
    StartReply: StartResult,
    OutgoingReply: OutgoingResult,
    IncomingReply: IncomingResult,
    DisconnectNotify: DisconnectResult,
}


def _number(kind: type[IntEnum], value: int) -> str:
    try:
        return f"{value} ({kind(value).name.lower().replace('_', ' ')})"
    except ValueError:
        return f"{value} (unknown)"


def _field(message: Message, name: str) -> str:
    value = getattr(message, name)
    word = name.replace("_", " ")
    if isinstance(value, bytes):
        text = field_text(value)
        return f"{word} {text!r}" if text else ""
    if name == "result" and type(message) in RESULTS:
        return f"{word} {_number(RESULTS[type(message)], value)}"
    if name == "reason" and isinstance(message, StopRequest):
        return f"{word} {_number(StopReason, value)}"
    if name == "error":
        return f"{word} {_number(GeneralError, value)}" if value else ""
    if name.endswith("_accm"):
        return f"{word} {value:08x}"
    return f"{word} {value}"


def _one(message: Message) -> str:
    told = [_field(message, field.name) for field in fields(message)]
    told = [text for text in told if text]
    name = NAMES[type(message).__name__]
    return f"{name}: {', '.join(told)}" if told else name


def describe(octets: bytes) -> str:
    """What was read from or written to TCP at once: usually one message."""
    found = []
    at = 0
    while at < len(octets):
        rest = octets[at:]
        try:
            length = check_header(rest[: HEADER.size]) if len(rest) >= HEADER.size else 0
            if not length or len(rest) < length:
                found.append(f"a part of a message, {len(rest)} octets")
                break
            found.append(_one(decode(rest[:length])))
            at += length
        except RemoteError as e:
            found.append(f"{len(rest)} octets that are no message: {e}")
            break
    return "; ".join(found) or "nothing"
