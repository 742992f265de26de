#!/usr/bin/env python3
"""Inside the lab's qemu guest: the lab's `bench`, with a look at who spent the CPU.

    in_guest.py LAB RESULT [options of the lab's bench]

The lab measures; this waits until a concentrator has said that all of its processes are
ready (their start takes as long as a measurement under software emulation, and would
stand in it), and adds to the lab's figures each thread's share. Standard library only:
it runs with the guest's own Python.
"""

from __future__ import annotations

import contextlib
import importlib.machinery
import importlib.util
import io
import json
import os
import sys
import time
from pathlib import Path
from typing import Any, Final

TICK: Final = os.sysconf("SC_CLK_TCK")
SERVER_LOG: Final = Path("/run/server.log")  # the lab's choice
READY: Final = " notice keeper: ready "
CALM_S: Final = 2.0  # after that, for what the start left to do

CONTROL: Final = ("dispatcher.keeper", "dispatcher.netops", "dispatcher.process", "ops.console")

# Thread, and how it stands in the result; the first that fits. "" fits all.
GROUPS: Final = (
    ("ksoftirqd", "softirq"),
    ("kworker", "kworker"),
    ("iperf3", "iperf3"),
    ("pppd", "pppd"),
    ("pptpctrl", "pptpctrl"),
    ("pptpgw", "pptp"),
    ("pptpcm", "pptp"),
    ("pptp", "pptp"),
    ("", "rest"),
)

Threads = dict[int, tuple[str, float]]  # by id: group, seconds


class NotReadyError(Exception):
    """The server is not there; says why."""


def load(lab: Path) -> Any:
    """The lab's bench as a module: its file has no suffix, and it imports its neighbours."""
    sys.path.insert(0, str(lab))
    loader = importlib.machinery.SourceFileLoader("lab_bench", str(lab / "bench"))
    spec = importlib.util.spec_from_loader("lab_bench", loader)
    if spec is None:
        raise NotReadyError(f"{lab / 'bench'} is no Python")
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


def wait_ready(process: Any, limit: float) -> None:
    """Until the concentrator's log says that it serves."""
    until = time.monotonic() + limit
    while READY not in SERVER_LOG.read_text(errors="replace"):
        if process.poll() is not None:
            raise NotReadyError(f"the server ended with {process.returncode}")
        if time.monotonic() > until:
            raise NotReadyError(f"not ready after {limit:.0f} s")
        time.sleep(0.5)
    time.sleep(CALM_S)


def group_of(name: str, command: str, first: bool) -> str:
    """Where a thread's time is booked; `first`: it is its process' first."""
    if " -m workers.process " in command:
        return "control threads" if first else "data threads"
    if any(f" -m {module} " in command for module in CONTROL):
        return "control processes"
    return next(group for start, group in GROUPS if name.startswith(start))


def threads() -> Threads:
    """All threads with the CPU they have had so far."""
    found: Threads = {}
    for process in Path("/proc").iterdir():
        if not process.name.isdigit():
            continue
        try:
            command = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode("latin-1")
            for task in (process / "task").iterdir():
                text = (task / "stat").read_text("latin-1")
                name = text[text.index("(") + 1 : text.rindex(")")]
                words = text[text.rindex(")") + 1 :].split()
                seconds = (int(words[11]) + int(words[12])) / TICK
                found[int(task.name)] = group_of(name, command, task.name == process.name), seconds
        except OSError:  # it ended
            continue
    return found


def shares(before: Threads, after: Threads) -> dict[str, float]:
    """Seconds by group."""
    found: dict[str, float] = {}
    for tid, (group, seconds) in after.items():
        spent = seconds - before.get(tid, ("", 0.0))[1]
        if spent > 0:
            found[group] = found.get(group, 0.0) + spent
    return {group: round(seconds, 2) for group, seconds in sorted(found.items())}


def main() -> int:
    """Run the lab's bench as its command line would, and write its result with ours added."""
    lab, result = Path(sys.argv[1]), Path(sys.argv[2])
    bench = load(lab)
    spent: dict[str, dict[str, float]] = {}
    start_server, iperf = bench.start_server, bench.iperf

    def start_and_wait(args: Any, ns: str) -> Any:
        SERVER_LOG.write_text("")
        for left in SERVER_LOG.parent.glob("client*"):  # of the run before: the lab waits for them
            left.unlink()
        process = start_server(args, ns)
        if args.server_command:
            try:
                wait_ready(process, args.settle)
            except NotReadyError as e:
                bench.lablib.end_session(process.pid)
                raise bench.LabError(str(e)) from None
        return process

    def watched_iperf(args: Any, ns: str, addresses: Any, extra: Any, *more: Any) -> Any:
        before = threads()
        measured = iperf(args, ns, addresses, extra, *more)
        spent["down" if extra else "up"] = shares(before, threads())
        return measured

    bench.start_server, bench.iperf = start_and_wait, watched_iperf
    sys.argv = [str(lab / "bench"), *sys.argv[3:]]
    printed = io.StringIO()
    code = 0
    with contextlib.redirect_stdout(printed):
        try:
            bench.main()
        except SystemExit as e:
            code = e.code if isinstance(e.code, int) else 1
        except bench.LabError as e:
            print(json.dumps({"error": str(e)}))
            code = 1
    found = json.loads(printed.getvalue())
    for direction, groups in spent.items():
        found[direction]["threads"] = groups
    result.write_text(json.dumps(found))
    return code


if __name__ == "__main__":
    sys.exit(main())
