"""What a person may see of a frozen link (workers.ppp.link): states and options agreed.

Names are taken one by one, so that keys, challenges and responses, which are in there too,
stay where they are, and nothing that a later version adds is shown by accident.
"""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import IPv6Address
from typing import Any, Final

from ops.ranges import format_address
from workers.ppp.automaton import State
from workers.ppp.ccp import Ccp
from workers.ppp.control import ControlProtocol
from workers.ppp.ipcp import Ipcp
from workers.ppp.ipv6cp import Ipv6cp
from workers.ppp.lcp import Lcp

SHOWN: Final[dict[str, tuple[type[ControlProtocol], frozenset[str]]]] = {
    "lcp": (
        Lcp,
        frozenset(
            {"mru", "auth", "pfc", "acfc", "_peer_mru", "peer_pfc", "peer_acfc", "peer_auth"}
        ),
    ),
    "ccp": (Ccp, frozenset({"required", "rx_bits", "rx_stateful", "tx_bits", "tx_stateful"})),
    "ipcp": (Ipcp, frozenset({"address", "local"})),
    "ipv6cp": (Ipv6cp, frozenset({"iid", "our_iid"})),
}


def describe(link: Mapping[str, Any]) -> dict[str, Any]:
    """By protocol: its state of RFC 1661 and what it settled on."""
    try:
        return {name: _protocol(name, link[name]) for name in SHOWN if link[name] is not None}
    except (KeyError, TypeError, ValueError, IndexError):
        return {"note": "written by another version; not shown"}


def _protocol(name: str, frozen: Any) -> dict[str, Any]:
    kind, shown = SHOWN[name]
    (state, _, _), _, kept = frozen
    found: dict[str, Any] = {"state": State(state).name}
    for key, value in zip(kind.KEPT, kept, strict=True):
        if key in shown:
            found[key.removeprefix("_")] = _value(name, value)
    return found


def _value(name: str, value: Any) -> Any:
    if name == "ipcp":
        return format_address(value)
    return identifier(value) if name == "ipv6cp" else value


def identifier(octets: bytes) -> str:
    """An interface identifier as the link-local address it makes."""
    return str(IPv6Address(b"\xfe\x80" + bytes(6) + octets))
