"""What a stranger, a mistaken user and a broken client get to hear."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ops import messages
from ops.console.api import selector
from ops.console.listener import MAX_CONNECTIONS
from ops.console.requests import BadRequest
from tests.ops.console.rig import Console, Shared, console, settings


def raw(running: Console, data: bytes, *, unix: bool = False) -> bytes:
    """What comes back for these octets, until the end or half a second of silence."""
    s = socket.socket(socket.AF_UNIX if unix else socket.AF_INET)
    s.settimeout(0.5)
    s.connect(running.path if unix else ("127.0.0.1", running.port))
    answer = b""
    try:
        s.sendall(data)
        while part := s.recv(65536):
            answer += part
    except (TimeoutError, ConnectionError):
        pass
    finally:
        s.close()
    return answer


GARBAGE = [
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200) + b"\r\n\r\n",
    b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
    b"GET\r\n\r\n",
    b"GET /metrics HTTP/9.9\r\n\r\n",
    b"GET /metrics HTTP/1.1\r\nHost\r\n\r\n",
    b"GET /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n",
    b"GET /" + b"a" * 20000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET / HTTP/1.1\r\nX: " + b"b" * 20000 + b"\r\n\r\n",
    b"POST /metrics HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    b"\x00" * 4096 + b"\r\n\r\n",
]


@pytest.mark.parametrize("data", GARBAGE, ids=range(len(GARBAGE)))
@pytest.mark.parametrize("unix", [False, True], ids=["tcp", "unix"])
def test_garbage_gets_a_line_and_the_console_lives(
    running: Console, data: bytes, unix: bool
) -> None:
    answer = raw(running, data, unix=unix)
    head, _, body = answer.partition(b"\r\n\r\n")
    assert re.match(rb"HTTP/1\.[01] 4\d\d ", head), answer[:300]
    assert len(body.splitlines()) == 1, body
    assert body.decode().isprintable() or body.endswith(b"\n")
    assert running.request("/healthz", tcp=True)[0] == 200
    assert "Traceback" not in running.log()


PATHS = [
    ("/api/sessions?columns=nope", 400, "unknown column 'nope'"),
    ("/api/sessions?columns=", 400, "unknown column ''"),
    ("/api/sessions?colums=sid", 400, "unknown parameter 'colums'; known: columns, match"),
    ("/api/sessions?columns=sid&columns=ip", 400, "comes twice"),
    ("/api/sessions?match=username", 400, "COLUMN:TEXT"),
    ("/api/sessions?match=nope:x", 400, "unknown column"),
    ("/api/stat?x=1", 400, "known: none"),
    ("/api/session/nobody", 404, "no such session"),
    ("/api/session/%ff%fe", 404, "no such session"),
    ("/api/nope", 404, "no such page"),
    ("/../../etc/passwd", 404, "no such page"),
]


@pytest.mark.parametrize(("path", "status", "text"), PATHS)
def test_bad_requests(running: Console, path: str, status: int, text: str) -> None:
    got, _, body = running.request(path)
    assert got == status
    assert text in body.decode()
    assert body.count(b"\n") == 1


def test_wrong_methods(running: Console) -> None:
    status, headers, body = running.request("/api/terminate")
    assert (status, headers["allow"]) == (405, "POST")
    assert body == b"method not allowed here; use POST\n"
    assert running.request("/metrics", method="DELETE", tcp=True)[0] == 405
    assert running.request("/api/terminate", method="POST", tcp=True, body=b"{}")[0] == 403


BODIES = [
    b"",
    b"{",
    b"[]",
    b"[" * 4000,
    b"\xff\xfe",
    b'{"by": "sid"}',
    b'{"by": "sid", "value": 7}',
    b'{"by": "sid", "value": "xyz"}',
    b'{"by": "sid", "value": "1", "soft": "yes"}',
    b'{"by": "ip", "value": "10.0.0"}',
    b'{"by": ["sid"], "value": "1"}',
    b'{"by": "username", "value": "a\\u0000b"}',
    b'{"by": "username", "value": "\\ud800"}',
    b'{"by": "all", "value": "x"}',
    b'{"by": "sid", "value": "1", "more": 1}',
]


@pytest.mark.parametrize("body", BODIES)
def test_bad_terminate_bodies(running: Console, body: bytes) -> None:
    status, _, answer = running.request("/api/terminate", method="POST", body=body)
    assert status == 400
    assert answer.count(b"\n") == 1


def test_a_body_that_is_too_large(running: Console) -> None:
    status, _, _ = running.request("/api/terminate", method="POST", body=b"x" * 100_000)
    assert status == 413


@given(st.sampled_from(["sid", "username", "ip", "csid", "all", "x"]), st.text() | st.integers())
def test_any_selector_is_taken_or_refused(by: str, value: str | int) -> None:
    try:
        got_by, got = selector(by, value)
    except BadRequest as e:
        assert str(e).isprintable()
    else:
        assert got_by == by
        got.encode()


def test_selectors_have_one_form() -> None:
    assert selector("sid", "65000001000000AB") == ("sid", "65000001000000ab")
    assert selector("sid", "7") == ("sid", "0000000000000007")
    assert selector("ip", "010.1.2.3") == ("ip", "10.1.2.3")
    assert selector("username", "DOM\\user name") == ("username", "DOM\\user name")
    assert selector("all", "") == ("all", "")


def test_names_stay_off_the_tcp_listener(running: Console) -> None:
    for path in ("/api/sessions", "/api/session/alice", "/api/ends", "/api/bans", "/api/anything"):
        status, _, body = running.request(path, tcp=True)
        assert status == 403
        assert b"only on the control socket" in body
    for path in ("/", "/api/status", "/api/workers", "/api/ippool", "/api/version", "/readyz"):
        status, _, body = running.request(path, tcp=True)
        assert status in (200, 503)
        for name in (b"alice", b"bob", b"10.99.1.5", b"192.0.2."):
            assert name not in body


def test_status_page(running: Console) -> None:
    status, headers, body = running.request("/", tcp=True)
    assert status == 200
    assert headers["content-type"] == "text/html"
    assert "default-src 'none'" in headers["content-security-policy"]
    text = body.decode()
    assert "/api/status" in text
    # One file, nothing from elsewhere; small.
    assert not re.search(r'(src|href)="(?!/metrics"|/api/openapi.json"|#search"|data:,")', text)
    assert set(re.findall(r'"https?://[^"]*', text)) == {'"http://www.w3.org/2000/svg'}
    assert not re.search(r"<[^>]* (on\w+|style)=", text)
    assert "innerHTML" not in text and "eval" not in text
    assert "unsafe" not in headers["content-security-policy"]
    assert len(body) < 40_000


def test_ready_only_while_calls_are_served(tmp_path: Path) -> None:
    shared = Shared()
    with console(shared, tmp_path) as rig:
        assert rig.request("/healthz", tcp=True)[::2] == (200, b"ok\n")
        assert rig.request("/readyz", tcp=True)[::2] == (
            503,
            b"not ready: no dispatcher, no worker up\n",
        )
        shared.table.set_pid("dispatcher", 1)
        shared.table.dispatcher_beat()
        shared.table.set_worker(1, 1, True)
        assert rig.request("/readyz")[2] == b"not ready: no worker up\n"
        shared.table.control_beat(1)
        assert rig.request("/readyz", tcp=True)[::2] == (200, b"ready\n")
        shared.table.set_stopping()
        assert rig.request("/readyz", tcp=True)[::2] == (503, b"not ready: stopping\n")


def test_silent_connections_keep_nobody_out(running: Console) -> None:
    held = []
    for _ in range(300):
        s = socket.create_connection(("127.0.0.1", running.port))
        s.sendall(b"GET /metr")
        held.append(s)
    begin = time.monotonic()
    assert running.request("/metrics", tcp=True)[0] == 200
    assert time.monotonic() - begin < 5
    for s in held[: 300 - MAX_CONNECTIONS]:  # the oldest gave way
        s.settimeout(5)
        with contextlib.suppress(ConnectionResetError):
            assert s.recv(1) == b""
    for s in held:
        s.close()


def test_match_keeps_the_rows_that_contain(running: Console) -> None:
    found = running.json("/api/sessions?columns=username,worker&match=username:ali")
    assert found["columns"] == ["username", "worker"]
    assert found["rows"] == [["alice", 0]]
    assert sum(found["slots_used"]) == 3


def test_control_socket_serves_metrics_too(running: Console) -> None:
    assert "pptp_slots_capacity 64.0\n" in running.metrics(tcp=False)


def test_settings_without_metrics(tmp_path: Path) -> None:
    with console(Shared(), tmp_path, settings(0)) as rig:
        assert json.loads(rig.request("/api/version")[2])["bus"] == messages.VERSION
        assert "metrics served" not in rig.log()
