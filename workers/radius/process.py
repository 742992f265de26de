"""The accounts process: `python -m workers.radius.process --boot-fd N`."""

from __future__ import annotations

import asyncio
import os
import signal
import sys

from fastpath.layout import LayoutError, Table
from ops import boot, log, privileges
from ops.log import LEVELS, Log
from workers.radius.service import Service

NICE = 10


def main() -> int:
    """Serve until the keeper says stop, or is gone; the exit code."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    started = boot.load()
    own = started.settings.log
    out = Log("accounts", level=LEVELS[own.level], style=own.format)
    os.setpriority(os.PRIO_PROCESS, 0, max(NICE, os.getpriority(os.PRIO_PROCESS, 0)))
    try:
        table = Table.attach(started.fds["table"], writable=False)
    except LayoutError as e:
        return log.fatal(f"accounts: {e}; was pptpcon upgraded under a running instance?", 69)
    privileges.drop(started.settings.server.user)
    loop = asyncio.new_event_loop()
    service = Service(started, table, loop, out)
    try:
        loop.run_forever()
    finally:
        service.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
