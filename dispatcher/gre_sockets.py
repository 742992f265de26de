"""The GRE sockets of all workers, and which of the two ways to get at the packets is taken.

packet: AF_PACKET sockets in one fanout group, one copy of each packet whatever the number
of workers; the kernel's own look at it is ended by the nft table and the drop-all socket.
raw: one raw socket per worker, each of which the kernel gives a copy of every packet.
"""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from typing import Any, Final

from dispatcher import descriptors, filters, firewall, nft, xdp, xdp_fit
from dispatcher.descriptors import Tun, UnavailableError
from dispatcher.firewall import Passed
from dispatcher.xdp import Xdp
from ops.settings import Settings

ANY_ADDRESS: Final = "0.0.0.0"  # noqa: S104 - compared, not bound
RAW_WORKERS: Final = 2  # copies beyond these cost more than the packet socket's detour


@dataclass(frozen=True, slots=True)
class GreSockets:
    """What the workers get, by worker; and what only has to be open."""

    packet_mode: bool
    reason: str  # why this mode
    send_reason: str  # why by next hop, or why not
    receive: list[socket.socket]
    send: list[socket.socket]
    drop_all: socket.socket | None
    hop: list[socket.socket]  # packet sockets to send with, by worker; [] when raw ones do it
    xdp: Xdp | None = None  # beside them
    xdp_reason: str = ""  # why, or why not

    @property
    def receives(self) -> str:
        """The way in, one of fastpath.layout.GRE_WAYS."""
        if self.xdp is not None and self.xdp.mode:
            return f"xdp {self.xdp.mode}"
        return "packet" if self.packet_mode else "raw"

    @property
    def sends(self) -> str:
        """The way out."""
        if self.xdp is not None and self.xdp.sends:
            return "xdp"
        return "packet" if self.hop else "raw"

    def handed(self, worker: int) -> tuple[dict[str, int | list[int]], dict[str, Any]]:
        """Descriptors and extras of one: ARCHITECTURE.md, "Boot contract"."""
        fds: dict[str, int | list[int]] = {
            "gre": self.receive[worker].fileno(),
            "raw": self.send[worker].fileno(),
        }
        extra: dict[str, Any] = {"packet_mode": self.packet_mode}
        if self.hop:
            fds["hop"] = self.hop[worker].fileno()
        if self.xdp is not None:
            units = self.xdp.units(worker)
            fds["xdp"] = [fd for unit in units for fd in (unit.sock.fileno(), unit.queue.memory)]
            extra["xdp"] = [unit.told() for unit in units]
            if self.xdp.calls >= 0:
                fds["xdp_calls"] = self.xdp.calls
        return fds, extra

    def close(self) -> None:
        """Give all back."""
        for sock in (*self.receive, *self.send, *self.hop):
            sock.close()
        if self.drop_all is not None:
            self.drop_all.close()
        if self.xdp is not None:
            self.xdp.close()


def open_all(settings: Settings, workers: int, tuns: list[Tun]) -> GreSockets:
    """Open the sockets of the configured mode, or of the better one here."""
    mode = settings.gre.mode
    size = settings.gre.receive_buffer_bytes
    own = [tun.ifindex for tun in tuns]
    text = settings.listen.address
    address = 0 if text == ANY_ADDRESS else int.from_bytes(socket.inet_aton(text), "big")
    reason = "configured"
    passed = Passed("", "")
    if "auto" in (mode, settings.gre.send):
        passed = firewall.passed_by()
    if mode == "auto" and passed.receive:
        mode, reason = "raw", f"packet sockets would pass by a firewall rule: {passed.receive}"
    if mode == "auto" and workers <= RAW_WORKERS and not nft.available():
        mode, reason = "raw", f"{workers} workers and no libnftables"
    if mode != "raw":
        try:
            receive = descriptors.gre_fanout(
                *(workers, own),
                address=address,
                receive_buffer=size,
                interface=_index(settings.gre.interface),
            )
        except OSError as e:
            if mode in ("packet", "xdp"):
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
            why = _send_mode(settings, passed)
            hop = _hop_sockets(workers, why)
            found = _xdp(settings, workers, passed, bool(hop))
            return GreSockets(True, reason, why.text, receive, send, drop_all, hop, *found)
    raw = [
        descriptors.gre_raw(
            filters.accept(own, address=address, bucket=(worker, workers)), receive_buffer=size
        )
        for worker in range(workers)
    ]
    why = _send_mode(settings, passed)
    if settings.gre.send == "auto":
        why = SendMode(False, "GRE is received by raw sockets")
    hop = _hop_sockets(workers, why)
    return GreSockets(False, reason, why.text, raw, [sock.dup() for sock in raw], None, hop)


def _xdp(
    settings: Settings, workers: int, passed: Passed, packet_send: bool
) -> tuple[Xdp | None, str]:
    """AF_XDP beside the packet sockets, and why, or why not."""
    gre = settings.gre
    receive, send = gre.mode == "xdp", gre.send == "xdp"
    reason, against = "configured", ""
    if gre.mode == "auto" or gre.send == "auto":
        against = xdp_fit.why_not_on(gre.interface, workers)
    if gre.mode == "auto":
        receive, reason = _weigh(against, passed.ring_receive)
    if gre.send == "auto" and packet_send:
        # Sending alone by rings makes downloads cheaper and acknowledgements dearer.
        alone = "" if receive else "GRE is not received by it"
        send, text = _weigh(alone, against, passed.ring_send)
        reason = reason if gre.mode == "auto" else text
    if not receive and not send:
        return None, reason if "auto" in (gre.mode, gre.send) else "not configured"
    try:
        where = xdp.device(gre.interface)
        mode = xdp_fit.attach_mode(gre.interface) if gre.xdp_mode == "auto" else gre.xdp_mode
        size = gre.receive_buffer_bytes
        made = xdp.open_all(where, workers, receive=receive, send=send, buffer=size, mode=mode)
    except xdp.XdpError as e:
        if "xdp" in (gre.mode, gre.send):
            raise UnavailableError(f"AF_XDP can't be had: {e}") from None
        return None, str(e)
    return made, reason


def _weigh(*against: str) -> tuple[bool, str]:
    """Whether to take AF_XDP by ourselves, and why."""
    reason = next((text for text in against if text), "")
    return not reason, reason or "the least CPU on such a device"


@dataclass(frozen=True, slots=True)
class SendMode:
    """By packet sockets or not, and why."""

    packet: bool
    text: str


def _send_mode(settings: Settings, passed: Passed) -> SendMode:
    """Packet sockets go past output firewall, policy routing and IPsec: see gre.send."""
    if settings.gre.send != "auto":
        return SendMode(settings.gre.send != "raw", "configured")
    if descriptors.ipsec_policies():
        return SendMode(False, "there are IPsec policies")
    if passed.send:
        return SendMode(False, f"packet sockets would pass by a firewall rule: {passed.send}")
    return SendMode(True, "half the cost of the routing table")


def _index(interface: str) -> int:
    if not interface:
        return 0
    try:
        return socket.if_nametoindex(interface)
    except OSError:
        raise UnavailableError(
            f'gre.interface = "{interface}": there is no such interface; `ip link` lists them'
        ) from None


def _hop_sockets(workers: int, mode: SendMode) -> list[socket.socket]:
    return [descriptors.packet_sender() for _ in range(workers)] if mode.packet else []
