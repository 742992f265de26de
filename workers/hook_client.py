"""A worker's end of the way to the hooks process: events until they are done.

The socket pair outlives either process; what is not answered is sent again to a successor.
"""

from __future__ import annotations

import asyncio
import os
from collections import deque
from typing import Final

from fastpath.layout import Session
from ops import hook_event
from ops.hook_event import Event
from ops.metrics import AUTH_METHODS
from ops.ranges import format_address
from workers.policy import Policy
from workers.session import Saved

OPEN_MAX: Final = 65536  # events without an answer; beyond these there is nobody to run them


class HookClient:
    """One worker's."""

    def __init__(self, fd: int, loop: asyncio.AbstractEventLoop) -> None:
        self._fd = fd
        self._loop = loop
        os.set_blocking(fd, False)
        # A predecessor's numbers are not ours.
        self._next = int.from_bytes(os.urandom(6), "big") + 1
        self._open: dict[int, bytes] = {}
        self._unsent: deque[int] = deque()
        self._writing = False
        self.lost = 0
        loop.add_reader(fd, self._readable)

    def close(self) -> None:
        """The descriptor stays open: it is a successor's, too."""
        self._loop.remove_reader(self._fd)
        if self._writing:
            self._loop.remove_writer(self._fd)

    def post(self, event: Event) -> None:
        """Hand an event on."""
        if len(self._open) >= OPEN_MAX:
            self.lost += 1
            return
        seq = self._next
        self._next += 1
        self._open[seq] = hook_event.pack(seq, event)
        self._unsent.append(seq)
        self._send()

    @property
    def unanswered(self) -> int:
        """Events that are not done."""
        return len(self._open)

    def _send(self) -> None:
        while self._unsent:
            data = self._open.get(self._unsent[0])
            if data is not None:
                try:
                    os.write(self._fd, data)
                except BlockingIOError:
                    if not self._writing:
                        self._writing = True
                        self._loop.add_writer(self._fd, self._writable)
                    return
                except OSError:
                    return  # the keeper holds the other end: only at the very end
            self._unsent.popleft()

    def _writable(self) -> None:
        self._loop.remove_writer(self._fd)
        self._writing = False
        self._send()

    def _readable(self) -> None:
        while True:
            try:
                data = os.read(self._fd, 4096)
            except (BlockingIOError, InterruptedError):
                return
            except OSError:
                data = b""
            if not data:
                self._loop.remove_reader(self._fd)
                return
            try:
                seq = hook_event.unpack_done(data)
            except ValueError:
                continue
            if seq:
                self._open.pop(seq, None)
            else:
                self._unsent = deque(self._open)
                self._send()


def event_of(
    hook: str,
    session: Session,
    saved: Saved | None,
    *,
    user: str,
    peer_name: str,
    now_ns: int,
    cause: str = "",
) -> Event:
    """From the record, and the blob if there is one already."""
    policy = Policy.thaw(saved.policy) if saved is not None else Policy()
    over = hook == "ip_down"
    return Event(
        hook=hook,
        sid=session.sid,
        user=user,
        peer_name=peer_name,
        calling=format_address(session.peer_address),
        called=format_address(session.local_address),
        local=format_address(session.local) if session.local else "",
        remote=format_address(session.address) if session.address else "",
        auth=AUTH_METHODS[session.auth] if session.auth < len(AUTH_METHODS) else "",
        speed=session.peer_speed,
        dns=tuple(map(format_address, saved.dns)) if saved is not None else (),
        wins=tuple(map(format_address, policy.wins)),
        cause=cause,
        seconds=max(0, now_ns - session.up_ns) // 1_000_000_000 if over else -1,
        sent=session.tx_bytes if over else -1,
        received=session.rx_bytes if over else -1,
        packets_sent=session.tx_packets if over else -1,
        packets_received=session.rx_packets if over else -1,
        more=_environment(policy),
        attributes=_attributes(session, policy),
    )


def _environment(policy: Policy) -> tuple[tuple[str, str], ...]:
    found = (
        ("RADIUS_FILTER_ID", policy.filter),
        ("RADIUS_FRAMED_ROUTE", policy.routes[0] if policy.routes else ""),
        ("IPV6_PREFIX", policy.prefix6),
        ("IPV6_DELEGATED_PREFIX", policy.delegated6),
    )
    return tuple(item for item in found if item[1])


def _attributes(session: Session, policy: Policy) -> tuple[tuple[str, str], ...]:
    """A Policy in RADIUS's words."""
    found = [
        ("Framed-IP-Address", format_address(session.address) if session.address else ""),
        ("Framed-Pool", policy.pool),
        ("Filter-Id", policy.filter),
        ("Framed-IPv6-Prefix", policy.prefix6),
        ("Framed-IPv6-Pool", policy.pool6),
        ("Delegated-IPv6-Prefix", policy.delegated6),
        ("Reply-Message", policy.reply),
    ]
    found += [("Framed-Route", route) for route in policy.routes]
    found += [("Framed-IPv6-Route", route) for route in policy.routes6]
    found += [("Class", "0x" + value.hex()) for value in policy.classes]
    found += [("Mikrotik-Address-List", name) for name in policy.address_lists]
    for name, number in (
        ("Port-Limit", policy.sessions),
        ("Session-Timeout", policy.session_timeout_s),
        ("Idle-Timeout", policy.idle_timeout_s),
        ("Session-Octets-Limit", policy.volume),
        ("pptpcon-Rate-Up", policy.rate_up),
        ("pptpcon-Rate-Down", policy.rate_down),
    ):
        if number:
            found.append((name, str(number)))
    return tuple(item for item in found if item[1])
