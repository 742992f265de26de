"""Packets of LCP, the network control protocols, PAP, CHAP and EAP: code, identifier, length.

RFC 1661 section 5. Lengths are checked here, once; what lies behind the length is padding.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from workers.ppp.errors import RemoteError

LCP: Final = 0xC021
PAP: Final = 0xC023
CHAP: Final = 0xC223
EAP: Final = 0xC227
CCP: Final = 0x80FD
IPCP: Final = 0x8021
IPV6CP: Final = 0x8057
IP: Final = 0x0021
IPV6: Final = 0x0057
COMPRESSED: Final = 0x00FD

HEADER: Final = 4
DEFAULT_MRU: Final = 1500


class Code(IntEnum):
    """Codes of LCP, CCP and IPCP; PAP and CHAP have their own."""

    CONFIGURE_REQUEST = 1
    CONFIGURE_ACK = 2
    CONFIGURE_NAK = 3
    CONFIGURE_REJECT = 4
    TERMINATE_REQUEST = 5
    TERMINATE_ACK = 6
    CODE_REJECT = 7
    PROTOCOL_REJECT = 8
    ECHO_REQUEST = 9
    ECHO_REPLY = 10
    DISCARD_REQUEST = 11
    IDENTIFICATION = 12  # RFC 1570
    TIME_REMAINING = 13
    RESET_REQUEST = 14  # CCP, RFC 1962
    RESET_ACK = 15


@dataclass(frozen=True, slots=True)
class Packet:
    """One packet without its protocol number."""

    code: int
    identifier: int
    data: bytes

    def encode(self) -> bytes:
        """Octets, header and data."""
        length = HEADER + len(self.data)
        return bytes([self.code, self.identifier]) + length.to_bytes(2, "big") + self.data

    @classmethod
    def decode(cls, octets: bytes) -> Packet:
        """The packet in `octets`; RemoteError if its length cannot be."""
        if len(octets) < HEADER:
            raise RemoteError(f"packet of {len(octets)} octets")
        length = int.from_bytes(octets[2:4], "big")
        if not HEADER <= length <= len(octets):
            raise RemoteError(f"length {length} in a packet of {len(octets)} octets")
        return cls(octets[0], octets[1], octets[HEADER:length])


def split_frame(frame: bytes) -> tuple[int, bytes]:
    """Protocol and payload of a PPP frame.

    The address and control octets ff 03 and the protocol's first octet may be absent
    from the first packet on, before anything was agreed (RFC 1661 section 6.5, 6.6). What
    is longer than any MRU of ours is refused here: its answer could not be sent.
    """
    at = 2 if frame[:2] == b"\xff\x03" else 0
    if at < len(frame) and frame[at] & 1:
        protocol, payload = frame[at], frame[at + 1 :]
    elif len(frame) < at + 2:
        raise RemoteError(f"frame of {len(frame)} octets")
    else:
        protocol, payload = int.from_bytes(frame[at : at + 2], "big"), frame[at + 2 :]
        if not protocol & 1:
            # RFC 1661 section 2: the last octet of every protocol number is odd.
            raise RemoteError(f"protocol number {protocol:04x} is even")
    if len(payload) > DEFAULT_MRU:
        raise RemoteError(f"{len(payload)} octets of {protocol:04x}, over any MRU of ours")
    return protocol, payload


def make_frame(protocol: int, packet: Packet) -> bytes:
    """A frame as the Send action wants it."""
    return protocol.to_bytes(2, "big") + packet.encode()


def printable(octets: bytes, limit: int = 64) -> str:
    """Text of a stranger for a log line."""
    text = octets[:limit].decode("latin-1")
    return "".join(c if c.isascii() and c.isprintable() else "." for c in text)
