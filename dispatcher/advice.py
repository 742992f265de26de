"""What on this host would keep subscribers from getting through, and the command that mends it.

We look and say; we change no sysctl and no table but our own.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from ops.settings import Settings

SYS: Final = Path("/proc/sys/net")
FLOWS: Final = 16  # tracked connections of one subscriber, at the least


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None


def remarks(settings: Settings, root: Path = SYS) -> list[tuple[str, str]]:
    """(what is wrong, command that mends it) in order of weight."""
    found = []
    if _number(root / "ipv4/ip_forward") == 0:
        found.append(
            (
                "net.ipv4.ip_forward is 0: subscribers reach this host and nothing behind it",
                "sysctl -w net.ipv4.ip_forward=1",
            )
        )
    most = _number(root / "netfilter/nf_conntrack_max")
    tracked = _number(root / "netfilter/nf_conntrack_count")  # 0: nothing asks for tracking
    sessions = settings.limits.max_sessions
    if most is not None and tracked and most < FLOWS * sessions:
        found.append(
            (
                f"net.netfilter.nf_conntrack_max is {most}, less than {FLOWS} connections for each "
                f"of {sessions} subscribers",
                f"sysctl -w net.netfilter.nf_conntrack_max={4 * FLOWS * sessions}",
            )
        )
    wanted = settings.gre.receive_buffer_bytes
    limit = _number(root / "core/rmem_max")
    if os.geteuid() != 0 and limit is not None and limit < wanted:
        found.append(
            (
                f"net.core.rmem_max is {limit}, less than gre.receive_buffer_bytes {wanted}",
                f"sysctl -w net.core.rmem_max={wanted}",
            )
        )
    return found
