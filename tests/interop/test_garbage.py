"""Octets of strangers, on TCP 1723 and as GRE, while a real client is up: counted, survived."""

from __future__ import annotations

import random
import socket
import struct
import time
from pathlib import Path

import pytest

from ops.client import netns
from tests.interop import lab
from tests.interop.lab import Client, Concentrator, Topology

pytestmark = [pytest.mark.interop, pytest.mark.timeout(180)]

MAGIC = 0x1A2B3C4D
SIZES = (0, 156, 156, 16, 16, 16, 20, 168, 32, 220, 24, 24, 16, 148, 40, 24)


def messages(dice: random.Random) -> list[bytes]:
    """What a scanner, a broken client or an attacker sends to a PPTP port."""
    found = [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"SSH-2.0-scan\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + dice.randbytes(500),
        b"",
        b"\x00",
        struct.pack(">HHL", 0, 1, MAGIC),
        struct.pack(">HHLHH", 65535, 1, MAGIC, 1, 0) + bytes(65523),
        struct.pack(">HHLHH", 156, 1, MAGIC, 1, 0),  # and then nothing
        struct.pack(">HHLHH", 156, 2, MAGIC, 1, 0) + bytes(144),  # management message
        struct.pack(">HHLHH", 156, 1, MAGIC ^ 1, 1, 0) + bytes(144),
    ]
    for kind, size in enumerate(SIZES):
        for claimed in (size, max(12, size - 1), size + 1, 12):
            head = struct.pack(">HHLHH", claimed, 1, MAGIC, kind, 0)
            found.append(head + dice.randbytes(max(0, claimed - 12)))
    found += [dice.randbytes(dice.randrange(1, 3000)) for _ in range(60)]
    # a good start, then nonsense on the same connection
    start = struct.pack(">HHLHHHHLLHH64s64s", 156, 1, MAGIC, 1, 0, 256, 0, 3, 3, 0, 1, b"x", b"y")
    assert len(start) == 156
    for kind, size in enumerate(SIZES[3:], 3):
        if size:
            head = struct.pack(">HHLHH", size, 1, MAGIC, kind, 0)
            found.append(start + head + dice.randbytes(size - 12))
    found += [start + dice.randbytes(dice.randrange(1, 400)) for _ in range(20)]
    return found


def send_tcp(data: bytes) -> None:
    """One connection: send all, read for a moment, close hard every second time."""
    with socket.create_connection((lab.WAN_SERVER, 1723), timeout=5) as s:
        s.settimeout(0.05)
        try:
            s.sendall(data)
            s.recv(4096)
        except OSError:
            pass
        if len(data) % 2:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def gre(dice: random.Random, call_ids: list[int]) -> bytes:
    """One packet behind the IP header: anything from noise to almost right."""
    shape = dice.randrange(6)
    if shape == 0:
        return dice.randbytes(dice.randrange(0, 200))
    if shape == 1:  # version 0, another protocol's business
        return struct.pack(">HH", 0, 0x0800) + dice.randbytes(60)
    flags = 0x3001 if shape < 5 else dice.randrange(65536)
    call = dice.choice(call_ids) if shape > 2 else dice.randrange(65536)
    payload = dice.randbytes(dice.randrange(0, 1500))
    length = len(payload) if shape != 4 else dice.randrange(65536)
    head = struct.pack(">HHHHL", flags, 0x880B, length, call, dice.getrandbits(32))
    return (head + payload)[: dice.randrange(1, 1480)]


def test_garbage_costs_a_client_nothing(
    topology: Topology, concentrator: Concentrator, tmp_path: Path
) -> None:
    concentrator.start("--set", "listen.start_timeout_s=2")
    # a process that fails and is started again would have another pid
    pids = set(topology.processes())
    client = Client(
        topology, "--checks", "ping,tcp", "--mb", "8", "--ping-count", "20", log=tmp_path / "c.log"
    )
    dice = random.Random(20070707)
    try:
        row = concentrator.wait_sessions(1)[0]
        call_ids = [row["call-id"]]

        def attack() -> int:
            raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_GRE)
            count = 0
            with raw:
                for data in messages(dice):
                    send_tcp(data)
                    for _ in range(20):
                        raw.sendto(gre(dice, call_ids), (lab.WAN_SERVER, 0))
                        count += 1
            return count

        sent = netns.inside(topology.namespace("a"), attack)
        result = client.result()
    finally:
        client.stop()
    assert lab.failures(result) == [], concentrator.tail()
    metrics = concentrator.metrics()
    drops = {k: v for k, v in metrics.items() if k.startswith("pptp_drops_total") and v}
    print(f"{sent} GRE packets sent; {drops}")
    reasons = " ".join(drops)
    for reason in ("malformed", "no_session", "wrong_peer"):
        assert reason in reasons, drops
    refused = {k: v for k, v in metrics.items() if k.startswith("pptp_control_connections_total")}
    assert sum(v for k, v in refused.items() if "protocol_error" in k) > 20, refused
    assert "Traceback" not in concentrator.text()
    assert pids <= set(topology.processes()), "a process was started again"
    # connections that said nothing are gone too
    until = time.monotonic() + 10
    while topology.run("s", "ss", "-Htn", "state", "established", "sport", "=", ":1723"):
        assert time.monotonic() < until
        time.sleep(0.2)
    assert concentrator.sessions() == []
    concentrator.stop()
