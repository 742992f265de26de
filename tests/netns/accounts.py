"""The accounts process alone, as the keeper starts it: the test is its only worker."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

from fastpath.layout import Table
from ops import boot, status_page
from ops.settings import Settings
from tests.netns.spaces import ROOT, Space


@contextmanager
def accounts_process(space: Space, conf: Settings) -> Iterator[tuple[int, socket.socket, int]]:
    """The process with one worker's end of its pairs; its number, the end, its figures."""
    table_fd = os.memfd_create("table")
    table = Table.create(table_fd, 8, 1, 0x65000001)
    generation, _sid = table.allot(
        0,
        worker=0,
        call_id=1,
        peer_call_id=1,
        local_address=0xC0000202,
        peer_address=0xC0000201,
        peer_port=1,
        peer_window=64,
        peer_speed=0,
        connection=1,
    )
    assert generation == 1
    status = os.memfd_create("status")
    os.ftruncate(status, status_page.SIZE)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    keeper, child = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    fds: dict[str, Any] = {
        "keeper": child.fileno(),
        "table": table_fd,
        "status": status,
        "workers": [theirs.fileno()],
    }
    content = {
        "role": "accounts",
        "index": 0,
        "run_dir": conf.server.state_dir,
        "settings": asdict(conf),
        "fds": fds,
        "extra": {"state_dir": conf.server.state_dir},
    }
    memfd = boot.make_memfd("boot", json.dumps(content).encode())
    words = [sys.executable, "-P", "-m", "workers.radius.process", "--boot-fd", str(memfd)]
    process = subprocess.Popen(
        space.argv(*words),
        pass_fds=[memfd, child.fileno(), table_fd, status, theirs.fileno()],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    try:
        assert json.loads(keeper.recv(4096)) == {"type": "ready"}
        yield process.pid, ours, status
    finally:
        process.kill()
        process.wait()
