"""The dispatcher's end of the vault: what is given to it, and what was found in it.

Nothing here waits, `collect` at the start apart. What the vault does not take at once is kept,
in order, and said at the next `flush`.
"""

from __future__ import annotations

import secrets
import select
import socket
import time
from collections import deque
from collections.abc import Callable
from typing import Final, NamedTuple

from dispatcher import vault_wire as wire
from dispatcher.vault_wire import Said
from ops.log import Log

COLLECT_S: Final = 5.0  # for a vault that is being replaced, too
BATCH: Final = 64
UNSAID_MAX: Final = 200_000


class Found(NamedTuple):
    """A connection of a dispatcher before us."""

    number: int
    sock: socket.socket
    rest: bytes  # read, and not a whole message
    pending: bytes  # to be sent


class Deposit:
    """`descriptor_of` gives the descriptor of a connection that is still open, or None."""

    def __init__(
        self, fd: int, log: Log, descriptor_of: Callable[[int], int | None] = lambda number: None
    ) -> None:
        self._sock = socket.socket(fileno=fd)
        self._sock.setblocking(False)
        self._log = log
        self._descriptor_of = descriptor_of
        self._unsaid: deque[Said] = deque()

    def fileno(self) -> int:
        """Readable when a vault has begun."""
        return self._sock.fileno()

    @property
    def unsaid(self) -> int:
        """How much the vault has not taken yet."""
        return len(self._unsaid)

    def collect(self, seconds: float = COLLECT_S) -> list[Found]:
        """All that is in the vault. It waits for the vault, but no longer than `seconds`."""
        question = secrets.randbits(63)
        found: list[Found] = []
        until = time.monotonic() + seconds
        asked = False
        poll = select.poll()
        while True:
            if not asked:
                asked = self._send(Said(wire.ASK, question))
            poll.register(self._sock, select.POLLIN | (0 if asked else select.POLLOUT))
            left = until - time.monotonic()
            if left <= 0 or not poll.poll(left * 1000):
                self._log.error("the vault does not answer", seconds=seconds, found=len(found))
                return found
            got = self._receive()
            if got is None:
                continue
            said, fds = got
            if said.kind == wire.EMPTY:
                asked = False  # a vault before it may have had our question
            elif said.question == question and said.kind == wire.DONE:
                return found
            elif said.question == question and said.kind == wire.HELD and fds:
                sock = socket.socket(fileno=fds.pop())
                sock.setblocking(False)
                found.append(Found(said.number, sock, said.rest, said.pending))
            for fd in fds:
                socket.close(fd)

    def hold(self, number: int) -> None:
        """Keep this connection open, whatever becomes of us."""
        self._say(Said(wire.HOLD, number=number))

    def note(self, number: int, rest: bytes, pending: bytes) -> None:
        """What of its stream is neither in the kernel nor done."""
        self._say(Said(wire.NOTE, number=number, rest=rest, pending=pending))

    def drop(self, number: int) -> None:
        """It is closed."""
        self._say(Said(wire.DROP, number=number))

    def flush(self) -> None:
        """Say what has been kept."""
        while self._unsaid and self._send(self._unsaid[0]):
            self._unsaid.popleft()

    def began_anew(self) -> bool:
        """Whether there is another vault, which has nothing."""
        anew = False
        for _ in range(BATCH):
            got = self._receive()
            if got is None:
                break
            said, fds = got
            anew |= said.kind == wire.EMPTY
            for fd in fds:  # the rest of an answer to a dispatcher before us
                socket.close(fd)
        return anew

    def forget(self) -> None:
        """What was kept for a vault that is gone."""
        self._unsaid.clear()

    def close(self) -> None:
        """At our end; others have the socket, too."""
        self._sock.close()

    def _say(self, said: Said) -> None:
        if not self._unsaid and self._send(said):
            return
        if len(self._unsaid) >= UNSAID_MAX:
            # Nobody has read for so long that the keeper replaces him: the next one asks for all.
            self._log.error("the vault takes nothing", unsaid=len(self._unsaid))
            self._unsaid.clear()
        self._unsaid.append(said)

    def _send(self, said: Said) -> bool:
        """False: not now."""
        fds: list[int] = []
        if said.kind == wire.HOLD:
            fd = self._descriptor_of(said.number)
            if fd is None:
                return True  # closed meanwhile
            fds.append(fd)
        try:
            socket.send_fds(self._sock, [said.encode()], fds)
        except BlockingIOError:
            return False
        except OSError as e:
            # ETOOMANYREFS: too many are on their way; others: it has no reader.
            self._log.debug("the vault does not take it", reason=e.strerror)
            return False
        return True

    def _receive(self) -> tuple[Said, list[int]] | None:
        try:
            data, fds, _flags, _address = socket.recv_fds(self._sock, wire.SIZE_MAX, 1)
            return wire.decode(data), fds
        except BlockingIOError:
            return None
        except (OSError, ValueError) as e:
            self._log.error("the vault is not understood", reason=str(e))
            return None
