"""The drawing of 1999 with a real client: an address outside of the LAN's subnet, a firewall
that lets TCP 1723 and protocol 47 in and nothing else, no ARP entry made by hand, an ip-up
script with its fifth argument, and last(1)."""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path

import pytest

from tests.interop import lab
from tests.interop.lab import Client, Concentrator, Topology

pytestmark = [pytest.mark.interop, pytest.mark.timeout(240)]

POOL = "192.168.5.12-192.168.5.99"
FIREWALL = """
table inet wall {
    chain in {
        type filter hook input priority 0; policy drop;
        iifname { "lo", "lan" } accept
        tcp dport 1723 accept
        ip protocol 47 accept
        ct state established,related accept
        iifname "pptp*" accept
    }
}
"""
SCRIPT = """#!/bin/sh
echo "$0 $1 $4 $5 $6 $PEERNAME $IPREMOTE $CONNECT_TIME $BYTES_RCVD" >> "{out}"
"""


def configuration(folder: Path) -> Path:
    """The TOML, with hooks and files of logins in `folder`."""
    out = folder / "hooks.txt"
    out.touch()
    for name in ("ip-up", "ip-down"):
        script = folder / name
        script.write_text(SCRIPT.format(out=out))
        script.chmod(0o755)
    for name in ("utmp", "wtmp"):
        (folder / name).touch()
    file = folder / "pptpcon.toml"
    file.write_text(f"""
[server]
name = "lab"
user = "root"
state_dir = "{folder}/state"
[ip]
local = "192.168.5.11"
[pools.default]
ranges = ["{POOL}"]
[accounts.users]
user = "secret"
[lan]
proxy = "on"
interface = "lan"
[hooks]
ip_up = "{folder}/ip-up"
ip_down = "{folder}/ip-down"
user = "root"
[records]
history_days = 30
utmp = "{folder}/utmp"
wtmp = "{folder}/wtmp"
""")
    return file


def entries(topology: Topology) -> list[str]:
    """Proxy entries of the server."""
    text = topology.run("s", "ip", "-j", "neigh", "show", "proxy")
    return [f"{entry['dst']} {entry['dev']}" for entry in json.loads(text or "[]")]


def last(folder: Path) -> list[str]:
    """What last(1) shows."""
    words = ["last", "-w", "-f", str(folder / "wtmp")]
    text = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    return [line for line in text.splitlines() if line and not line.startswith("wtmp begins")]


def wait_for(what: object, seconds: float = 20) -> None:
    """Until it is true."""
    assert callable(what)
    until = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < until, what
        time.sleep(0.1)


def test_the_drawing(topology: Topology, concentrator: Concentrator, tmp_path: Path) -> None:
    # The host takes the clients' network for its own, as any host with a wider netmask does.
    topology.run("l", "ip", "route", "del", "default")
    (link,) = [
        x
        for x in json.loads(topology.run("l", "ip", "-j", "addr"))
        if any(a["local"] == lab.LAN_HOST for a in x["addr_info"])
    ]
    topology.run("l", "ip", "route", "add", "192.168.5.0/24", "dev", link["ifname"])
    wall = tmp_path / "wall.nft"
    wall.write_text(FIREWALL)
    topology.run("s", "nft", "-f", str(wall))
    config = configuration(tmp_path)
    concentrator.start(config=config)
    client = Client(topology, "--checks", "ping", "--hold", "6", log=tmp_path / "c.log")
    concentrator.wait_sessions(1, timeout=120)
    wait_for(lambda: entries(topology) == ["192.168.5.12 lan"])
    who = subprocess.run(
        ["who", str(tmp_path / "utmp")], capture_output=True, text=True, check=True
    )
    assert who.stdout.startswith("user "), who.stdout
    assert lab.failures(client.result()) == [], concentrator.tail()
    wait_for(lambda: entries(topology) == [])
    concentrator.wait_for("proxy ARP interface=lan")
    (up, down) = [x.split() for x in (tmp_path / "hooks.txt").read_text().splitlines()]
    assert up[0].endswith("/ip-up") and up[2:4] == ["192.168.5.11", "192.168.5.12"]
    assert down[0].endswith("/ip-down") and down[1:4] == up[1:4]
    assert up[5:] == ["user", "192.168.5.12"] and int(down[8]) > 0 < int(down[7])
    wait_for(lambda: "still" not in (last(tmp_path) or ["still"])[0])

    # and once more: nobody gets to tidy up
    client = Client(topology, "--hold", "60", log=tmp_path / "d.log")
    concentrator.wait_sessions(1, timeout=120)
    wait_for(lambda: any("still" in line or "gone" in line for line in last(tmp_path)))
    assert len(entries(topology)) == 1
    concentrator.kill()
    concentrator.start(config=config)
    assert entries(topology) == []
    client.stop()
    lines = last(tmp_path)
    assert len(lines) == 2 and all("still" not in line and "gone" not in line for line in lines)
    who = subprocess.run(
        ["who", str(tmp_path / "utmp")], capture_output=True, text=True, check=True
    )
    assert who.stdout == ""
    rows = concentrator.json("history", "user", "-c", str(config))["sessions"]
    assert [row["cause"] for row in rows] == ["crash", "user_request"]
    assert rows[1]["input_octets"] > 0 and rows[1]["address"] == "192.168.5.12"
    concentrator.stop()
