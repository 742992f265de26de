#!/usr/bin/env python3
"""CPU of the data path under real TCP, with Debian's openvpn as the yardstick.

Three namespaces (clients, server, LAN); one session; iperf3 through it in both
directions. The server's data thread is pinned to CPU 1 (as is openvpn's server), all
else runs on CPU 0. Each tunnel is measured in two ways. As a veth has it by itself, who
sends does the receiver's work in the kernel, too: server CPU is utime + stime of all
processes in the server's namespace, with the client's reception in it and without its
own. `steered`: each end receives on its own CPU, as with network cards, and server CPU is
the busy time of CPU 1, interrupts included. Machine CPU is what /proc/stat says was busy,
less a run without tunnel at the same rate and for the same time. Plain forwarding (no
tunnel, at full rate) is the second yardstick; over a veth, which carries super-packets, it
is far cheaper than over a network card. Run it on an idle machine; it needs root, iperf3,
openvpn and openssl.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Final

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from ops.client import netns
from ops.client.child import Child, ChildError
from ops.client.concentrator import Samples
from ops.client.netns import NetnsError
from ops.client.playground import LAN_HOST, LAN_NET, WAN_SERVER, Playground, why_not
from tests.bench.results import BenchError, Result, arguments, cannot
from tests.bench.service import DATA_CPU, OTHER_CPU, serving, steer
from tests.bench.ways import Ways, argument, named

IPERF_PORT: Final = 5201
OPENVPN_PORT: Final = 1194
TICK: Final = os.sysconf("SC_CLK_TCK")
UP, DOWN = "up", "down"
GOALS: Final = {UP: 0.25, DOWN: 0.3}  # of openvpn's server CPU per GB, MPPE-128
REFERENCE: Final = {UP: 16.1, DOWN: 13.5}  # openvpn's s/GB on the reference machine


@dataclass(frozen=True, slots=True)
class Run:
    """One iperf3 run through one tunnel in one direction."""

    tunnel: str
    direction: str
    steered: bool
    mbit: float
    server_s_per_gb: float
    server_us_per_packet: float  # of the bulk direction: what its ACKs cost is included
    server_load: float  # share of one CPU
    machine_s_per_gb: float  # less the run without tunnel
    tcp_acks_per_packet: float  # inner packets against the bulk direction
    pure_acks_per_packet: float  # GRE packets without payload, both ways
    data_us_per_packet: float  # of it the data thread alone; 0 if there is none
    packets_per_wakeup: float  # of the data thread
    batch: float  # packets taken from the bulk direction's socket or device at once
    forwarding_s_per_gb: float = 0.0  # the machine's, of the run without tunnel


@dataclass(frozen=True, slots=True)
class Packets:
    """What the server has carried so far, and with how much effort."""

    receive: float = 0.0  # inner packets from the client
    transmit: float = 0.0
    pure_acks: float = 0.0  # GRE packets without payload, both ways
    data_seconds: float = 0.0  # CPU of the data thread
    wakeups: float = 0.0
    receive_batches: float = 0.0
    transmit_batches: float = 0.0

    def since(self, before: Packets) -> Packets:
        """The difference."""
        names = (f.name for f in fields(self))
        return Packets(*(getattr(self, n) - getattr(before, n) for n in names))


# -- measuring


def process_seconds(pid: int) -> float:
    """utime + stime of a process with its ended children."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text("ascii", "replace")
    except OSError:
        return 0.0
    return sum(int(word) for word in text.rpartition(")")[2].split()[11:15]) / TICK


def machine_seconds(cpu: str = "cpu") -> float:
    """Busy time of all CPUs, or of `cpu1` alone: all but idle, iowait and steal."""
    rows = (line.split() for line in Path("/proc/stat").read_text("ascii").splitlines())
    words = next([int(word) for word in row[1:9]] for row in rows if row[0] == cpu)
    return (sum(words[:3]) + words[5] + words[6]) / TICK


def server_seconds(ground: Playground, steered: bool) -> float:
    """CPU of the server: of its CPU, or of all that lives in its namespace."""
    if steered:
        return machine_seconds(f"cpu{DATA_CPU}")
    return sum(process_seconds(pid) for pid in netns.processes(ground.name("server")))


def iperf(
    ground: Playground, seconds: float, direction: str, *, bind: str = "", mbit: float = 0.0
) -> tuple[float, float]:
    """One iperf3 run: (octets received, seconds). `mbit` limits the rate."""
    argv = ["ip", "netns", "exec", ground.name("clients"), "taskset", "-c", str(OTHER_CPU)]
    argv += ["iperf3", "-J", "-c", LAN_HOST, "-p", str(IPERF_PORT), "-t", f"{seconds:g}"]
    argv += ["-R"] if direction == DOWN else []
    argv += ["-B", bind] if bind else []
    argv += ["-b", f"{mbit:.3f}M"] if mbit else []
    done = subprocess.run(argv, capture_output=True, text=True, timeout=seconds + 30, check=False)
    try:
        result = json.loads(done.stdout)
        received = result["end"]["sum_received"]
        return float(received["bytes"]), float(received["seconds"])
    except (ValueError, KeyError):
        text = done.stdout.strip() or done.stderr.strip()
        raise BenchError(f"iperf3 {direction}: {text[-500:]}") from None


@dataclass(frozen=True, slots=True)
class Tunnel:
    """Something to measure: its name, the address to bind to, and its packet counts."""

    name: str
    bind: str
    packets: Callable[[], Packets]


def measure(
    ground: Playground, tunnel: Tunnel, direction: str, seconds: float, *, steered: bool
) -> Run:
    """Run iperf3 through the tunnel; the machine's baseline is taken off later."""
    iperf(ground, 1.0, direction, bind=tunnel.bind)  # warm caches, open windows
    packets, machine = tunnel.packets(), machine_seconds()
    cpu = server_seconds(ground, steered)
    octets, spent = iperf(ground, seconds, direction, bind=tunnel.bind)
    cpu, machine = server_seconds(ground, steered) - cpu, machine_seconds() - machine
    time.sleep(0.5)
    seen = tunnel.packets().since(packets)
    data, other = seen.receive, seen.transmit
    batches = seen.receive_batches
    if direction == DOWN:
        data, other, batches = other, data, seen.transmit_batches
    if octets < 1e6 or data < 1:
        raise BenchError(f"{tunnel.name} {direction}: only {octets:.0f} octets arrived")
    gigabytes = octets / 1e9
    return Run(
        tunnel=tunnel.name,
        direction=direction,
        steered=steered,
        mbit=octets * 8e-6 / spent,
        server_s_per_gb=cpu / gigabytes,
        server_us_per_packet=cpu / data * 1e6,
        server_load=cpu / spent,
        machine_s_per_gb=machine / gigabytes,
        tcp_acks_per_packet=other / data,
        pure_acks_per_packet=seen.pure_acks / data,
        data_us_per_packet=seen.data_seconds / data * 1e6,
        packets_per_wakeup=data / seen.wakeups if seen.wakeups else 0.0,
        batch=data / batches if batches else 0.0,
    )


def without_tunnel(ground: Playground, runs: Sequence[Run], seconds: float) -> list[Run]:
    """Take from each run what the machine spends on the same traffic with no tunnel."""
    clients = ground.name("clients")
    netns.ip("-n", clients, "route", "replace", LAN_NET, "via", WAN_SERVER)
    result = []
    try:
        for run in runs:
            machine = machine_seconds()
            octets, _ = iperf(ground, seconds, run.direction, mbit=run.mbit)
            plain = (machine_seconds() - machine) / (octets / 1e9)
            more = run.machine_s_per_gb - plain
            result.append(replace(run, machine_s_per_gb=more, forwarding_s_per_gb=plain))
    finally:
        netns.ip("-n", clients, "route", "del", LAN_NET, "via", WAN_SERVER)
    return result


def forwarding(ground: Playground, seconds: float, repeat: int) -> dict[str, tuple[float, float]]:
    """No tunnel at all, as fast as it goes: Mbit/s and the machine's seconds a GB each way."""
    clients = ground.name("clients")
    netns.ip("-n", clients, "route", "replace", LAN_NET, "via", WAN_SERVER)
    found: dict[str, list[tuple[float, float]]] = {UP: [], DOWN: []}
    try:
        for way in (UP, DOWN) * repeat:
            machine = machine_seconds()
            octets, spent = iperf(ground, seconds, way)
            machine = machine_seconds() - machine
            found[way].append((octets * 8e-6 / spent, machine / (octets / 1e9)))
    finally:
        netns.ip("-n", clients, "route", "del", LAN_NET, "via", WAN_SERVER)
    return {
        way: (statistics.median(m for m, _ in runs), statistics.median(s for _, s in runs))
        for way, runs in found.items()
    }


# -- our tunnel


def counts(samples: Samples) -> Packets:
    """The server's own figures."""
    traffic = "pptp_traffic_packets_total"
    return Packets(
        receive=samples.total(traffic, direction="receive"),
        transmit=samples.total(traffic, direction="transmit"),
        pure_acks=samples.total("pptp_gre_ack_only_packets_total"),
        data_seconds=samples.total("pptp_worker_cpu_seconds_total", thread="data"),
        wakeups=samples.total("pptp_worker_wakeups_total"),
        receive_batches=samples.total("pptp_batch_packets_count", direction="receive"),
        transmit_batches=samples.total("pptp_batch_packets_count", direction="transmit"),
    )


@contextmanager
def ours(ground: Playground, mppe: bool, ways: Ways, name: str) -> Iterator[Tunnel]:
    """The concentrator with one session of our client."""
    with serving(ground, mppe=mppe, ways=ways) as service:
        yield Tunnel(
            f"pptpcon {'MPPE-128' if mppe else 'no MPPE'}{name}",
            service.addresses[0],
            lambda: counts(service.concentrator.metrics()),
        )


# -- the yardstick


def _openssl(folder: Path, *words: str) -> None:
    done = subprocess.run(
        ["openssl", *words], cwd=folder, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise BenchError(f"openssl {words[0]}: {done.stderr.strip()[-300:]}")


def make_keys(folder: Path) -> None:
    """A certificate authority, a server and a client, for one run."""
    new = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    _openssl(
        *(folder, "req", "-x509", *new, "-keyout", "ca.key", "-out", "ca.crt"),
        *("-subj", "/CN=bench", "-days", "2", "-addext", "basicConstraints=critical,CA:TRUE"),
    )
    for name, use in (("server", "serverAuth"), ("client", "clientAuth")):
        request = ("-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={name}")
        _openssl(folder, "req", *new, *request)
        (folder / f"{name}.ext").write_text(
            f"extendedKeyUsage={use}\nkeyUsage=digitalSignature\n", encoding="ascii"
        )
        _openssl(
            *(folder, "x509", "-req", "-in", f"{name}.csr", "-CA", "ca.crt", "-CAkey", "ca.key"),
            *("-CAcreateserial", "-days", "2", "-extfile", f"{name}.ext", "-out", f"{name}.crt"),
        )


@contextmanager
def openvpn(ground: Playground) -> Iterator[Tunnel]:
    """Debian's openvpn: UDP, AES-128-GCM, no compression, no kernel offload."""
    folder = ground.folder / "openvpn"
    folder.mkdir(mode=0o700)
    make_keys(folder)
    common = ["openvpn", "--cd", str(folder), "--dev", "tun0", "--proto", "udp", "--ca", "ca.crt"]
    common += ["--data-ciphers", "AES-128-GCM", "--allow-compression", "no", "--disable-dco"]
    common += ["--verb", "3"]
    keys = {
        name: ["--cert", f"{name}.crt", "--key", f"{name}.key"] for name in ("server", "client")
    }
    serve = [*common, *keys["server"], "--port", str(OPENVPN_PORT), "--dh", "none"]
    serve += ["--topology", "subnet", "--server", "10.8.0.0", "255.255.255.0"]
    serve += ["--push", "route 198.19.0.0 255.255.255.0"]
    server = ground.start("server", "openvpn-server", serve, cpus=(DATA_CPU,))
    _completed(server)
    join = [*common, *keys["client"], "--client", "--nobind", "--remote-cert-tls", "server"]
    join += ["--remote", WAN_SERVER, str(OPENVPN_PORT)]
    client = ground.start("clients", "openvpn-client", join, cpus=(OTHER_CPU,))
    try:
        _completed(client)

        def packets() -> Packets:
            def read(name: str) -> float:
                path = Path("/proc/thread-self/net/dev")
                row = netns.inside(ground.name("server"), lambda: path.read_text("ascii"))
                words = next(r for r in row.splitlines() if "tun0:" in r).split(":")[1].split()
                return float(words[{"rx": 1, "tx": 9}[name]])

            return Packets(read("rx"), read("tx"))

        yield Tunnel("openvpn AES-128-GCM", "", packets)
    finally:
        client.stop()
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)


def _completed(child: Child) -> None:
    until = time.monotonic() + 20
    while "Initialization Sequence Completed" not in child.tail(60):
        if not child.alive() or time.monotonic() > until:
            raise child.failure("it did not start")
        time.sleep(0.1)


# -- the whole


def median(runs: Sequence[Run]) -> Run:
    """The medians of repeated runs, figure by figure."""
    first = runs[0]
    return Run(
        first.tunnel,
        first.direction,
        first.steered,
        *(
            statistics.median(float(getattr(run, name)) for run in runs)
            for name in list(asdict(first))[3:]
        ),
    )


def bench(seconds: float, repeat: int, ways: Sequence[Ways], *, yardstick: bool) -> Result:
    """All runs, tunnel by tunnel, `repeat` times by turns."""
    all_runs: list[Run] = []
    with Playground() as ground:
        ground.start("lan", "iperf3", ["iperf3", "-s", "-p", str(IPERF_PORT)], cpus=(OTHER_CPU,))
        for _ in range(repeat):
            tunnels: list[Callable[[], AbstractContextManager[Tunnel]]] = [
                partial(ours, ground, encrypted, way, "" if way is ways[0] else f" {way.receive}")
                for way in ways
                for encrypted in (False, True)
            ]
            if yardstick:
                tunnels.append(partial(openvpn, ground))
            for make in tunnels:
                for steered in (False, True):
                    steer(ground, *((DATA_CPU, OTHER_CPU) if steered else (None, None)))
                    with make() as tunnel:
                        runs = [
                            measure(ground, tunnel, way, seconds, steered=steered)
                            for way in (UP, DOWN)
                        ]
                    all_runs += without_tunnel(ground, runs, seconds)
        steer(ground, None, None)
        plain = forwarding(ground, seconds, repeat)
    groups: dict[tuple[str, str, bool], list[Run]] = {}
    for run in all_runs:
        groups.setdefault((run.tunnel, run.direction, run.steered), []).append(run)
    result = judge([median(group) for group in groups.values()], plain)
    result.note(
        f"medians of {repeat} runs of {seconds:g} s; ratios: server CPU per GB of openvpn's;"
        " machine: all CPU per GB, both ends with it, of plain forwarding's"
    )
    return result


def judge(runs: Sequence[Run], plain: dict[str, tuple[float, float]]) -> Result:
    """Medians as rows, ours against the yardsticks'."""
    result = Result("datapath")
    for way, (mbit, spent) in plain.items():
        result.figure(f"plain forwarding {way}", mbit=mbit, machine_s_per_gb=spent)
    others = {(run.direction, run.steered): run for run in runs if run.tunnel.startswith("openvpn")}
    for run in runs:
        row = f"{run.tunnel} {run.direction}" + (", steered" if run.steered else "")
        values = {k: float(v) for k, v in asdict(run).items() if isinstance(v, float)}
        result.figure(row, **values)
        if not run.steered:
            whole = run.machine_s_per_gb + run.forwarding_s_per_gb
            result.ratio(f"{row}, machine", whole / plain[run.direction][1])
        other = others.get((run.direction, run.steered))
        if other is run:
            if run.steered:
                continue  # LIMITS.md has figures of the other way only
            result.yardstick(f"{row}, s/GB", run.server_s_per_gb, REFERENCE[run.direction])
        elif other is not None:
            goal = {"at_most": GOALS[run.direction]} if "MPPE-128" in run.tunnel else {}
            result.ratio(row, run.server_s_per_gb / other.server_s_per_gb, **goal)
    return result


def table(result: Result) -> str:
    """The result for a person."""
    lines = [
        f"{'tunnel and way':35} {'Mbit/s':>8} {'s/GB':>7} {'us/pkt':>7} {'load':>6} "
        f"{'machine s/GB':>13} {'ACKs/pkt':>9} {'GRE acks/pkt':>13} "
        f"{'data us/pkt':>12} {'per wake-up':>12} {'batch':>6}"
    ]
    for row, run in result.figures.items():
        if "server_s_per_gb" not in run:
            lines.append(f"{row:35} {run['mbit']:8.0f} {run['machine_s_per_gb']:37.2f}")
            continue
        lines.append(
            f"{row:35} {run['mbit']:8.0f} "
            f"{run['server_s_per_gb']:7.2f} {run['server_us_per_packet']:7.2f} "
            f"{100 * run['server_load']:5.0f}% {run['machine_s_per_gb']:13.2f} "
            f"{run['tcp_acks_per_packet']:9.2f} {run['pure_acks_per_packet']:13.3f} "
            f"{run['data_us_per_packet']:12.2f} {run['packets_per_wakeup']:12.1f} "
            f"{run['batch']:6.1f}"
        )
    return "\n".join(lines)


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=6.0, help="of each run")
    parser.add_argument("--repeat", type=int, default=1, help="runs of each kind; medians")
    parser.add_argument("--no-openvpn", action="store_true", help="leave the yardstick out")
    argument(parser)
    parser.add_argument("--against", type=named, help="measure these ways, too")
    words = arguments("datapath", parser)
    lacking = why_not()
    programs = ["iperf3", "taskset"] + ([] if words.no_openvpn else ["openvpn", "openssl"])
    for program in programs:
        if shutil.which(program) is None:
            lacking = lacking or f"{program} is missing: apt-get install {program}"
    if (os.cpu_count() or 1) <= DATA_CPU:
        lacking = lacking or "two CPUs are needed: one for the server's data thread alone"
    if lacking:
        return cannot("datapath", lacking)
    try:
        ways = [way for way in (words.ways, words.against) if way is not None]
        result = bench(words.seconds, words.repeat, ways, yardstick=not words.no_openvpn)
    except (BenchError, ChildError, NetnsError, OSError, subprocess.SubprocessError) as e:
        print(f"datapath: {e}", file=sys.stderr)
        return 1
    if not words.json:
        print(table(result))
    return result.finish(as_json=words.json, figures=False)


if __name__ == "__main__":
    sys.exit(main())
