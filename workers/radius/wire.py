"""What a worker and the accounts process say to each other: one msgpack list a datagram.

Worker: [seq, LOGIN | EAP | START | STOP, ...]; each is answered, and sent again to a
successor that says HELLO. Accounts process: [seq, ACCEPT | REJECT | CHALLENGE | NONE | DONE,
...], and [0, HELLO, pid] first of all. Both run the same program: no version is told.
"""

from __future__ import annotations

from dataclasses import fields
from typing import Any, Final

import msgpack

from workers.policy import Policy
from workers.ppp.actions import Verdict

# from a worker
LOGIN: Final = 1  # index, generation, method, name, identifier, challenge, response, state
EAP: Final = 2  # index, generation, identity, packet, token
START: Final = 3  # Facts
STOP: Final = 4  # sid, counters, cause, Unix time
# to a worker
HELLO: Final = 10  # pid
ACCEPT: Final = 11  # verdict, policy, EAP packet
REJECT: Final = 12  # verdict, EAP packet
CHALLENGE: Final = 13  # EAP packet, token
NONE: Final = 14  # reason: no server answered
DONE: Final = 15  # START or STOP is in the journal

DATAGRAM: Final = 1 << 16
_DEFAULTS: Final = Verdict(False)


def pack(message: list[Any]) -> bytes:
    """As octets."""
    packed: bytes = msgpack.packb(message, unicode_errors="surrogateescape")
    return packed


def unpack(data: bytes) -> tuple[Any, ...]:
    """The inverse; ValueError if it is no list with a number and a kind."""
    try:
        found = msgpack.unpackb(data, use_list=False, unicode_errors="surrogateescape")
    except (TypeError, msgpack.exceptions.UnpackException) as e:
        raise ValueError(f"not msgpack: {e}") from None
    if not isinstance(found, tuple) or len(found) < 2 or not isinstance(found[0], int):
        raise ValueError("not a message")
    return found


def pack_verdict(verdict: Verdict) -> dict[str, Any]:
    """What differs from an empty one."""
    return {
        f.name: getattr(verdict, f.name)
        for f in fields(verdict)
        if getattr(verdict, f.name) != getattr(_DEFAULTS, f.name)
    }


def unpack_verdict(said: dict[str, Any]) -> Verdict:
    """The inverse."""
    return Verdict(**{"ok": False, **said})


def unpack_policy(said: dict[str, Any]) -> Policy:
    """A Policy's freeze()."""
    return Policy.thaw(said)
