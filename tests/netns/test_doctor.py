"""`pptpcon doctor` in a namespace: it finds what is wrong, and its words mend it."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.netns import rough
from tests.netns.rough import LOCAL, SERVER, StartKeeper, client, ping
from tests.netns.spaces import ROOT, Space

pytestmark = [pytest.mark.netns, pytest.mark.timeout(120)]

DROPS = (
    "nft add table inet filter;"
    "nft 'add chain inet filter input { type filter hook input priority 0; policy drop; }';"
    "nft 'add chain inet filter forward { type filter hook forward priority 0; policy drop; }';"
    "nft add rule inet filter input ct state established accept;"
    "nft add rule inet filter input iifname lo accept"
)


def doctor(space: Space, *words: str) -> tuple[int, str]:
    done = subprocess.run(
        space.argv(sys.executable, "-m", "ops", "doctor", *words),
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
    assert "Traceback" not in done.stderr
    return done.returncode, done.stdout


def findings(space: Space, *words: str) -> list[dict[str, Any]]:
    _, text = doctor(space, "--json", *words)
    found: list[dict[str, Any]] = json.loads(text)["findings"]
    return found


def test_a_firewall_in_the_way(pair: tuple[Space, Space], start_keeper: StartKeeper) -> None:
    """TCP is dropped: said, with the command that lets it in; `--nft` tells all of them."""
    near, server = pair
    server.sh(DROPS)
    (tcp,) = [f for f in findings(server) if "TCP to port 1723" in f["what"]]
    assert (tcp["level"], tcp["check"]) == ("error", "firewall")
    assert doctor(server)[0] == 2
    _, commands = doctor(server, "--nft")
    server.sh(commands)
    # What is commented out has to be right as well.
    server.sh(commands.replace("#nft", "nft"))
    wrong = [f for f in findings(server) if f["check"] == "firewall" and f["level"] != "note"]
    assert wrong == []
    keeper = start_keeper(server, rough.settings("raw"), module="dispatcher.keeper")
    keeper.heard("keeper: ready", 30)
    with client(near) as one:
        assert " 0% packet loss" in ping(server, LOCAL, one.address)
        running = [f for f in findings(server) if f["where"] == "TCP port 1723"]
        assert [f["level"] for f in running] == ["note"]
        assert "pptpcon is running" in running[0]["what"]
    assert keeper.stop() == 0


def test_somebody_else_on_the_port(space: Space) -> None:
    with space.inside(), socket.create_server(("127.0.0.1", 1723)):
        taken = [f for f in findings(space) if f["where"] == "TCP port 1723"]
    assert [f["level"] for f in taken] == ["error"]
    assert "kill" in taken[0]["mend"]


def test_what_raw_sockets_are_for(pair: tuple[Space, Space]) -> None:
    server = pair[1]
    server.sh(
        "nft add table ip t; nft 'add chain ip t c { type filter hook output priority 0; }';"
        "nft add rule ip t c ip protocol gre ip daddr 203.0.113.0/24 drop;"
        "ip rule add from 192.0.2.9 table 77; ip route add default via 192.0.2.1;"
        "ip xfrm policy add dir out src 10.1.0.0/16 dst 10.2.0.0/16"
        " tmpl src 192.0.2.2 dst 192.0.2.9 proto esp mode tunnel"
    )
    told = {f["where"]: f["level"] for f in findings(server)}
    for where in ("nft chain ip t c handle 2", "ip rule", "ip xfrm policy"):
        assert told[where] == "note"
    told = {f["where"]: f["level"] for f in findings(server, "--set", "gre.send=packet")}
    assert told["nft chain ip t c handle 2"] == "warning"
    assert told["ip xfrm policy"] == "error"


def test_a_short_uplink(pair: tuple[Space, Space]) -> None:
    server = pair[1]
    (device,) = [d for d in server.sh("ls /sys/class/net").split() if d.startswith("veth")]
    server.sh(f"ip link set {device} mtu 1400; ip route add default via 192.0.2.1")
    (mtu,) = [f for f in findings(server) if f["where"] == f"device {device}"]
    assert mtu["mend"] == "set ppp.mtu = 1356"
    assert not [f for f in findings(server, "--set", "ppp.mtu=1356") if f["where"] == mtu["where"]]
    assert SERVER in server.sh("ip -4 addr")


def test_the_subscribers_side_is_looked_at_where_it_is(
    make_space: Callable[[], Space], tmp_path: Path
) -> None:
    outer, side = make_space(), make_space()
    outer.sh("sysctl -qw net.ipv4.ip_forward=1")
    side.sh("sysctl -qw net.ipv4.ip_forward=0")
    file = tmp_path / "pptpcon.toml"
    file.write_text(f'[lan]\nnetns = "{side.name}"\n')
    told = {(f["check"], f["where"]) for f in findings(outer, "-c", str(file))}
    assert ("forwarding", "net.ipv4.ip_forward") in told
    side.sh("sysctl -qw net.ipv4.ip_forward=1")
    outer.sh("sysctl -qw net.ipv4.ip_forward=0")
    assert "forwarding" not in {f["check"] for f in findings(outer, "-c", str(file))}
    file.write_text('[lan]\nnetns = "nowhere-7"\n')
    told = {(f["check"], f["where"]) for f in findings(outer, "-c", str(file))}
    assert ("lan", "lan.netns") in told
    assert "forwarding" not in {check for check, _ in told}
