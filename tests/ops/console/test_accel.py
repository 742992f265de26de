"""The accel-cmd port: as accel-cmd and exporters use accel-ppp's, on a real console."""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from fastpath import layout
from ops.console import accel, accel_text
from ops.console.accel import Commands, HangUpError
from ops.console.bus import Bus
from ops.console.history import History
from ops.console.keeper import OrderError
from ops.console.matching import MatchError, matching
from ops.console.usage import Usage
from ops.console.view import View
from ops.log import Log
from ops.settings import Console as ConsoleSettings
from tests.ops.console.rig import Shared, console, free_port, settings
from tests.ops.console.test_process import wait
from tests.ops.console.test_show import dispatcher, open_dir

__all__ = ["open_dir"]


def accel_cmd(port: int, *lines: str, half_close: bool = False) -> str:
    """What `(printf 'LINE\\n'...; echo exit) | nc 127.0.0.1 PORT` prints."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as s:
        s.sendall(
            "".join(f"{line}\n" for line in (*lines, *(() if half_close else ("exit",)))).encode()
        )
        if half_close:
            s.shutdown(socket.SHUT_WR)
        answer = b""
        while part := s.recv(65536):
            answer += part
    return answer.decode()


def with_port(port: int, digest: str = "") -> Any:
    return replace(
        settings(free_port()),
        console=ConsoleSettings(accel_cmd=f"127.0.0.1:{port}", accel_cmd_digest=digest),
    )


def filled() -> Shared:
    shared = Shared()
    shared.up(0, "alice", "10.99.1.5")
    shared.set_traffic(0, (10, 5000), (20, 30_000), 3)
    shared.up(1, "bob", "10.99.1.6", worker=1, peer="192.0.2.9")
    shared.call(2)
    return shared


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    number = free_port()
    with console(filled(), tmp_path_factory.mktemp("run"), with_port(number)):
        yield number


def rows(text: str) -> list[dict[str, str]]:
    """As panels read it: by the head's names, cells between bars."""
    assert text.endswith("\r\n")
    head, rule, *lines = text.split("\r\n")[:-1]
    assert re.fullmatch(r"-+(\+-+)*", rule)
    assert {len(line) for line in lines} <= {len(head), len(rule)}
    names = [name.strip() for name in head.split("|")]
    return [dict(zip(names, (c.strip() for c in line.split("|")), strict=True)) for line in lines]


def test_sessions(port: int) -> None:
    found = rows(accel_cmd(port, "show sessions"))
    assert ",".join(found[0]) == accel_text.DEFAULT
    assert found[0] | {"uptime": ""} == {
        "ifname": "ppp0",
        "username": "alice",
        "calling-sid": "192.0.2.7",
        "ip": "10.99.1.5",
        "rate-limit": "",
        "type": "pptp",
        "comp": "mppe",
        "state": "active",
        "uptime": "",
    }
    assert re.fullmatch(r"\d\d:\d\d:\d\d", found[0]["uptime"])
    assert [row["state"] for row in found] == ["active", "active", "start"]


def test_columns_order_match(port: int) -> None:
    text = accel_cmd(
        port, "show sessions sid,rx-bytes-raw,tx-bytes order username match ip \\.[56]$"
    )
    assert [row["sid"][-1] for row in rows(text)] == ["1", "2"]
    assert rows(text)[0]["rx-bytes-raw"] == "5000"
    assert rows(text)[0]["tx-bytes"] == "29.3 KiB"
    every = ",".join(accel_text.COLUMNS)
    assert len(rows(accel_cmd(port, f"show sessions {every}"))) == 3
    assert accel_cmd(port, "show sessions nope") == "unknown column nope\r\n"
    assert accel_cmd(port, "show sessions order") == "syntax error\r\n"
    assert accel_cmd(port, "show sessions match username [").startswith("match: ")
    assert rows(accel_cmd(port, "show sessions username match username ^zz$")) == []


def test_stat_as_exporters_parse_it(port: int) -> None:
    text = accel_cmd(port, "show stat")
    assert re.match(
        r"uptime: \d+\.\d\d:\d\d:\d\d\r\ncpu: \d+%\r\nmem\(rss/virt\): \d+/\d+ kB\r\n", text
    )
    sections: dict[str, dict[str, str]] = {}
    section = ""
    for line in text.splitlines():
        if not line.startswith(" ") and line.endswith(":"):
            section = line[:-1]
        elif line.startswith("  "):
            key, _, value = line.strip().partition(": ")
            sections.setdefault(section, {})[key] = value
    assert sections["sessions"] == {"starting": "1", "active": "2", "finishing": "0"}
    assert sections["pptp"] == {"starting": "1", "active": "2"}
    assert "thread_count" in sections["core"]
    radius = sections["radius(1, 192.0.2.50)"]
    assert radius["state"] == "failed"  # its accounting port is dead in this rig
    assert radius["auth sent"] == "20"
    assert re.fullmatch(r"1/\d+/\d+", radius["auth lost(total/5m/1m)"])
    assert re.fullmatch(r"\d+/\d+ ms", radius["auth avg query time(5m/1m)"])
    assert {"acct sent", "interim sent", "fail count", "request count", "queue length"} <= set(
        radius
    )


def test_ippool_version_help_and_nonsense(port: int) -> None:
    pools = accel_cmd(port, "show ippool")
    assert "default:\r\n  total: 511\r\n  used: 2\r\n  available: 509\r\n  usage: 0.4%\r\n" in pools
    assert accel_cmd(port, "show version").startswith("pptpcon 0.")
    assert "terminate if <interface>" in accel_cmd(port, "help")
    assert accel_cmd(port, "", "  ", "dance") == "command unknown\r\n"
    assert accel_cmd(port, "show stat now") == "syntax error\r\n"
    assert accel_cmd(port, "show version", half_close=True).startswith("pptpcon")
    assert accel_cmd(port, "show version", "show version").count("pptpcon") == 2


def test_terminate(open_dir: Path) -> None:
    number = free_port()
    with (
        console(filled(), open_dir, with_port(number)) as rig,
        dispatcher(open_dir, 1) as seen,
    ):
        for line in (
            "terminate username alice",
            "terminate ip 10.99.1.6 hard",
            "terminate csid 192.0.2.9 soft",
            "terminate sid 6500000100000001",
            "terminate if ppp1",
            "terminate match username ^(ali|bo)",
            "terminate all hard",
        ):
            assert accel_cmd(number, line) == "", line
        assert [(m.by, m.value, m.soft) for m in seen] == [
            ("username", "alice", True),
            ("ip", "10.99.1.6", False),
            ("csid", "192.0.2.9", True),
            ("sid", "6500000100000001", True),
            ("sid", "6500000100000002", True),
            ("sid", "6500000100000001", True),
            ("sid", "6500000100000002", True),
            ("all", "", False),
        ]
        for line, answer in (
            ("terminate", "syntax error"),
            ("terminate hard", "syntax error"),
            ("terminate username", "syntax error"),
            ("terminate ip 10.0.0", "invalid argument"),
            ("terminate sid xyz", "invalid argument"),
        ):
            assert accel_cmd(number, line) == answer + "\r\n", line
        assert len(seen) == 8
        assert "accel_cmd=127.0.0.1" in rig.log()


def test_password_browsers_and_long_lines(tmp_path: Path) -> None:
    number = free_port()
    chosen = with_port(number, hashlib.sha256(b"secret").hexdigest())
    with console(Shared(), tmp_path, chosen) as rig:
        assert accel_cmd(number, "secret", "show version").startswith("pptpcon")
        assert accel_cmd(number, "show version") == ""
        assert accel_cmd(number, "POST / HTTP/1.1", "Host: x", "", "secret", "show version") == ""
        assert "HTTP on the accel_cmd port" in rig.log()
        assert accel_cmd(number, "x" * 100_000) == ""
        assert "wrong accel_cmd password" in rig.log()
        assert "secret" not in rig.log()
        rig.reload(replace(chosen, console=ConsoleSettings(accel_cmd=f"127.0.0.1:{number}")))
        wait(lambda: accel_cmd(number, "show version").startswith("pptpcon"))
        rig.reload(replace(chosen, console=ConsoleSettings()))

        def closed() -> bool:
            try:
                socket.create_connection(("127.0.0.1", number)).close()
            except ConnectionRefusedError:
                return True
            return False

        wait(closed)


def test_orders_reach_the_keeper(tmp_path: Path) -> None:
    number = free_port()
    lines = {
        "reload": {"order": "reload"},
        "shutdown soft": {"order": "shutdown", "how": "soft"},
        "shutdown hard": {"order": "shutdown", "how": "hard"},
        "shutdown cancel": {"order": "shutdown", "how": "cancel"},
    }
    with (
        console(filled(), tmp_path, with_port(number)) as rig,
        ThreadPoolExecutor(1) as others,
    ):
        assert "shutdown [soft|hard|cancel]" in accel_cmd(number, "help")
        for line, wanted in lines.items():
            answer = others.submit(accel_cmd, number, line)
            asked = json.loads(rig.keeper.recv(65536))
            request = asked.pop("request")
            assert asked == {"type": "order", **wanted}
            ok = line != "shutdown cancel"
            message = {"type": "answer", "request": request, "ok": ok, "reason": "none is on"}
            rig.keeper.send(json.dumps(message).encode())
            assert answer.result(timeout=20) == ("" if ok else "failed\r\n")


def test_off_by_default() -> None:
    assert ConsoleSettings().accel_cmd == ""


# Without a socket


def commands(shared: Shared, ask: Any = None) -> Commands:
    view = View(shared.table, settings(), Usage())
    return Commands(view, History(), Bus("ipc:///nowhere", 0.01), Log("test", level=0), ask)


def test_orders_to_the_keeper() -> None:
    asked: list[tuple[str, dict[str, str]]] = []

    async def ask(order: str, **words: str) -> dict[str, Any]:
        asked.append((order, words))
        return {"ok": words.get("how") != "cancel", "reason": "nothing to cancel"}

    async def body() -> None:
        own = commands(Shared(), ask)
        for line in ("reload", "shutdown", "shutdown soft", "shutdown hard"):
            assert await own.run(line, "here") == ""
        assert await own.run("shutdown cancel", "here") == "failed\r\n"
        assert await own.run("shutdown now", "here") == "syntax error\r\n"
        with pytest.raises(HangUpError):
            await own.run("exit", "here")

    asyncio.run(body())
    assert asked == [
        ("reload", {}),
        ("shutdown", {"how": "now"}),
        ("shutdown", {"how": "soft"}),
        ("shutdown", {"how": "hard"}),
        ("shutdown", {"how": "cancel"}),
    ]


def test_a_keeper_that_does_not_answer() -> None:
    async def ask(order: str, **words: str) -> dict[str, Any]:
        raise OrderError("the keeper did not answer within 40 s")

    said = asyncio.run(commands(Shared(), ask).run("reload", "here"))
    assert said == "failed: the keeper did not answer within 40 s\r\n"


def test_an_expression_that_never_ends_costs_a_second() -> None:
    async def body() -> None:
        assert await matching("^a", ["ab", "ba", ""]) == [True, False, False]
        with pytest.raises(MatchError, match="takes longer"):
            await matching("(a+)+$", ["a" * 40 + "b"])
        with pytest.raises(MatchError):
            await matching("x" * 1000, [])

    asyncio.run(body())


WORDS = st.sampled_from(
    ["show", "sessions", "stat", "order", "match", "username", "ip", "terminate", "sid", "if",
     "all", "csid", "soft", "hard", "help", "reload", "shutdown", "-1", "10.99.1.5", "ifname,ip",
     ",", "^a"]
)  # fmt: skip


@given(st.one_of(st.text(max_size=80), st.lists(WORDS, max_size=6).map(" ".join)))
@hypothesis_settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_line_gets_text(line: str) -> None:
    async def body() -> None:
        own = commands(SHARED)
        try:
            answer = await own.run(line, "here")
        except HangUpError:
            return
        assert answer == "" or answer.endswith("\r\n")

    asyncio.run(body())


SHARED = filled()


@given(st.text(max_size=40))
def test_a_name_breaks_no_table(name: str) -> None:
    shared = Shared()
    try:
        name.encode()
    except UnicodeEncodeError:
        name = "x"
    shared.up(0, name.replace("\0", "")[: layout.NAME_MAX // 4], "10.99.1.5")
    own = commands(shared)
    text = asyncio.run(own.run("show sessions username,ip", "here"))
    head, _, line, end = text.split("\r\n")
    assert end == "" and line.count("|") == head.count("|") == 1


class Full(Commands):
    """An answer larger than what a socket takes."""

    def __init__(self) -> None:
        self.left = asyncio.Event()

    async def run(self, line: str, source: str) -> str:
        if line == "exit":
            self.left.set()
            raise HangUpError
        return "x" * 60_000


def test_who_does_not_read_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accel, "LINGER_S", 0.2)

    async def body() -> None:
        commands = Full()
        ports = accel.AccelPort(commands, Log("test"))
        listener = socket.socket()
        # Small buffers: most of the answer waits in the process.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        listener.setblocking(False)
        await ports.start(listener)
        client = socket.socket()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect(listener.getsockname())
        client.setblocking(False)
        reader, writer = await asyncio.open_connection(sock=client, limit=1)
        writer.write(b"show sessions\nexit\n")
        await commands.left.wait()
        await asyncio.gather(*ports._clients)
        assert len(await reader.read()) < 60_000  # the rest is held no longer
        writer.close()
        await ports.stop()

    asyncio.run(asyncio.wait_for(body(), 30))


def test_without_the_password_no_place_is_held(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accel, "LOGIN_S", 0.1)

    async def body() -> None:
        ports = accel.AccelPort(Full(), Log("test"))
        ports.apply(hashlib.sha256(b"secret").hexdigest())
        listener = socket.create_server(("127.0.0.1", 0))
        listener.setblocking(False)
        await ports.start(listener)
        reader, writer = await asyncio.open_connection(*listener.getsockname())
        assert await reader.read() == b""
        writer.close()
        await ports.stop()

    asyncio.run(asyncio.wait_for(body(), 30))
