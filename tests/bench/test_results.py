"""What a bench's outcome says, and that its yardstick is a right one."""

from __future__ import annotations

import ctypes
import json
import socket

import pytest

from fastpath import mppe
from tests.bench import build, report, results, rig
from tests.bench.plain import STRIDE, Burst, Counts, Plain, sessions
from tests.bench.results import NOT_MET, NOT_VALID, Result

SEED_SESSIONS = 2


@pytest.fixture(autouse=True)
def built(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the times of this checkout's files: see test_build.py."""
    monkeypatch.setattr(build, "why_stale", lambda: "")


@pytest.fixture
def like_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on the machine that the reference figures are of."""
    monkeypatch.setattr(results, "like_reference", lambda: True)


@pytest.fixture(scope="module")
def plain() -> Plain:
    """The C side, built."""
    return Plain()


def test_goals_either_way(capsys: pytest.CaptureFixture[str]) -> None:
    result = Result("some")
    result.figure("a row", ours_ns=1.0, theirs_ns=2.0)
    result.ratio("a row", 2.0, at_least=1.6)
    result.ratio("another", 1.2, at_most=1.3)
    result.ratio("no goal", 9.0)
    assert result.finish(as_json=True) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["met"] == {"a row": True, "another": True}
    assert found["goals"] == {"a row": {"at_least": 1.6}, "another": {"at_most": 1.3}}
    assert found["figures"] == {"a row": {"ours_ns": 1.0, "theirs_ns": 2.0}}
    assert found["valid"] and found["machine"]["cpus"] >= 1


def test_a_missed_goal_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    result = Result("some")
    result.ratio("slow", 1.5, at_least=1.6)
    result.ratio("dear", 1.4, at_most=1.3)
    assert result.finish(as_json=False) == NOT_MET
    text = capsys.readouterr().out
    assert "goal at least 1.6: MISSED" in text
    assert "goal at most 1.3: MISSED" in text


def test_a_slow_yardstick_makes_a_run_invalid(
    like_reference: None, capsys: pytest.CaptureFixture[str]
) -> None:
    result = Result("some")
    result.ratio("a row", 2.0, at_least=1.6)
    result.yardstick("loop", 124.0, 100.0)
    assert not result.invalid
    result.yardstick("loop", 126.0, 100.0)
    assert result.finish(as_json=False) == NOT_VALID
    assert "INVALID: yardstick loop: 126" in capsys.readouterr().out


def test_other_machines_yardsticks_are_not_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results, "like_reference", lambda: False)
    result = Result("some")
    result.yardstick("one", 1e9, 1.0)
    result.yardstick("two", 1e9, 1.0)
    assert not result.invalid
    (note,) = result.notes
    assert "LIMITS.md are of an AMD EPYC" in note
    assert note.endswith(results.cpu_name())


def test_a_bench_prints_one_object(capsys: pytest.CaptureFixture[str]) -> None:
    result = Result("some")
    result.figure("a row", ours_ns=1.0)
    result.ratio("a row", 2.0, at_least=1.6)
    result.note("two\nlines")
    result.finish(as_json=True)
    (line,) = capsys.readouterr().out.splitlines()
    assert {"figures", "ratios", "goals", "met", "machine", "valid"} <= set(json.loads(line))


def test_the_clock_is_one_that_a_cpu_can_have(plain: Plain) -> None:
    """Not several times as fast, as by additions that a CPU makes at rename."""
    assert 0.2 < plain.clock_ghz() < 7.0


def _rows(plain: Plain, *, encrypted: bool) -> list[bytes]:
    made = sessions(rig.calls(SEED_SESSIONS))
    burst = Burst.empty(6, STRIDE, 6)
    plain.make_up(made, SEED_SESSIONS, burst, run=1, encrypted=encrypted, ethernet=bytes(14))
    return burst.frames()


def test_the_bursts_are_encrypted_as_mppe_says(plain: Plain) -> None:
    """Against our own kernels, which are checked against OpenSSL and the slow twin."""
    clear, secret = _rows(plain, encrypted=False), _rows(plain, encrypted=True)
    for number, call in enumerate(rig.calls(SEED_SESSIONS)):
        key = mppe.initial_key(call.up_start, 128)
        for place in range(number, 6, SEED_SESSIONS):
            key = mppe.changed_key(call.up_start, key, 128)
            frame = secret[place]
            head = 14 + 20 + 12 + 6  # Ethernet, IP, GRE, ff03 00fd and the count
            (opened,) = mppe.crypt_batch([frame[head:]], [key])
            assert opened == b"\x00\x21" + clear[place][-1400:]


def test_the_plain_loop_reads_its_own_bursts(plain: Plain) -> None:
    """Through a datagram pair in the place of the raw socket, another in that of the TUN."""
    calls = rig.calls(SEED_SESSIONS)
    server = sessions(calls)
    by_call = plain.pointers(server, [c.call_id for c in calls], 65536)
    kind = socket.SOCK_DGRAM
    wire, gre = socket.socketpair(socket.AF_UNIX, kind)
    tun, lan = socket.socketpair(socket.AF_UNIX, kind)
    with wire, gre, tun, lan:
        clear, secret = _rows(plain, encrypted=False), _rows(plain, encrypted=True)
        for frame in secret:
            wire.send(frame[14:])
        wire.send(secret[-1][14:])  # a second time: refused
        counts = Counts()
        plain.up(gre.fileno(), tun.fileno(), by_call, True, counts)
        assert (counts.packets, counts.bad) == (6, 1)
        for frame in clear:
            assert lan.recv(2048) == frame[-1400:]


def test_both_sides_agree_on_a_session(plain: Plain) -> None:
    assert plain.lib.plain_session_size() == ctypes.sizeof(sessions(rig.calls(1))[0])


def test_a_report_names_machine_goals_and_figures() -> None:
    result = Result("some")
    result.figure("a row", ours_ns=1234.5)
    result.ratio("a row", 1.5, at_least=1.6)
    result.ratio("more", 2.0)
    result.invalid.append("yardstick: too slow")
    text = report.report([result.as_dict(), result.as_dict()])
    assert text.count("; Linux ") == 1
    assert "| some | a row | 1.5 | at least 1.6 | **missed** (run not valid) |" in text
    assert "- a row: ours_ns 1,23" in text
    assert "- ratio, more: 2" in text
    assert "- yardstick: too slow" in text
