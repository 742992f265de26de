"""What an Access-Accept, -Reject or CoA-Request says, in our words: Policy and Verdict.

One attribute that cannot be read spoils nothing else: it is left out, and told to the
caller, who counts and logs it.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from workers.policy import Policy
from workers.ppp import mppe_keys
from workers.ppp.actions import Verdict
from workers.radius import hidden, rates
from workers.radius.attributes import (
    CISCO_AVPAIR,
    A,
    Key,
    Ms,
    Mt,
    Vendor,
    flatten,
    read_address6,
    read_integer,
    read_prefix6,
    read_text,
    text,
)
from workers.radius.packets import Packet, RemoteError

GIGAWORD: Final = 1 << 32
MOST: Final = (1 << 63) - 1  # what records and messages hold
USER_CHOOSES: Final = 0xFFFFFFFF  # RFC 2865 section 5.8: "allow the user to select"
NAS_CHOOSES: Final = 0xFFFFFFFE
FRAMED: Final = 2  # Service-Type
PPP: Final = 1  # Framed-Protocol
MPPE_REQUIRED: Final = 2  # RFC 2548 section 2.4.4; 1 is "allowed"
MPPE_BITS: Final = ((0x4, 128), (0x8, 56), (0x2, 40))  # RFC 2548 section 2.4.5
RADIUS_REQUEST: Final = 1  # Termination-Action
MTU_MIN: Final = 576
PLACE_MAX: Final = 64  # repeated attributes taken, of one kind
AVPAIR: Final = re.compile(r"\s*([A-Za-z0-9-]+):([A-Za-z0-9#-]+)[=*](.*)", re.DOTALL)
OURS: Final = "pptpcon"  # Cisco-AVPair = "pptpcon:rate-down=10M": needs no dictionary
# Octets-Direction as pppd has it: the sum, in, out, and the larger of both.
OCTETS_OF: Final[dict[int, tuple[str, ...]]] = {
    0: ("volume",),
    1: ("volume_up",),
    2: ("volume_down",),
    3: ("volume_up", "volume_down"),
    4: ("volume_up", "volume_down"),
}
CHAP_ERROR: Final = re.compile(
    r"E=(\d+)(?: R=([01]))?(?: C=([0-9A-Fa-f]*))?(?: V=\d+)?(?: M=(.*))?", re.DOTALL
)


@dataclass(slots=True)
class _Reading:
    said: dict[str, Any] = field(default_factory=dict)
    user: str = ""
    interim: int = -1
    mppe_policy: int = 0
    mppe_types: int = 0
    low: dict[str, int] = field(default_factory=dict)  # octets of limits, and their gigawords
    high: dict[str, int] = field(default_factory=dict)
    octets: int = 0  # Session-Octets-Limit, and what it counts
    direction: int = 0
    refusal: str = ""

    def add(self, name: str, *values: Any) -> None:
        """To one of the fields that hold several."""
        self.said[name] = (*self.said.get(name, ()), *values)[:PLACE_MAX]

    def rates(self, found: rates.Rates) -> None:
        """Those that it names."""
        for name, value in (
            ("rate_up", found.up),
            ("rate_down", found.down),
            ("burst_up", found.burst_up),
            ("burst_down", found.burst_down),
        ):
            if value:
                self.said[name] = value

    def limits(self) -> None:
        """64 bit of two attributes of 32."""
        for name in {**self.low, **self.high}:
            self.said[name] = self.low.get(name, 0) + self.high.get(name, 0) * GIGAWORD
        for name in OCTETS_OF.get(self.direction, ()) if self.octets else ():
            self.said[name] = self.octets


Reader = Callable[[_Reading, bytes], None]


def _said(name: str, read: Callable[[bytes], Any]) -> Reader:
    def reader(reading: _Reading, value: bytes) -> None:
        reading.said[name] = read(value)

    return reader


def _added(name: str, read: Callable[[bytes], Any]) -> Reader:
    def reader(reading: _Reading, value: bytes) -> None:
        reading.add(name, read(value))

    return reader


def _address(reading: _Reading, value: bytes) -> None:
    address = read_integer(value)
    if address not in (0, USER_CHOOSES, NAS_CHOOSES):
        reading.said["address"] = address


def _interface_id(value: bytes) -> bytes:
    if len(value) != 8:
        raise RemoteError("bad_attribute", f"Framed-Interface-Id of {len(value)} octets")
    return value


def _route(value: bytes) -> str:
    """`PREFIX[/LENGTH] [gateway [metric ...]]`, RFC 2865 section 5.22; classful without one."""
    words = read_text(value).split()
    if not words:
        raise RemoteError("bad_attribute", "Framed-Route of no words")
    try:
        network = ipaddress.IPv4Network(words[0], strict=False)
        if "/" not in words[0]:
            first = int(network.network_address) >> 24
            size = 8 if first < 128 else 16 if first < 192 else 24
            network = network.supernet(new_prefix=size)
    except ValueError:
        raise RemoteError("bad_attribute", f"Framed-Route {words[0][:40]!r}") from None
    return " ".join([str(network), *words[1:]])


def _route6(value: bytes) -> str:
    words = read_text(value).split()
    try:
        return " ".join([str(ipaddress.IPv6Network(words[0], strict=False)), *words[1:]])
    except (ValueError, IndexError):
        raise RemoteError("bad_attribute", "Framed-IPv6-Route is no prefix") from None


def _framed(reading: _Reading, value: bytes) -> None:
    kind = read_integer(value)
    if kind != FRAMED:
        # RFC 2865 section 5.6: "A NAS is not required to implement all of these service types,
        # and MUST treat unknown or unsupported Service-Types as though an Access-Reject had
        # been received instead."
        reading.refusal = f"Access-Accept for Service-Type {kind}, not Framed (2)"


def _protocol(reading: _Reading, value: bytes) -> None:
    kind = read_integer(value)
    if kind != PPP:
        reading.refusal = f"Access-Accept for Framed-Protocol {kind}, not PPP (1)"


def _user(reading: _Reading, value: bytes) -> None:
    reading.user = read_text(value)


def _interim(reading: _Reading, value: bytes) -> None:
    reading.said["interim_s"] = read_integer(value)


def _mppe_policy(reading: _Reading, value: bytes) -> None:
    reading.mppe_policy = read_integer(value)


def _mppe_types(reading: _Reading, value: bytes) -> None:
    reading.mppe_types = read_integer(value)


def _low(name: str) -> Reader:
    def reader(reading: _Reading, value: bytes) -> None:
        reading.low[name] = read_integer(value)

    return reader


def _high(name: str) -> Reader:
    def reader(reading: _Reading, value: bytes) -> None:
        reading.high[name] = read_integer(value)

    return reader


def _message(reading: _Reading, value: bytes) -> None:
    reading.said["reply"] = (reading.said.get("reply", "") + read_text(value))[:253]


def _rate_limit(reading: _Reading, value: bytes) -> None:
    said = read_text(value)
    if said.strip():
        reading.rates(rates.mikrotik(said))
    else:
        reading.said |= {"rate_up": 0, "rate_down": 0, "burst_up": 0, "burst_down": 0}


def _mpd_limit(reading: _Reading, value: bytes) -> None:
    found = rates.mpd(read_text(value))
    if found is not None:
        reading.rates(found)


def _avpair(reading: _Reading, value: bytes) -> None:
    whole = read_text(value)
    found = rates.cisco(whole)
    if found is not None:
        reading.rates(found)
        return
    parts = AVPAIR.fullmatch(whole)
    if parts is None:
        return
    place, name, said = parts[1].lower(), parts[2].lower(), parts[3].strip()
    if place == OURS:
        _ours(reading, name, said)
    elif place == "ip":
        _cisco_ip(reading, name.partition("#")[0], said)


def _cisco_ip(reading: _Reading, name: str, said: str) -> None:
    match name:
        case "addr-pool":
            reading.said["pool"] = said
        case "addr":
            reading.said["address"] = _ipv4(said)
        case "dns-servers":
            reading.add("dns", *(_ipv4(word) for word in said.split()))
        case "wins-servers":
            reading.add("wins", *(_ipv4(word) for word in said.split()))
        case "inacl" | "outacl":
            reading.said["filter"] = said
        case "route":
            words = said.split()
            if len(words) > 1 and words[1].count(".") == 3 and "/" not in words[0]:
                words[:2] = [f"{words[0]}/{words[1]}"]  # a mask in place of a length
            reading.add("routes", _route(text(" ".join(words))))


def _ours(reading: _Reading, name: str, said: str) -> None:
    match name:
        case "rate":
            reading.rates(rates.mikrotik(said))
        case "rate-up" | "rate-down" | "burst-up" | "burst-down" | "volume-up" | "volume-down":
            reading.said[name.replace("-", "_")] = rates.mikrotik(said).up
        case "volume" | "sessions":
            reading.said[name] = rates.mikrotik(said).up
        case "filter" | "pool":
            reading.said[name] = said
        case "address-list":
            reading.add("address_lists", said)
        case _:
            raise RemoteError("bad_attribute", f"pptpcon:{name[:40]} is no attribute of ours")


def _ipv4(word: str) -> int:
    try:
        return int(ipaddress.IPv4Address(word))
    except ValueError:
        raise RemoteError("bad_attribute", f"{word[:40]!r} is no IPv4 address") from None


def _octets(reading: _Reading, value: bytes) -> None:
    reading.octets = read_integer(value)


def _direction(reading: _Reading, value: bytes) -> None:
    reading.direction = read_integer(value)


def _timeout(value: bytes) -> int:
    """0 is "none", whatever is configured; Policy says -1 for that."""
    return read_integer(value) or -1


def _mtu(value: bytes) -> int:
    mtu = read_integer(value)
    if mtu < MTU_MIN:
        raise RemoteError("bad_attribute", f"Framed-MTU {mtu} is less than {MTU_MIN}")
    return mtu


def _again(value: bytes) -> bool:
    return read_integer(value) == RADIUS_REQUEST


def _raw(value: bytes) -> bytes:
    return value


MPD_LIMIT: Final = (Vendor.MPD, 7)
MPD_DROP_USER: Final = (Vendor.MPD, 154)
READERS: Final[dict[Key, Reader]] = {
    A.USER_NAME: _user,
    A.SERVICE_TYPE: _framed,
    A.FRAMED_PROTOCOL: _protocol,
    A.FRAMED_IP_ADDRESS: _address,
    A.FILTER_ID: _said("filter", read_text),
    A.REPLY_MESSAGE: _message,
    A.FRAMED_ROUTE: _added("routes", _route),
    A.CLASS: _added("classes", _raw),
    A.FRAMED_MTU: _said("mtu", _mtu),
    A.STATE: _said("state", _raw),
    A.SESSION_TIMEOUT: _said("session_timeout_s", _timeout),
    A.IDLE_TIMEOUT: _said("idle_timeout_s", _timeout),
    A.TERMINATION_ACTION: _said("again", _again),
    A.PORT_LIMIT: _said("sessions", read_integer),
    A.ACCT_INTERIM_INTERVAL: _interim,
    A.FRAMED_POOL: _said("pool", read_text),
    A.FRAMED_INTERFACE_ID: _said("interface_id", _interface_id),
    A.FRAMED_IPV6_PREFIX: _said("prefix6", read_prefix6),
    A.FRAMED_IPV6_ROUTE: _added("routes6", _route6),
    A.FRAMED_IPV6_POOL: _said("pool6", read_text),
    A.DELEGATED_IPV6_PREFIX: _said("delegated6", read_prefix6),
    A.DNS_SERVER_IPV6_ADDRESS: _added("dns6", read_address6),
    A.FRAMED_IPV6_ADDRESS: _said("address6", read_address6),
    A.STATEFUL_IPV6_ADDRESS_POOL: _said("address_pool6", read_text),
    A.SESSION_OCTETS_LIMIT: _octets,
    A.OCTETS_DIRECTION: _direction,
    A.DELEGATED_IPV6_PREFIX_POOL: _said("delegated_pool6", read_text),
    (Vendor.MICROSOFT, Ms.MPPE_ENCRYPTION_POLICY): _mppe_policy,
    (Vendor.MICROSOFT, Ms.MPPE_ENCRYPTION_TYPES): _mppe_types,
    (Vendor.MICROSOFT, Ms.PRIMARY_DNS): _added("dns", read_integer),
    (Vendor.MICROSOFT, Ms.SECONDARY_DNS): _added("dns", read_integer),
    (Vendor.MICROSOFT, Ms.PRIMARY_NBNS): _added("wins", read_integer),
    (Vendor.MICROSOFT, Ms.SECONDARY_NBNS): _added("wins", read_integer),
    (Vendor.CISCO, CISCO_AVPAIR): _avpair,
    (Vendor.MIKROTIK, Mt.RATE_LIMIT): _rate_limit,
    (Vendor.MIKROTIK, Mt.ADDRESS_LIST): _added("address_lists", read_text),
    (Vendor.MIKROTIK, Mt.DELEGATED_IPV6_POOL): _said("delegated_pool6", read_text),
    # Receive is seen from the router here, too.
    (Vendor.MIKROTIK, Mt.RECV_LIMIT): _low("volume_up"),
    (Vendor.MIKROTIK, Mt.XMIT_LIMIT): _low("volume_down"),
    (Vendor.MIKROTIK, Mt.TOTAL_LIMIT): _low("volume"),
    (Vendor.MIKROTIK, Mt.RECV_LIMIT_GIGAWORDS): _high("volume_up"),
    (Vendor.MIKROTIK, Mt.XMIT_LIMIT_GIGAWORDS): _high("volume_down"),
    (Vendor.MIKROTIK, Mt.TOTAL_LIMIT_GIGAWORDS): _high("volume"),
    MPD_LIMIT: _mpd_limit,
}


def _read(packet: Packet, faults: list[RemoteError]) -> _Reading:
    reading = _Reading()
    for key, value in flatten(packet.attributes, faults):
        reader = READERS.get(key)
        if reader is None:
            continue
        try:
            reader(reading, value)
        except RemoteError as e:
            faults.append(RemoteError(e.fault, f"attribute {_named(key)}: {e}"))
    reading.limits()
    for name, said in reading.said.items():
        if type(said) is int:
            reading.said[name] = min(said, MOST)
    if not reading.said.get("again"):
        reading.said.pop("state", None)  # RFC 2865 section 5.24: for a new request only
    return reading


def _named(key: Key) -> str:
    return str(int(key)) if isinstance(key, int) else f"{int(key[1])} of vendor {int(key[0])}"


def _microsoft(packet: Packet, kind: int) -> bytes | None:
    for key, value in flatten(packet.attributes, []):
        if key == (Vendor.MICROSOFT, kind):
            return value
    return None


@dataclass(frozen=True, slots=True)
class Accepted:
    """An Access-Accept; a Verdict that is not ok says why it cannot be taken as one."""

    verdict: Verdict
    policy: Policy


@dataclass(frozen=True, slots=True)
class Asked:
    """How a login was asked for: what its answer is read by."""

    method: str
    name: str
    challenge: bytes = b""
    identifier: int = 0


def accepted(
    packet: Packet, asked: Asked, secret: bytes, authenticator: bytes, faults: list[RemoteError]
) -> Accepted:
    """Policy, keys and proof of an Access-Accept. `authenticator` is the request's."""
    reading = _read(packet, faults)
    policy = Policy.thaw({"source": "radius", **reading.said})
    user = reading.user or asked.name
    if reading.refusal:
        return Accepted(Verdict(False, user, reading.refusal), policy)
    keys: dict[str, Any] = {}
    try:
        keys = _keys(packet, asked, secret, authenticator)
    except RemoteError as e:
        faults.append(e)
    response = ""
    if asked.method in ("mschapv2", "eap-mschapv2"):
        success = _microsoft(packet, Ms.CHAP2_SUCCESS) or b""
        response = success[1:43].decode("latin-1")
        if len(response) != 42 or not response.startswith("S="):
            why = "Access-Accept without a valid MS-CHAP2-Success: the client would not believe it"
            return Accepted(Verdict(False, user, why), policy)
    strengths = tuple(bits for bit, bits in MPPE_BITS if reading.mppe_types & bit)
    return Accepted(
        Verdict(
            True,
            user,
            message=policy.reply,
            authenticator_response=response,
            address=policy.address,
            pool=policy.pool,
            mppe="require" if reading.mppe_policy == MPPE_REQUIRED else "",
            mppe_strengths=strengths,
            interface_id=policy.interface_id,
            **keys,
        ),
        policy,
    )


def _keys(packet: Packet, asked: Asked, secret: bytes, authenticator: bytes) -> dict[str, Any]:
    send = _microsoft(packet, Ms.MPPE_SEND_KEY)
    receive = _microsoft(packet, Ms.MPPE_RECV_KEY)
    if send is not None and receive is not None:
        return {
            "send_key": hidden.show_key(send, secret, authenticator),
            "receive_key": hidden.show_key(receive, secret, authenticator),
        }
    both = _microsoft(packet, Ms.CHAP_MPPE_KEYS)
    if both is not None and asked.method == "mschap":
        lm_key, nt_key = hidden.show_mppe_keys(both, secret, authenticator)
        # RFC 2548 section 2.4.1 gives the hash of the password's hash; RFC 3079 section 2.4
        # makes the start key of it and of the challenge.
        start = mppe_keys.start_key_v1_128(nt_key, asked.challenge) if any(nt_key) else b""
        return {"start_key": start, "lm_key": lm_key if any(lm_key) else b""}
    return {}


def rejected(packet: Packet, asked: Asked, faults: list[RemoteError]) -> Verdict:
    """An Access-Reject, with what MS-CHAP-Error says (RFC 2548 section 2.1.5)."""
    reading = _read(packet, faults)
    message = reading.said.get("reply", "")
    error = _microsoft(packet, Ms.CHAP_ERROR)
    if error is None:
        reason = "RADIUS: Access-Reject" + (f" ({message})" if message else "")
        return Verdict(False, asked.name, reason, message)
    said = read_text(error[1:] if error[:2] != b"E=" else error)
    found = CHAP_ERROR.match(said)
    if found is None:
        faults.append(RemoteError("bad_attribute", f"MS-CHAP-Error {said[:80]!r}"))
        return Verdict(False, asked.name, "RADIUS: Access-Reject", message)
    try:
        challenge = bytes.fromhex(found[3] or "")
    except ValueError:
        challenge = b""
    return Verdict(
        False,
        asked.name,
        f"RADIUS: Access-Reject ({said[:120]})",
        message or found[4] or "",
        error=int(found[1]) % 100_000,
        retry=found[2] != "0",
        challenge=challenge,
    )


def changes(packet: Packet, faults: list[RemoteError]) -> dict[str, Any]:
    """What a CoA-Request sets, as fields of Policy."""
    reading = _read(packet, faults)
    said = reading.said
    if reading.refusal:
        said["refusal"] = reading.refusal
    return said


def drops_user(packet: Packet) -> bool:
    """mpd-drop-user in an Accounting-Response: the session is to be ended."""
    return any(key == MPD_DROP_USER and any(value) for key, value in flatten(packet.attributes, []))
