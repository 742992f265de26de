#!/usr/bin/env python3
"""All CPU a megabyte in the lab's qemu guest: this checkout against Debian's pptpd.

The guest is Debian's own kernel (6.1: no USO) in software emulation, with the host's files
under a writable layer, so that the checkout and its virtual environment run there as they
are. In it the lab's `bench` starts one server and the same clients (pptp-linux, pppd) for
each, and measures TCP both ways. What counts is `total`: all that the guest's CPUs did,
clients, softirqs and both iperf3 included, in ms a megabyte. pptpd has pppd and the kernel's
MPPE behind it. With several clients we are measured twice: with as many workers as the guest
has CPUs, and with one (`workers.count = 1`), which leaves the other CPU to clients and hosts.
Nothing else may run meanwhile; emulated CPUs are real ones for the host.
"""

from __future__ import annotations

import argparse
import glob
import json
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.bench.results import BenchError, Result, arguments, cannot
from tests.interop.lab import LAB, ROOT, SERVER

GUEST: Final = LAB / "qemu-bench-guest"
KERNELS: Final = "/var/cache/pptp-lab/kernel/boot/vmlinuz-*"
IN_GUEST: Final = Path(__file__).with_name("in_guest.py")
OURS, ONE, THEIRS = "ours", "ours, one worker", "pptpd"
DIRECTIONS: Final = ("up", "down")
GOAL: Final = 0.6
READY_S: Final = 120.0  # a start under emulation takes 20 to 60 s
BOOT_S: Final = 30.0
# ms a megabyte of all CPU with pptpd, by clients: (up, down), the slower of the lab's own runs
REFERENCE: Final = {1: (822.0, 807.0), 4: (1277.0, 1142.0)}


@dataclass(frozen=True, slots=True)
class Wish:
    """What to run, and how."""

    clients: tuple[int, ...]
    seconds: int
    rounds: int
    mppe: str
    cpu: str
    log: bool


def lacking() -> str:
    """Why this can't run here; "" if it can."""
    if not GUEST.exists():
        return f"no lab at {LAB} (PPTP_LAB names another place)"
    for program in ("qemu-system-x86_64", "busybox", "pptp", "pptpd", "pppd", "iperf3"):
        if subprocess.run(["which", program], capture_output=True, check=False).returncode:
            return f"{program} is not installed (ops/test bench does that)"
    return ""


def prepare() -> None:
    """Debian's kernel for the guest, if it is not there; and our modules compiled, which takes
    an emulated CPU longer than all the rest of a start."""
    folders = [str(ROOT / name) for name in ("dispatcher", "workers", "fastpath", "ops")]
    subprocess.run([sys.executable, "-m", "compileall", "-q", *folders], check=False)
    if not glob.glob(KERNELS):
        done = subprocess.run([str(GUEST), "prepare"], capture_output=True, text=True, check=False)
        if done.returncode:
            raise BenchError(f"no kernel for the guest: {done.stderr.strip()[-500:]}")


def servers(clients: int) -> tuple[str, ...]:
    """What is measured with so many clients, the yardstick first."""
    return (THEIRS, OURS, ONE) if clients > 1 else (THEIRS, OURS)


def file_of(server: str, clients: int) -> str:
    """The name of a run's result, without suffix."""
    return f"{'one' if server == ONE else server}-{clients}"


def script(wish: Wish) -> str:
    """What the guest runs: each server with each number of clients, one after the other."""
    lines = ["python3 --version; uname -r; grep -m1 'model name' /proc/cpuinfo"]
    for clients in wish.clients:
        for server in servers(clients):
            name = file_of(server, clients)
            words = f"--mppe {wish.mppe} --clients {clients} --seconds {wish.seconds}"
            words += f" --settle {READY_S:g}"
            if server != THEIRS:
                one = " --set workers.count=1" if server == ONE else ""
                words += f" --server-command '{SERVER}{one}'"
            lines.append(f"python3 '{IN_GUEST}' '{LAB}' /lab/{name}.json {words}")
            if wish.log:
                lines.append(f"cp /run/server.log /lab/{name}.log")
    return "\n".join(lines)


def boot(wish: Wish, folder: Path) -> dict[str, Any]:
    """One boot of the guest; what it measured, by server and number of clients."""
    runs = sum(len(servers(clients)) for clients in wish.clients)
    limit = BOOT_S + runs * (READY_S + 30 + 2 * wish.seconds)
    argv = [str(GUEST), "run", "--time-limit", f"{limit:g}", "--keep", str(folder)]
    argv += ["--cpu", wish.cpu, "--", "sh", "-c", script(wish)]
    done = subprocess.run(argv, cwd="/", capture_output=True, text=True, check=False)
    found = {}
    for clients in wish.clients:
        for server in servers(clients):
            file = folder / f"{file_of(server, clients)}.json"
            if not file.exists():
                text = (done.stdout + done.stderr).strip()[-1500:]
                raise BenchError(f"{file.stem}: no result; the guest said:\n{text}")
            found[file.stem] = json.loads(file.read_text())
            trouble = complaint(found[file.stem])
            if trouble:
                raise BenchError(f"{file.stem}: {trouble}")
    return found


def complaint(measured: dict[str, Any]) -> str:
    """What is wrong with one run of the lab's bench; "" if nothing is."""
    if "error" in measured:
        return f"{measured['error']}\n{measured.get('server.log', '')[-1500:]}"
    for direction in DIRECTIONS:
        for client in measured[direction]["clients"]:
            if "error" in client:
                return f"iperf3 {direction}: {client['error']}"
    return ""


def row_name(server: str, clients: int, direction: str) -> str:
    """As it stands in the result."""
    return f"{server}, {clients} client{'s' if clients > 1 else ''}, {direction}"


def figures(result: Result, clients: int, rounds: list[dict[str, Any]]) -> None:
    """Rows and ratios of one number of clients: medians over the rounds."""
    for at, direction in enumerate(DIRECTIONS):
        totals = {}
        for server in servers(clients):
            runs = [each[file_of(server, clients)][direction] for each in rounds]
            row = row_name(server, clients, direction)
            for name in ("total", "server", "client"):
                value = statistics.median(run["cpu_ms_per_mbyte"][name] for run in runs)
                result.figure(row, **{f"{name}_ms_per_mb": value})
            totals[server] = result.figures[row]["total_ms_per_mb"]
            result.figure(row, mbit=statistics.median(run["mbit_per_s"] for run in runs))
            for group, spent in stages(runs).items():
                result.figure(f"  {row}: {group}", ms_per_mb=spent)
        for server in servers(clients)[1:]:
            what = "all CPU per MB" + server.removeprefix(OURS)
            name = row_name(what, clients, direction)
            result.ratio(name, totals[server] / totals[THEIRS], at_most=GOAL)
        if clients in REFERENCE:
            yardstick = row_name(THEIRS, clients, direction)
            result.yardstick(yardstick, totals[THEIRS], REFERENCE[clients][at])


def stages(runs: list[dict[str, Any]]) -> dict[str, float]:
    """ms a megabyte by who spent them: the median of each over the runs, large ones first."""
    names = {group for run in runs for group in run["threads"]}
    found = {}
    for group in names:
        values = []
        for run in runs:
            megabytes = sum(client["mbytes"] for client in run["clients"])
            values.append(1000 * run["threads"].get(group, 0.0) / megabytes)
        found[group] = round(statistics.median(values), 1)
    return dict(sorted(found.items(), key=lambda item: -item[1]))


def bench(wish: Wish, keep: Path | None) -> Result:
    """All rows."""
    prepare()
    result = Result("guest")
    rounds = []
    for number in range(wish.rounds):
        with tempfile.TemporaryDirectory(prefix="pptpcon-guest-") as folder:
            place = keep / str(number) if keep else Path(folder)
            rounds.append(boot(wish, place))
    first = rounds[0][file_of(OURS, wish.clients[0])]
    result.note(
        f"the guest is software emulation (qemu TCG), {first['cpus']} CPUs, "
        f"kernel {first['kernel']}: ratios count, not times"
    )
    result.note(f"MPPE {wish.mppe}, {wish.seconds} s a direction, rounds: {wish.rounds}")
    for clients in wish.clients:
        figures(result, clients, rounds)
    return result


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 4], metavar="N")
    parser.add_argument("--seconds", type=int, default=6, help="each direction")
    parser.add_argument("--rounds", type=int, default=1, help="boots; medians are shown")
    parser.add_argument("--mppe", choices=("none", "40", "128"), default="128")
    parser.add_argument("--cpu", default="max", help="the model that qemu emulates")
    parser.add_argument("--keep", type=Path, help="folder for the lab's results and our logs")
    words = arguments("guest", parser)
    trouble = lacking()
    if trouble:
        return cannot("guest", trouble)
    wish = Wish(
        *(tuple(words.clients), words.seconds, words.rounds, words.mppe, words.cpu),
        log=words.keep is not None,
    )
    try:
        result = bench(wish, words.keep)
    except (BenchError, OSError, ValueError, subprocess.SubprocessError) as e:
        print(f"guest: {e}", file=sys.stderr)
        return 1
    return result.finish(as_json=words.json)


if __name__ == "__main__":
    sys.exit(main())
