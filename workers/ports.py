"""What the control logic asks of its surroundings: the data thread's ring and `Ports`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from ops.messages import Message
from ops.networks import Network
from workers.live import Handle
from workers.ppp.actions import Authenticate, EapRelay


class Engine(Protocol):
    """What is used of fastpath.engine.Engine; False: the ring is full."""

    def install(self, index: int, generation: int) -> bool: ...
    def send(self, index: int, generation: int, frame: bytes) -> bool: ...
    def set_mppe(
        self,
        index: int,
        generation: int,
        rx_bits: int,
        rx_key: bytes,
        rx_stateful: bool,
        tx_bits: int,
        tx_key: bytes,
        tx_stateful: bool,
    ) -> bool: ...
    def up(self, index: int, generation: int) -> bool: ...
    def down(self, index: int, generation: int) -> bool: ...
    def up6(self, index: int, generation: int) -> bool: ...
    def down6(self, index: int, generation: int) -> bool: ...
    def set_rates(self, index: int, generation: int) -> bool: ...
    def set_nets(self, index: int, generation: int) -> bool: ...
    def packet(self, index: int, generation: int, packet: bytes) -> bool: ...
    def set_filters(self, block: bytes) -> bool: ...
    def set_peers(self, block: bytes) -> bool: ...
    def trace(self, index: int, generation: int, what: int) -> bool: ...
    def remove(self, index: int, generation: int) -> bool: ...


class Ports(Protocol):
    """Where requests go whose answers come back by `routed`, `authenticated`, `relayed`."""

    def send(self, message: Message) -> None:
        """To the dispatcher; lost if there is none now, reconciliation makes it good."""

    def route_add(self, handle: Handle, address: int) -> None: ...

    def route_del(self, handle: Handle, address: int) -> None: ...

    def net_add(self, handle: Handle, net: Network) -> None:
        """Its answer comes by `net_routed`."""

    def net_del(self, handle: Handle, net: Network) -> None: ...

    def authenticate(self, handle: Handle, request: Authenticate) -> None: ...

    def relay(self, handle: Handle, request: EapRelay) -> None: ...

    def started(self, handle: Handle) -> None:
        """Accounting begins: the session is up, and its record and blob say so."""

    def stopped(self, handle: Handle, cause: str) -> None:
        """It ends: the record has the last counters still."""

    def authorized(self, handle: Handle, user: str, peer_name: str) -> None:
        """A login was accepted; said once a session."""

    def changed(self, handle: Handle) -> None:
        """An up session's Policy is another one; record and blob say so."""

    def gone(self, handle: Handle, cause: str) -> None:
        """The last of a session whose login had been accepted."""


@dataclass(frozen=True, slots=True)
class EventKinds:
    """The numbers of fastpath.engine's events."""

    frame: int
    installed: int
    removed: int
    echo_lost: int
    desync: int
    resumed: int
    packet: int
    bound: int
    traced: int
