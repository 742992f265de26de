"""Octets that one process of ours takes from another: bus, session blob, route requests."""

from __future__ import annotations

from dispatcher import routes
from ops.messages import MessageError, decode, encode
from ops.networks import usable
from tests.fuzz.targets import allowed
from workers.session import BlobError, Saved

GROUNDS = routes.Grounds((4, 5), (0x0A630001,))


def one(data: bytes) -> None:
    try:
        message = decode(data)
    except MessageError as e:
        assert str(e)
    else:
        assert decode(encode(message)) == message
    with allowed(BlobError):
        Saved.unpack(data)
    with allowed(routes.RequestError):
        for _, request in routes.unpack(data):
            change = routes.judge(request, GROUNDS)
            if not isinstance(change, str):
                assert change.ifindex in GROUNDS.tuns and not usable(change.network)
