"""What the keeper hands a child at start: ARCHITECTURE.md, "Boot contract". Leaf module."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass
from typing import Any

from ops import settings as settings_module
from ops.settings import Settings


@dataclass(frozen=True, slots=True)
class Boot:
    """Role, settings and inherited descriptors of this process."""

    role: str
    index: int
    run_dir: str
    settings: Settings
    fds: dict[str, Any]  # int, or list of int
    extra: dict[str, Any]

    @property
    def bus_address(self) -> str:
        """Where the dispatcher binds and the others connect."""
        return f"ipc://{self.run_dir}/bus.sock"


def read_memfd(fd: int) -> bytes:
    """The whole content of a memfd, from its start."""
    size = os.fstat(fd).st_size
    data = b""
    while len(data) < size:
        part = os.pread(fd, size - len(data), len(data))
        if not part:
            break
        data += part
    return data


def make_memfd(name: str, data: bytes) -> int:
    """A memfd holding `data`."""
    fd = os.memfd_create(name, os.MFD_CLOEXEC)
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
    return fd


def load(argv: list[str] | None = None) -> Boot:
    """Read the boot memfd named by `--boot-fd N` in argv and close it."""
    words = sys.argv[1:] if argv is None else argv
    if len(words) != 2 or words[0] != "--boot-fd" or not words[1].isdigit():
        raise SystemExit("this module is started by the keeper; use `pptpcon run`")
    fd = int(words[1])
    data = json.loads(read_memfd(fd))
    os.close(fd)
    return Boot(
        role=data["role"],
        index=data["index"],
        run_dir=data["run_dir"],
        settings=settings_module.loads(json.dumps(data["settings"]).encode()),
        fds=data["fds"],
        extra=data["extra"],
    )
