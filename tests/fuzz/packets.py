"""Codecs of PPP: frames, packets, options, and the responses of all methods."""

from __future__ import annotations

from tests.fuzz.targets import Reader, allowed
from workers.ppp.actions import Authenticate
from workers.ppp.credentials import check
from workers.ppp.errors import RemoteError
from workers.ppp.options import decode_options, encode_options
from workers.ppp.packets import Packet, printable, split_frame

METHODS = ("pap", "chap-md5", "mschap", "mschapv2")


def one(data: bytes) -> None:
    with allowed(RemoteError):
        protocol, payload = split_frame(data)
        assert 0 < protocol <= 0xFFFF and len(payload) < len(data)
    with allowed(RemoteError):
        packet = Packet.decode(data)
        assert Packet.decode(packet.encode()) == packet
        assert len(packet.data) <= len(data) - 4
    with allowed(RemoteError):
        options = decode_options(data)
        assert encode_options(options) == data
    assert printable(data).isprintable()
    reader = Reader(data)
    method = METHODS[reader.number() & 3]
    identifier = reader.number()
    challenge = reader.octets(16).ljust(16, b"\0")[: 8 if method == "mschap" else 16]  # ours
    name, response = reader.block(), reader.rest()
    text = name.decode("utf-8", "surrogateescape")
    verdict = check(Authenticate(method, text, identifier, challenge, response), "secret")
    assert verdict.ok or verdict.reason
