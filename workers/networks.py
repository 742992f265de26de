"""The networks behind sessions: what an account says of them, and where that is carried out.

A network is in four places: the session's blob (its Policy), the table (for the data thread, for
netops after its death, for everybody who looks for conflicts), the data thread, the kernel.
It is written in this order and taken back in the opposite one.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Final

from fastpath import layout
from ops.log import Log
from ops.networks import Network, NetworkError, host, parse_network, usable
from ops.settings import Settings
from workers.live import Live
from workers.policy import Policy
from workers.ports import Engine, Ports

MOST: Final = layout.NETWORKS_MAX

Wrong = tuple[int, str]  # IP version and what is wrong


def said(policy: Policy, default: bool) -> tuple[list[Network], list[Wrong]]:
    """The networks of `routes` and `routes6`, each once; and what is wrong with others.

    "PREFIX/LENGTH [gateway [metric ...]]": gateway and metric change nothing, since the way to
    the network is the session itself.
    """
    found: list[Network] = []
    wrong: list[Wrong] = []
    for texts, version in ((policy.routes, 4), (policy.routes6, 6)):
        for text in texts:
            try:
                net = parse_network((text.split() or [""])[0], version)
            except NetworkError as e:
                wrong.append((version, str(e)))
                continue
            if what := usable(net, default):
                wrong.append((version, f"{net} is {what}"))
            elif net not in found:
                found.append(net)
    return found, wrong


class Networks:
    """Of all sessions of one worker."""

    def __init__(
        self,
        table: layout.Table,
        engine: Engine,
        ports: Ports,
        log: Log,
        push: Callable[..., None],
        count: Callable[..., None],
    ) -> None:
        self._table = table
        self._engine = engine
        self._ports = ports
        self._log = log
        self._push = push
        self._count = count

    def held(self, index: int) -> list[Network]:
        """As the table has them."""
        return [Network(*found) for found in self._table.nets(index)]

    def granted(self, index: int) -> list[Network]:
        """IPv6 that admission gave; all of it is the session's while IPv6CP is up."""
        return [Network(*found) for found in self._table.granted6(index) if found[1]]

    def set(
        self, live: Live, settings: Settings, six: bool, tell: Collection[int] = (4, 6)
    ) -> None:
        """Make the session's networks those of its Policy; of IPv6 only with `six`: while
        IPv6CP is up. What is wrong is told of the versions in `tell`."""
        wanted, wrong = said(live.policy, settings.ip.default_routes)
        if not six:
            wanted = [net for net in wanted if net.version == 4]
        else:
            wanted = [*self.granted(live.handle[0]), *wanted]
        index = live.handle[0]
        wrong += [(net.version, f"{net}: more than {MOST} networks") for net in wanted[MOST:]]
        kept: list[Network] = []
        own = host(live.routed)
        for net in wanted[:MOST]:
            owner = self._table.net_owner(*net, index)
            if net in kept or net == own:
                continue
            if owner >= 0:
                other = self._table.session(owner)
                what = f"{net} is behind session {other.sid:016x} of user {other.name!r}"
                wrong.append((net.version, what))
            else:
                kept.append(net)
        for version, text in wrong:
            if version not in tell:
                continue
            self._count("networks_refused")
            self._log.warning("no route", sid=live.sid, user=live.user, reason=text)
        self._change(live, kept)

    def drop(self, live: Live) -> None:
        """The session ends."""
        self._change(live, [])

    def forget(self, live: Live) -> None:
        """The record is another call's by now; the kernel's routes are the old one's still."""
        for net in live.networks:
            self._ports.net_del(live.handle, net)

    def _change(self, live: Live, wanted: list[Network]) -> None:
        before, handle = live.networks, live.handle
        if wanted == before:
            return
        live.networks = wanted
        self._table.set_nets(handle[0], wanted)
        self._push(self._engine.set_nets, *handle)
        for net in before:
            if net not in wanted:
                self._count("netops_requests")
                self._ports.net_del(handle, net)
        for net in wanted:
            if net not in before:
                self._count("netops_requests")
                self._ports.net_add(handle, net)
