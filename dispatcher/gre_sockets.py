"""The GRE sockets of all workers, and which of the two ways to get at the packets is taken.

packet: AF_PACKET sockets in one fanout group, one copy of each packet whatever the number
of workers; the kernel's own look at it is ended by the nft table and the drop-all socket.
raw: one raw socket per worker, each of which the kernel gives a copy of every packet.
"""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from typing import Final

from dispatcher import descriptors, filters, nft
from dispatcher.descriptors import Tun, UnavailableError
from ops.settings import Settings

ANY_ADDRESS: Final = "0.0.0.0"  # noqa: S104 - compared, not bound
RAW_WORKERS: Final = 2  # copies beyond these cost more than the packet socket's detour


@dataclass(frozen=True, slots=True)
class GreSockets:
    """What the workers get, by worker; and what only has to be open."""

    packet_mode: bool
    reason: str  # why this mode
    receive: list[socket.socket]
    send: list[socket.socket]
    drop_all: socket.socket | None
    hop: list[socket.socket]  # packet sockets to send with, by worker; [] when raw ones do it


def open_all(settings: Settings, workers: int, tuns: list[Tun]) -> GreSockets:
    """Open the sockets of the configured mode, or of the better one here."""
    mode = settings.gre.mode
    size = settings.gre.receive_buffer_bytes
    own = [tun.ifindex for tun in tuns]
    text = settings.listen.address
    address = 0 if text == ANY_ADDRESS else int.from_bytes(socket.inet_aton(text), "big")
    reason = "configured"
    if mode == "auto" and workers <= RAW_WORKERS and not nft.available():
        mode, reason = "raw", f"{workers} workers and no libnftables"
    if mode != "raw":
        try:
            receive = descriptors.gre_fanout(workers, own, address=address, receive_buffer=size)
        except OSError as e:
            if mode == "packet":
                raise UnavailableError(
                    f"packet sockets can't be had ({os.strerror(e.errno or 0)}); "
                    'set gre.mode = "raw"'
                ) from None
            reason = f"no packet sockets: {os.strerror(e.errno or 0)}"
        else:
            if mode == "auto":
                reason = "one copy of each packet, whatever the number of workers"
            # In this mode the raw sockets only send; without the nft table they and the
            # drop-all socket also keep the kernel from answering with ICMP.
            send = [descriptors.gre_raw(filters.NOTHING) for _ in range(workers)]
            drop_all = descriptors.gre_raw(filters.NOTHING)
            hop = _hop_sockets(settings, workers)
            return GreSockets(True, reason, receive, send, drop_all, hop)
    raw = [
        descriptors.gre_raw(
            filters.accept(own, address=address, bucket=(worker, workers)), receive_buffer=size
        )
        for worker in range(workers)
    ]
    hop = _hop_sockets(settings, workers) if settings.gre.send == "packet" else []
    return GreSockets(False, reason, raw, [sock.dup() for sock in raw], None, hop)


def _hop_sockets(settings: Settings, workers: int) -> list[socket.socket]:
    """Packet sockets go past output firewall, policy routing and IPsec: see gre.send."""
    if settings.gre.send == "raw" or (settings.gre.send == "auto" and descriptors.ipsec_policies()):
        return []
    return [descriptors.packet_sender() for _ in range(workers)]
