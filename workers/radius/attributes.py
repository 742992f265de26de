"""Names, numbers and kinds of the attributes we send and read.

RFC 2865, 2866, 2868, 2869, 3162, 4818, 5176, 6911; vendors Microsoft (RFC 2548), Cisco,
MikroTik, and our own. A *key* is a number for an attribute of the RFCs, and a pair
(vendor, number) for a vendor's.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator
from enum import IntEnum
from typing import Final

from workers.radius.packets import VALUE_MAX, RemoteError

VENDOR_SPECIFIC: Final = 26
Key = int | tuple[int, int]


class A(IntEnum):
    """Attributes of the RFCs."""

    USER_NAME = 1
    USER_PASSWORD = 2
    CHAP_PASSWORD = 3
    NAS_IP_ADDRESS = 4
    NAS_PORT = 5
    SERVICE_TYPE = 6
    FRAMED_PROTOCOL = 7
    FRAMED_IP_ADDRESS = 8
    FRAMED_IP_NETMASK = 9
    FILTER_ID = 11
    FRAMED_MTU = 12
    REPLY_MESSAGE = 18
    FRAMED_ROUTE = 22
    STATE = 24
    CLASS = 25
    VENDOR_SPECIFIC = 26
    SESSION_TIMEOUT = 27
    IDLE_TIMEOUT = 28
    TERMINATION_ACTION = 29
    CALLED_STATION_ID = 30
    CALLING_STATION_ID = 31
    NAS_IDENTIFIER = 32
    ACCT_STATUS_TYPE = 40
    ACCT_DELAY_TIME = 41
    ACCT_INPUT_OCTETS = 42
    ACCT_OUTPUT_OCTETS = 43
    ACCT_SESSION_ID = 44
    ACCT_AUTHENTIC = 45
    ACCT_SESSION_TIME = 46
    ACCT_INPUT_PACKETS = 47
    ACCT_OUTPUT_PACKETS = 48
    ACCT_TERMINATE_CAUSE = 49
    ACCT_MULTI_SESSION_ID = 50
    ACCT_LINK_COUNT = 51
    ACCT_INPUT_GIGAWORDS = 52
    ACCT_OUTPUT_GIGAWORDS = 53
    EVENT_TIMESTAMP = 55
    CHAP_CHALLENGE = 60
    NAS_PORT_TYPE = 61
    PORT_LIMIT = 62
    TUNNEL_TYPE = 64
    TUNNEL_MEDIUM_TYPE = 65
    TUNNEL_CLIENT_ENDPOINT = 66
    TUNNEL_SERVER_ENDPOINT = 67
    ACCT_TUNNEL_CONNECTION = 68
    CONNECT_INFO = 77
    EAP_MESSAGE = 79
    MESSAGE_AUTHENTICATOR = 80
    ACCT_INTERIM_INTERVAL = 85
    NAS_PORT_ID = 87
    FRAMED_POOL = 88
    NAS_IPV6_ADDRESS = 95
    FRAMED_INTERFACE_ID = 96
    FRAMED_IPV6_PREFIX = 97
    FRAMED_IPV6_ROUTE = 99
    FRAMED_IPV6_POOL = 100
    ERROR_CAUSE = 101
    DELEGATED_IPV6_PREFIX = 123
    FRAMED_IPV6_ADDRESS = 168
    DNS_SERVER_IPV6_ADDRESS = 169
    DELEGATED_IPV6_PREFIX_POOL = 171
    STATEFUL_IPV6_ADDRESS_POOL = 172
    # Of no RFC: pppd's own, and in use since.
    SESSION_OCTETS_LIMIT = 227
    OCTETS_DIRECTION = 228


class Vendor(IntEnum):
    """Enterprise numbers."""

    CISCO = 9
    MICROSOFT = 311
    ROARING_PENGUIN = 10055
    MIKROTIK = 14988
    MPD = 12341


class Ms(IntEnum):
    """Microsoft, RFC 2548."""

    CHAP_RESPONSE = 1
    CHAP_ERROR = 2
    MPPE_ENCRYPTION_POLICY = 7
    MPPE_ENCRYPTION_TYPES = 8
    CHAP_DOMAIN = 10
    CHAP_CHALLENGE = 11
    CHAP_MPPE_KEYS = 12
    MPPE_SEND_KEY = 16
    MPPE_RECV_KEY = 17
    CHAP2_RESPONSE = 25
    CHAP2_SUCCESS = 26
    PRIMARY_DNS = 28
    SECONDARY_DNS = 29
    PRIMARY_NBNS = 30
    SECONDARY_NBNS = 31


class Mt(IntEnum):
    """MikroTik."""

    RECV_LIMIT = 1
    XMIT_LIMIT = 2
    RATE_LIMIT = 8
    RECV_LIMIT_GIGAWORDS = 14
    XMIT_LIMIT_GIGAWORDS = 15
    TOTAL_LIMIT = 17
    TOTAL_LIMIT_GIGAWORDS = 18
    ADDRESS_LIST = 19
    DELEGATED_IPV6_POOL = 22


CISCO_AVPAIR: Final = 1


def text(value: str) -> bytes:
    """As UTF-8; octets that were no UTF-8 when they came go out unchanged."""
    return value.encode("utf-8", "surrogateescape")[:VALUE_MAX]


def integer(value: int) -> bytes:
    """Four octets."""
    return (value & 0xFFFFFFFF).to_bytes(4, "big")


def vendor(number: int, kind: int, value: bytes) -> tuple[int, bytes]:
    """A Vendor-Specific attribute with one of the vendor's, RFC 2865 section 5.26."""
    return VENDOR_SPECIFIC, number.to_bytes(4, "big") + bytes((kind, len(value) + 2)) + value


def flatten(
    attributes: Iterable[tuple[int, bytes]], faults: list[RemoteError]
) -> Iterator[tuple[Key, bytes]]:
    """Attributes with the vendors' own among them; what cannot be read goes to `faults`."""
    for kind, value in attributes:
        if kind != VENDOR_SPECIFIC:
            yield kind, value
            continue
        if len(value) < 5:
            what = f"Vendor-Specific of {len(value)} octets"
            faults.append(RemoteError("bad_vendor_attribute", what))
            continue
        number = int.from_bytes(value[:4], "big")
        at = 4
        while at < len(value):
            size = value[at + 1] if at + 1 < len(value) else 0
            if size < 2 or at + size > len(value):
                what = f"attribute {value[at]} of vendor {number} has length {size}"
                faults.append(RemoteError("bad_vendor_attribute", what))
                break
            yield (number, value[at]), value[at + 2 : at + size]
            at += size


def read_text(value: bytes) -> str:
    """UTF-8 with other octets kept as surrogates; no zero at the end, as some servers send."""
    return value.rstrip(b"\0").decode("utf-8", "surrogateescape")


def read_integer(value: bytes) -> int:
    """Four octets, as RFC 2865 section 5 has it."""
    if len(value) != 4:
        raise RemoteError("bad_attribute", f"integer of {len(value)} octets")
    return int.from_bytes(value, "big")


def read_address6(value: bytes) -> str:
    """An IPv6 address."""
    if len(value) != 16:
        raise RemoteError("bad_attribute", f"IPv6 address of {len(value)} octets")
    return str(ipaddress.IPv6Address(value))


def read_prefix6(value: bytes) -> str:
    """RFC 3162 section 2.3: reserved, length, and as many octets of the prefix as matter."""
    if not 2 <= len(value) <= 18 or value[1] > 128:
        raise RemoteError("bad_attribute", f"IPv6 prefix of {len(value)} octets")
    address = value[2:].ljust(16, b"\0")
    if len(value) - 2 < (value[1] + 7) // 8:
        raise RemoteError("bad_attribute", f"IPv6 prefix /{value[1]} in {len(value) - 2} octets")
    return str(ipaddress.IPv6Network((address, value[1]), strict=False))


def prefix6(prefix: str) -> bytes:
    """The inverse."""
    network = ipaddress.IPv6Network(prefix, strict=False)
    octets = (network.prefixlen + 7) // 8
    return bytes((0, network.prefixlen)) + network.network_address.packed[:octets]
