"""Descriptors and memory for as many sessions as the configuration allows."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from typing import Final

from ops.doctor.finding import Finding
from ops.doctor.host import Host

RESERVED: Final = 1000  # dispatcher/sockets.py
A_SESSION: Final = 6144  # octets: record, both copies of its blob, tables, TCP
A_PROCESS: Final = 64 << 20


def look(host: Host) -> Iterator[Finding]:
    """RLIMIT_NOFILE, fs.nr_open, MemAvailable."""
    sessions = host.settings.limits.max_sessions
    wanted = sessions + RESERVED
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < wanted:
        text = f"is {hard} here: {max(hard - RESERVED, hard // 2)} control connections, not "
        text += f"{sessions} (the service unit sets its own)"
        yield Finding("warning", "open files (hard limit)", text, f"LimitNOFILE={wanted}")
    most = host.number("fs/nr_open")
    if most is not None and most < wanted:
        text = f"is {most}, less than {wanted} for limits.max_sessions"
        yield Finding("warning", "fs.nr_open", text, f"sysctl -w fs.nr_open={wanted}")
    for line in host.text("meminfo").splitlines():
        if line.startswith("MemAvailable:"):
            have = int(line.split()[1]) << 10
            need = sessions * A_SESSION + 4 * A_PROCESS
            if have < need:
                text = f"{have >> 20} MiB are free; {sessions} sessions need {need >> 20} MiB"
                mend = "lower limits.max_sessions"
                yield Finding("warning", "memory", text, mend)
