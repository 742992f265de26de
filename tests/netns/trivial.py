"""A child process that keeps the boot contract and does nothing else."""

from __future__ import annotations

import json
import os
import select
import socket
import time

from fastpath.layout import Table
from ops import boot, privileges


def main() -> None:
    """Ready at once, beats, ends when told; SIGUSR1's default action kills it."""
    info = boot.load()
    privileges.die_with_parent()
    if info.role != "netops":
        privileges.drop(info.settings.server.user)
    table = None
    if "table" in info.fds:
        table = Table.attach(info.fds["table"], writable=info.role != "console")
    keeper = socket.socket(fileno=info.fds["keeper"])
    keeper.send(json.dumps({"type": "ready"}).encode())
    while True:
        if table is None:
            pass
        elif info.role == "worker":
            table.control_beat(info.index)
        elif info.role == "dispatcher":
            table.dispatcher_beat()
        ready, _, _ = select.select([keeper], [], [], 0.2)
        if not ready:
            continue
        data, fds, _, _ = socket.recv_fds(keeper, 1 << 20, 4)
        if not data:
            return
        message = json.loads(data)
        if message["type"] == "ping":
            keeper.send(json.dumps({"type": "pong"}).encode())
            continue
        line = f"heard role={info.role} type={message['type']}"
        if fds:
            line += f" octets={len(boot.read_memfd(fds[0]))}"
        os.write(2, line.encode() + b"\n")
        if message["type"] == "stop":
            time.sleep(0.01)
            return


if __name__ == "__main__":
    main()
