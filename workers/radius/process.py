"""The accounts process: `python -m workers.radius.process --boot-fd N`."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from functools import partial
from typing import Any, Final

from fastpath.layout import LayoutError, Table
from ops import boot, log, privileges
from ops.log import LEVELS, Log
from workers.radius.service import Service

NICE: Final = 10


def _fault(out: Log, _loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """A bug of ours costs the event it was met in, and one line."""
    error = context.get("exception")
    at, where = getattr(error, "__traceback__", None), ""
    while at is not None:
        where = f"{os.path.basename(at.tb_frame.f_code.co_filename)}:{at.tb_lineno}"
        at = at.tb_next
    out.error("internal error", reason=f"{context['message']}: {error!r}"[:300], at=where)


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
    records = started.settings.records
    more = ("utmp",) if records.utmp or records.wtmp else ()
    privileges.drop(started.settings.server.user, more=more)
    loop = asyncio.new_event_loop()
    loop.set_exception_handler(partial(_fault, out))
    service = Service(started, table, loop, out)
    try:
        loop.run_forever()
    finally:
        service.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
