"""`pptpcon bench`: a small run of each profile, everything real, nothing left behind."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from ops.client import netns
from ops.client.concentrator import Concentrator
from ops.client.playground import LAN_HOST, PREFIX, WAN_SERVER, Playground, why_not

pytestmark = [pytest.mark.netns, pytest.mark.timeout(120)]

ROOT = Path(__file__).resolve().parents[2]
BENCH = (sys.executable, "-m", "ops", "bench")


@pytest.fixture(autouse=True)
def able() -> None:
    """Root and TUN, or a reason: in CI a failure, elsewhere a skip."""
    lacking = why_not()
    if lacking and os.environ.get("CI") == "true":
        pytest.fail(lacking)
    if lacking:
        pytest.skip(lacking)


def bench(*words: str) -> dict[str, Any]:
    done = subprocess.run(
        [*BENCH, *words, "--json"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    assert result["passed"]
    return result


def test_numbered_by_two_processes_is_accounted_for_to_the_last() -> None:
    s = bench("--profile", "numbered", "--sessions", "7", "--processes", "2", "--seconds", "1.5")
    assert s["up"] == 7
    for way in ("up", "down"):
        assert s["udp"][way]["sent"] == s["udp"][way]["received"] > 1000
        assert s["account"][way]["unexplained"] == [0, 0]
        assert s["account"][way]["concentrator"] == s["udp"][way]["sent"]
    assert s["server"]["drops"] == {}


def test_imix() -> None:
    s = bench("--sessions", "6", "--seconds", "1.5", "--rate", "3000")
    assert s["udp"]["down"]["received"] > 1000
    assert s["tcp"]["answers"] > 200
    assert s["udp"]["refused"] == s["udp"]["misrouted"] == 0


def test_bulk_without_mppe() -> None:
    s = bench("--profile", "bulk", "--sessions", "2", "--seconds", "1", "--mppe", "deny")
    assert min(s["tcp"]["mbit_up"], s["tcp"]["mbit_down"]) > 1
    assert s["server"]["cpu_seconds"]["worker data"] > 0


def test_storm_by_two_processes() -> None:
    s = bench("--profile", "storm", "--sessions", "40", "--processes", "2")
    assert s["setup"]["up"] == 40
    assert s["setup"]["failed"] == {}
    assert 0 < s["setup"]["latency_ms"]["p50"] <= s["setup"]["latency_ms"]["max"]
    assert s["server"]["us_per_login"]["worker control"] > 0


def test_interrupted_it_leaves_nothing() -> None:
    before = {p.name for p in Path("/run").glob(f"{PREFIX}*")}
    with subprocess.Popen([*BENCH, "--seconds", "60"], cwd=ROOT, stdout=subprocess.PIPE) as run:
        assert run.stdout is not None
        while b"imix" not in run.stdout.readline():
            pass
        mine = {p.name for p in Path("/run").glob(f"{PREFIX}*")} - before
        run.send_signal(signal.SIGINT)
        assert run.wait(30) == 128 + signal.SIGINT
    tokens = [name.removeprefix(PREFIX) for name in mine]
    left = [n for n in os.listdir(netns.FOLDER) if any(t in n for t in tokens)]
    # Others' playgrounds may have come and gone beside ours.
    assert not [n for n in left if not _lives(n)]


def _lives(name: str) -> bool:
    until = time.monotonic() + 5
    while time.monotonic() < until and netns.exists(name):
        if netns.processes(name):
            return True
        time.sleep(0.1)
    return netns.exists(name)


def test_a_server_that_was_there_before(tmp_path: Path) -> None:
    """With a far end of its own, from the clients' namespace; and from the server's own host."""
    password = tmp_path / "password"
    password.write_text("secret\n")
    peer = f"{LAN_HOST}:7010"
    with Playground() as ground:
        concentrator = Concentrator(ground, {"u": "secret"})
        concentrator.start()
        ground.start("lan", "far", [*BENCH, "--serve", peer])
        for place, *words in (
            ("clients", "--profile", "numbered", "--peer", peer, "--seconds", "0.5"),
            ("server", "--profile", "storm"),
        ):
            argv = ["ip", "netns", "exec", ground.name(place), *BENCH, "--server", WAN_SERVER]
            argv += ["--yes-i-own-this-network", "--user", "u", "--password-file", str(password)]
            argv += [*words, "--sessions", "3", "--json"]
            done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stdout + done.stderr
            summary = json.loads(done.stdout)
            assert summary["up"] == 3
            assert "server" not in summary
            if place == "clients":
                assert summary["udp"]["down"]["received"] == summary["udp"]["up"]["sent"] > 100


def test_a_server_that_is_not_there(tmp_path: Path) -> None:
    """On loopback, where nobody is asked; nobody listens on that port."""
    password = tmp_path / "password"
    password.write_text("secret\n")
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as taken:
        taken.bind(("127.0.0.1", 0))
        done = subprocess.run(
            [
                *(*BENCH, "--server", "127.0.0.1", "--port", str(taken.getsockname()[1])),
                *("--user", "u", "--password-file", str(password), "--profile", "storm"),
                *("--sessions", "2"),
            ],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 1
    assert "no session came up: connect_failed" in done.stderr
    assert "Traceback" not in done.stderr
