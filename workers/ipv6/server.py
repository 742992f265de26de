"""A DHCPv6 server for the one client at the other end of a session: RFC 8415 section 18.3.

What a session is given was decided at its login; this hands it out. Each of the two, an
address (IA_NA) and a prefix (IA_PD), is bound to one client and association at a time: the last
one that asked, since a router that is restarted may come with another DUID.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any, Final

from workers.ipv6.dhcpv6 import (
    Association,
    Code,
    Kind,
    Lease,
    Message,
    Options,
    Status,
    encode_options,
    status,
)
from workers.ipv6.errors import RemoteError
from workers.ipv6.names import encode_names

DIGEST: Final = 8
REFRESH_S: Final = 86400  # RFC 8415 section 21.23: when a stateless client asks again
LEASES: Final = {Code.IA_NA: Code.IA_ADDRESS, Code.IA_PD: Code.IA_PREFIX}
NONE_LEFT: Final = {Code.IA_NA: Status.NO_ADDRESSES, Code.IA_PD: Status.NO_PREFIX}

# Which identifiers a message has to carry: (client's, ours); None: it may, True: it must.
# RFC 8415 section 16.
IDENTIFIERS: Final[dict[int, tuple[bool | None, bool | None]]] = {
    Kind.SOLICIT: (True, False),
    Kind.REQUEST: (True, True),
    Kind.CONFIRM: (True, False),
    Kind.RENEW: (True, True),
    Kind.REBIND: (True, False),
    Kind.RELEASE: (True, True),
    Kind.DECLINE: (True, True),
    Kind.INFORMATION_REQUEST: (None, None),
}


@dataclass(frozen=True, slots=True)
class Offer:
    """What the session is given; empty: none of it. Times in s."""

    duid: bytes  # ours
    address: bytes = b""
    prefix: bytes = b""
    prefix_length: int = 0
    dns: tuple[bytes, ...] = ()
    search: tuple[str, ...] = ()
    preferred: int = 3600
    valid: int = 7200

    def lease(self, code: int) -> Lease | None:
        """For IA_NA or IA_PD."""
        if code == Code.IA_NA:
            return Lease(self.address, 128, self.preferred, self.valid) if self.address else None
        if not self.prefix:
            return None
        return Lease(self.prefix, self.prefix_length, self.preferred, self.valid)


@dataclass(frozen=True, slots=True)
class Binding:
    """Whose a lease is. The client's DUID is kept as a digest: it may have 130 octets."""

    client: bytes
    iaid: bytes
    until: float


class Server:
    """Answers one client; `bindings` by IA_NA and IA_PD."""

    def __init__(self, offer: Offer) -> None:
        self.offer = offer
        self.bindings: dict[int, Binding] = {}

    def freeze(self) -> dict[int, tuple[bytes, bytes, float]]:
        """For the blob."""
        return {code: (b.client, b.iaid, b.until) for code, b in self.bindings.items()}

    def thaw(self, saved: dict[int, Any]) -> None:
        """The inverse."""
        self.bindings = {int(code): Binding(*values) for code, values in saved.items()}

    def receive(self, data: bytes, now: float) -> bytes:
        """The answer to a client's message, b"" if there is none; RemoteError if it is bad."""
        message = Message.decode(data)
        wanted = IDENTIFIERS.get(message.kind)
        if wanted is None:
            raise RemoteError(f"DHCPv6 message type {message.kind}")
        for name, wish, found in zip(
            ("client", "server"), wanted, (message.client, message.server), strict=True
        ):
            if wish is not None and wish != (found is not None):
                raise RemoteError(f"DHCPv6 {Kind(message.kind).name} and {name} identifier")
        if message.server is not None and message.server != self.offer.duid:
            return b""  # meant for another server
        kind, options = self._answer(message, now)
        if kind is None:
            return b""
        head: Options = ((int(Code.SERVER_ID), self.offer.duid),)
        if message.client is not None:
            head = ((int(Code.CLIENT_ID), message.client), *head)
        return Message(kind, message.transaction, (*head, *options)).encode()

    def _answer(self, message: Message, now: float) -> tuple[Kind | None, Options]:
        words = self._words(message)
        match message.kind:
            case Kind.SOLICIT:
                rapid = message.first(Code.RAPID_COMMIT) is not None
                given = self._associations(message, now, bind=rapid)
                if rapid:
                    return Kind.REPLY, (*given, *words, (int(Code.RAPID_COMMIT), b""))
                return Kind.ADVERTISE, (*given, *words)
            case Kind.CONFIRM:
                return self._confirm(message)
            case Kind.RELEASE | Kind.DECLINE:
                return Kind.REPLY, self._release(message)
            case Kind.INFORMATION_REQUEST:
                if any(code in LEASES for code, _ in message.options):
                    raise RemoteError("DHCPv6 INFORMATION_REQUEST with an association")
                refresh = (int(Code.REFRESH_TIME), REFRESH_S.to_bytes(4, "big"))
                asked = Code.REFRESH_TIME in message.requested
                return Kind.REPLY, (*words, *((refresh,) if asked else ()))
            case _:
                return Kind.REPLY, (*self._associations(message, now, bind=True), *words)

    def _words(self, message: Message) -> Options:
        """What the client asks for by Option Request."""
        found: list[tuple[int, bytes]] = []
        if Code.DNS_SERVERS in message.requested and self.offer.dns:
            found.append((Code.DNS_SERVERS, b"".join(self.offer.dns)))
        if Code.DOMAIN_LIST in message.requested and self.offer.search:
            found.append((Code.DOMAIN_LIST, encode_names(self.offer.search)))
        return tuple(found)

    def _associations(self, message: Message, now: float, bind: bool) -> Options:
        found: list[tuple[int, bytes]] = []
        given: set[int] = set()
        for code, data in message.options:
            if code == Code.IA_TA:
                if len(data) < 4:
                    raise RemoteError(f"identity association of {len(data)} octets")
                nothing = (status(Status.NO_ADDRESSES, "no temporary addresses"),)
                found.append((code, data[:4] + encode_options(nothing)))
            if code not in LEASES:
                continue
            asked = Association.decode(data)
            lease = self.offer.lease(code) if code not in given else None
            given.add(code)
            found.append((code, self._association(code, asked, lease).encode()))
            if lease is not None and bind:
                client = message.client or b""
                self.bindings[code] = Binding(_digest(client), asked.iaid, now + lease.valid)
        return tuple(found)

    def _association(self, code: int, asked: Association, lease: Lease | None) -> Association:
        inner = LEASES[Code(code)]
        # What it had elsewhere, or in an earlier session, is over: RFC 8415 section 18.3.4.
        had = [Lease.decode(inner, data) for kind, data in asked.options if kind == inner]
        over = tuple(
            Lease(old.prefix, old.length).option(inner)
            for old in had
            if lease is None or (old.prefix, old.length) != (lease.prefix, lease.length)
            if any(old.prefix)
        )
        if lease is None:
            said = status(NONE_LEFT[Code(code)], "this session has none")
            return Association(asked.iaid, 0, 0, (*over, said))
        t1, t2 = lease.preferred // 2, lease.preferred * 4 // 5
        return Association(asked.iaid, t1, t2, (lease.option(inner), *over))

    def _confirm(self, message: Message) -> tuple[Kind | None, Options]:
        """RFC 8415 section 18.3.3: are these addresses of this link?"""
        addresses = [
            Lease.decode(Code.IA_ADDRESS, inner).prefix
            for code, data in message.options
            if code == Code.IA_NA
            for kind, inner in Association.decode(data).options
            if kind == Code.IA_ADDRESS
        ]
        if not addresses:
            return None, ()
        if all(address == self.offer.address for address in addresses):
            return Kind.REPLY, (status(Status.SUCCESS, "on this link"),)
        return Kind.REPLY, (status(Status.NOT_ON_LINK, "not of this session"),)

    def _release(self, message: Message) -> Options:
        found: list[tuple[int, bytes]] = [status(Status.SUCCESS, "done")]
        for code, data in message.options:
            if code not in LEASES:
                continue
            asked = Association.decode(data)
            binding = self.bindings.get(code)
            if (
                binding is not None
                and binding.iaid == asked.iaid
                and binding.client == _digest(message.client or b"")
            ):
                del self.bindings[code]
            else:
                said = (status(Status.NO_BINDING, "not of this client"),)
                found.append((code, Association(asked.iaid, 0, 0, said).encode()))
        return tuple(found)


def _digest(duid: bytes) -> bytes:
    return hashlib.blake2s(duid, digest_size=DIGEST).digest()
