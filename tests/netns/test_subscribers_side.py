"""lan.netns: two instances on one host, whose subscribers have the same addresses."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from ops.settings import Accounts, Lan, Limits, Listen, Metrics, Server, Settings, Workers
from tests.netns.spaces import ROOT, Keeper, Space, join, wait_for

pytestmark = pytest.mark.netns

PASSWORD = "correct horse"
BEHIND = {"one": "203.0.113.7", "two": "203.0.113.8"}


def conf(side: str, address: str) -> Settings:
    return Settings(
        # Not below pytest's folders: the workers' user may not go there.
        server=Server(run_dir=f"/run/pptpcon-{side}", state_dir=f"/run/pptpcon-{side}-state"),
        listen=Listen(address=address),
        workers=Workers(count=2),
        limits=Limits(max_sessions=64),
        accounts=Accounts(users=(("demo", PASSWORD),)),
        metrics=Metrics(listen=""),
        lan=Lan(netns=side, isolate=True),
    )


def answers(client: Space, host: str) -> bool:
    words = client.argv("ping", "-c", "1", "-W", "1", host)
    return subprocess.run(words, capture_output=True, check=False).returncode == 0


def left(side: Space) -> list[str]:
    """Of a concentrator, on the subscribers' side."""
    links = [link["ifname"] for link in json.loads(side.sh("ip -j link"))]
    routes = [r["dst"] for r in side.routes() if r.get("protocol") == "201"]
    tables = side.sh("nft list tables").splitlines()
    return [name for name in links if name.startswith("pptp")] + routes + tables


def test_two_domains_have_the_same_addresses(
    make_space: Callable[[], Space], start_keeper: Callable[..., Keeper], tmp_path: Path
) -> None:
    outer = make_space()
    password = tmp_path / "password"
    password.write_text(PASSWORD + "\n")
    clients, sides, keepers, programs = {}, {}, {}, []
    for number, (name, host) in enumerate(BEHIND.items(), 1):
        sides[name], clients[name] = make_space(), make_space()
        join(outer, clients[name], f"198.18.{number}")
        sides[name].sh(f"ip addr add {host}/32 dev lo")
    settings = {
        name: conf(sides[name].name, f"198.18.{number}.1") for number, name in enumerate(BEHIND, 1)
    }
    try:
        for name in BEHIND:
            keepers[name] = start_keeper(outer, settings[name], module="dispatcher.keeper")
            keepers[name].heard("keeper: ready", 40)
        for number, name in enumerate(BEHIND, 1):
            words = ["--server", f"198.18.{number}.1", "--user", "demo"]
            words += ["--password-file", str(password), "--route", "203.0.113.0/24"]
            argv = clients[name].argv(sys.executable, "-m", "ops.client", *words)
            programs.append(subprocess.Popen(argv, cwd=ROOT, stdout=subprocess.DEVNULL))
        for name, host in BEHIND.items():
            wait_for(partial(answers, clients[name], host), 30)
        inner = {
            name: {r["dst"] for r in sides[name].routes() if "pptp" in r.get("dev", "")}
            for name in BEHIND
        }
        assert inner["one"] & inner["two"], inner  # the same subscriber's address on both sides
        assert not answers(clients["one"], BEHIND["two"])
        assert not answers(clients["two"], BEHIND["one"])
        assert not [link for link in outer.ours() if "pptp" in link and "table" not in link]
    finally:
        for program in programs:
            program.terminate()
            program.wait(20)
    keepers["one"].kill_all()
    again = start_keeper(outer, settings["one"], module="dispatcher.keeper")
    again.heard("keeper: ready", 40)
    assert again.stop() == 0
    assert keepers["two"].stop() == 0
    assert [left(side) for side in sides.values()] == [[], []]
    for each in settings.values():
        assert not Path(each.server.run_dir).exists()
        shutil.rmtree(each.server.state_dir, ignore_errors=True)


def test_a_namespace_that_is_not_there(space: Space, start_keeper: Callable[..., Keeper]) -> None:
    settings = conf("nowhere-7", "0.0.0.0")
    keeper = start_keeper(space, settings, module="dispatcher.keeper")
    assert keeper.process.wait(30) == 69
    assert "run `ip netns add nowhere-7`" in keeper.text


def test_a_file_that_is_no_namespace(space: Space, start_keeper: Callable[..., Keeper]) -> None:
    settings = replace(conf("nowhere-7", "0.0.0.0"), lan=Lan(netns="/etc/hostname"))
    keeper = start_keeper(space, settings, module="dispatcher.keeper")
    assert keeper.process.wait(30) == 69
    assert "/etc/hostname is no network namespace" in keeper.text
    assert "CAP_SYS_ADMIN" not in keeper.text


def test_its_name_goes_away(
    make_space: Callable[[], Space], start_keeper: Callable[..., Keeper]
) -> None:
    """The keeper holds the namespace itself: netops comes back in it; the next start tells."""
    outer, side = make_space(), make_space()
    settings = conf(side.name, "0.0.0.0")
    keeper = start_keeper(outer, settings, module="dispatcher.keeper").heard("keeper: ready", 40)
    held = os.open(f"/run/netns/{side.name}", os.O_RDONLY)
    try:
        subprocess.run(["ip", "netns", "delete", side.name], check=True)
        netops = next(pid for name, pid in keeper.children().items() if "netops" in name)
        os.kill(netops, signal.SIGKILL)
        keeper.heard("process replaced name=netops", 30)
        assert keeper.process.poll() is None
        assert keeper.stop() == 0
        again = start_keeper(outer, settings, module="dispatcher.keeper")
        assert again.process.wait(30) == 69
        assert f"run `ip netns add {side.name}`" in again.text
    finally:
        os.close(held)
        shutil.rmtree(settings.server.state_dir, ignore_errors=True)
        subprocess.run(["ip", "netns", "add", side.name], check=True)  # for the fixture to remove
