"""The vault: `python -m dispatcher.vault --boot-fd N`. It holds duplicates of control connections.

A TCP connection lives as long as somebody has a descriptor of it, so a dispatcher's death closes
none, and its successor asks for them. The vault reads no connection and understands nothing of
what it holds. It can be killed as well: the dispatcher gives its successor all of them again.
Standard library and leaves only, no privilege, one thread.
"""

from __future__ import annotations

import errno
import json
import os
import select
import signal
import socket
import sys
from collections import deque
from typing import Final

from dispatcher import vault_wire as wire
from dispatcher.vault_wire import Said
from ops import boot as boot_module
from ops.log import LEVELS, Log
from ops.privileges import die_with_parent, drop

KEEPER_MESSAGE: Final = 4 << 20
SOON_MS: Final = 100  # descriptors on their way are no event of the socket


class Vault:
    """Descriptors by the numbers of their connections, and the octets that belong to them."""

    def __init__(self, dispatcher: socket.socket, log: Log) -> None:
        self._dispatcher = dispatcher
        self._dispatcher.setblocking(False)
        self._log = log
        self._held: dict[int, int] = {}
        self._notes: dict[int, tuple[bytes, bytes]] = {}
        self._to_say: deque[Said] = deque()

    def __len__(self) -> int:
        return len(self._held)

    @property
    def wishes_to_speak(self) -> bool:
        """Whether `speak` is to be called when the dispatcher's socket takes something."""
        return bool(self._to_say)

    def begin(self) -> None:
        """Ask whoever dispatches for what he has: a vault before us had it."""
        self._to_say.append(Said(wire.EMPTY))
        self.speak()

    def speak(self) -> None:
        """Say what there is to say, as far as it is taken. Nobody may be reading for a while: he
        who asked has died."""
        while self._to_say:
            said = self._to_say[0]
            fds = []
            if said.kind == wire.HELD:
                rest, pending = self._notes.get(said.number, (b"", b""))
                said = said._replace(rest=rest, pending=pending)
                if said.number in self._held:  # not dropped meanwhile
                    fds = [self._held[said.number]]
            try:
                socket.send_fds(self._dispatcher, [said.encode()], fds)
            except BlockingIOError:
                return
            except OSError as e:
                if e.errno == errno.ETOOMANYREFS:  # on their way already; they arrive
                    return
                raise
            self._to_say.popleft()

    def hear(self) -> None:
        """One datagram of the dispatcher's."""
        try:
            data, fds, _flags, _address = socket.recv_fds(self._dispatcher, wire.SIZE_MAX, 1)
        except BlockingIOError:
            return
        try:
            said = wire.decode(data)
        except ValueError as e:
            self._log.error("unreadable message from the dispatcher", reason=str(e))
            said = Said(0)
        match said.kind:
            case wire.HOLD if fds:
                self._drop(said.number)
                self._held[said.number] = fds.pop()
            case wire.NOTE if said.number in self._held:
                if said.rest or said.pending:
                    self._notes[said.number] = said.rest, said.pending
                else:
                    self._notes.pop(said.number, None)
            case wire.DROP:
                self._drop(said.number)
            case wire.ASK:
                self._answer(said.question)
        for fd in fds:
            os.close(fd)

    def _answer(self, question: int) -> None:
        self._to_say.clear()  # an answer to one who died
        self._to_say.extend(Said(wire.HELD, question, number) for number in self._held)
        self._to_say.append(Said(wire.DONE, question, len(self._held)))
        self.speak()

    def _drop(self, number: int) -> None:
        self._notes.pop(number, None)
        fd = self._held.pop(number, None)
        if fd is not None:
            os.close(fd)


def main() -> int:
    """Hold until the keeper says stop, or is gone."""
    die_with_parent()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
    boot = boot_module.load()
    log = Log("vault", level=LEVELS[boot.settings.log.level], style=boot.settings.log.format)
    drop(boot.settings.server.user)
    keeper = socket.socket(fileno=boot.fds["keeper"])
    dispatcher = socket.socket(fileno=boot.fds["dispatcher"])
    vault = Vault(dispatcher, log)
    keeper.send(json.dumps({"type": "ready"}).encode())
    vault.begin()
    poll = select.poll()
    poll.register(keeper, select.POLLIN)
    while True:
        wanted = select.POLLIN | (select.POLLOUT if vault.wishes_to_speak else 0)
        poll.register(dispatcher, wanted)
        ready = dict(poll.poll(SOON_MS if vault.wishes_to_speak else None))
        if ready.get(dispatcher.fileno(), 0) & select.POLLIN:
            vault.hear()
        vault.speak()
        if keeper.fileno() in ready:
            data = keeper.recv(KEEPER_MESSAGE)
            if not data:
                log.error("the keeper is gone: exit")
                return 0
            message = json.loads(data)
            if message.get("type") == "stop":
                return 0
            if message.get("type") == "log":
                log.order(message)
            elif message.get("type") == "ping":
                keeper.send(json.dumps({"type": "pong"}).encode())


if __name__ == "__main__":
    sys.exit(main())
