"""The data thread of one worker: what its control thread may call."""

from collections.abc import Iterable
from typing import Any

from fastpath.layout import Table

SERVER: int
CLIENT: int

# events of Engine.events(): (kind, index, generation, data)
EVENT_FRAME: int  # data: PPP frame of the peer, 2-byte protocol and payload
EVENT_INSTALLED: int
EVENT_REMOVED: int  # final counters are in the record
EVENT_ECHO_LOST: int  # LCP echoes unanswered: end the session
EVENT_DESYNC: int  # MPPE does not decrypt to anything known; data b"stateful": sent in that form
EVENT_PACKET: int  # data: an IPv6 packet to us: router solicitation or DHCPv6
EVENT_HOP_LOST: int  # the packet socket failed: back on the raw socket, resolve anew
EVENT_TRACED: int  # a frame of a session that is traced: fastpath/trace.pyx
EVENT_RESUMED: int  # found up in the table at start (successor of a dead worker)
EVENT_BOUND: int  # data: which of the record's bounds is reached, and its value: two uint64

Ring = tuple[int, int, dict[str, Any]]  # socket, memfd, what dispatcher.umem.Unit.told says

class EngineError(Exception): ...

class Engine:
    """GRE, PPP framing, MPPE and TUN of one worker.

    Every method is called from one control thread and costs a ring push; False means
    the ring is full (4096 operations): try again later. `run` is the data thread's body
    and never takes the GIL. role CLIENT: the inner *source* address selects the session
    of a packet read from the TUN, and no source check is made on what arrives.
    """

    event_fd: int  # readable when events() has something
    def __init__(
        self,
        table: Table,
        worker: int,
        *,
        role: int,
        gre_fd: int,  # AF_PACKET SOCK_DGRAM (mode "packet") or raw GRE socket (mode "raw")
        raw_fd: int,  # raw IPPROTO_GRE socket to send with; may be gre_fd in mode "raw"
        tun_fd: int,
        packet_mode: bool,
        cpu: int = -1,
        batch: int = 64,
        reorder_depth: int = 32,
        reorder_timeout_ms: int = 50,
        ack_delay_ms: int = 100,
        coalesce_us: int = ...,
        mss_clamp: bool = True,
        skip_sids: Iterable[int] = (),  # poison: sessions a successor does not go on with
        hop_fd: int = -1,  # AF_PACKET SOCK_DGRAM socket for set_hop(); -1: always the raw one
        calls_fd: int = -1,  # map of the XDP program that fills the rings; -1: none
        rings: Iterable[Ring] = (),  # AF_XDP sockets; what they do not take goes as without
        window: int = 64,  # ours, as the peer was told: half of it is acknowledged at once
        writes: str = "auto",  # to the TUN: tun_queue.WRITES
    ) -> None: ...
    def run(self) -> None: ...  # body of the data thread; returns after stop()
    def stop(self) -> None: ...
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
    def up(self, index: int, generation: int) -> bool: ...  # after Table.set_link()
    def down(self, index: int, generation: int) -> bool: ...  # data stops, control frames go on
    def up6(self, index: int, generation: int) -> bool: ...  # after Table.set_six()
    def down6(self, index: int, generation: int) -> bool: ...
    def set_hop(
        self, index: int, generation: int, ifindex: int, mac: bytes, mtu: int
    ) -> bool: ...  # ifindex 0, mac b"": by the raw socket
    def set_nets(self, index: int, generation: int) -> bool: ...  # after Table.set_nets()
    def packet(
        self, index: int, generation: int, packet: bytes
    ) -> bool: ...  # an inner packet to the subscriber, encrypted like data, not counted as it
    def set_rates(self, index: int, generation: int) -> bool: ...  # after Table.set_limits()
    def set_filters(self, block: bytes) -> bool: ...  # all filters: workers/filters.py
    def set_peers(self, block: bytes) -> bool: ...  # ops.peers.Peers.block; b"": anybody
    def trace(
        self, index: int, generation: int, what: int
    ) -> bool: ...  # 0: no more, 1: control frames, 2: packets, too
    def remove(self, index: int, generation: int) -> bool: ...  # answered by EVENT_REMOVED
    def events(self, limit: int = 256) -> list[tuple[int, int, int, bytes]]: ...
