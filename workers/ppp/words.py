"""PPP frames in words, for who traces a session; and what of them nobody may see.

Any octets give words. `blotted` takes out what would let a reader log in, or find a password
by trying: PAP passwords, and responses to challenges. Lengths stay, so that other tools
still read the frame.
"""

from __future__ import annotations

from ipaddress import IPv4Address
from typing import Final

from workers.ppp.ccp import MPPE
from workers.ppp.eap import Type as EapType
from workers.ppp.errors import RemoteError
from workers.ppp.lcp import AUTH_NAMES
from workers.ppp.options import Option, decode_options
from workers.ppp.packets import (
    CCP,
    CHAP,
    COMPRESSED,
    EAP,
    HEADER,
    IP,
    IPCP,
    IPV6,
    IPV6CP,
    LCP,
    PAP,
    Code,
    Packet,
    printable,
)

NAMES: Final[dict[int, str]] = {
    LCP: "LCP",
    PAP: "PAP",
    CHAP: "CHAP",
    EAP: "EAP",
    CCP: "CCP",
    IPCP: "IPCP",
    IPV6CP: "IPV6CP",
    IP: "IP",
    IPV6: "IPv6",
    COMPRESSED: "MPPE",
}
CONTROL: Final = (LCP, CCP, IPCP, IPV6CP)
CONFIGURE: Final = (
    Code.CONFIGURE_REQUEST,
    Code.CONFIGURE_ACK,
    Code.CONFIGURE_NAK,
    Code.CONFIGURE_REJECT,
)
PAP_CODES: Final = {1: "Authenticate-Request", 2: "Authenticate-Ack", 3: "Authenticate-Nak"}
CHAP_CODES: Final = {1: "Challenge", 2: "Response", 3: "Success", 4: "Failure"}
EAP_CODES: Final = {1: "Request", 2: "Response", 3: "Success", 4: "Failure"}
IP_PROTOCOLS: Final = {1: "ICMP", 6: "TCP", 17: "UDP", 47: "GRE", 50: "ESP", 58: "ICMPv6"}
ADDRESS_OPTIONS: Final = {3: "address", 129: "DNS", 130: "WINS", 131: "DNS 2", 132: "WINS 2"}
TEXT_MAX: Final = 200


def name(protocol: int) -> str:
    """Of a PPP protocol number."""
    return NAMES.get(protocol, f"protocol {protocol:04x}")


def describe(protocol: int, payload: bytes) -> str:
    """A frame, its protocol told apart."""
    if protocol == IP:
        return _ipv4(payload)
    if protocol == IPV6:
        return f"packet of {len(payload)} octets"
    if protocol not in NAMES or protocol == COMPRESSED:
        return f"{len(payload)} octets"
    try:
        packet = Packet.decode(payload)
        match protocol:
            case 0xC023:
                return _pap(packet)
            case 0xC223:
                return _chap(packet)
            case 0xC227:
                return _eap(packet)
            case _:
                return _control(protocol, packet)
    except RemoteError as e:
        return f"not readable: {e}"


def _control(protocol: int, packet: Packet) -> str:
    try:
        title = Code(packet.code).name.title().replace("_", "-")
    except ValueError:
        title = f"code {packet.code}"
    told = f"{title} id {packet.identifier}"
    if packet.code in CONFIGURE:
        options = [_option(protocol, option) for option in decode_options(packet.data)]
        return f"{told}: {', '.join(options) or 'no options'}"
    if packet.code == Code.PROTOCOL_REJECT and len(packet.data) >= 2:
        return f"{told}: {name(int.from_bytes(packet.data[:2], 'big'))}"
    if packet.code in (Code.TERMINATE_REQUEST, Code.TERMINATE_ACK) and packet.data:
        return f"{told}: {printable(packet.data)!r}"
    if packet.code in (Code.ECHO_REQUEST, Code.ECHO_REPLY, Code.IDENTIFICATION):
        rest = f", {printable(packet.data[4:])!r}" if len(packet.data) > 4 else ""
        return f"{told}: magic {packet.data[:4].hex()}{rest}"
    return told


def _option(protocol: int, option: Option) -> str:
    data = option.data
    match protocol, option.type:
        case 0xC021, 1:
            return f"MRU {option.value}"
        case 0xC021, 2:
            return f"ACCM {data.hex()}"
        case 0xC021, 3:
            return f"authentication {AUTH_NAMES.get(data, data.hex())}"
        case 0xC021, 5:
            return f"magic {data.hex()}"
        case 0xC021, 7:
            return "PFC"
        case 0xC021, 8:
            return "ACFC"
        case 0xC021, 13:
            return f"callback {data.hex()}"
        case 0xC021, 17:
            return f"MRRU {option.value}"
        case 0xC021, 19:
            return f"endpoint {data.hex()}"
        case 0x80FD, kind if kind == MPPE and len(data) == 4:
            return _mppe(option.value)
        case 0x8021, kind if kind in ADDRESS_OPTIONS and len(data) == 4:
            return f"{ADDRESS_OPTIONS[kind]} {IPv4Address(data)}"
        case 0x8021, 2:
            return f"compression {data.hex()}"
        case 0x8057, 1:
            return f"identifier {data.hex(':', 2)}"
        case _:
            return f"option {option.type} {data.hex()}".rstrip()


def _mppe(value: int) -> str:
    bits = [word for bit, word in ((0x40, "128"), (0x80, "56"), (0x20, "40")) if value & bit]
    told = f"MPPE {'/'.join(bits) or 'no key'} {'stateless' if value >> 24 & 1 else 'stateful'}"
    return f"{told} +MPPC" if value & 1 else told


def _pap(packet: Packet) -> str:
    told = f"{PAP_CODES.get(packet.code, f'code {packet.code}')} id {packet.identifier}"
    if packet.code == 1:
        size = packet.data[0] if packet.data else 0
        return f"{told}: user {printable(packet.data[1 : 1 + size])!r}, password ***"
    return f"{told}: {printable(packet.data[1:], TEXT_MAX)!r}"


def _chap(packet: Packet) -> str:
    told = f"{CHAP_CODES.get(packet.code, f'code {packet.code}')} id {packet.identifier}"
    if packet.code in (1, 2):
        size = packet.data[0] if packet.data else 0
        value, who = packet.data[1 : 1 + size], printable(packet.data[1 + size :])
        shown = value.hex() if packet.code == 1 else f"*** of {size} octets"
        return f"{told}: {shown}, name {who!r}"
    return f"{told}: {_without_proof(printable(packet.data, TEXT_MAX))!r}"


def _without_proof(text: str) -> str:
    """MS-CHAPv2's Success proves that we know the password: S= is as good as a response."""
    if text.startswith("S="):
        return "S=*** " + text.partition(" ")[2]
    return text


def _eap(packet: Packet) -> str:
    told = f"{EAP_CODES.get(packet.code, f'code {packet.code}')} id {packet.identifier}"
    if packet.code not in (1, 2) or not packet.data:
        return told
    kind, data = packet.data[0], packet.data[1:]
    try:
        told += f": {EapType(kind).name}"
    except ValueError:
        told += f": type {kind}"
    if kind == EapType.IDENTITY:
        return f"{told} {printable(data)!r}"
    return f"{told}, {len(data)} octets"


def _ipv4(packet: bytes) -> str:
    if len(packet) < 20 or packet[0] >> 4 != 4:
        return f"packet of {len(packet)} octets that is no IPv4"
    head = 4 * (packet[0] & 15)
    source, target = IPv4Address(packet[12:16]), IPv4Address(packet[16:20])
    protocol = packet[9]
    ports = ("", "")
    if protocol in (6, 17) and len(packet) >= head + 4:
        ports = (
            f":{int.from_bytes(packet[head : head + 2], 'big')}",
            f":{int.from_bytes(packet[head + 2 : head + 4], 'big')}",
        )
    told = IP_PROTOCOLS.get(protocol, f"protocol {protocol}")
    return f"{told} {source}{ports[0]} > {target}{ports[1]}, {len(packet)} octets"


def blotted(protocol: int, payload: bytes) -> bytes:
    """The frame with zeros where secrets, or what is derived from them, would be."""
    if protocol not in (PAP, CHAP, EAP) or len(payload) <= HEADER:
        return payload
    code, size = payload[0], payload[HEADER]
    data = HEADER + 1
    if protocol == PAP and code == 1:
        return _zeros(payload, data + size + 1, len(payload))
    if protocol == CHAP and code == 2:
        return _zeros(payload, data, data + size)
    if protocol == CHAP and code == 3:
        end = payload.find(b" ", HEADER)
        if payload[HEADER : HEADER + 2] == b"S=":
            return _zeros(payload, HEADER + 2, end if end > 0 else len(payload))
    if protocol == EAP and size not in (EapType.IDENTITY, EapType.NOTIFICATION, EapType.NAK):
        return _zeros(payload, data, len(payload)) if code in (1, 2) else payload
    return payload


def _zeros(octets: bytes, begin: int, end: int) -> bytes:
    begin, end = min(begin, len(octets)), min(end, len(octets))
    return octets[:begin] + bytes(max(0, end - begin)) + octets[max(begin, end) :]
