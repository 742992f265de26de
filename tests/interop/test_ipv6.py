"""IPv6 of real clients: pppd has an address by router advertisement, dhcp6c (WIDE) another and a
prefix by DHCPv6, and all reach a host behind the concentrator; so do networks behind them."""

from __future__ import annotations

import os
import signal
import time
from ipaddress import IPv6Network
from pathlib import Path
from typing import Any

import pytest

from tests.interop import lab
from tests.interop.lab import Client, Concentrator, Topology

pytestmark = [pytest.mark.interop, pytest.mark.timeout(180)]

HOST4, HOST6 = "198.19.0.10", "2001:db8:19::10"
LINKS, DELEGATED = "2001:db8:100::/40", "2001:db8:200::/40"
CONFIG = f"""
[server]
name = "lab"
[workers]
count = 2
[ip]
local = "198.19.128.1"
[ipv6]
ipv6cp = "on"
pool = "links"
delegated_pool = "homes"
address_pool = "single"
dns = ["2001:db8:19::53"]
search = ["example.net"]
[[ipv6.pools]]
name = "links"
prefixes = ["{LINKS}"]
[[ipv6.pools]]
name = "homes"
prefixes = ["{DELEGATED}"]
length = 56
[[ipv6.pools]]
name = "single"
prefixes = ["2001:db8:300::/64"]
length = 128
[pools.default]
ranges = ["198.19.129.1-198.19.131.254"]
[accounts.users]
user = "secret"
[[accounts.rules]]
match = "user"
routes = ["10.77.0.0/24", "2001:db8:77::/48"]
"""
# What a home router would have in its configuration: the prefix is for the inner interface.
DHCP6C = r"""
interface ppp0 {
  send ia-pd 0;
  send ia-na 0;
  request domain-name-servers;
  request domain-name;
  script "/run/dhcp6c-script";
};
id-assoc na 0 { };
id-assoc pd 0 {
  prefix-interface $home { sla-id 1; sla-len 8; };
};
"""
UNTIL = "for i in $(seq 60); do {0} && exit 0; sleep 0.5; done; exit 1"
GLOBAL = "ip -6 -o addr show dev {0} scope global -tentative | grep -o '{1}[^/]*'"
PING = f"ping -q -c 3 -i 0.3 -W 5 -I $({{0}}) {HOST6}"


def commands() -> list[str]:
    """In the guest, one after the other."""
    by_ra = GLOBAL.format("ppp0", "2001:db8:1")
    by_dhcp = GLOBAL.format("$(cat /run/home)", "2001:db8:2")
    by_na = GLOBAL.format("ppp0", "2001:db8:3")
    script = 'printf "#!/bin/sh\\nenv >/run/dhcp6c-env\\n" >/run/dhcp6c-script'
    # Its other interface is the home's; the here-document names it.
    home = "home=$(ls /sys/class/net | grep -v -e '^lo' -e '^ppp' -e '^sit' | head -n 1)"
    conf = f"{home}; echo $home >/run/home; cat >/run/dhcp6c.conf <<END{DHCP6C}END"
    dhcp6c = "dhcp6c -f -D -c /run/dhcp6c.conf ppp0 >/run/dhcp6c.log 2>&1 &"
    return [
        UNTIL.format(by_ra),
        "ip -6 route show default dev ppp0 | grep -q 'via fe80::1 .*proto ra'",
        PING.format(by_ra),
        "ping -q -c 2 -W 5 fe80::1%ppp0",
        f"{script}; chmod 755 /run/dhcp6c-script; {conf}\n{dhcp6c}",
        UNTIL.format(by_dhcp),
        PING.format(by_dhcp),
        UNTIL.format(by_na),
        PING.format(by_na),
        "cat /run/dhcp6c-env",
        "cat /run/dhcp6c.log",
        "ip addr add 10.77.0.1/32 dev lo && ip -6 addr add 2001:db8:77::1/128 dev lo",
        f"ping -q -c 3 -i 0.3 -W 5 -I 10.77.0.1 {HOST4}",
        PING.format("echo 2001:db8:77::1"),
        f"ping -q -c 2 -W 2 -I 198.18.1.1 {HOST4} && exit 1 || exit 0",  # spoofed
        "sleep 5",  # the worker is killed meanwhile
        PING.format(by_dhcp),
        PING.format(by_ra),
        PING.format("echo 2001:db8:77::1"),
    ]


def lease(concentrator: Concentrator, client: Client, sid: str) -> dict[str, Any]:
    """The session, once DHCPv6 has delegated its prefix."""
    for _ in range(240):
        found: list[dict[str, Any]] = concentrator.json("show", "session", sid)["sessions"]
        assert client.process.poll() is None, client.result()
        if found and found[0].get("dhcpv6"):
            return found[0]
        time.sleep(0.25)
    raise AssertionError(f"no lease: {concentrator.tail()}")


def test_addresses_prefixes_and_routes(
    topology: Topology, concentrator: Concentrator, tmp_path: Path
) -> None:
    config = tmp_path / "pptpcon.toml"
    config.write_text(CONFIG)
    concentrator.start(config=config)
    options = ["--ipv6", "--checks", "ping"]
    for command in commands():
        options += ["--command", command]
    client = Client(topology, *options, log=tmp_path / "c.log")
    (row,) = concentrator.wait_sessions(1)
    session = lease(concentrator, client, row["sid"])
    kept = {lease["kind"]: lease["lease"] for lease in session["dhcpv6"]}
    assert IPv6Network(kept["IA_PD"]).prefixlen == 56
    assert kept["IA_NA"] == session["address6"] == "2001:db8:300::1/128"
    assert IPv6Network(session["prefix6"]).subnet_of(IPv6Network(LINKS))
    assert IPv6Network(session["delegated6"]).subnet_of(IPv6Network(DELEGATED))
    assert set(session["networks"]) >= {"10.77.0.0/24", "2001:db8:77::/48"}
    pools = {pool["pool"]: pool["used"] for pool in concentrator.json("show", "ippool")}
    assert pools["links"] == pools["homes"] == pools["single"] == 1
    worker = next(w for w in concentrator.workers() if w["worker"] == session["worker"])
    os.kill(worker["pid"], signal.SIGKILL)
    result = client.result()
    assert lab.failures(result) == [], concentrator.tail()
    told = next(c["output"] for c in result["commands"] if c["command"].startswith("cat /run"))
    assert "new_domain_name_servers=2001:db8:19::53" in told
    assert "example.net" in told
    left = topology.run("s", "ip", "-6", "route") + topology.run("s", "ip", "route")
    assert "10.77." not in left and "2001:db8:77:" not in left
    concentrator.stop()
    assert "2001:db8:100::/40" not in topology.run("s", "ip", "-6", "route")
