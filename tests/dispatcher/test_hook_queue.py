"""Hooks: order, limits, what a script gets."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from dispatcher import radattr
from dispatcher.hook_queue import Job, Queue
from ops import hook_event
from ops.hook_event import Event

SID = 0x6925A1B20000001A
UP = Event(
    "ip_up", SID, "DOM\\bob; rm -rf /", "bob", "192.0.2.7", "198.51.100.1",
    "10.99.0.1", "10.99.1.5", auth="mschapv2", speed=100000000, dns=("10.0.0.53", "10.0.0.54"),
    attributes=(("Filter-Id", "guest"), ("Reply-Message", "two\nlines")),
)  # fmt: skip
DOWN = replace(UP, hook="ip_down", seconds=9, sent=5, received=6, cause="user_request")


def test_a_session_keeps_its_order_and_holds_up_no_other() -> None:
    queue = Queue(at_once=2, limit=10)
    first, second = Job(0, 1, UP), Job(0, 2, DOWN)
    other = Job(1, 1, replace(UP, sid=SID + 1))
    assert [queue.add(job) for job in (first, second, other)] == ["", "", ""]
    assert queue.ready() is first and queue.ready() is other and queue.ready() is None
    queue.done(first)
    assert queue.ready() is second
    queue.done(second)
    queue.done(other)
    assert (queue.running, queue.waiting) == (0, 0)


def test_what_is_said_twice_runs_once() -> None:
    queue = Queue(at_once=1, limit=10)
    job = Job(0, 1, UP)
    assert queue.add(job) == ""
    assert queue.add(job) == "again"
    assert queue.ready() is job
    queue.done(job)
    # a successor of the worker does not know that its predecessor said so
    assert queue.add(Job(0, 99, UP)) == "repeated"
    assert queue.add(Job(0, 100, DOWN)) == ""


def test_a_full_queue_takes_no_more() -> None:
    queue = Queue(at_once=1, limit=2)
    jobs = [Job(0, n, replace(UP, sid=SID + n)) for n in range(4)]
    assert [queue.add(job) for job in jobs[:2]] == ["", ""]
    assert queue.add(jobs[2]) == "full"
    assert queue.ready() is jobs[0]
    assert queue.add(jobs[2]) == "" and queue.add(jobs[3]) == "full"


def test_arguments_and_environment() -> None:
    assert hook_event.arguments(UP, "", "nobody") == [
        "pptp1a.6925a1b2", "none", "100000000", "10.99.0.1", "10.99.1.5", "192.0.2.7",
    ]  # fmt: skip
    assert hook_event.arguments(UP, "site 1", "nobody")[5] == "site%201"
    auth = replace(UP, hook="auth_up")
    assert hook_event.arguments(replace(auth, user="-rf"), "", "nobody")[1] == "%2Drf"
    assert hook_event.arguments(auth, "", "nobody")[1:3] == ["DOM\\bob%3B%20rm%20-rf%20/", "nobody"]
    found = hook_event.environment(DOWN, "/run/radattr", "nobody")
    assert found["PEERNAME"] == "DOM\\bob%3B%20rm%20-rf%20/"
    assert (found["CONNECT_TIME"], found["BYTES_SENT"]) == ("9", "5")
    assert found["BYTES_RCVD"] == "6" and found["DNS2"] == "10.0.0.54"
    assert found["RADATTR_FILE"] == "/run/radattr.pptp1a.6925a1b2"
    assert "CONNECT_TIME" not in hook_event.environment(UP, "", "nobody")


def test_an_event_goes_round() -> None:
    odd = replace(UP, user="b\udcffb")
    assert hook_event.unpack(hook_event.pack(7, odd)) == (7, odd)
    assert hook_event.word(odd.user) == "b%FFb"
    for data in (b"", b"\xc1", hook_event.pack_done(3), hook_event.pack(1, replace(UP, hook="x"))):
        with pytest.raises(ValueError, match="no event"):
            hook_event.unpack(data)
    assert hook_event.unpack_done(hook_event.pack_done(3)) == 3


def test_radattr(tmp_path: Path) -> None:
    prefix = f"{tmp_path}/radattr"
    file = tmp_path / "radattr.pptp1a.6925a1b2"
    radattr.write(prefix, UP)
    assert file.read_text() == "Filter-Id guest\nReply-Message two\\x0alines\n"
    assert file.stat().st_mode & 0o777 == 0o600
    radattr.write(prefix, replace(UP, hook="ip_change", attributes=(("Filter-Id", "all"),)))
    assert file.read_text() == "Filter-Id all\n"
    assert "guest" in Path(f"{file}_old").read_text()
    (tmp_path / "radattr.mine").touch()
    assert radattr.sweep(prefix, {"pptp1a.6925a1b2"}) == 0
    assert radattr.sweep(prefix, set()) == 2
    radattr.write(prefix, UP)
    radattr.remove(prefix, UP)
    assert [path.name for path in tmp_path.iterdir()] == ["radattr.mine"]


def test_the_end_of_a_session_is_known_when_it_is_dropped() -> None:
    queue = Queue(at_once=1, limit=1)
    first = Job(0, 1, UP)
    assert queue.add(first) == "" and queue.ready() is first
    assert queue.add(Job(0, 2, replace(UP, sid=SID + 1))) == ""
    assert queue.add(Job(0, 3, DOWN)) == "full"
    queue.done(first)
    assert queue.ready() is not None
    assert queue.add(first) == ""  # else each dropped end would be remembered for ever


def test_radattr_is_written_through_no_link(tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("mine")
    (tmp_path / "radattr.pptp1a.6925a1b2.new").symlink_to(tmp_path / "victim")
    radattr.write(f"{tmp_path}/radattr", UP)
    assert (tmp_path / "victim").read_text() == "mine"
    assert not (tmp_path / "radattr.pptp1a.6925a1b2").is_symlink()
