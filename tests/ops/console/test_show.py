"""`pptpcon show` and `terminate` as a user types them, against a real console."""

from __future__ import annotations

import csv
import io
import json
import os
import pty
import re
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import zmq
from click.testing import CliRunner

from dispatcher.ends import History
from ops import messages
from ops.cli.main import cli
from ops.cli.show import DEFAULT_COLUMNS
from ops.messages import Ends, PastCalls, Terminate, Terminated
from tests.ops.console.rig import ROOT, Console, Shared, console

Result = subprocess.CompletedProcess[str]


def pptpcon(*words: str | bytes, run_dir: str | Path | None = None) -> Result:
    argv = [sys.executable, "-m", "ops", *words]
    if run_dir is not None:
        argv += ["--run-dir", str(run_dir)]
    return subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)


def show(running: Console, *words: str | bytes) -> Result:
    return pptpcon("show", *words, run_dir=running.run_dir)


def test_sessions_table(running: Console) -> None:
    result = show(running, "sessions")
    assert result.returncode == 0, result.stderr
    head, rule, *rows = result.stdout.splitlines()
    names = [name.strip() for name in head.split(" | ")]
    assert ",".join(names) == DEFAULT_COLUMNS
    assert re.fullmatch(r"-+(-\+-+)+", rule)
    assert len(rows) == 3
    cells = [cell.strip() for cell in rows[0].split(" | ")]
    assert cells[:6] == ["6500000100000001", "alice", "10.99.1.5", "192.0.2.7", "0", "active"]
    assert re.fullmatch(r"\d\d:\d\d:\d\d", cells[6])
    assert cells[7:] == ["128 stateless", "4.9 KiB", "29.3 KiB"]
    assert [row.split(" | ")[5].strip() for row in rows] == ["active", "starting", "finishing"]


def test_columns_order_limit_match(running: Console) -> None:
    found = json.loads(
        show(running, "sessions", "sid,rx-bytes-raw", "--order", "-rx-bytes", "--json").stdout
    )
    assert [row["rx-bytes-raw"] for row in found] == [2_000_000, 5000, 0]
    assert list(found[0]) == ["sid", "rx-bytes-raw"]
    found = json.loads(show(running, "sessions", "--order", "ip", "--limit", "1", "--json").stdout)
    assert [row["username"] for row in found] == ["bob"]
    result = show(running, "sessions", "username", "--match", "username", "^a.*e$")
    assert result.stdout.splitlines()[2:] == ["alice"]
    words = ("username", "order", "-ip", "match", "username", "^[ab]", "limit", "1")
    result = show(running, "sessions", *words)
    assert result.stdout.splitlines()[2:] == ["alice"]
    result = show(running, "sessions", "username", "--match", "username", "^zz")
    assert result.returncode == 5
    assert "no session whose username matches '^zz'" in result.stderr


def test_json_and_csv_have_every_column(running: Console) -> None:
    as_json = json.loads(show(running, "sessions", "--json").stdout)
    as_csv = list(csv.DictReader(io.StringIO(show(running, "sessions", "--csv").stdout)))
    assert [list(row) for row in as_json] == [list(row) for row in as_csv]
    one = as_json[0]
    assert {"uptime-raw", "auth", "mppe", "mtu", "drops", "call-id", "peer-call-id"} <= set(one)
    assert (one["auth"], one["drops"], one["rx-pkts"], one["tx-pkts"]) == ("mschapv2", 3, 10, 20)
    assert (one["ifname"], one["type"], one["comp"]) == ("ppp0", "pptp", "mppe")
    assert (one["calling-sid"], one["called-sid"]) == ("192.0.2.7", "198.51.100.1")
    assert (one["loss"], one["loss-raw"], one["netns"]) == ("0.00%", 0, None)
    assert as_json[1]["username"] is None
    assert as_csv[1]["username"] == ""


BAD = [
    (("sessions", "nope"), 2, "unknown column 'nope'"),
    (("sessions", "--json", "--order", "nope"), 2, "unknown column 'nope'"),
    (("sessions", "--match", "username", "(("), 2, "no regular expression"),
    (("sessions", "--limit", "x"), 2, "--limit"),
    (("sessions", "--limit", "-1"), 2, "--limit"),
    (("sessions", "--json", "--csv"), 1, "exclude"),
    (("sessions", "--nope"), 1, "--nope"),
    (("sessions", "sid", "order"), 1, "write `order COLUMN`"),
    (("sessions", "sid", "username"), 1, "'username' is not order, match or limit"),
    (("nope",), 1, "No such command"),
    (("session",), 1, "Missing argument"),
    (("session", "nobody"), 5, "no session 'nobody'"),
    (("session", b"\xff\xfe"), 5, "no session"),
    (("session", "a/../b?c#d"), 5, "no session"),
    (("session", ""), 2, "name a sid"),
]


@pytest.mark.parametrize(("words", "code", "text"), BAD)
def test_exit_codes(running: Console, words: tuple[str], code: int, text: str) -> None:
    result = show(running, *words)
    assert result.returncode == code, result.stderr
    assert text in result.stderr
    assert "Traceback" not in result.stderr
    assert result.stdout == ""


@pytest.mark.parametrize("name", ["alice", "6500000100000001", "10.99.1.5"])
def test_session(running: Console, name: str) -> None:
    result = show(running, "session", name)
    assert result.returncode == 0
    lines = dict(line.partition(": ")[::2] for line in result.stdout.splitlines())
    assert lines["sid"] == "6500000100000001"
    assert (lines["username"], lines["pool"], lines["data-state"]) == ("alice", "default", "up")
    assert lines["framing.acfc"] == "yes"


def test_stat(running: Console) -> None:
    result = show(running, "stat")
    assert result.returncode == 0
    text = result.stdout
    assert re.search(r"^uptime: 0\.00:0\d:\d\d$", text, re.M)
    assert re.search(r"^mem\(rss/virt\): \d+/\d+ kB$", text, re.M)
    assert "sessions:\n  starting: 1\n  active: 1\n  finishing: 1\n  slots: 3/64\n" in text
    assert "refusals:\n  no slot: 2\n" in text
    assert "drops from subscribers:\n  duplicate: 4\n" in text
    assert "mschapv2: accept 11, reject 0, timeout 0" in text
    found = json.loads(show(running, "stat", "--json").stdout)
    assert found["slots"] == {"capacity": 64, "used": 3}


def test_workers_ippool_version(running: Console) -> None:
    workers = json.loads(show(running, "workers", "--json").stdout)
    assert [(w["worker"], w["sessions"], w["drops"]) for w in workers] == [(0, 1, 4), (1, 2, 1)]
    assert len(show(running, "workers").stdout.splitlines()) == 4
    pools = show(running, "ippool").stdout.splitlines()
    assert [p.strip() for p in pools[3].split("|")] == ["vip", "2", "1", "1", "", "50.0%"]
    assert show(running, "version").stdout.startswith("version: ")


def test_a_name_cannot_move_the_cursor(tmp_path: Path) -> None:
    shared = Shared()
    shared.up(0, "\x1b[2J\nevil | [bold]x", "10.99.1.5")
    with console(shared, tmp_path) as rig:
        for words in (["sessions"], ["sessions", "--csv"], ["session", "10.99.1.5"]):
            out = show(rig, *words).stdout
            assert "\\x1b[2J\\nevil" in out
            assert "\x1b" not in out
        # and not on a terminal, where rich draws
        parent, child = pty.openpty()
        argv = [sys.executable, "-m", "ops", "show", "sessions", "username"]
        environment = {**os.environ, "TERM": "xterm", "COLUMNS": "120"}
        process = subprocess.Popen(
            [*argv, "--run-dir", str(tmp_path)], cwd=ROOT, stdout=child, env=environment
        )
        os.close(child)
        assert process.wait(30) == 0
        out = os.read(parent, 65536).decode()
        os.close(parent)
        assert "\\x1b[2J\\nevil | [bold]x" in out


def test_nobody_there(tmp_path: Path) -> None:
    result = pptpcon("show", "stat", run_dir=tmp_path)
    assert result.returncode == 3
    assert "does not run with this --run-dir" in result.stderr
    with socket.socket(socket.AF_UNIX) as s:
        s.bind(str(tmp_path / "control.sock"))
    result = pptpcon("show", "stat", run_dir=tmp_path)
    assert result.returncode == 3
    assert "nobody listens" in result.stderr
    result = pptpcon("show", "stat", run_dir="/" + "x" * 200)
    assert result.returncode == 3
    assert "path too long" in result.stderr


def test_not_allowed(running: Console) -> None:
    if os.getuid() != 0:
        pytest.skip("needs root to become somebody else")
    os.chmod(running.path, 0o600)
    # Whether the socket says no or, with pytest's folders, one above: the answer is the same.
    probe = (
        "import os\n"
        "from ops.cli.control import Control, ClientError\n"
        "os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        f"try: Control({str(running.run_dir)!r}).get('/api/stat')\n"
        "except ClientError as e: print(e.exit_code, e.message)"
    )
    result = subprocess.run(
        [sys.executable, "-c", probe], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert result.stdout.startswith("3 ")
    assert "permission denied; only root" in result.stdout


@contextmanager
def dispatcher(run_dir: Path, count: int, *past: messages.PastCall) -> Iterator[list[Terminate]]:
    """A ROUTER where the dispatcher has its own: notes requests and answers."""
    seen: list[Terminate] = []
    history = History()
    for call in past:
        history.add(call)
    context = zmq.Context()
    router = context.socket(zmq.ROUTER)
    router.bind(f"ipc://{run_dir}/bus.sock")
    # The console is nobody; the real socket is bound by a process of the same user.
    os.chmod(run_dir / "bus.sock", 0o777)  # noqa: S103
    stop = threading.Event()

    def serve() -> None:
        while not stop.is_set():
            if not router.poll(50):
                continue
            peer, frame = router.recv_multipart()
            message = messages.decode(frame)
            assert peer.startswith(b"console-")
            if isinstance(message, Ends):
                calls = history.newest(message.value, message.limit)
                router.send_multipart([peer, messages.encode(PastCalls(message.request, calls))])
                continue
            assert isinstance(message, Terminate)
            seen.append(message)
            # An answer to somebody else's request is not taken for ours.
            for answer in (Terminated(message.request + 1, 99), Terminated(message.request, count)):
                router.send_multipart([peer, messages.encode(answer)])

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield seen
    finally:
        stop.set()
        thread.join()
        context.destroy(linger=0)


@pytest.fixture
def open_dir() -> Iterator[Path]:
    """A run folder that `nobody` may walk into, as /run/pptpcon is and pytest's are not."""
    with tempfile.TemporaryDirectory(prefix="pptpcon-test-") as name:
        os.chmod(name, 0o755)  # noqa: S103
        yield Path(name)


def test_terminate(open_dir: Path) -> None:
    with console(Shared(), open_dir) as rig, dispatcher(open_dir, 2) as seen:
        result = pptpcon("terminate", "username", "DOM\\al ice", run_dir=open_dir)
        assert (result.returncode, result.stdout) == (0, "ending 2 sessions\n"), result.stderr
        assert (seen[-1].by, seen[-1].value, seen[-1].soft) == ("username", "DOM\\al ice", True)
        result = pptpcon("terminate", "sid", "65000001000000AB", "--hard", run_dir=open_dir)
        assert result.returncode == 0
        assert (seen[-1].value, seen[-1].soft) == ("65000001000000ab", False)
        result = pptpcon("terminate", "all", "--yes", "--json", run_dir=open_dir)
        assert json.loads(result.stdout) == {"count": 2}
        assert (seen[-1].by, seen[-1].value) == ("all", "")
        assert pptpcon("terminate", "if", "ppp12", "hard", run_dir=open_dir).returncode == 0
        assert (seen[-1].by, seen[-1].value, seen[-1].soft) == ("if", "12", False)
        before = len(seen)
        for words, code in (
            (("all",), 1),
            (("all", "x", "--yes"), 1),
            (("username",), 1),
            ((), 1),
            (("user", "x"), 2),
            (("ip", "10.0.0"), 2),
            (("sid", "wxyz"), 2),
            (("if", "eth"), 2),
            (("ip", "10.0.0.1", "now"), 1),
            (("ip", "10.0.0.1", "hard", "--soft"), 1),
            (("match", "sid", "x"), 1),
            (("match", "username", "(("), 2),
        ):
            answer = CliRunner().invoke(cli, ["terminate", *words, "--run-dir", str(open_dir)])
            assert answer.exit_code == code, words
        assert len(seen) == before
        assert "console: terminate by=username" in rig.log()
        assert f"sessions=2 uid={os.getuid()}" in rig.log()


def test_terminate_matches_nothing(open_dir: Path) -> None:
    with console(Shared(), open_dir), dispatcher(open_dir, 0):
        result = pptpcon("terminate", "ip", "10.1.2.3", run_dir=open_dir)
        assert result.returncode == 5
        assert "no session with ip '10.1.2.3'" in result.stderr


def test_terminate_without_a_dispatcher_and_no_late_delivery(open_dir: Path) -> None:
    with console(Shared(), open_dir) as rig:
        result = pptpcon("terminate", "ip", "10.1.2.3", run_dir=open_dir)
        assert result.returncode == 4
        assert "the dispatcher did not answer" in result.stderr
        with dispatcher(open_dir, 1) as seen:
            assert pptpcon("terminate", "csid", "192.0.2.1", run_dir=open_dir).returncode == 0
            assert [m.by for m in seen] == ["csid"]
        assert "Traceback" not in rig.log()


def past(n: int, user: str, cause: str, *, up: bool = False) -> messages.PastCall:
    inner = 0x0A630100 + n if up else 0
    sid = 0x6500000100000000 + n
    return 1_700_000_000_000 + n, sid, user, inner, 0xC0000207, cause, "why\x1b[2J", up, n, n, 9


def test_ends(open_dir: Path) -> None:
    calls = [past(1, "alice", "auth_failed"), past(2, "bob", "no_gre")]
    calls += [past(3, "alice", "user_request", up=True), past(4, "\udcff", "lost_carrier", up=True)]
    shared = Shared()
    shared.up(0, "alice", "10.99.1.5")
    with console(shared, open_dir) as rig, dispatcher(open_dir, 0, *calls):
        found = json.loads(show(rig, "ends", "--json").stdout)
        assert [(e["cause"], e["username"], e["ip"]) for e in found] == [
            ("lost_carrier", "\\xff", "10.99.1.4"),
            ("user_request", "alice", "10.99.1.3"),
            ("no_gre", "bob", None),
            ("auth_failed", "alice", None),
        ]
        assert found[0] == found[0] | {"time": 1700000000.004, "csid": "192.0.2.7", "was-up": True}
        assert found[0]["sid"] == "6500000100000004"
        lines = show(rig, "ends", "--limit", "1").stdout.splitlines()
        assert len(lines) == 3
        assert lines[0].split(" | ")[5].strip() == "cause"
        assert "\x1b" not in lines[2]
        assert [e["sid"][-1] for e in json.loads(show(rig, "ends", "bob", "--json").stdout)] == [
            "2"
        ]
        assert show(rig, "ends", "6500000100000001").stdout.count("auth_failed") == 1
        nobody = show(rig, "ends", "carol")
        assert (nobody.returncode, nobody.stdout) == (5, "")
        assert "no call of 'carol'" in nobody.stderr
        for words in (("--limit", "-1"), ("--limit", "9999999")):
            assert show(rig, "ends", *words).returncode == 2
        assert rig.request("/api/ends?limit=x")[0] == 400
        assert rig.request("/api/ends", tcp=True)[0] == 403

        both = json.loads(show(rig, "session", "alice", "--json").stdout)
        assert [s["ip"] for s in both["sessions"]] == ["10.99.1.5"]
        assert [e["cause"] for e in both["ends"]] == ["user_request", "auth_failed"]
        text = show(rig, "session", "alice").stdout
        assert text.index("username: alice") < text.index("ended:") < text.index("auth_failed")
        gone = show(rig, "session", "bob")
        assert gone.returncode == 0
        assert gone.stdout.startswith("ended:\n")
        assert show(rig, "session", "carol").returncode == 5


def test_no_ends_yet(open_dir: Path) -> None:
    with console(Shared(), open_dir) as rig, dispatcher(open_dir, 0):
        assert show(rig, "ends").stdout == "no call has ended yet\n"
        assert json.loads(show(rig, "ends", "--json").stdout) == []


def test_a_session_is_shown_without_a_dispatcher(open_dir: Path) -> None:
    shared = Shared()
    shared.up(0, "alice", "10.99.1.5")
    with console(shared, open_dir) as rig:
        result = show(rig, "session", "alice")
        assert result.returncode == 0
        assert "username: alice" in result.stdout
        assert "calls that ended are not known" in result.stderr
        assert show(rig, "ends").returncode != 0
