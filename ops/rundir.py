"""Where an instance keeps its sockets and state file. Leaf module: stdlib only.

One concentrator serves one network namespace, so each namespace has its own folder:
commands started inside a namespace find the instance of that namespace by themselves.
"""

from __future__ import annotations

import os
from typing import Final

BASE: Final = "/run/pptpcon"


def netns_inode(pid: str = "self") -> int | None:
    """The inode of a process's network namespace; None when it can't be seen."""
    try:
        return os.stat(f"/proc/{pid}/ns/net").st_ino
    except OSError:
        return None


def default_run_dir() -> str:
    """/run/pptpcon in the host's own network namespace, /run/pptpcon-INODE in another.

    Who may not look at pid 1 (an unprivileged user) is taken to be in its namespace.
    """
    ours = netns_inode()
    host = netns_inode("1")
    if ours is None or host is None or ours == host:
        return BASE
    return f"{BASE}-{ours}"
