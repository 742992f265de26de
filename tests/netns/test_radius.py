"""RADIUS with a real FreeRADIUS: logins, accounting, fail-over, CoA, and what dies."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import random
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from ops.config.show import to_toml
from ops.settings import (
    Accounts,
    Ipv6,
    Limits,
    Mppe,
    Pool,
    Ppp,
    Radius,
    RadiusClient,
    RadiusServer,
    Server,
    Settings,
)
from tests.netns.freeradius import SECRET, FreeRadius
from tests.netns.spaces import ROOT, Keeper, Space, kill, wait_for
from tests.netns.test_worker import CONF, fleet, routes, up, worker_pids
from workers.radius.packets import FAULTS, Packet, response

pytestmark = pytest.mark.netns

Pair = tuple[Space, Space]
Start = Callable[..., Keeper]
USERS = """\
anna Cleartext-Password := "wonder"
	Framed-IP-Address = 10.99.1.7,
	Session-Timeout = 3600,
	Idle-Timeout = 1800,
	Mikrotik-Rate-Limit = "1M/2M",
	MS-Primary-DNS-Server = 10.99.0.53,
	Framed-Route = "10.88.0.0/24 0.0.0.0 1",
	Framed-Route += "10.89.0.0/16",
	Framed-IPv6-Prefix = 2001:db8:5::/64,
	Delegated-IPv6-Prefix = 2001:db8:600::/56,
	Class = "gold"

DEFAULT Cleartext-Password := "secret", User-Name =~ "^user"
	Class = "many"
"""
COA_SECRET = "another-secret"
FAST = Radius(timeout_s=0.3, tries=2, probe_interval_s=0.5)


def conf(state: Path, *servers: RadiusServer, radius: Radius = FAST) -> Settings:
    servers = servers or (RadiusServer("127.0.0.1", SECRET),)
    coa = replace(
        radius,
        servers=servers,
        listen="127.0.0.1:3799",
        clients=(RadiusClient("127.0.0.0/8", COA_SECRET),),
    )
    return replace(
        CONF,
        accounts=Accounts(),
        ppp=Ppp(auth=("mschapv2", "mschap", "eap", "chap-md5", "pap")),
        mppe=Mppe(policy="prefer"),
        server=Server(state_dir=str(state)),
        limits=Limits(max_sessions=256),
        pools=(Pool("default", ("10.99.1.1-250",)),),
        ipv6=Ipv6(ipv6cp="on"),
        radius=coa,
    )


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """A folder whose way the unprivileged user may go, as pytest's own is not."""
    with tempfile.TemporaryDirectory(prefix="pptpcon-radius-") as name:
        os.chmod(name, 0o755)  # noqa: S103
        yield Path(name)


@pytest.fixture
def serve(pair: Pair, tmp_path: Path) -> Iterator[Callable[..., FreeRadius]]:
    """Start FreeRADIUS servers beside the concentrator."""
    made: list[FreeRadius] = []

    def start(name: str = "one", users: str = USERS, **more: object) -> FreeRadius:
        made.append(FreeRadius(pair[1], tmp_path / name, users, **more))  # type: ignore[arg-type]
        return made[-1]

    yield start
    for server in made:
        server.kill()


def accounts_pid(keeper: Keeper) -> int:
    """The process that speaks RADIUS."""
    found = [
        pid for name, pid in keeper.children().items() if name.startswith("workers.radius.process")
    ]
    return found[0] if found else 0


def shown(space: Space, *words: str) -> str:
    """The command's output."""
    words = (sys.executable, "-m", "ops", "show", *words)
    done = subprocess.run(space.argv(*words), capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return done.stdout


def page(space: Space, path: str) -> bytes:
    """What the control socket has there."""
    link = http.client.HTTPConnection("localhost", timeout=10)
    link.sock = socket.socket(socket.AF_UNIX)
    link.sock.settimeout(10)
    link.sock.connect(f"{space.run_dir}/control.sock")
    link.request("GET", path)
    answer = link.getresponse()
    data = answer.read()
    link.close()
    assert answer.status == 200, data
    return data


def policy_of(space: Space, user: str) -> dict[str, Any]:
    """What the session's blob says it was given."""
    found: dict[str, Any] = json.loads(page(space, f"/api/session/{user}"))[0]["policy"]
    return found


def octets_shown(space: Space) -> tuple[int, int]:
    """Up and down, of the only session."""
    (session,) = json.loads(page(space, "/api/session/anna"))
    return session["rx-bytes-raw"], session["tx-bytes-raw"]


def octets_of(record: dict[str, str]) -> tuple[int, int]:
    """Up and down, of an accounting record."""
    return int(record["Acct-Input-Octets"]), int(record["Acct-Output-Octets"])


def octets_metered(space: Space) -> tuple[int, int]:
    """Up and down, of all workers."""
    lines = page(space, "/metrics").decode().splitlines()
    lines = [x for x in lines if x.startswith("pptp_traffic_bytes_total")]
    up, down = (
        sum(float(x.split()[-1]) for x in lines if f'direction="{way}"' in x)
        for way in ("receive", "transmit")
    )
    return int(up), int(down)


def radclient(space: Space, kind: str, *attributes: str) -> str:
    """FreeRADIUS's own client."""
    done = subprocess.run(
        space.argv("radclient", "-x", "-t", "3", "-r", "1", "127.0.0.1:3799", kind, COA_SECRET),
        input=",".join(attributes),
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout + done.stderr


@contextmanager
def client(
    space: Space, user: str, password: str, *more: str, count: int = 1
) -> Iterator[subprocess.Popen[str]]:
    """Our client with options of its own."""
    words = ["-m", "ops.client", "--server", "192.0.2.2", "--user", user, "--count", str(count)]
    words += ["--password-file", "/dev/stdin", "--route", "10.99.0.0/24", "--json", *more]
    process = subprocess.Popen(
        space.argv(sys.executable, *words),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        cwd=ROOT,
        text=True,
    )
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write(password + "\n")
    process.stdin.close()
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()


def test_every_method_and_all_of_a_session(
    pair: Pair, start_keeper: Start, serve: Callable[..., FreeRadius], tmp_path: Path
) -> None:
    server = serve(eap="mschapv2")
    radius = replace(FAST, interim_s=1)
    keeper = start_keeper(
        pair[1], conf(tmp_path / "state", radius=radius), module="dispatcher.keeper"
    ).ready()
    ups = 0
    for auth, mppe in (("pap", "-"), ("chap-md5", "-"), ("mschap", "128s"), ("eap", "128s")):
        with client(pair[0], "user1", "secret", "--auth", auth, "--mppe", "prefer"):
            ups += 1
            up(keeper, ups)
        line = [x for x in keeper.text.splitlines() if "session up" in x][-1]
        assert f"mppe={mppe}" in line and auth in line, line
    with client(pair[0], "anna", "wonder"):
        up(keeper, ups + 1)
        line = [x for x in keeper.text.splitlines() if "session up" in x][-1]
        assert "ip=10.99.1.7" in line and "mppe=128s" in line and "auth=mschapv2" in line
        pair[0].sh("ping -c 20 -i 0.05 -W 2 -I 10.99.1.7 10.99.0.1")
        policy = policy_of(pair[1], "anna")
        assert policy["session_timeout_s"] == 3600 and policy["idle_timeout_s"] == 1800
        assert (policy["rate_up"], policy["rate_down"]) == (1_000_000, 2_000_000)
        behind = "ip route show proto 201 type unicast"
        assert all(net in pair[1].sh(behind) for net in ("10.88.0.0/24", "10.89.0.0/16"))
        assert policy["dns"] == ["10.99.0.53"] and policy["source"] == "radius"
        server.heard("Interim-Update", 1)
    with client(pair[0], "anna", "wrong") as refused:
        assert refused.wait(20) != 0
    assert "E=691" in keeper.text and "secret" not in keeper.text
    stop = server.heard("Stop", ups + 1)[-1]
    start = server.heard("Start", ups + 1)[-1]
    assert start["Framed-IPv6-Prefix"] == "2001:db8:5::/64"
    assert start["Delegated-IPv6-Prefix"] == "2001:db8:600::/56"
    # The octets of 20 pings of 84: what the data path delivered, to the packet.
    assert (stop["Acct-Input-Octets"], stop["Acct-Output-Octets"]) == ("1680", "1680")
    assert (stop["Acct-Input-Packets"], stop["Acct-Output-Packets"]) == ("20", "20")
    assert stop["Class"] == "0x676f6c64" and stop["Acct-Terminate-Cause"] == "User-Request"
    assert keeper.stop() == 0
    kinds = [r["Acct-Status-Type"] for r in server.accounting]
    assert kinds[0] == "Accounting-On" and kinds[-1] == "Accounting-Off"
    assert kinds.count("Start") == kinds.count("Stop") == ups + 1


def test_eap_is_passed_on_unread(
    pair: Pair, start_keeper: Start, serve: Callable[..., FreeRadius], tmp_path: Path
) -> None:
    serve(eap="peap")
    base = conf(tmp_path / "state")
    ppp = Ppp(auth=("eap",), eap=("relay",))
    keeper = start_keeper(pair[1], replace(base, ppp=ppp), module="dispatcher.keeper").ready()
    # The server proposes PEAP, which the client does not have: it asks for MSCHAPv2.
    with client(pair[0], "user2", "secret", "--auth", "eap", "--mppe", "require"):
        up(keeper, 1)
    line = next(x for x in keeper.text.splitlines() if "session up" in x)
    assert "auth=eap" in line
    with client(pair[0], "user2", "wrong", "--auth", "eap") as refused:
        assert refused.wait(20) != 0
    assert keeper.stop() == 0


def flooded(pair: Pair, address: str, seconds: float) -> float:
    """Bit/s of IP that reach the subscriber while far more is sent to it."""
    with pair[0].inside():
        receiver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    receiver.bind((address, 7000))
    receiver.setblocking(False)
    with pair[1].inside():
        sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    began = time.monotonic()
    settled, got, last = began + 1.0, 0, began
    while (now := time.monotonic()) < began + 1.0 + seconds:
        sender.sendto(bytes(1000), (address, 7000))  # 8 Mbit/s at most
        time.sleep(0.001)
        with contextlib.suppress(BlockingIOError):
            while True:
                size = len(receiver.recv(2000))
                got += size + 28 if now > settled else 0
        last = now
    sender.close()
    receiver.close()
    return got * 8 / (last - settled)


def test_a_change_and_an_end(
    pair: Pair, start_keeper: Start, serve: Callable[..., FreeRadius], tmp_path: Path
) -> None:
    server = serve()
    keeper = start_keeper(pair[1], conf(tmp_path / "state"), module="dispatcher.keeper").ready()
    with client(pair[0], "anna", "wonder"):
        up(keeper, 1)
        server.heard("Start", 1)
        assert 1.8e6 < flooded(pair, "10.99.1.7", 2.0) < 2.1e6
        said = radclient(
            pair[1],
            "coa",
            'User-Name = "anna"',
            'Mikrotik-Rate-Limit = "64k/512k"',
            "Session-Timeout = 77",
            "Acct-Interim-Interval = 1",
            'Framed-Route = "10.90.0.0/16"',
        )
        assert "CoA-ACK" in said, said
        behind = "ip route show proto 201 type unicast"
        wait_for(lambda: "10.90.0.0/16" in pair[1].sh(behind))
        assert "10.88.0.0" not in pair[1].sh(behind)
        policy = policy_of(pair[1], "anna")
        assert (policy["rate_up"], policy["rate_down"]) == (64_000, 512_000)
        assert policy["session_timeout_s"] == 77
        assert 0.44e6 < flooded(pair, "10.99.1.7", 2.0) < 0.54e6
        server.heard("Interim-Update", 1)
        assert "Error-Cause = Session-Context-Not-Found" in radclient(
            pair[1], "coa", 'User-Name = "nobody"', "Session-Timeout = 5"
        )
        assert "NAK" in radclient(
            pair[1], "coa", 'User-Name = "anna"', "MS-Primary-DNS-Server = 10.0.0.1"
        )
        # Its successor has the changed words: they are in the blob.
        for pid in worker_pids(keeper):
            kill(pid)
        wait_for(lambda: keeper.text.count("worker said Hello") >= 4)
        policy = policy_of(pair[1], "anna")
        assert policy["rate_down"] == 512_000
        # The same octets in show, metrics and RADIUS: of what the rate let pass.
        shown_octets = octets_shown(pair[1])
        assert octets_metered(pair[1]) == shown_octets and shown_octets[1] > 500_000
        # At rest an Interim says the same; while it flows it may be a packet behind.
        wait_for(lambda: octets_of(server.heard("Interim-Update", 1)[-1]) == shown_octets)
        said = radclient(pair[1], "disconnect", "Framed-IP-Address = 10.99.1.7")
        assert "Disconnect-ACK" in said, said
        keeper.heard("cause=admin_reset")
    stop = server.heard("Stop", 1)[-1]
    assert stop["Acct-Terminate-Cause"] == "Admin-Reset" and stop["Class"] == "0x676f6c64"
    assert octets_of(stop) == shown_octets
    page = shown(pair[1], "radius")
    assert "127.0.0.1" in page
    assert keeper.stop() == 0


def test_the_first_server_dies(
    pair: Pair, start_keeper: Start, serve: Callable[..., FreeRadius], tmp_path: Path
) -> None:
    one, two = serve("one"), serve("two", port=1912)
    servers = (
        RadiusServer("127.0.0.1", SECRET, name="one"),
        RadiusServer("127.0.0.1", SECRET, "two", auth_port=1912, acct_port=1913, priority=1),
    )
    keeper = start_keeper(
        pair[1], conf(tmp_path / "state", *servers), module="dispatcher.keeper"
    ).ready()
    with client(pair[0], "user{i}", "secret", "--rate", "20", count=40) as clients:
        up(keeper, 10)
        one.kill()
        up(keeper, 40)
        assert clients.poll() is None and "login refused" not in keeper.text
        keeper.heard("RADIUS server dead server=one")
        one.start()
        keeper.heard("RADIUS server answers server=one")
    wait_for(lambda: keeper.text.count("session down") == 40)
    wait_for(lambda: len(one.records("Stop")) + len(two.records("Stop")) == 40)
    assert keeper.stop() == 0
    stops = [r["Acct-Session-Id"] for s in (one, two) for r in s.records("Stop")]
    starts = [r["Acct-Session-Id"] for s in (one, two) for r in s.records("Start")]
    assert len(set(stops)) == 40 and set(stops) == set(starts)


def test_no_accounting_is_lost_whoever_dies(
    pair: Pair, start_keeper: Start, serve: Callable[..., FreeRadius], tmp_path: Path
) -> None:
    server = serve()
    settings = conf(tmp_path / "state")
    keeper = start_keeper(pair[1], settings, module="dispatcher.keeper").ready()
    with client(pair[0], "user{i}", "secret", count=10):
        up(keeper, 10)
        server.heard("Start", 10)
        kill(accounts_pid(keeper))
        keeper.heard("process replaced name=accounts")
        server.kill()
        for pid in worker_pids(keeper):
            kill(pid)
        wait_for(lambda: keeper.text.count("worker said Hello") >= 4)
    # All ten ended while no server answered; then the accounts process dies again.
    wait_for(lambda: keeper.text.count("session down") == 10)
    time.sleep(0.5)
    kill(accounts_pid(keeper))
    keeper.heard("accounting records kept from before records=10")
    time.sleep(1.5)
    server.start()
    stops = server.heard("Stop", 10)
    assert len({r["Acct-Session-Id"] for r in stops}) == 10
    assert all(int(r["Acct-Delay-Time"]) >= 1 for r in stops)
    # Everything dies at once, sessions up: the next start closes them.
    with client(pair[0], "user{i}", "secret", count=5):
        up(keeper, 15)
        server.heard("Start", 15)
        keeper.kill_all()
    again = start_keeper(pair[1], settings, module="dispatcher.keeper").ready()
    again.heard("sessions of a dead instance closed sessions=5")
    stops = server.heard("Stop", 15)
    assert again.stop() == 0
    assert [r["Acct-Terminate-Cause"] for r in stops[10:]] == ["NAS-Reboot"] * 5
    every = server.accounting
    for kind, many in (("Start", 15), ("Stop", 15), ("Accounting-On", 2)):
        ids = [r["Acct-Session-Id"] for r in every if r["Acct-Status-Type"] == kind]
        assert len(ids) == len(set(ids)) == many, (kind, ids)


class Distance(threading.Thread):
    """UDP to 127.0.0.1 from one port to another, `delay` s away, losing some each way."""

    def __init__(self, space: Space, ports: dict[int, int], delay: float, loss: float) -> None:
        super().__init__(daemon=True)
        self.delay, self.loss = delay, loss
        self.lost = 0
        self.done = False
        self._space = space
        self._dice = random.Random(7)
        self._fronts: dict[socket.socket, int] = {}
        with space.inside():
            for port, target in ports.items():
                sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
                sock.bind(("127.0.0.1", port))
                self._fronts[sock] = target

    def run(self) -> None:
        backs: dict[tuple[socket.socket, tuple[str, int]], socket.socket] = {}
        ends: dict[socket.socket, tuple[socket.socket, tuple[str, int]]] = {}
        queue: list[tuple[float, Callable[[], object]]] = []
        with self._space.inside():
            while not self.done:
                wait = max(0.0, min(0.1, queue[0][0] - time.monotonic())) if queue else 0.1
                ready, _, _ = select.select([*self._fronts, *ends], [], [], wait)
                now = time.monotonic()
                while queue and queue[0][0] <= now:
                    queue.pop(0)[1]()
                for sock in ready:
                    data, source = sock.recvfrom(8192)
                    if self._dice.random() < self.loss:
                        self.lost += 1
                        continue
                    if sock in self._fronts:
                        back = backs.get((sock, source))
                        if back is None:
                            back = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
                            back.connect(("127.0.0.1", self._fronts[sock]))
                            backs[sock, source] = back
                            ends[back] = sock, source
                        queue.append((now + self.delay, partial(back.send, data)))
                    else:
                        front, asker = ends[sock]
                        queue.append((now + self.delay, partial(front.sendto, data, asker)))


def test_far_away_and_lossy(
    pair: Pair, start_keeper: Start, serve: Callable[..., FreeRadius], tmp_path: Path
) -> None:
    server = serve()
    way = Distance(pair[1], {2812: 1812, 2813: 1813}, 0.01, 0.01)
    way.start()
    far = RadiusServer("127.0.0.1", SECRET, auth_port=2812, acct_port=2813)
    keeper = start_keeper(
        pair[1],
        conf(tmp_path / "state", far, radius=Radius(timeout_s=0.5)),
        module="dispatcher.keeper",
    ).ready()
    many = 150
    try:
        with client(pair[0], "user{i}", "secret", count=many) as clients:
            up(keeper, many)
            assert clients.poll() is None and "login refused" not in keeper.text
        wait_for(lambda: keeper.text.count("session down") == many)
        wait_for(lambda: len({r["Acct-Session-Id"] for r in server.records("Stop")}) == many)
        assert keeper.stop() == 0
    finally:
        way.done = True
        way.join()
    assert way.lost > 0
    # An answer that is lost has its request come again, octet for octet, or much later with
    # another Acct-Delay-Time: a server that counts by Acct-Session-Id bills once.
    for kind in ("Start", "Stop"):
        bills: dict[str, dict[str, str]] = {}
        for record in server.records(kind):
            record = record | {"Acct-Delay-Time": ""}
            assert bills.setdefault(record["Acct-Session-Id"], record) == record
        assert len(bills) == many


def test_bad_answers_are_named(pair: Pair, start_keeper: Start, tmp_path: Path) -> None:
    """A server that answers wrongly in every way, one after the other, and then well."""
    ways: list[Callable[[Packet], bytes]] = [
        lambda p: b"\x02",
        lambda p: bytes((2, p.identifier, 0, 50)) + bytes(16),
        lambda p: response(2, p, (), b"some other secret"),
        lambda p: response(2, p, (), SECRET.encode(), sign=False),
        lambda p: response(2, p, ((80, bytes(16)),), SECRET.encode(), sign=False),
        lambda p: bytes((2, p.identifier, 0, 23)) + bytes(16) + b"\x12\x05x",
        lambda p: response(5, p, (), SECRET.encode()),
        lambda p: response(2, replace(p, identifier=p.identifier ^ 1), (), SECRET.encode()),
        # Of a vendor: no octets at all, and one of length 0; then an address of three octets.
        lambda p: response(
            2, p, ((26, b""), (26, b"\0\0\0\x09\x01\0"), (8, b"\x0a\x63\x01")), SECRET.encode()
        ),
    ]
    with pair[1].inside():
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.bind(("127.0.0.1", 1812))
    sock.settimeout(0.1)
    done = threading.Event()

    def answer() -> None:
        while not done.is_set():
            try:
                data, source = sock.recvfrom(4096)
            except TimeoutError:
                continue
            for way in ways:
                sock.sendto(way(Packet.decode(data)), source)

    thread = threading.Thread(target=answer, daemon=True)
    thread.start()
    mad = RadiusServer("127.0.0.1", SECRET, acct_port=0, message_authenticator="require")
    settings = replace(conf(tmp_path / "state", mad), ppp=Ppp(auth=("pap",)))
    keeper = start_keeper(pair[1], settings, module="dispatcher.keeper").ready()
    try:
        with client(pair[0], "x", "y", "--auth", "pap", "--mppe", "deny"):
            up(keeper, 1)
        assert "bad answer of a RADIUS server" in keeper.text

        def counted(fault: str) -> str:
            series = "pptp_radius_bad_answers_total"
            lines = page(pair[1], "/metrics").decode().splitlines()
            (line,) = [x for x in lines if x.startswith(series) and f'"{fault}"' in x]
            return line.split()[-1]

        wait_for(lambda: counted("short") == "1.0")  # written down once a second
        for fault in FAULTS:
            assert f"kind={fault}" in keeper.text, (fault, keeper.text)
            assert counted(fault) == ("2.0" if fault == "bad_vendor_attribute" else "1.0"), fault
        assert keeper.stop() == 0
    finally:
        done.set()
        thread.join()
        sock.close()


def test_local_accounts_when_no_server_answers(
    pair: Pair, start_keeper: Start, serve: Callable[..., FreeRadius], tmp_path: Path
) -> None:
    server = serve()
    base = conf(tmp_path / "state", radius=replace(FAST, fallback="local"))
    local = Accounts(users=(("anna", "other"), ("carl", "local")))
    keeper = start_keeper(
        pair[1], replace(base, accounts=local), module="dispatcher.keeper"
    ).ready()
    with client(pair[0], "carl", "local") as refused:
        assert refused.wait(20) != 0  # the server's word counts while it speaks
    server.kill()
    with client(pair[0], "carl", "local"):
        up(keeper, 1)
    strict = replace(base, radius=replace(base.radius, fallback="off"), accounts=local)
    assert keeper.stop() == 0
    keeper = start_keeper(pair[1], strict, module="dispatcher.keeper").ready()
    with client(pair[0], "carl", "local") as refused:
        assert refused.wait(20) != 0
    assert "no answer to the login: RADIUS server 127.0.0.1" in keeper.text
    assert keeper.stop() == 0
    assert routes(pair[1]) == set() and fleet is not None


def test_a_reload_brings_radius_and_takes_it_away(
    pair: Pair, start_keeper: Start, serve: Callable[..., FreeRadius], tmp_path: Path
) -> None:
    server = serve()
    settings = replace(conf(tmp_path / "state"), radius=Radius())
    before = replace(settings, accounts=Accounts(users=(("carl", "local"),)))
    config = tmp_path / "pptpcon.toml"
    config.write_text(to_toml(before, secrets=True))
    keeper = start_keeper(
        pair[1], before, module="dispatcher.keeper", config_path=str(config)
    ).ready()
    assert accounts_pid(keeper) == 0
    with client(pair[0], "carl", "local"):
        up(keeper, 1)
        config.write_text(to_toml(conf(tmp_path / "state"), secrets=True))
        keeper.process.send_signal(signal.SIGHUP)
        keeper.heard("configuration loaded")
        wait_for(lambda: accounts_pid(keeper))
        # Who was there before is accounted for from now on.
        assert server.heard("Start", 1)[0]["User-Name"] == "carl"
        with client(pair[0], "user1", "secret"):
            up(keeper, 2)
    assert {r["User-Name"] for r in server.heard("Stop", 2)} == {"carl", "user1"}
    server.kill()
    config.write_text(to_toml(before, secrets=True))
    keeper.process.send_signal(signal.SIGHUP)
    wait_for(lambda: keeper.text.count("configuration loaded") == 2)
    with client(pair[0], "carl", "local"):
        up(keeper, 3)
    assert keeper.stop() == 0
