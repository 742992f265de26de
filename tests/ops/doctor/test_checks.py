"""Each check on a host that is made up: what it finds, and the words that mend it."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dispatcher import ruleset
from ops.doctor import (
    buffers,
    devices,
    filtering,
    forwarding,
    ports,
    radius,
    resources,
    rings,
    routing,
    rules,
    tracking,
)
from ops.doctor.examine import CHECKS, Check, examine
from ops.doctor.finding import Finding
from ops.doctor.host import Host, Owner, Uplink
from ops.settings import (
    Gre,
    Ipv6,
    Limits,
    Listen,
    Pool6,
    Ppp,
    Radius,
    RadiusServer,
    Server,
    Settings,
)
from workers.radius.packets import Packet, response

NO_RULES: dict[str, list[dict[str, str]]] = {
    key: [] for key in ("receive", "send", "tcp", "forward", "unread")
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path


def made_up(root: Path, settings: Settings | None = None, **facts: Any) -> Host:
    """A host whose /proc is `root`, with these facts; no rules, one good uplink."""
    host = Host(settings or Settings(), proc=root, dev=root, root=True)
    given = {"filters": NO_RULES, "ipsec": False, "rules": 0}
    given["uplinks"] = [Uplink("eth0", 1500, False)]
    host.__dict__.update(given | facts)
    return host


def write(root: Path, name: str, text: str) -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def found(check: Check, host: Host) -> list[tuple[str, str, str]]:
    return [(f.level, f.where, f.mend) for f in check(host)]


def test_forwarding(root: Path) -> None:
    host = made_up(root)
    assert found(forwarding.look, host) == []
    write(root, "sys/net/ipv4/ip_forward", "0\n")
    assert found(forwarding.look, host) == [
        ("error", "net.ipv4.ip_forward", "sysctl -w net.ipv4.ip_forward=1")
    ]
    write(root, "sys/net/ipv4/ip_forward", "1\n")
    write(root, "sys/net/ipv4/conf/all/rp_filter", "0\n")
    write(root, "sys/net/ipv4/conf/eth1/rp_filter", "1\n")
    two = [Uplink("eth0", 1500, True), Uplink("eth1", 1500, True)]
    assert found(forwarding.uplinks, made_up(root, uplinks=two)) == [
        ("warning", "net.ipv4.conf.eth1.rp_filter", "sysctl -w net.ipv4.conf.eth1.rp_filter=2")
    ]


def test_forwarding_of_ipv6(root: Path) -> None:
    six = Ipv6(ipv6cp="on", pools=(Pool6("links", ("2001:db8::/40",)),))
    write(root, "sys/net/ipv6/conf/all/forwarding", "0\n")
    assert found(forwarding.look, made_up(root)) == []
    host = made_up(root, Settings(ipv6=six))
    key = "net.ipv6.conf.all.forwarding"
    assert found(forwarding.look, host) == [("error", key, f"sysctl -w {key}=1")]
    write(root, "sys/net/ipv6/conf/all/disable_ipv6", "1\n")
    key = "net.ipv6.conf.all.disable_ipv6"
    assert found(forwarding.look, host) == [("error", key, f"sysctl -w {key}=0")]


@pytest.mark.parametrize(
    ("facts", "send", "levels"),
    [
        ({}, "auto", []),
        ({"uplinks": []}, "auto", ["note"]),
        ({"uplinks": [Uplink("wan", 1430, False)]}, "auto", ["warning"]),
        ({"uplinks": [Uplink("a", 1500, True), Uplink("b", 1500, True)]}, "auto", ["note"]),
        ({"rules": 2}, "auto", ["note"]),
        ({"rules": 2}, "raw", []),
        ({"ipsec": True}, "auto", ["note"]),
        ({"ipsec": True}, "packet", ["error"]),
        ({"ipsec": True}, "raw", []),
    ],
)
def test_routing(root: Path, facts: dict[str, Any], send: Any, levels: list[str]) -> None:
    host = made_up(root, Settings(gre=Gre(send=send)), **facts)
    assert [level for level, _, _ in found(routing.look, host)] == levels


@pytest.mark.parametrize(
    ("gre", "facts", "expected"),
    [
        (Gre(), {"rings": "gre.interface is not set"}, [("note", "AF_XDP", "")]),
        (Gre(mode="raw"), {"rings": "x"}, []),
        (Gre(interface="a"), {"rings": "", "workers": 1}, []),
        (Gre(interface="a"), {"rings": "", "workers": 4}, []),
        (
            Gre(interface="a", send="xdp"),
            {"rings": "a is down", "workers": 4},
            [("warning", "AF_XDP", 'set gre.send = "auto"')],
        ),
        (Gre(interface="a", mode="xdp"), {"rings": "", "workers": 2}, []),
        (
            Gre(interface="a", mode="xdp"),
            {"rings": "several workers share a queue well since Linux 6.18", "workers": 2},
            [("warning", "AF_XDP", 'set gre.mode = "auto"')],
        ),
    ],
)
def test_rings(root: Path, gre: Gre, facts: dict[str, Any], expected: list[Any]) -> None:
    assert found(rings.look, made_up(root, Settings(gre=gre), **facts)) == expected


def test_rules_that_only_rings_pass_by(root: Path) -> None:
    remark = {"where": "nft chain netdev t c", "kind": "passed", "text": "drops it"}
    host = made_up(
        root,
        Settings(gre=Gre(interface="a", mode="xdp")),
        filters=NO_RULES | {"ring_receive": [remark]},
        rings="",
        workers=1,
    )
    assert found(rings.look, host) == [("warning", remark["where"], 'set gre.mode = "auto"')]


def test_the_mtu_that_fits_is_named(root: Path) -> None:
    host = made_up(root, Settings(ppp=Ppp(mtu=1460)))
    assert found(routing.look, host) == [("warning", "device eth0", "set ppp.mtu = 1456")]


def test_who_else_listens(root: Path) -> None:
    """A real socket of a real process: this one."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port = sock.getsockname()[1]
        host = Host(Settings(listen=Listen(port=port)))
        (finding,) = [f for f in ports.look(host) if f.where == f"TCP port {port}"]
        assert (finding.level, finding.mend) == ("error", f"kill {os.getpid()}")
        assert "can't start beside it" in finding.what


@pytest.mark.parametrize(
    ("name", "ours", "level", "mend"),
    [
        ("pptpd", False, "error", "systemctl disable --now pptpd"),
        ("accel-pppd", False, "error", "accel-ppp.conf"),
        ("python3", True, "note", ""),
    ],
)
def test_known_services(
    root: Path, name: str, ours: bool, level: str, mend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Host, "listeners", lambda self, port: [Owner(77, name, ours)])
    monkeypatch.setattr(Host, "raw_sockets", lambda self, protocol: [])
    ((got, where, said),) = found(ports.look, made_up(root))
    assert (got, where) == (level, "TCP port 1723")
    assert mend in said


def test_a_client_on_the_same_host(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Host, "listeners", lambda self, port: [])
    monkeypatch.setattr(Host, "raw_sockets", lambda self, protocol: [Owner(9, "pptp", False)])
    write(root, "modules", "pptp 20480 0 - Live 0x0\n")
    first, second = ports.look(made_up(root))
    assert (first.level, second.level) == ("warning", "note")
    assert "listen.address" in first.mend


def test_tracking(root: Path) -> None:
    host = made_up(root, Settings(limits=Limits(max_sessions=1000)))
    assert found(tracking.look, host) == []
    write(root, "sys/net/netfilter/nf_conntrack_max", "10000\n")
    write(root, "sys/net/netfilter/nf_conntrack_count", "9000\n")
    assert found(tracking.look, host)[0][0] == "error"
    write(root, "sys/net/netfilter/nf_conntrack_count", "10\n")
    assert found(tracking.look, host) == [
        (
            "warning",
            "net.netfilter.nf_conntrack_max",
            "sysctl -w net.netfilter.nf_conntrack_max=64000",
        )
    ]
    write(root, "sys/net/netfilter/nf_conntrack_max", "64000\n")
    write(root, "sys/net/netfilter/nf_conntrack_helper", "1\n")
    write(root, "modules", "nf_conntrack_pptp 20480 0 - Live 0x0\n")
    assert found(tracking.look, host)[0][1] == "module nf_conntrack_pptp"


def test_buffers_and_resources(root: Path) -> None:
    host = made_up(root, Settings(gre=Gre(receive_buffer_bytes=1 << 30)))
    write(root, "sys/net/core/rmem_max", "212992\n")
    write(root, "sys/net/core/somaxconn", "128\n")
    where = [entry[1] for entry in found(buffers.look, host)]
    assert where[-1] == "net.core.somaxconn"  # root may have any receive buffer
    write(root, "sys/fs/nr_open", "1024\n")
    write(root, "meminfo", "MemTotal: 1 kB\nMemAvailable: 1000 kB\n")
    where = [entry[1] for entry in found(resources.look, host)]
    assert {"fs.nr_open", "memory"} <= set(where)


def test_devices(root: Path) -> None:
    host = made_up(root, Settings(server=Server(user="nobody-of-that-name")))
    seen = found(devices.look, host)
    assert ("error", str(root / "net/tun")) in [entry[:2] for entry in seen]
    assert ("error", "users", "useradd -r nobody-of-that-name") in seen


def remark(where: str, kind: str = "blocks", text: str = "drops it") -> dict[str, str]:
    return {"where": where, "hook": "input", "kind": kind, "text": text}


NFT = "nft chain inet filter input handle 7"
LEGACY = "iptables -t filter chain INPUT (its policy)"


@pytest.mark.parametrize(
    ("filters", "mode", "expected"),
    [
        (
            {"tcp": [remark(NFT)]},
            "auto",
            ("error", NFT, "nft insert rule inet filter input tcp dport 1723 accept"),
        ),
        (
            {"tcp": [remark(LEGACY)]},
            "auto",
            ("error", LEGACY, "iptables -t filter -I INPUT -p tcp --dport 1723 -j ACCEPT"),
        ),
        (
            {"receive": [remark(LEGACY)]},
            "auto",
            ("warning", LEGACY, "iptables -t filter -I INPUT -p gre -j ACCEPT"),
        ),
        (
            {"receive": [remark(NFT)]},
            "raw",
            ("error", NFT, "nft insert rule inet filter input ip protocol gre accept"),
        ),
        ({"receive": [remark(NFT, "passed")]}, "auto", ("note", NFT, "")),
        (
            {"receive": [remark(NFT, "passed")]},
            "packet",
            ("warning", NFT, 'set gre.mode = "auto"'),
        ),
    ],
)
def test_filtering(root: Path, filters: Any, mode: Any, expected: tuple[str, ...]) -> None:
    host = made_up(root, Settings(gre=Gre(mode=mode)), filters=NO_RULES | filters)
    assert found(filtering.look, host) == [expected]


def test_rules_for_chains_that_are_there() -> None:
    chains = ruleset.from_save(
        "*filter\n:INPUT DROP [0:0]\n:FORWARD ACCEPT [0:0]\n-A FORWARD -s 10.0.0.9 -j DROP\n"
    )
    lines = list(rules.commands(Settings(listen=Listen(address="192.0.2.1")), chains))
    assert [line for line in lines if not line.startswith("#")] == [
        "iptables -t filter -I INPUT -d 192.0.2.1 -p tcp --dport 1723 -j ACCEPT",
        "iptables -t filter -I INPUT -d 192.0.2.1 -p gre -j ACCEPT",
        "iptables -t filter -I FORWARD -i pptp+ -j ACCEPT",
        "iptables -t filter -I FORWARD -o pptp+ -m conntrack --ctstate ESTABLISHED,RELATED"
        " -j ACCEPT",
    ]


def test_a_check_that_fails_is_told(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(host: Host) -> Iterator[Finding]:
        yield Finding("note", "here", "fine so far")
        raise RuntimeError("no such thing")

    monkeypatch.setitem(CHECKS, "clock", broken)
    told = [finding for name, finding in examine(made_up(root)) if name == "clock"]
    assert [finding.what for finding in told] == ["could not be made: RuntimeError: no such thing"]


def test_this_host_can_be_examined() -> None:
    levels = [finding.level for _, finding in examine(Host(Settings()))]
    assert levels == sorted(levels, key=["error", "warning", "note"].index)


def test_radius_servers_that_answer_and_that_do_not() -> None:
    servers: list[RadiusServer] = []
    secrets = (b"testing123", b"another one")
    sockets = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(3)]
    for sock in sockets:
        sock.bind(("127.0.0.1", 0))
        servers.append(
            RadiusServer(
                "127.0.0.1",
                "testing123",
                f"s{len(servers)}",
                auth_port=sock.getsockname()[1],
                acct_port=0,
            )
        )
    sockets.pop().close()  # nobody there

    def answer(sock: socket.socket, secret: bytes) -> None:
        data, source = sock.recvfrom(4096)
        sock.sendto(response(2, Packet.decode(data), (), secret), source)

    threads = [
        threading.Thread(target=answer, args=pair, daemon=True)
        for pair in zip(sockets, secrets, strict=True)
    ]
    for thread in threads:
        thread.start()
    found = list(radius.look(Host(Settings(radius=Radius(servers=tuple(servers))))))
    for thread, sock in zip(threads, sockets, strict=True):
        thread.join(5)
        sock.close()
    said = {finding.where.split()[1]: (finding.level, finding.what) for finding in found}
    assert set(said) == {"s1", "s2"}
    assert said["s1"][0] == "error" and "another secret" in said["s1"][1]
    assert said["s2"] == ("warning", "Connection refused")
    assert not any("testing123" in finding.what + finding.mend for finding in found)
    assert list(radius.look(Host(Settings()))) == []
