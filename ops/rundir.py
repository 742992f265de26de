"""Where an instance keeps its sockets and state file. Leaf module: stdlib only.

One concentrator serves one network namespace, so each namespace has its own folder:
commands started inside a namespace find the instance of that namespace by themselves.
"""

from __future__ import annotations

import os
from typing import Final

BASE: Final = "/run/pptpcon"
FIRST_NETNS: Final = 0xEFFFFFF9  # NET_NS_INIT_INO: the machine's first one, from Linux 6.18 on


def netns_inode(pid: str = "self") -> int | None:
    """The inode of a process's network namespace; None when it can't be seen."""
    try:
        return os.stat(f"/proc/{pid}/ns/net").st_ino
    except OSError:
        return None


def default_run_dir() -> str:
    """/run/pptpcon in the host's own network namespace, /run/pptpcon-INODE in another.

    The host's own is pid 1's. Who may not look at pid 1 takes the folder of his
    namespace; a user, who makes none, only if it is there.
    """
    ours = netns_inode()
    if ours is None or ours == FIRST_NETNS:
        return BASE
    own = f"{BASE}-{ours}"
    host = netns_inode("1")
    if host is None:
        return own if os.geteuid() == 0 or os.path.isdir(own) else BASE
    return BASE if ours == host else own


def serving_run_dir() -> str:
    """The same for the keeper: a folder that systemd made for it (RuntimeDirectory=) is taken.

    In a unit's sandbox pid 1 can't be seen, so that the rule above would go astray.
    """
    given = os.environ.get("RUNTIME_DIRECTORY", "").partition(":")[0]
    return given if os.path.basename(given).startswith("pptpcon") else default_run_dir()
