"""[hooks] with real processes: all five, in order, what hangs, what fails, a worker's death."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ops.settings import Accounts, Hooks, Lan, Records, Server, Settings
from tests.netns.spaces import ROOT, Keeper, Space, kill, wait_for
from tests.netns.test_radius import client, page, shown
from tests.netns.test_worker import CONF, worker_pids

pytestmark = pytest.mark.netns

NAMES = ("ip_up", "ip_down", "ip_change", "auth_up", "auth_down")
SCRIPT = """#!/bin/sh
echo "$(basename "$0") $1 $5 $PEERNAME ${{BYTES_RCVD:-0}}" >> {out}
case "$PEERNAME" in
    slow) sleep 60 ;;
    bad) echo "no such tariff" >&2; exit 3 ;;
esac
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that the hooks' user may write to."""
    with tempfile.TemporaryDirectory(prefix="pptpcon-hooks-") as name:
        os.chmod(name, 0o777)  # noqa: S103
        yield Path(name)


def conf(folder: Path) -> Settings:
    words: dict[str, Any] = {"radattr": str(folder / "radattr"), "timeout_s": 1.0}
    for name in NAMES:
        program = folder / name
        program.write_text(SCRIPT.format(out=folder / "said"))
        program.chmod(0o755)
        words[name] = str(program)
    return replace(
        CONF,
        server=Server(state_dir=str(folder / "state")),
        accounts=Accounts(users=tuple((name, "wonder") for name in ("anna", "slow", "bad"))),
        hooks=Hooks(**words),
        records=Records(history_days=9),
        lan=Lan(),
    )


def operate(space: Space, *words: str) -> str:
    argv = space.argv(sys.executable, "-m", "ops", *words)
    done = subprocess.run(argv, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_all_of_them(
    pair: tuple[Space, Space], start_keeper: Callable[..., Keeper], folder: Path
) -> None:
    outside, host = pair
    keeper = start_keeper(host, conf(folder), module="dispatcher.keeper").ready()

    def said(user: str) -> list[list[str]]:
        file = folder / "said"
        lines = file.read_text().splitlines() if file.exists() else []
        return [words for line in lines if (words := line.split())[3:4] == [user]]

    def hooks_of(user: str) -> list[str]:
        return [words[0] for words in said(user)]

    with client(outside, "anna", "wonder"):
        wait_for(lambda: hooks_of("anna") == ["auth_up", "ip_up"], 20)
        _, name, address, *_ = said("anna")[1]
        file = folder / f"radattr.{name}"
        wait_for(file.exists)
        operate(host, "set-rate", "username", "anna", "10M/2M")
        wait_for(lambda: "ip_change" in hooks_of("anna"))
        assert (folder / f"radattr.{name}_old").exists()
        outside.sh("ping -c 5 -i 0.2 -s 1000 10.99.0.1")
        for pid in worker_pids(keeper):
            kill(pid)
        wait_for(lambda: keeper.text.count("worker said Hello") >= 2 * len(worker_pids(keeper)) > 0)
        outside.sh("ping -c 5 -i 0.2 -s 1000 -W 3 10.99.0.1")
    wait_for(lambda: hooks_of("anna")[-1] == "auth_down", 20)
    assert hooks_of("anna") == ["auth_up", "ip_up", "ip_change", "ip_down", "auth_down"]
    down = said("anna")[3]
    assert down[1:3] == [name, address] and int(down[4]) >= 10 * 1028
    wait_for(lambda: not file.exists())
    file = folder / "pptpcon.toml"
    file.write_text(f'[server]\nstate_dir = "{folder}/state"\n[records]\nhistory_days = 9\n')
    history = ("history", "-c", str(file), "anna", "--json")
    wait_for(lambda: len(json.loads(operate(host, *history))) == 1)

    # One that hangs holds up its own session's programs and nothing else.
    with client(outside, "slow", "wonder"):
        wait_for(
            lambda: outside.sh("ping -c 1 -W 1 10.99.0.1 || true").count(" 0% packet loss"), 20
        )
        keeper.heard("result=timeout", 20)
    with client(outside, "bad", "wonder"):
        keeper.heard("no such tariff", 20)
        wait_for(lambda: "auth_up:failed" in shown(host, "hooks", "--json"))  # told each second
        found = json.loads(shown(host, "hooks", "--json"))
        assert found["results"]["auth_up:timeout"] >= 1, found
        assert "no such tariff" in {failure["line"] for failure in found["failures"]}
        assert "exit=3" in keeper.text
        metrics = page(host, "/metrics").decode()
        assert 'pptp_hooks_total{hook="auth_up",result="failed"} 1.0' in metrics
    wait_for(lambda: hooks_of("bad")[-1] == "auth_down", 20)
    assert keeper.stop() == 0
