"""The vault: `python -m dispatcher.vault --boot-fd N`. It holds duplicates of control connections.

A TCP connection lives as long as somebody has a descriptor of it, so a dispatcher's death closes
none, and its successor asks for them. The vault reads no connection and understands nothing of
what it holds. It can be killed as well: the dispatcher gives its successor all of them again.
Standard library and leaves only, no privilege, one thread.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import sys
from typing import Final

from dispatcher import vault_wire as wire
from dispatcher.vault_wire import Said
from ops import boot as boot_module
from ops.log import LEVELS, Log
from ops.privileges import die_with_parent, drop

KEEPER_MESSAGE: Final = 4 << 20


class Vault:
    """Descriptors by the numbers of their connections, and the octets that belong to them."""

    def __init__(self, dispatcher: socket.socket, log: Log) -> None:
        self._dispatcher = dispatcher
        self._log = log
        self._held: dict[int, int] = {}
        self._notes: dict[int, tuple[bytes, bytes]] = {}

    def __len__(self) -> int:
        return len(self._held)

    def begin(self) -> None:
        """Ask whoever dispatches for what he has: a vault before us had it."""
        self._say(Said(wire.EMPTY))

    def hear(self) -> None:
        """One datagram of the dispatcher's."""
        data, fds, _flags, _address = socket.recv_fds(self._dispatcher, wire.SIZE_MAX, 1)
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
        for number, fd in list(self._held.items()):
            self._say(Said(wire.HELD, question, number, *self._notes.get(number, (b"", b""))), fd)
        self._say(Said(wire.DONE, question, len(self._held)))

    def _say(self, said: Said, *fds: int) -> None:
        # It may block: whoever asked is reading. If he dies meanwhile, the successor reads.
        socket.send_fds(self._dispatcher, [said.encode()], fds)

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
    poll.register(dispatcher, select.POLLIN)
    while True:
        ready = {fd for fd, _ in poll.poll()}
        if dispatcher.fileno() in ready:
            vault.hear()
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
