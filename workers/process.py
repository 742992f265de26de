"""A worker, first stage: `python -m workers.process --boot-fd N`.

The order counts. A successor of a dead worker has its sessions' packets waiting, so
the data thread runs before anything else is even imported: only the standard library,
fastpath and ops.boot may stand at the top of this file.
"""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import sys
import threading
from typing import TYPE_CHECKING, Final

from fastpath import mppe
from fastpath.engine import SERVER, Engine
from fastpath.layout import Table
from ops import boot
from ops.peers import Peers

if TYPE_CHECKING:
    from fastpath.engine import Ring

PRIORITY: Final = 1  # the lowest before that of all who have none: fastpath/priority.pxd


def _data(engine: Engine, name: str, realtime: bool) -> None:
    """Body of the data thread; `run` does not take the GIL until it returns."""
    if realtime:
        _go_ahead()
    try:
        with open(f"/proc/self/task/{threading.get_native_id()}/comm", "w") as comm:
            comm.write(name)
    except OSError:
        pass  # a name for `top`, nothing more
    engine.run()


def rings(started: boot.Boot) -> list[Ring]:
    """The AF_XDP sockets among the inherited descriptors."""
    fds = started.fds.get("xdp", [])
    told = started.extra.get("xdp", [])
    return [(fds[2 * i], fds[2 * i + 1], unit) for i, unit in enumerate(told)]


def make_engine(started: boot.Boot, table: Table) -> Engine:
    """The engine on the inherited descriptors."""
    gre = started.settings.gre
    return Engine(
        table,
        started.index,
        role=SERVER,
        gre_fd=started.fds["gre"],
        raw_fd=started.fds["raw"],
        tun_fd=started.fds["tun"],
        packet_mode=bool(started.extra["packet_mode"]),
        cpu=int(started.extra.get("cpu", -1)),
        batch=gre.batch,
        reorder_depth=gre.reorder_depth,
        reorder_timeout_ms=gre.reorder_timeout_ms,
        ack_delay_ms=gre.ack_delay_ms,
        coalesce_us=gre.coalesce_us,
        mss_clamp=started.settings.ppp.mss_clamp,
        hop_fd=started.fds.get("hop", -1),
        window=gre.window,
        calls_fd=started.fds.get("xdp_calls", -1),
        rings=rings(started),
        writes=gre.tun_writes,
        skip_sids=started.extra.get("poison_sids", ()),
    )


def _go_ahead() -> None:
    """Real-time priority for this thread, and the right to take it again when it was given up;
    where that is not to be had, things are as without."""
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_RTPRIO, (PRIORITY, PRIORITY))
    with contextlib.suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(PRIORITY))


def main() -> int:
    """Forward first, then serve; returns the exit code."""
    # A terminal's Ctrl-C reaches every process: ending in order is the keeper's business.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    started = boot.load()
    table = Table.attach(started.fds["table"])
    kernel = mppe.choose(started.settings.mppe.kernel)
    table.kernel_is(started.index, list(mppe.KERNELS).index(kernel) + 1)
    engine = make_engine(started, table)
    if started.settings.filters or started.settings.shaping.exempt:
        from workers.shaping import block_of  # noqa: PLC0415 - only where it is needed

        engine.set_filters(block_of(started.settings))
    allowed = Peers(started.settings.listen.allow, started.settings.listen.deny)
    if allowed.block:
        engine.set_peers(allowed.block)
    realtime = started.settings.workers.realtime and bool(started.extra.get("alone"))
    name = f"data-{started.index}"
    thread = threading.Thread(target=_data, args=(engine, name, realtime), name=name, daemon=True)
    thread.start()

    from workers import service  # noqa: PLC0415 - after the data thread, on purpose

    code = service.serve(started, table, engine, thread)
    sys.stderr.flush()
    if thread.is_alive():
        os._exit(code)  # it does not hear us; the keeper waits for this process
    return code


if __name__ == "__main__":
    sys.exit(main())
