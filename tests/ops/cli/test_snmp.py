"""`pptpcon snmp` as snmpd speaks to it, without a socket; the MIB file."""

from __future__ import annotations

import itertools
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from ops.cli import mib
from ops.cli.control import ClientError
from ops.cli.mib import BASE
from ops.cli.snmp import Agent, by_url, oid_of, shown
from ops.console.usage import Usage
from ops.console.view import View
from tests.ops.console.rig import Shared, console, settings

ROOT = Path(__file__).parents[3]
ROOT_OID = shown(BASE)


def status() -> Any:
    shared = Shared()
    shared.up(0, "alice", "10.99.1.5")
    shared.count("ended_no_gre", 3)
    shared.count("ended_user_request", 4)
    shared.set_data(0, rx_data_bytes=1 << 40)
    view = View(shared.table, settings(), Usage())
    row = {
        "server": "one\nü", "for": "logins", "state": "dead 3 s", "pending": 1, "sent": 20,
        "accepted": 15, "rejected": 2, "lost": 1, "mean-ms-5m": 2.5,
    }  # fmt: skip
    return {**view.status(), "radius": {"servers": [row], "backlog": None}}


def said(*lines: str, fetch: Any = status) -> list[str]:
    agent = Agent(fetch, itertools.count().__next__)
    return "".join(agent.answers(f"{line}\n" for line in lines)).splitlines()


def test_get() -> None:
    assert said("PING") == ["PONG"]
    assert said("get", f"{ROOT_OID}.1.5.0") == [f"{ROOT_OID}.1.5.0", "gauge", "1"]
    assert said("get", f"{ROOT_OID}.1.19.0")[1:] == ["counter64", str(1 << 40)]
    assert said("get", f"{ROOT_OID}.1.2.0")[1:] == ["integer", "2"]  # no dispatcher: not ready
    assert said("get", f"{ROOT_OID}.1.13.0")[1:] == ["counter64", "3"]
    assert said("get", f"{ROOT_OID}.3.1.2.1")[1:] == ["string", "one??"]
    assert said("get", f"{ROOT_OID}.3.1.10.1")[1:] == ["gauge", "2500"]
    assert said("get", f"{ROOT_OID}.1.5") == ["NONE"]
    assert said("get", "nonsense") == ["NONE"]
    assert said("set", f"{ROOT_OID}.1.5.0", "integer 3", "PING") == ["not-writable", "PONG"]


def test_walk_is_in_order_and_ends() -> None:
    agent = Agent(status, itertools.repeat(0.0).__next__)
    at, seen = ROOT_OID, []
    while True:
        (answer,) = agent.answers(iter(["getnext\n", f"{at}\n"]))
        if answer == "NONE\n":
            break
        at = answer.splitlines()[0]
        seen.append(oid_of(at))
    assert len(seen) == len(mib.leaves(status()))
    assert seen == sorted(seen)  # type: ignore[type-var]


def test_not_running_is_none_and_found_again_later() -> None:
    runs = [False, True]

    def fetch() -> Any:
        if not runs.pop(0):
            raise ClientError("no such socket", 3)
        return status()

    clock = iter([0.0, 1.0, 6.0])
    agent = Agent(fetch, clock.__next__)
    asked = ["get\n", f"{ROOT_OID}.1.5.0\n"] * 3
    answers = list(agent.answers(asked))
    assert answers[:2] == ["NONE\n", "NONE\n"]
    assert answers[2].endswith("gauge\n1\n")


@given(
    st.lists(st.one_of(st.sampled_from(["get", "getnext", "set", "PING"]), st.text(max_size=30)))
)
def test_any_lines(lines: list[str]) -> None:
    cached = STATUS
    for answer in Agent(lambda: cached, itertools.repeat(0.0).__next__).answers(lines):
        assert answer.endswith("\n")


STATUS = status()


def test_the_command_itself_and_no_heavy_import() -> None:
    words = [sys.executable, "-X", "importtime", "-m", "ops", "snmp", "--run-dir", "/nowhere"]
    done = subprocess.run(
        words,
        input="PING\nget\n.1.3\n\n",
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=True,
        timeout=60,
    )
    assert done.stdout == "PONG\nNONE\n"
    for heavy in ("aiohttp", "pydantic", "prometheus_client", "zmq", "asyncio", "fastpath"):
        assert not re.search(rf"\| +{heavy}\b", done.stderr), heavy
    for bad in (["--base", "x"], ["--url", "ftp://x"]):
        refused = subprocess.run([*words, *bad], capture_output=True, cwd=ROOT, check=False)
        assert refused.returncode == 2


def test_over_tcp_without_any_right(tmp_path: Path) -> None:
    shared = Shared()
    shared.up(0, "alice", "10.99.1.5")
    with console(shared, tmp_path) as rig:
        fetch = by_url(f"http://127.0.0.1:{rig.port}")
        assert said("get", f"{ROOT_OID}.1.5.0", fetch=fetch)[1:] == ["gauge", "1"]
    assert said("get", f"{ROOT_OID}.1.5.0", fetch=fetch) == ["NONE"]


def test_the_mib_is_the_codes() -> None:
    text = (ROOT / "ops/data/PPTPCON-MIB.txt").read_text()
    assert text == mib.text(), "python -m ops.cli.mib > ops/data/PPTPCON-MIB.txt"
