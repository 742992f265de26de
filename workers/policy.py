"""What a source of accounts says about a session, whichever source it was.

Secrets, configuration and RADIUS all fill one of these; admission, the link, the data
path and accounting read it. It is frozen into the session's blob, so a successor of the
worker goes by the same words. "Nothing said" is each field's default.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Final, get_args, get_origin, get_type_hints

import msgpack

# What a link was told when it came up; only the next login can tell it otherwise.
AT_LOGIN: Final = frozenset(
    {
        "address",
        "dns",
        "wins",
        "interface_id",
        "mtu",
        "prefix6",
        "pool6",
        "delegated6",
        "delegated_pool6",
        "address6",
        "address_pool6",
    }
)
# What a login of a session that is up may change (Termination-Action).
RENEWED: Final = (
    "session_timeout_s",
    "idle_timeout_s",
    "volume_up",
    "volume_down",
    "volume",
    "again",
    "state",
    "rate_up",
    "rate_down",
    "burst_up",
    "burst_down",
    "filter",
    "interim_s",
)


class PolicyError(ValueError):
    """A change that cannot be made; the text names the field."""


@dataclass(frozen=True, slots=True)
class Policy:
    """Addresses are host-order numbers, rates bit/s, bursts and volumes octets, times s.

    *Up* is from the subscriber, *down* to it.
    """

    source: str = ""  # "secrets", "users", "radius": who answered
    # addresses
    address: int = 0  # Framed-IP-Address; 0: from the pool
    pool: str = ""  # Framed-Pool; "": the account's or the default one
    routes: tuple[str, ...] = ()  # Framed-Route, "PREFIX/LENGTH [gateway [metric]]"
    dns: tuple[int, ...] = ()
    wins: tuple[int, ...] = ()
    interface_id: bytes = b""  # Framed-Interface-Id, 8 octets
    prefix6: str = ""  # Framed-IPv6-Prefix
    pool6: str = ""  # Framed-IPv6-Pool
    delegated6: str = ""  # Delegated-IPv6-Prefix
    delegated_pool6: str = ""  # Delegated-IPv6-Prefix-Pool
    address6: str = ""  # Framed-IPv6-Address
    address_pool6: str = ""  # Stateful-IPv6-Address-Pool
    routes6: tuple[str, ...] = ()  # Framed-IPv6-Route
    dns6: tuple[str, ...] = ()
    address_lists: tuple[str, ...] = ()  # sets that the address is put into
    # limits; 0: none
    sessions: int = 0  # of this user at once (Port-Limit)
    session_timeout_s: int = 0  # 0: as in [limits], -1: none; so for the next
    idle_timeout_s: int = 0
    volume_up: int = 0
    volume_down: int = 0
    volume: int = 0  # both together
    again: bool = False  # Termination-Action: when the time is over, log in once more
    state: bytes = b""  # and say this then
    # shaping; 0: as in [shaping], -1: none, burst 0: from the rate
    rate_up: int = 0
    rate_down: int = 0
    burst_up: int = 0
    burst_down: int = 0
    filter: str = ""  # Filter-Id: the name of a filter
    mtu: int = 0  # Framed-MTU; 0: what the link agrees on
    # accounting
    interim_s: int = -1  # Acct-Interim-Interval; -1: as configured, 0: none
    classes: tuple[bytes, ...] = ()  # Class, sent back in each accounting record
    reply: str = ""  # Reply-Message

    def freeze(self) -> dict[str, Any]:
        """What differs from "nothing said", for the blob."""
        return {
            f.name: getattr(self, f.name)
            for f in fields(self)
            if getattr(self, f.name) != f.default
        }

    @classmethod
    def thaw(cls, said: dict[str, Any]) -> Policy:
        """The inverse; a field this version does not know is left out."""
        known = {f.name for f in fields(cls)}
        return cls(**{name: value for name, value in said.items() if name in known})

    def changed(self, changes: Mapping[str, Any]) -> Policy:
        """With other values for some fields of a session that is up; PolicyError names one
        that does not exist, has another type, or holds from login to end."""
        hints = get_type_hints(type(self))
        values: dict[str, Any] = {}
        for name, value in changes.items():
            if name not in hints:
                raise PolicyError(f"{name}: no such field")
            if name in AT_LOGIN:
                raise PolicyError(f"{name}: cannot change while the session is up")
            values[name] = _fitting(hints[name], value, name)
        return replace(self, **values)


def _fitting(kind: Any, value: Any, name: str) -> Any:
    if get_origin(kind) is tuple:
        inner = get_args(kind)[0]
        if not isinstance(value, list | tuple):
            raise PolicyError(f"{name}: {type(value).__name__}, not a list")
        return tuple(_fitting(inner, item, name) for item in value)
    if type(value) is not kind:
        raise PolicyError(f"{name}: {type(value).__name__}, not {kind.__name__}")
    if kind is int and not -1 <= value < 1 << 63:
        raise PolicyError(f"{name}: {value} is out of range")
    return value


def pack_changes(changes: Mapping[str, Any]) -> bytes:
    """Fields of Policy and their new values, as ops.messages.Apply carries them."""
    packed: bytes = msgpack.packb(dict(changes), unicode_errors="surrogateescape")
    return packed


def unpack_changes(data: bytes) -> dict[str, Any]:
    """The inverse; PolicyError if it is none. The values are not judged yet."""
    try:
        found = msgpack.unpackb(data, use_list=False, unicode_errors="surrogateescape")
    except (ValueError, TypeError, msgpack.exceptions.UnpackException) as e:
        raise PolicyError(f"not msgpack: {e}") from None
    if not isinstance(found, dict) or not all(type(name) is str for name in found):
        raise PolicyError("no map of fields")
    return found


NOTHING_SAID = Policy()
