"""Octets that one process of ours takes from another: bus, session blob, route requests."""

from __future__ import annotations

from dispatcher import routes
from ops.messages import MessageError, decode, encode
from tests.fuzz.targets import allowed
from workers.session import BlobError, Saved


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
            change = routes.judge(request, (4, 5), (0x0A630001,))
            if not isinstance(change, str):
                assert change.ifindex in (4, 5) and routes.routable(change.address)
