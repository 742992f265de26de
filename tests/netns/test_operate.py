"""The command line against a real concentrator with real clients: trace, top, drain, reload,
shutdown, log levels. One concentrator for all, in the order of a day."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import re
import select
import shutil
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ops.client.concentrator import Concentrator
from ops.client.playground import LAN_HOST, LAN_NET, Playground, why_not
from tests.netns.spaces import ROOT, wait_for
from tests.netns.test_client import PASSWORD, Client, ping

pytestmark = [pytest.mark.netns, pytest.mark.timeout(180)]

WORKERS = 2


def lacking() -> str:
    if shutil.which("tshark") is None:
        return "tshark is missing: apt-get install tshark"
    return why_not()


class Box:
    """A concentrator and the command line beside it."""

    def __init__(self, concentrator: Concentrator) -> None:
        self.concentrator = concentrator
        self.clients: list[Client] = []

    def argv(self, *words: str) -> list[str]:
        name = self.concentrator.playground.name("server")
        return ["ip", "netns", "exec", name, sys.executable, "-m", "ops", *words]

    def client(self, *words: str, route: str = LAN_NET) -> Client:
        self.clients.append(Client(self.concentrator, *words, route=route))
        return self.clients[-1]

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.argv(*words), capture_output=True, text=True, check=False, timeout=60, cwd=ROOT
        )

    def hang_up(self) -> None:
        for client in self.clients:
            if client.child.alive():
                client.child.stop()
        self.clients.clear()

    def begin(self, *words: str, stdout: int | None = subprocess.PIPE) -> subprocess.Popen[str]:
        return subprocess.Popen(
            self.argv(*words), stdout=stdout, stderr=subprocess.PIPE, text=True, cwd=ROOT
        )

    def sessions(self, *words: str) -> list[dict[str, object]]:
        found: list[dict[str, object]] = json.loads(
            self.run("show", "sessions", *words, "--json").stdout
        )
        return found

    @property
    def log(self) -> str:
        return self.concentrator.child.log.read_text()


@contextlib.contextmanager
def running() -> Iterator[Box]:
    if reason := lacking():
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    with Playground() as ground:
        concentrator = Concentrator(
            ground,
            {f"user{i}": PASSWORD for i in range(1, 9)},
            extra={"workers": {"count": WORKERS}, "mppe": {"policy": "require"}},
        )
        concentrator.start()
        yield Box(concentrator)


@pytest.fixture(scope="module")
def shared_box() -> Iterator[Box]:
    with running() as box:
        yield box


@pytest.fixture
def box(shared_box: Box) -> Iterator[Box]:
    """No client outlives its test, however that ends."""
    yield shared_box
    shared_box.hang_up()


@pytest.fixture
def own_box() -> Iterator[Box]:
    """For a test after which it serves no more, which failed is run again."""
    with running() as box:
        yield box
        box.hang_up()


def tracing(process: subprocess.Popen[str]) -> None:
    """Wait until it says so."""
    assert process.stderr is not None
    line = process.stderr.readline()
    assert line.startswith("tracing "), line


def ended(process: subprocess.Popen[str]) -> tuple[str, str]:
    """Ctrl-C, and what it has said."""
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 0, err
    return out or "", err


def test_trace_tells_a_login_and_writes_it_decrypted(box: Box, tmp_path: Path) -> None:
    path = tmp_path / "user1.pcapng"
    words = box.begin("trace", "user", "user1")
    file = box.begin("trace", "csid", "198.18.0.2", "--pcap", str(path))
    for process in (words, file):
        tracing(process)
    client = box.client("--user", "user1")
    (up,) = client.wait_for("up")
    other = box.client("--user", "user2", route="198.19.0.99/32")
    other.wait_for("up")
    assert " 0% packet loss" in ping(box.concentrator, up["address"])
    wait_for(lambda: path.stat().st_size > 2000)
    assert client.end() == 0
    assert other.end() == 0
    out, _ = ended(words)
    # In order, from before anybody knew who it was; nothing of user2.
    patterns = [
        r"<- LCP Configure-Request id \d+: ",
        r"-> CHAP Challenge id \d+: [0-9a-f]{32}, name 'playground'",
        r"<- CHAP Response id \d+: \*\*\* of 49 octets, name 'user1'",
        r"-- login of 'user1' accepted by ",
        r"-> CHAP Success id \d+: 'S=\*\*\* ",
        r"(<-|->) CCP Configure-Ack id \d+: MPPE 128 stateless",
        r"<- IPCP Configure-Request id \d+: address 0\.0\.0\.0",
        rf"-> IPCP Configure-Nak id \d+: address {re.escape(up['address'])}",
        rf"-- up: user 'user1', address {re.escape(up['address'])}, auth mschapv2, MPPE 128s",
        r"<- LCP Terminate-Request id \d+",
        r"-- the link ends, user_request",
    ]
    assert re.search(".*".join(patterns), out, re.DOTALL), out
    assert "PPTP Call-Clear-Request" in out or "PPTP Call-Disconnect-Notify" in out, out
    assert "user2" not in out
    assert "ICMP" not in out
    out, _ = ended(file)
    assert "PPTP Start-Control-Connection-Request: " in out
    assert "PPTP Outgoing-Call-Request: call id" in out
    assert f"ICMP {up['address']} > {LAN_HOST}" in out
    assert path.stat().st_mode & 0o077 == 0

    def tshark(what: str, *fields: str) -> list[str]:
        argv = ["tshark", "-n", "-r", str(path), "-Y", what]
        argv += ["-T", "fields", *(word for field in fields for word in ("-e", field))]
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()

    echo = [f"{up['address']}\t{LAN_HOST}\t8", f"{LAN_HOST}\t{up['address']}\t0"]
    found = tshark("icmp", "ip.src", "ip.dst", "icmp.type")
    assert found[:2] == echo
    assert len(found) == 10
    assert len(tshark("pptp.type", "pptp.control_message_type")) >= 4
    assert tshark("chap", "frame.number")
    assert tshark("ppp.protocol == 0x00fd", "frame.number") == []
    assert not tshark("_ws.malformed", "frame.number")
    # The 24 octets of the NT response are not there.
    assert all(int(value, 16) == 0 for value in tshark("chap.code == 2", "chap.value"))
    assert box.log.count("trace begins") == 2
    wait_for(lambda: box.log.count("trace ends") == 2)


def resize(fd: int, lines: int, columns: int) -> None:
    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("4H", lines, columns, 0, 0))


def test_top(box: Box) -> None:
    client = box.client("--user", "user3", "--count", "2", "--user", "user{i}")
    client.wait_for("up", 2)
    once = box.run("top", "--once", "--interval", "0.5")
    assert once.returncode == 0, once.stderr
    assert re.search(r"slots 2/\d+: 2 active", once.stdout)
    assert re.search(r"^ +1 up ", once.stdout, re.MULTILINE)
    assert "user1" in once.stdout
    assert box.run("top").returncode == 1

    pid, fd = pty.fork()
    if pid == 0:
        os.chdir(ROOT)
        os.environ["TERM"] = "xterm"
        argv = box.argv("top", "--interval", "0.5")
        os.execvp(argv[0], argv)  # noqa: S606
    resize(fd, 30, 120)
    seen = b""

    def reads(what: bytes) -> bool:
        nonlocal seen
        if select.select([fd], [], [], 0.1)[0]:
            seen += os.read(fd, 65536)
        return what in seen

    wait_for(lambda: reads(b"h: help, q: end"), 20)
    assert b"user1" in seen
    os.write(fd, b"/user2\r")
    wait_for(lambda: reads(b"search 'user2': 1 sessions"), 20)
    os.write(fd, b"\x1bn")
    os.write(fd, b"n")
    wait_for(lambda: reads(b"by username, smallest first"), 20)
    seen = b""
    resize(fd, 10, 40)
    wait_for(lambda: reads(b"\x1b[H"), 20)
    assert (
        max(
            map(len, re.sub(rb"\x1b\[[0-9;?]*[a-zA-Z]", b"", seen).replace(b"\r", b"").split(b"\n"))
        )
        <= 40
    )
    os.write(fd, b"q")
    wait_for(lambda: not seen.endswith(b"\x1b[?1049l") and reads(b"\x1b[?1049l"), 20)
    assert os.waitpid(pid, 0)[1] == 0
    os.close(fd)
    assert client.end() == 0


def test_drain_and_undrain(box: Box) -> None:
    done = box.run("drain", "--worker", "0")
    assert done.stdout == "no new calls for worker 0; 0 calls are left there\n", done.stderr
    client = box.client("--user", "user{i}", "--count", "3")
    client.wait_for("up", 3)
    assert {row["worker"] for row in box.sessions("worker")} == {1}
    states = json.loads(box.run("show", "workers", "--json").stdout)
    assert [worker["state"] for worker in states] == ["draining", "up"]
    # A dispatcher that begins anew knows it still.
    assert client.end() == 0
    assert "no new calls for workers 0, 1" in box.run("drain").stdout
    refused = box.client("--user", "user1")
    refused.wait_for("failed")
    refused.end(0)
    assert "all workers that are up are drained (pptpcon undrain)" in box.log
    assert box.run("drain", "--worker", "7").returncode == 2
    assert box.run("undrain").stdout == "all workers get new calls\n"


def test_terminate(box: Box) -> None:
    client = box.client("--user", "user{i}", "--count", "4")
    client.wait_for("up", 4)
    refused = box.run("terminate", "match", "username", "^user[12]$")
    assert refused.returncode == 1
    assert "this ends 2 sessions; add --yes" in refused.stderr
    done = box.run("terminate", "match", "username", "^user[12]$", "--yes")
    assert (done.returncode, done.stdout) == (0, "ending 2 sessions\n"), done.stderr
    client.wait_for("down", 2)
    (name,) = [r["ifname"] for r in box.sessions("ifname,username") if r["username"] == "user3"]
    assert box.run("terminate", "if", str(name), "hard").stdout == "ending 1 session\n"
    client.wait_for("down", 3)
    assert box.run("terminate", "match", "username", "^user1$", "--yes").returncode == 5
    assert client.end() in (0, 1)


def test_reload_says_what_came_of_it(box: Box) -> None:
    path = box.concentrator.config_path
    before = path.read_text()
    same = box.run("reload")
    assert same.returncode == 0, same.stderr
    assert "nothing has changed" in same.stdout
    changed = before.replace("[ip]", "[limits]\nmax_starting = 77\n\n[ip]").replace(
        '"count" = 2', '"count" = 1'
    )
    path.write_text(changed)
    done = box.run("reload")
    assert done.returncode == 0, done.stderr
    assert "in force now: limits.max_starting\n" in done.stdout
    assert "in force after a restart only: workers.count\n" in done.stdout
    path.write_text(changed + "\n[nope]\nx = 1\n[ppp]\nmtu = 3\n")
    bad = box.run("reload")
    assert bad.returncode == 78
    assert bad.stderr.count(f"{path}:") >= 3
    assert "refused; the old configuration stays in force" in bad.stderr
    assert "Traceback" not in bad.stderr
    path.write_text(before)
    assert "in force now: limits.max_starting" in box.run("reload").stdout


def test_log_levels(box: Box) -> None:
    assert "all lines about user1" in box.run("log-level", "debug", "--user", "user1").stdout
    client = box.client("--user", "user{i}", "--count", "2")
    client.wait_for("up", 2)
    wait_for(lambda: re.search(r"debug worker-\d: link up sid=\w+ user=user1 ", box.log))
    assert not re.search(r"debug worker-\d: link up sid=\w+ user=user2 ", box.log)
    assert box.run("log-level", "default", "--user", "user1").stdout == "log level info\n"
    assert box.run("log-level", "loud").returncode == 2
    assert box.run("log-level", "warning", "--user", "x").returncode == 1
    assert client.end() == 0


def test_a_soft_shutdown_waits_and_can_be_cancelled(own_box: Box) -> None:
    box = own_box
    client = box.client("--user", "user1")
    client.wait_for("up")
    assert "ends after the last of 1 session" in box.run("shutdown", "soft").stdout
    refused = box.client("--user", "user2", route="198.19.0.99/32")
    refused.wait_for("failed")
    refused.end(0)
    assert box.run("shutdown", "cancel").stdout == "new calls are served again; 1 session\n"
    assert box.run("shutdown", "cancel").returncode == 2
    again = box.client("--user", "user2", route="198.19.0.99/32")
    again.wait_for("up")
    assert again.end() == 0
    assert box.run("shutdown", "soft").returncode == 0
    time.sleep(1.0)
    assert box.concentrator.child.alive()
    assert client.end() == 0
    assert box.concentrator.child.process.wait(30) == 0
    assert "Traceback" not in box.log
