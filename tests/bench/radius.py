"""A storm of logins against a real FreeRADIUS: how many a second, and what one costs.

    python -m tests.bench.radius [--seconds 20] [--flight 128] [--sessions 4000] [--json]

*exchange*: the accounts process alone, asked for MS-CHAPv2 logins as a worker would ask, as
many in flight as given, so that FreeRADIUS sets the rate. *whole*: real PPTP clients (ours), each
with TCP, GRE, LCP, MS-CHAPv2, MPPE, address, route and accounting, log in by a concentrator as fast
as they can for the same time. Needs root and FreeRADIUS; all in namespaces of its own.
"""

from __future__ import annotations

import argparse
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from ops import status_page
from ops.settings import (
    Accounts,
    Limits,
    Listen,
    Metrics,
    Pool,
    Ppp,
    Radius,
    RadiusServer,
    Server,
    Settings,
    Workers,
)
from tests.bench.results import Result, arguments, cannot
from tests.netns.accounts import accounts_process
from tests.netns.freeradius import SECRET, FreeRadius
from tests.netns.spaces import ROOT, Keeper, Space, join
from workers.ppp.chap import respond_v2
from workers.radius import wire

TICK: Final = os.sysconf("SC_CLK_TCK")
USERS: Final = 'DEFAULT Cleartext-Password := "secret"\n\tClass = "bench"\n'
CHALLENGE: Final = bytes(range(16))


def cpu(pid: int) -> float:
    """CPU seconds of a process and its dead children."""
    try:
        words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(words[11]) + int(words[12])) / TICK


def inside(space: Space, name: str) -> int:
    """The process of that command name in the namespace."""
    done = subprocess.run(
        ["ip", "netns", "pids", space.name], capture_output=True, text=True, check=True
    )
    for word in done.stdout.split():
        if Path(f"/proc/{word}/comm").read_text().strip() == name:
            return int(word)
    raise SystemExit(f"no {name} in {space.name}")


def settings(state: Path) -> Settings:
    server = RadiusServer("127.0.0.1", SECRET, message_authenticator="require")
    return Settings(
        server=Server(state_dir=str(state)),
        listen=Listen(address="192.0.2.2"),
        workers=Workers(count=2),
        pools=(Pool("default", ("10.99.0.0/18",)),),
        accounts=Accounts(),
        ppp=Ppp(auth=("mschapv2",)),
        limits=Limits(max_sessions=16384),
        metrics=Metrics(listen=""),
        radius=Radius(servers=(server,)),
    )


def exchange(space: Space, server: FreeRadius, conf: Settings, args: Any) -> dict[str, Any]:
    """Logins at the rate that FreeRADIUS serves."""
    response, _expected, _keys = respond_v2(CHALLENGE, bytes(16), "user1", "secret")
    radiusd = inside(space, "freeradius")
    with accounts_process(space, conf) as (pid, ours, status):
        waiting: dict[int, float] = {}
        times: list[float] = []
        results = {wire.ACCEPT: 0, wire.REJECT: 0, wire.NONE: 0}
        seq = 1 << 40
        before = cpu(pid), cpu(radiusd)
        began = time.monotonic()
        ends = began + args.seconds
        while (now := time.monotonic()) < ends or waiting:
            if now > ends + 10:
                break
            while len(waiting) < args.flight and now < ends:
                login = [seq, wire.LOGIN, 0, 1, "mschapv2", "user1", 1, CHALLENGE, response, b""]
                ours.send(wire.pack(login))
                waiting[seq] = time.monotonic()
                seq += 1
            select.select([ours], [], [], 0.5)
            while True:
                try:
                    said = wire.unpack(ours.recv(wire.DATAGRAM, socket.MSG_DONTWAIT))
                except BlockingIOError:
                    break
                if said[0] in waiting:
                    times.append(time.monotonic() - waiting.pop(said[0]))
                    results[said[1]] += 1
        took = time.monotonic() - began
        used = cpu(pid) - before[0], cpu(radiusd) - before[1]
        time.sleep(1.2)
        (line,) = (
            row for row in status_page.StatusPage(status).read()["servers"] if row["kind"] == "auth"
        )
    times.sort()
    count = len(times)
    return {
        "logins": count,
        "accepted": results[wire.ACCEPT],
        "refused": results[wire.REJECT],
        "unanswered": results[wire.NONE] + len(waiting),
        "again": line["retransmits"],
        "per_second": round(count / took),
        "p50_ms": round(1000 * times[count // 2], 1),
        "p99_ms": round(1000 * times[count * 99 // 100], 1),
        "accounts_us": round(1e6 * used[0] / count),
        "freeradius_us": round(1e6 * used[1] / count),
    }


def whole(
    pair: tuple[Space, Space], server: FreeRadius, conf: Settings, args: Any
) -> dict[str, Any]:
    """Sessions of our client, by a concentrator with accounting."""
    keeper = Keeper(pair[1], conf, module="dispatcher.keeper").ready()
    children = keeper.children()
    words = ["-m", "ops.client", "--server", "192.0.2.2", "--user", "user1", "--json"]
    words += ["--password-file", "/dev/stdin", "--count", str(args.sessions)]
    before = {name: cpu(pid) for name, pid in children.items()}
    client = subprocess.Popen(
        pair[0].argv(sys.executable, *words),
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        cwd=ROOT,
        text=True,
    )
    try:
        assert client.stdin is not None
        client.stdin.write("secret\n")
        client.stdin.close()
        while keeper.text.count("session up") < 1:
            time.sleep(0.01)
        began = time.monotonic()
        until = began + args.seconds
        while keeper.text.count("session up") < args.sessions and time.monotonic() < until:
            time.sleep(0.05)
        took = time.monotonic() - began
        count = keeper.text.count("session up")
        used: dict[str, float] = {}
        for name, pid in children.items():
            role = name.partition(":")[0]
            used[role] = used.get(role, 0.0) + cpu(pid) - before[name]
    finally:
        billed = [r["Acct-Session-Id"] for r in server.records("Start")]
        client.send_signal(signal.SIGTERM)
        client.wait(120)
        text = keeper.text
        keeper.stop()
    return {
        "sessions": count,
        "refused": text.count("login refused"),
        "unanswered": text.count("login without an answer"),
        "starts_taken": len(billed),
        "starts_twice": len(billed) - len(set(billed)),
        "per_second": round(count / took),
        **{f"{role}_us": round(1e6 * seconds / max(1, count)) for role, seconds in used.items()},
    }


def main() -> int:
    """Both parts."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--flight", type=int, default=128)
    parser.add_argument("--sessions", type=int, default=4000)
    args = arguments("radius", parser)
    lacking = "" if os.geteuid() == 0 else "needs root for network namespaces"
    if shutil.which("freeradius") is None:
        lacking = lacking or "freeradius is missing: apt-get install freeradius"
    if lacking:
        return cannot("radius", lacking)
    pair = Space(), Space()
    try:
        join(*pair, "192.0.2")
        with tempfile.TemporaryDirectory(prefix="pptpcon-radius-") as name:
            folder = Path(name)
            folder.chmod(0o755)
            conf = settings(folder / "state")
            (folder / "state").mkdir()
            os.chown(folder / "state", 65534, 65534)
            server = FreeRadius(pair[1], folder / "radius", USERS)
            try:
                found = {"exchange": exchange(pair[1], server, conf, args)}
                if args.sessions:
                    other = replace(conf, server=Server(state_dir=str(folder / "whole")))
                    found["whole"] = whole(pair, server, other, args)
            finally:
                server.kill()
    finally:
        for space in pair:
            space.remove()
    result = Result("radius")
    for part, figures in found.items():
        result.figure(part, **figures)
    result.ratio("exchange: unanswered", found["exchange"]["unanswered"], at_most=0)
    return result.finish(as_json=args.json)


if __name__ == "__main__":
    sys.exit(main())
