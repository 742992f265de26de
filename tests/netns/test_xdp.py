"""AF_XDP beside packet sockets: who gets which packet, and that nothing of it is left behind."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import struct
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Literal

import pytest

from dispatcher import bpf, xdp_fit
from ops.settings import Gre
from tests.fastpath.peer import ip_sum
from tests.netns import rough, spaces
from tests.netns.rough import LOCAL, Site, drops, ping
from tests.netns.spaces import Keeper, Space
from tests.netns.test_odd_links import at, served
from tests.netns.test_worker import worker_pids

pytestmark = [pytest.mark.netns, pytest.mark.timeout(120)]

Pair = tuple[Space, Space]
Mode = Literal["native", "generic"]
PASS = (bpf.Instruction(0xB7, 0, 0, 0, 2), bpf.Instruction(0x95, 0, 0, 0, 0))  # r0 = XDP_PASS; exit


def device(space: Space) -> str:
    """The namespace's end of the wire."""
    (name,) = [d for d in space.sh("ls /sys/class/net").split() if d.startswith("veth")]
    return name


def rings(space: Space, mode: Mode = "generic") -> Gre:
    """All by AF_XDP."""
    return Gre(mode="xdp", send="xdp", interface=device(space), xdp_mode=mode)


def attached(space: Space) -> bool:
    """Whether an XDP program sits on the namespace's device."""
    return bool(re.search(r"\bxdp|prog/xdp", space.sh(f"ip -d link show {device(space)}")))


def counts(site: Site) -> dict[str, int]:
    """GRE packets so far."""
    samples = site.metrics()
    both = {"received": "receive", "sent": "transmit"}
    found = {w: samples.total("pptp_gre_packets_total", direction=d) for w, d in both.items()}
    for word, way in both.items():
        found[f"{word} by ring"] = samples.total("pptp_gre_packets_by_xdp_total", direction=way)
    return {name: int(value) for name, value in found.items()}


@contextlib.contextmanager
def replayed(near: Space) -> Iterator[tuple[bytes, Callable[[bytes], None]]]:
    """A frame of the client's tunnel, and how to send another one."""
    with near.inside():
        wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
    with wire:
        wire.bind((device(near), 3))
        wire.settimeout(5)
        while True:
            frame, (_, _, kind, *_) = wire.recvfrom(65536)
            if kind == 4 and frame[12:14] == b"\x08\x00" and frame[23] == 47 and len(frame) > 80:
                break

        def send(data: bytes) -> None:
            wire.send(data)

        yield frame, send


def packet(
    frame: bytes, *, head: bytes = b"", source: str = "", rest: bytes | None = None
) -> bytes:
    """The frame with another IP header: `head` its first 10 octets; options make it longer."""
    ip = bytearray(head or frame[14:24]) + b"\0\0" + frame[26:34]
    if source:
        ip[12:16] = socket.inet_aton(source)
    ip += bytes((ip[0] & 15) * 4 - 20)
    rest = frame[34:] if rest is None else rest
    ip[2:4] = struct.pack(">H", len(ip) + len(rest))
    ip[10:12] = struct.pack(">H", ip_sum(bytes(ip)))
    return frame[:14] + bytes(ip) + rest


def odd_ones(frame: bytes) -> dict[str, tuple[bytes, int]]:
    """Frames that rings leave to the packet socket, and how many packets it makes of each."""
    total = bytearray(frame[14:24])
    options, first, later = (bytearray(total) for _ in range(3))
    options[0] = 0x47
    first[6:8], later[6:8] = b"\x20\x00", b"\x00\x10"
    call = frame[34:40] + b"\xff\xfe" + frame[42:]
    return {
        "IP options": (packet(frame, head=bytes(options)), 1),
        "another peer": (packet(frame, source="192.0.2.77"), 1),
        "an unknown call": (packet(frame, rest=call), 1),
        "no fragment comes after it": (packet(frame, head=bytes(first)), 0),
        "a later fragment alone": (packet(frame, head=bytes(later)), 0),
        "a priority tag": (frame[:12] + b"\x81\x00\xe0\x00" + frame[12:], 1),
        "another VLAN": (frame[:12] + b"\x81\x00\x00\x05" + frame[12:], 0),
        "another host": (b"\x02\0\0\0\0\x77" + frame[6:], 0),
        "longer than a ring's frame": (packet(frame, rest=frame[34:] + bytes(2000)), 1),
        "cut short": (frame[:40], 1),
    }


@pytest.mark.parametrize("mode", ["native", "generic"])
def test_rings_take_what_is_theirs(mode: Mode, pair: Pair, start_keeper: rough.StartKeeper) -> None:
    near, server = pair
    for space in pair:
        space.sh(f"ip link set {device(space)} mtu 3000")
    with served(pair, start_keeper, gre=rings(server, mode)) as (site, one, keeper):
        assert f'mode="xdp {mode}"' in keeper.text
        assert attached(server)
        before = counts(site)
        assert " 0% packet loss" in ping(near, one.address, LOCAL, 20, "-s", "1300")
        spaces.wait_for(lambda: counts(site)["received by ring"] - before["received by ring"] >= 20)
        assert counts(site)["sent by ring"] - before["sent by ring"] >= 20
        with (
            subprocess.Popen(
                near.argv("ping", "-q", "-i", "0.2", "-c", "8", "-I", one.address, LOCAL),
                stdout=subprocess.DEVNULL,
            ) as pings,
            replayed(near) as (frame, send),
        ):
            pings.wait()
            for name, (odd, made) in odd_ones(frame).items():
                before = counts(site)
                send(odd)
                send(frame)  # an old number: dropped as a duplicate, but taken by the ring

                def more(before: dict[str, int] = before) -> tuple[int, int]:
                    after = counts(site)
                    ring = after["received by ring"] - before["received by ring"]
                    return ring, after["received"] - before["received"] - ring

                def done(made: int = made, more: Callable[[], tuple[int, int]] = more) -> bool:
                    return more()[0] >= 1 and more()[1] >= made

                spaces.wait_for(done)
                assert more()[1] == made, name
        _outlives_its_worker(near, one.address, site, keeper)
    assert not attached(server)


def _more(site: Site, packets: int) -> None:
    """Wait until so many came by the rings."""
    before = counts(site)

    def came() -> bool:
        return counts(site)["received by ring"] > before["received by ring"] + packets

    try:
        spaces.wait_for(came, 20)
    except AssertionError:
        raise AssertionError(f"of {packets} packets too few: {before}, {counts(site)}") from None


def _said(keeper: Keeper, text: str, times: int) -> None:
    spaces.wait_for(lambda: keeper.text.count(text) >= times, 20)


def _outlives_its_worker(near: Space, address: str, site: Site, keeper: Keeper) -> None:
    """SIGKILL of the worker under load: no session ends, rings lose nothing."""
    flood = subprocess.Popen(
        near.argv("ping", "-q", "-f", "-s", "1000", "-w", "600", "-I", address, LOCAL),
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        # Once: a second death in the middle of its packets would make the session a poison.
        _more(site, 300)
        (pid,) = worker_pids(keeper)
        spaces.kill(pid)
        _said(keeper, "worker said Hello", 2)
        _more(site, 300)
    finally:
        flood.send_signal(signal.SIGINT)
        out, _ = flood.communicate()
    sent, received = map(int, re.findall(r"(\d+) packets transmitted, (\d+) received", out)[0])
    assert received > sent / 2, out
    assert "worker_lost" not in keeper.text
    assert keeper.text.count("session up") == 1
    assert " 0% packet loss" in ping(near, address, LOCAL, 20)
    # A batch may be counted as lost with the worker; frames must not be.
    assert site.metrics().total("pptp_kernel_drops_total", direction="receive") == 0
    assert {k for k, n in drops(site.metrics()).items() if n} <= {
        *("duplicate", "late", "no_session", "wrong_peer", "malformed"),
        *("out_of_window", "session_ended", "send_failed"),
    }


def test_a_new_hardware_address(pair: Pair, start_keeper: rough.StartKeeper) -> None:
    """Program and rings know the old one: packet and raw sockets carry on."""
    near, server = pair
    with served(pair, start_keeper, gre=rings(server)) as (site, one, _):
        server.sh(f"ip link set {device(server)} address 02:00:00:00:12:34")
        near.sh("ip neigh flush all")

        def round_the_rings() -> bool:
            before = counts(site)
            ping(near, one.address, LOCAL, 5)
            after = counts(site)
            received = after["received by ring"] == before["received by ring"]
            sent = after["sent by ring"] == before["sent by ring"]
            return received and sent and after["received"] > before["received"]

        spaces.wait_for(round_the_rings, 20)
        assert " 0% packet loss" in ping(near, one.address, LOCAL, 5)


def test_fragments_go_round_the_rings(pair: Pair, start_keeper: rough.StartKeeper) -> None:
    near, server = pair
    for space in pair:
        space.sh(f"ip link set {device(space)} mtu 600")
    with served(pair, start_keeper, gre=rings(server)) as (site, one, _):
        before = counts(site)
        assert " 0% packet loss" in ping(near, one.address, LOCAL, 10, "-s", "1000", "-M", "dont")
        after = counts(site)
        assert after["received"] - before["received"] >= 10
        assert after["received by ring"] - before["received by ring"] < 5  # acknowledgements
        assert drops(site.metrics()) == {}


def test_whether_it_is_for_a_device(pair: Pair) -> None:
    _, server = pair
    name = device(server)
    with server.inside():
        assert xdp_fit.driver(name) == "veth"
        assert xdp_fit.disciplines(socket.if_nametoindex(name)) == ["noqueue"]
        assert xdp_fit.why_not_on(name, 2) == ""
        assert "no Ethernet" in xdp_fit.why_not_on("lo", 2)
        assert "not set" in xdp_fit.why_not_on("", 2)
        assert "No such device" in xdp_fit.why_not_on("nosuch0", 2)
        server.sh(f"tc qdisc replace dev {name} root pfifo_fast || tc qdisc add dev {name} root fq")
        assert xdp_fit.why_not_on(name, 2) == ""
        server.sh(f"tc qdisc replace dev {name} root htb")
        assert xdp_fit.why_not_on(name, 2) == "it would go past tc qdisc htb"
        server.sh(f"ip link set {name} down")
        assert xdp_fit.why_not_on(name, 2) == f"{name} is down"


def test_another_program_is_left_alone(pair: Pair, start_keeper: rough.StartKeeper) -> None:
    _, server = pair
    with server.inside():
        program = bpf.load_xdp(PASS, "somebody")
        link = bpf.attach_xdp(
            program, socket.if_nametoindex(device(server)), bpf.XDP_FLAGS_SKB_MODE
        )
    conf = rough.settings(gre=rings(server))
    keeper = start_keeper(server, conf, module="dispatcher.keeper")
    assert keeper.process.wait(30) == 69
    assert "has an XDP program of somebody else" in keeper.text
    conf = replace(conf, gre=Gre(interface=device(server)))
    keeper = start_keeper(server, conf, module="dispatcher.keeper").ready()
    assert "has an XDP program of somebody else" in keeper.text
    assert keeper.stop() == 0
    assert attached(server)
    os.close(link)
    os.close(program)
    assert not attached(server)


def test_after_sigkill_of_all_no_program_is_left(
    pair: Pair, start_keeper: rough.StartKeeper
) -> None:
    keeper = start_keeper(
        pair[1], rough.settings(gre=rings(pair[1])), module="dispatcher.keeper"
    ).ready()
    assert attached(pair[1])
    keeper.kill_all()
    spaces.wait_for(lambda: not attached(pair[1]))


def test_a_device_that_goes(pair: Pair, start_keeper: rough.StartKeeper) -> None:
    """Its rings are dead: nobody spins on them, and the service ends in order."""
    _, server = pair
    keeper = start_keeper(
        server, rough.settings(gre=rings(server)), module="dispatcher.keeper"
    ).ready()
    site = at(server)
    server.sh(f"ip link del {device(server)}")
    spaces.wait_for(lambda: "veth" not in server.sh("ip link"))
    before = site.metrics().total("pptp_worker_wakeups_total")
    time.sleep(1)
    assert site.metrics().total("pptp_worker_wakeups_total") - before < 100
    assert len(worker_pids(keeper)) == 1
    assert keeper.stop() == 0
