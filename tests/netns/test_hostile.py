"""Hostile clients against the whole concentrator, while a good one is pinged.

One concentrator for all tests here. After each of them: it runs on, in the processes it
began with; the canary's session stands and no ping was lost; every GRE packet read is
accounted for; memory, descriptors and slots are what they were; no traceback in the log.
Seeds are fixed; what is random is what is sent, not what is asserted.
"""

from __future__ import annotations

import random
import socket
import struct
import time
from collections.abc import Iterator
from pathlib import Path

import msgpack
import pytest
import zmq

from dispatcher.pptp import messages as pptp
from fastpath import gre
from ops.client import netns
from ops.client.playground import LAN_HOST, WAN_SERVER
from ops.ranges import parse_address
from tests.fastpath.peer import tcp, udp
from tests.netns.hostile import (
    CCP,
    CHAP,
    IP,
    IPCP,
    LCP,
    MPPE,
    PAP,
    PASSWORD,
    Caller,
    Field,
    Peer,
    frame,
)
from tests.netns.spaces import need_root

pytestmark = [pytest.mark.netns, pytest.mark.slow, pytest.mark.timeout(120)]

MAGIC = 0x1A2B3C4D
STARTING = 50
HOST = parse_address(LAN_HOST)


@pytest.fixture(scope="module")
def everything(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Field]:
    """The concentrator and the canary."""
    need_root()
    secrets = tmp_path_factory.mktemp("hostile") / "chap-secrets"
    secrets.write_text("* * anypass *\n")
    secrets.chmod(0o600)
    extra: dict[str, dict[str, object]] = {
        "workers": {"count": 2},
        "listen": {"start_timeout_s": 1.0},
        "limits": {"max_starting": STARTING},
        "ppp": {"auth": ["mschapv2", "mschap", "chap-md5", "pap"]},
        "mppe": {"policy": "prefer"},
        "accounts": {"chap_secrets": str(secrets)},
    }
    with Field(extra=extra) as field:
        yield field


@pytest.fixture
def field(everything: Field) -> Iterator[Field]:
    """The same, looked at before and after."""
    f = everything
    processes, usage, lines = f.processes(), f.usage(), len(f.log())
    yield f
    f.hang_up()
    f.quiet()
    assert f.processes() == processes, f.log()[lines:]
    sent, received, _ = f.canary_report()
    assert received == sent, f"{sent - received} of {sent} pings lost"
    f.check_sums()
    assert f.metrics().total("pptp_packets_queued") == 0
    log = f.log()[lines:]
    assert "Traceback" not in log
    assert "internal error" not in log
    assert log.replace("\n", "").isprintable()
    assert len(log) < 2_000_000
    f.settled(usage)


def wait_closed(f: Field, seconds: float = 10.0) -> None:
    """Until only the canary's control connection is left."""
    until = time.monotonic() + seconds
    while (left := f.metrics().total("pptp_control_connections")) != f.canaries:
        assert time.monotonic() < until, f"{left} control connections"
        time.sleep(0.1)


# -- TCP 1723


def test_every_type_and_many_lengths(field: Field) -> None:
    dice = random.Random(1)
    start = pptp.StartRequest().encode()
    lengths = (0, 1, 11, 12, 13, 16, 20, 155, 156, 157, 168, 220, 221, 1000, 32767, 65535)
    for kind in (*range(18), 255, 65535):
        for length in lengths:
            c = Caller(field, 2)
            head = struct.pack(">HHLHH", length, 1, MAGIC, kind, 0)
            c.say((start if dice.random() < 0.5 else b"") + head + dice.randbytes(min(length, 300)))
            if dice.random() < 0.5:
                c.reset()
            else:
                c.close()
    for _ in range(100):
        c = Caller(field, 2)
        c.say(dice.randbytes(dice.randrange(1, 3000)))
        c.reset()
    wait_closed(field)
    assert field.metrics().total("pptp_control_protocol_errors_total") > 100


def test_octets_one_at_a_time(field: Field) -> None:
    callers = [Caller(field, 2) for _ in range(20)]
    for octet in pptp.StartRequest().encode() + pptp.OutgoingRequest(1).encode():
        for c in callers:
            c.sock.send(bytes([octet]))
    for c in callers:
        assert isinstance(c.hear(), pptp.StartReply)
        assert isinstance(c.hear(), pptp.OutgoingReply)
        c.reset()
    wait_closed(field)


def test_silent_half_said_and_short_lived_connections(field: Field) -> None:
    before = field.metrics().total("pptp_control_connections_total", result="timeout")
    silent = [Caller(field, 2 + i % 5) for i in range(1000)]
    for c in silent[::2]:
        c.say(pptp.StartRequest().encode()[:100])
    for i in range(1000):
        c = Caller(field, 2 + i % 5)
        if i % 2:
            c.reset()
        else:
            c.close()
    wait_closed(field)
    after = field.metrics().total("pptp_control_connections_total", result="timeout")
    assert after - before == len(silent)
    for c in silent:
        c.close()


def test_calls_asked_for_and_taken_back(field: Field) -> None:
    """In one segment, in another order, and with a reset behind."""
    request, clear = pptp.OutgoingRequest(5), pptp.ClearRequest(5)
    for _ in range(20):
        Caller(field, 2).say(pptp.StartRequest(), request, clear).reset()
        Caller(field, 2).say(pptp.StartRequest(), request, b"\xff" * 16).close()
        Caller(field, 2).say(pptp.StartRequest(), request, pptp.StopRequest()).close()
        Caller(field, 2).say(clear, request, pptp.StartRequest()).close()
        Caller(field, 2).say(pptp.StartRequest(), pptp.StartRequest(), request, request).reset()
        many = [pptp.OutgoingRequest(n) for n in range(45)]
        Caller(field, 2).start().say(*many).reset()
    c = Caller(field, 3).start()
    for n in range(20):
        c.say(*(m for k in range(20) for m in (pptp.OutgoingRequest(k), pptp.ClearRequest(k))))
        for _ in range(20):
            assert isinstance(c.hear(), pptp.DisconnectNotify), n
    for call_id in (0, 1, 77, 65535):  # of nobody
        c.say(pptp.ClearRequest(call_id), pptp.DisconnectNotify(call_id))
        c.say(pptp.SetLinkInfo(call_id), pptp.WanErrorNotify(call_id), pptp.EchoReply(9))
    assert c.say(pptp.EchoRequest(3)).hear() == pptp.EchoReply(3)
    c.close()
    wait_closed(field)


def test_more_calls_than_may_start(field: Field) -> None:
    callers = [Caller(field, 2 + i % 5).start() for i in range(4)]
    for c in callers:
        c.say(*(pptp.OutgoingRequest(n) for n in range(30)))
    replies = [c.hear() for c in callers for _ in range(30)]
    results = [r.result for r in replies if isinstance(r, pptp.OutgoingReply)]
    assert results.count(pptp.OutgoingResult.CONNECTED) == STARTING
    m = field.metrics()
    assert m.total("pptp_slots_used") == STARTING + field.canaries
    assert m.total("pptp_calls_refused_total", reason="starting_limit") >= 120 - STARTING
    assert "reason=starting_limit" in field.log()
    for c in callers:
        c.reset()
    wait_closed(field)


def test_nobody_reads(field: Field) -> None:
    c = Caller(field, 4)
    c.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
    c.start()
    with pytest.raises(OSError, match=r"reset|roken pipe|timed out"):
        while True:
            c.say(*(pptp.EchoRequest(n) for n in range(300)))
    c.reset()
    wait_closed(field)
    assert "the client reads nothing" in field.log()


# -- GRE


def test_noise_lies_and_strangers(field: Field) -> None:
    dice = random.Random(2)
    p = Peer(field, 2, 77)
    assert p.login("user2")
    echo = frame(LCP, 9, 1, b"aaaa")
    good = p.gre(echo, ack=1)
    for _ in range(5000):
        octets = bytearray(good)
        shape = dice.random()
        if shape < 0.3:
            octets = bytearray(dice.randbytes(dice.randrange(100)))
        elif shape < 0.8:
            for _ in range(dice.randrange(1, 4)):
                bit = dice.randrange(16 * 8)
                octets[bit // 8] ^= 1 << bit % 8
        else:
            octets = octets[: dice.randrange(len(octets))]
        p.raw(bytes(octets))
    sources = ["198.18.0.9", "198.18.0.77", "1.2.3.4", WAN_SERVER]
    for _ in range(1000):
        end = gre.build(p.server_id, frame(LCP, 5, 1, b""), dice.getrandbits(32))
        field.spoof(dice.choice(sources), end)
    for options in (b"\1" * 4, b"\x44\4\5\0", b"\7\7\4" + bytes(5), b"\x83\3\4\0", b"\xff\xff\1\1"):
        for _ in range(100):
            field.spoof(p.source, p.gre(echo), options=options)
    for n in range(500):  # fragments: whole, half, overlapping
        packet = p.gre(frame(LCP, 9, 1, dice.randbytes(596)))
        field.spoof(p.source, packet[:296], number=n, offset=0x2000)
        if n % 3:
            field.spoof(p.source, packet[296:], number=n, offset=37 if n % 3 == 1 else 30)
    assert field.drops("malformed", "no_session", "wrong_peer")
    p.close()


def test_sequences_and_acknowledgements(field: Field) -> None:
    dice = random.Random(3)
    p = Peer(field, 2, 78)
    assert p.login("user2", mppe="deny")
    for n in range(8000):
        jumps = (0, dice.randrange(64), -dice.randrange(100), 4000, 4097, dice.getrandbits(32))
        seq = (p.seq + dice.choice(jumps)) & 0xFFFFFFFF
        data = dice.randbytes(dice.randrange(1400))
        p.send(IP + udp(p.address, HOST, data), seq=seq, ack=dice.getrandbits(32))
        p.seq = (p.seq + n % 3) & 0xFFFFFFFF
    ack = struct.pack(">BBHHHL", 0x20, 0x81, 0x880B, 0, p.server_id, 5)
    for _ in range(8000):
        p.raw(ack)
    assert field.drops("duplicate", "out_of_window", "late")
    p.close()


def test_forged_counts_and_bad_inner_packets(field: Field) -> None:
    dice = random.Random(4)
    p = Peer(field, 2, 79)
    assert p.login("user2")
    for n in range(5000):
        p.send(MPPE + struct.pack(">H", 0x9000 | n * 2047 & 0xFFF) + dice.randbytes(40))
    p.close()
    field.quiet()
    for mppe in ("deny", "require"):
        p = Peer(field, 2, 80)
        assert p.login("user2", mppe=mppe)
        syn = tcp(p.address, HOST, dice.randbytes(300), options=b"\2\4\5\xb4", flags=2)
        for _ in range(1000):
            octets = bytearray(dice.choice((syn, udp(p.address, HOST, b"x" * 300))))
            for _ in range(dice.randrange(1, 6)):
                octets[dice.randrange(48)] = dice.randrange(256)
            if dice.random() < 0.5:
                octets[12:16] = struct.pack(">I", p.address)
            size = dice.randrange(len(octets)) if dice.random() < 0.3 else len(octets)
            strange = dice.choice((b"\x00\x57", b"\x21", b"\x00\x2b", b"\x01\x01"))
            p.data(bytes(octets[:size]), strange if dice.random() < 0.2 else IP)
        p.close()
    assert field.drops("malformed", "spoofed", "protocol", "mppe_coherency")


# -- PPP


def storm(name: str, dice: random.Random, n: int) -> bytes:
    """One frame of a storm."""
    few, some = dice.randbytes(dice.randrange(40)), dice.randbytes(dice.randrange(1400))
    magic = struct.pack(">I", n + 1)
    broken = (b"\1\0", b"\1\1", b"\5\xff", b"\3\4\xc0", b"\1", b"\5\6" + bytes(4), b"\r\3\6" * 99)
    match name:
        case "configure":
            return frame(LCP, 1, n, b"\5\6" + magic)
        case "options":
            return frame(LCP, 1, n, dice.choice((*broken, few)))
        case "lengths":
            return frame(LCP, dice.randrange(16), n, few, dice.choice((n % 8, n * 257)))
        case "answers":
            return frame(LCP, dice.choice((2, 3, 4)), n % 4, few)
        case "terminate":
            return frame(LCP, dice.choice((5, 5, 6)), n, some)
        case "rejects":
            protocol = dice.choice((LCP, IPCP, CCP, CHAP, PAP, IP, b"\x80\x57", b"\xc0", b""))
            return frame(LCP, dice.choice((7, 8, 8)), n, protocol + few)
        case "echo":
            return frame(LCP, 9, n, dice.randbytes(1390))
        case "protocols":
            return struct.pack(">H", dice.randrange(65536)) + some
        case "tiny":
            return dice.randbytes(dice.randrange(4))
        case "chap":
            value = bytes([dice.choice((0, 1, 49, 255))]) + dice.randbytes(49) + some[:256]
            return frame(CHAP, 2, n % 3, value, dice.choice((-1, dice.randrange(400))))
        case "pap":
            evil = b"\x10\x1b]0;evil\x07\nroot: x\5abcde"
            return frame(PAP, 1, n, dice.choice((b"\0\0", b"\0", b"", b"\xff", b"\0\xffx", evil)))
        case _:
            return dice.choice((LCP, CHAP, PAP, CCP, IPCP, IP, MPPE)) + few


STORMS = "configure options lengths answers terminate rejects echo protocols tiny chap pap any"


@pytest.mark.parametrize("up", [False, True])
def test_storms(field: Field, up: bool) -> None:
    """Of frames that a peer may send, must not send, and that are none."""
    dice = random.Random(5)
    peers = []
    for n, name in enumerate(STORMS.split()):
        p = Peer(field, 2 + n % 5, 100 + n)
        if up:
            assert p.login("user3")
        for i in range(300):
            p.send(storm(name, dice, i))
        peers.append(p)
    for p in peers:
        for _ in p.frames(0.02):
            pass
        p.close()
    assert field.metrics().total("pptp_ppp_malformed_frames_total") > 100
    assert field.drops("ring_full")


def test_a_flood_of_frames_keeps_no_login_waiting(field: Field) -> None:
    c = Caller(field, 2).start()
    calls = [c.call(n) for n in range(STARTING - 2)]
    wire = field.raw(c.source)
    dice = random.Random(6)
    until = time.monotonic() + 2.0
    seq = 0
    while time.monotonic() < until:
        for call_id in calls:
            octets = gre.build(call_id, storm("configure", dice, seq), seq)
            wire.sendto(octets, (WAN_SERVER, 0))
        seq += 1
    p = Peer(field, 3, 200)
    begun = time.monotonic()
    assert p.login("user2")
    assert time.monotonic() - begun < 20  # where all share two busy CPUs
    for sock in (p, c, wire):
        sock.close()


def test_names_that_mean_harm(field: Field) -> None:
    """Log lines stay lines (the fixture looks); a name of 255 octets fits everywhere."""
    names = ["\x1b[2J\x1b]0;x\x07\nerror keeper: all is lost", "\udcff" * 255, "\n" * 255]
    names += ["%s{0}\0\r" * 20, "\u202e\u2028" * 30, 'a" cause=none b="']
    for n, name in enumerate(names):
        p = Peer(field, 4, 300 + n)
        assert p.login(name, "anypass"), name
        for k in range(20):  # what else is kept of a session
            p.send(struct.pack(">H", 0x8001 + 2 * k) + bytes(1000))
        p.send(frame(LCP, 1, 9, b"\5\6abcd\x13\xff\1" + b"e" * 252))
        for _ in p.frames(0.05):
            pass
        p.close()
    p = Peer(field, 4, 350)
    assert not p.login("user2\x1b[31m\n", "wrong")
    p.close()


def test_wrong_passwords(field: Field) -> None:
    before = field.metrics().total("pptp_authentications_total", result="reject")
    for n in range(100):
        p = Peer(field, 3 + n % 3, 400 + n)
        assert not p.login("user2", "guess")
        assert p.cause == "auth_failed"
        p.close()
    after = field.metrics().total("pptp_authentications_total", result="reject")
    assert after - before == 100
    assert "login refused" in field.log()
    assert "guess" not in field.log()


def test_negotiating_for_ever(field: Field) -> None:
    """IPCP begun anew again and again: routes come and go; then data after the end."""
    p = Peer(field, 5, 500)
    assert p.login("user3", PASSWORD)
    for n in range(50):
        p.send(frame(IPCP, 1, 100 + n, b"\3\6" + struct.pack(">I", p.address)))
        for octets in p.frames(0.01):
            if octets[:3] == IPCP + b"\1":
                p.send(IPCP + b"\2" + octets[3:])
    p.send(frame(LCP, 5, 1, b""))
    for _ in range(200):
        p.data(udp(p.address, HOST, b"late"))
    p.close()
    field.quiet()
    routes = netns.ip("-n", field.ground.name("server"), "route").splitlines()
    assert len([r for r in routes if "proto 201" in r and "dev pptp" in r]) == field.canaries


# -- the operator's doors


def test_http(field: Field) -> None:
    def door(kind: str) -> socket.socket:
        if kind == "control":
            sock = socket.socket(socket.AF_UNIX)
            address: tuple[str, int] | str = str(field.run_dir / "control.sock")
        else:
            sock = netns.inside(field.ground.name("server"), socket.socket)
            address = ("127.0.0.1", 9723)
        sock.settimeout(1)
        sock.connect(address)
        return sock

    post = b"POST /api/terminate HTTP/1.1\r\nHost: x\r\n"
    for kind in ("public", "control"):
        for octets in (
            b"GET / HTTP/1.1\r\nA: " + b"x" * 10_000_000,
            b"GET /" + b"a" * 1_000_000,
            post + b"Content-Length: 99999999999\r\n\r\n" + b"x" * 100_000,
            post + b"Content-Length: 4000\r\n\r\n" + b"[" * 4000,
            post + b"Transfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n",
            b"\x16\x03\x01" * 100,
            bytes(100_000),
            b"GET /api/session/" + b"%00%ff%1b" * 20 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
            b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n" * 50,
        ):
            with door(kind) as sock:
                try:
                    sock.sendall(octets)
                    sock.recv(200)
                except OSError:
                    pass
        slow = []
        for _ in range(120):
            slow.append(door(kind))
            slow[-1].send(b"GET / HT")
        field.metrics()
        for sock in slow:
            sock.close()


def test_bus(field: Field) -> None:
    """Only our own user can come so far: another version of us, or a bug."""
    dice = random.Random(7)
    before = field.metrics().total("pptp_bus_errors_total", process="dispatcher")
    context = zmq.Context()
    for identity in (b"worker-7", b"worker-x", b"console-1-1", b"?", b"worker-" + b"9" * 200):
        peer = context.socket(zmq.DEALER)
        peer.setsockopt(zmq.IDENTITY, identity)
        peer.connect(f"ipc://{field.run_dir}/bus.sock")
        for _ in range(20):
            peer.send_multipart(
                [dice.randbytes(dice.randrange(60)) for _ in range(dice.randrange(1, 4))]
            )
        messages: list[object] = [
            [0, 99, 1, 2, 3, []],
            [0],
            [0, None],
            [255],
            [-1],
            [2**63],
            {},
            "x",
            [[]],
        ]
        for message in messages:
            peer.send(msgpack.packb(message))
        for octets in (b"\x91" * 100_000, b"\xdd\xff\xff\xff\xff", b"\xc7\1\xff\0", b"\x81\x90\1"):
            peer.send(octets)
        peer.close(linger=500)
    context.term()
    time.sleep(0.2)
    m = field.metrics()
    assert m.total("pptp_bus_errors_total", process="dispatcher") - before > 100
    assert "bad bus message" in field.log()


def test_files_that_are_none(field: Field, everything: Field) -> None:
    dice = random.Random(8)
    secrets = Path(str(everything.extra["accounts"]["chap_secrets"]))
    good = secrets.read_bytes()
    config = field.concentrator.config_path
    good_config = config.read_bytes()
    for octets in (bytes(1000), dice.randbytes(100_000), b"a" * 10_000_000, b'"' * 100_000):
        secrets.write_bytes(octets)
        field.reload()
    secrets.write_bytes(good)
    for octets in (b"\0\xff" * 100, b"a=" + b"[" * 100_000, b"x" * 5_000_000):
        config.write_bytes(octets)
        field.reload()
    config.write_bytes(good_config)
    field.reload()
    p = Peer(field, 6, 600)
    assert p.login("user2")
    p.close()
