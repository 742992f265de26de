"""The columns of `show sessions`: accel-ppp's names where it has the thing.

A column is a name and a function of (session, now in ns). Values are numbers where a
program would want one (`-raw`, packets, MTU) and text where a person would; None: not yet.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from fastpath.layout import Session
from ops.console import links
from ops.console.meters import METERS
from ops.console.snapshot import Snapshot, state
from ops.metrics import AUTH_METHODS
from ops.ranges import format_address
from ops.rates import format_rate

Cell = str | int | None
Column = Callable[[Session, int], Cell]


def duration(seconds: int) -> str:
    """`[days.]HH:MM:SS`."""
    days, rest = divmod(max(seconds, 0), 86400)
    clock = f"{rest // 3600:02}:{rest // 60 % 60:02}:{rest % 60:02}"
    return f"{days}.{clock}" if days else clock


def octets(count: int) -> str:
    """A byte count for people, in binary units."""
    if count < 1024:
        return f"{count} B"
    size = float(count)
    for unit in ("KiB", "MiB", "GiB", "TiB"):
        size /= 1024
        if size < 1024:
            return f"{size:.1f} {unit}"
    return f"{size / 1024:.1f} PiB"


def sid(session: Session) -> str:
    """The session's name in logs and accounting."""
    return f"{session.sid:016x}"


def _uptime(s: Session, now: int) -> int | None:
    return max(0, now - s.up_ns) // 1_000_000_000 if s.up_ns else None


def _uptime_text(s: Session, now: int) -> str | None:
    seconds = _uptime(s, now)
    return None if seconds is None else duration(seconds)


def _auth(s: Session, now: int) -> str | None:
    known = 0 < s.auth < len(AUTH_METHODS)
    return AUTH_METHODS[s.auth] if known else None


def _mppe(s: Session, now: int) -> str:
    def way(bits: int, stateful: int) -> str:
        return f"{bits} {'stateful' if stateful else 'stateless'}" if bits else "none"

    receive = way(s.mppe_rx_bits, s.stateful & 1)
    transmit = way(s.mppe_tx_bits, s.stateful & 2)
    return receive if receive == transmit else f"rx {receive}, tx {transmit}"


def _address(s: Session, now: int) -> str | None:
    address = s.address or s.granted_address
    return format_address(address) if address else None


def _rates(s: Session, now: int) -> str | None:
    """DOWN/UP, as secrets and `set-rate` have it."""
    if not s.rate_down and not s.rate_up:
        return None
    return f"{format_rate(s.rate_down)}/{format_rate(s.rate_up)}"


def _bps(direction: int) -> Column:
    def column(s: Session, now: int) -> int | None:
        found = METERS.bps(s)
        return found[direction] if found else None

    return column


def _loss(s: Session, now: int) -> str | None:
    """Of the peer's packets, by their sequence numbers."""
    sent = s.gre_rx_packets + s.gre_lost
    return f"{100 * s.gre_lost / sent:.2f}%" if sent else None


def _comp(s: Session, now: int) -> str | None:
    return "mppe" if s.mppe_rx_bits or s.mppe_tx_bits else None


def _ip6(s: Session, now: int) -> str | None:
    return links.identifier(s.iid) if s.iid else None


def _none(s: Session, now: int) -> None:
    """accel-ppp's columns of things we have not: empty, so that who names them gets a list."""


COLUMNS: Final[dict[str, Column]] = {
    "sid": lambda s, now: sid(s),
    "username": lambda s, now: s.name or None,
    "ip": _address,
    "csid": lambda s, now: format_address(s.peer_address),
    "worker": lambda s, now: s.worker,
    "state": lambda s, now: state(s),
    "uptime": _uptime_text,
    "uptime-raw": _uptime,
    "age-raw": lambda s, now: max(0, now - s.allotted_ns) // 1_000_000_000,
    "auth": _auth,
    "mppe": _mppe,
    "mtu": lambda s, now: s.mtu or None,
    "rx-bytes": lambda s, now: octets(s.rx_bytes),
    "tx-bytes": lambda s, now: octets(s.tx_bytes),
    "rx-bytes-raw": lambda s, now: s.rx_bytes,
    "tx-bytes-raw": lambda s, now: s.tx_bytes,
    "rx-pkts": lambda s, now: s.rx_packets,
    "tx-pkts": lambda s, now: s.tx_packets,
    "drops": lambda s, now: s.drops,
    "call-id": lambda s, now: s.call_id,
    "peer-call-id": lambda s, now: s.peer_call_id,
    "connection": lambda s, now: s.connection,
    "rate-limit": _rates,
    # an interface of its own no session has here; the name serves to end it by
    "ifname": lambda s, now: f"ppp{s.index}",
    "type": lambda s, now: "pptp",
    "comp": _comp,
    "calling-sid": lambda s, now: format_address(s.peer_address),
    "called-sid": lambda s, now: format_address(s.local_address),
    "ip6": _ip6,
    "rx-bps": _bps(0),
    "tx-bps": _bps(1),
    "loss": _loss,
    "loss-raw": lambda s, now: s.gre_lost,
    "netns": _none,
    "vrf": _none,
    "ip6-dp": _none,
    "inbound-if": _none,
    "service-name": _none,
}


def rows(snapshot: Snapshot, names: list[str]) -> list[list[Cell]]:
    """One row a session with the columns `names`; KeyError for a name not in COLUMNS."""
    columns = [COLUMNS[name] for name in names]
    now = snapshot.now_ns
    return [[column(s, now) for column in columns] for s in snapshot.sessions]
