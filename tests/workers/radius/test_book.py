"""Accounting without a socket: order, once and only once, what a crash leaves."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from workers.radius.accounting import Counters, Facts, Status, timed, unpack
from workers.radius.attributes import A, integer
from workers.radius.book import AGAIN_S, FIRST_ON_S, Book
from workers.radius.journal import Journal, JournalError, Record
from workers.radius.packets import Attributes
from workers.radius.requests import Nas

NAS = Nas("bras1", 0x0A000001)
FACTS = Facts(
    sid="00000001",
    index=3,
    generation=1,
    calling="192.0.2.9",
    called="192.0.2.1",
    address=0x0A630101,
    connection=7,
    user="anna",
    method="mschapv2",
    source="radius",
    up_unix=1000.0,
    classes=(b"gold", b"\xff"),
)


def book(path: Path, epoch: int = 1, interim_s: int = 300) -> Book:
    return Book(Journal(str(path / "a.db")), NAS, epoch, interim_s, lambda: 0.5)


def begun(path: Path, epoch: int = 1, **more: int) -> Book:
    made = book(path, epoch, **more)
    made.begin(0.0, 900.0)
    for record in made.ready(0.0):
        made.taken(record)
    made.journal.commit()
    return made


def said(record: Record, kind: int) -> bytes | None:
    attributes = unpack(record.attributes)
    return next((value for found, value in attributes if found == kind), None)


def test_start_and_stop_go_in_order_and_once(tmp_path: Path) -> None:
    made = begun(tmp_path)
    made.start(FACTS, 1.0, 1001.0)
    made.start(FACTS, 1.0, 1001.0)
    counters = Counters((3 << 32) + 5, 2, 7, 1, 60)
    assert made.stop(FACTS.sid, counters, "idle_timeout", 1061.0)
    assert not made.stop(FACTS.sid, counters, "idle_timeout", 1061.0)
    (start,) = made.ready(2.0)
    assert start.status == Status.START and start.event == 1000.0
    assert made.ready(2.0) == []
    made.taken(start)
    (stop,) = made.ready(2.0)
    assert said(stop, A.ACCT_INPUT_GIGAWORDS) == integer(3)
    assert said(stop, A.ACCT_INPUT_OCTETS) == integer(5)
    assert said(stop, A.ACCT_TERMINATE_CAUSE) == integer(4)
    assert said(stop, A.ACCT_SESSION_TIME) == integer(60)
    classes = [value for kind, value in unpack(stop.attributes) if kind == A.CLASS]
    assert classes == [b"gold", b"\xff"]
    made.taken(stop)
    assert made.backlog == 0 and made.journal.records() == []


def test_what_nobody_takes_waits_and_tells_its_delay(tmp_path: Path) -> None:
    made = begun(tmp_path)
    made.start(FACTS, 1.0, 1001.0)
    (start,) = made.ready(1.0)
    made.missed(start, 1.0)
    made.stop(FACTS.sid, Counters(), "user_request", 1002.0)
    assert made.ready(1.0 + AGAIN_S - 0.1) == [] and made.backlog == 2
    made.hurry()
    assert made.ready(1.0) == [start]
    attributes: Attributes = timed(unpack(start.attributes), start.event, 1234.5)
    assert (A.ACCT_DELAY_TIME, integer(234)) in attributes
    assert (A.EVENT_TIMESTAMP, integer(1000)) in attributes


def test_what_was_taken_late_is_not_sent_again(tmp_path: Path) -> None:
    made = begun(tmp_path)
    made.start(FACTS, 1.0, 1001.0)
    (start,) = made.ready(1.0)
    made.missed(start, 1.0)
    made.taken(start)  # while it waits
    assert made.backlog == 0 and made.journal.records() == []
    made.taken(start)
    made.stop(FACTS.sid, Counters(), "user_request", 1002.0)
    (stop,) = made.ready(1.0 + AGAIN_S)
    made.missed(stop, 7.0)
    assert made.ready(7.0 + AGAIN_S) == [stop]
    made.taken(stop)  # while it is out for the second time
    made.taken(stop)
    assert made.backlog == 0 and made.journal.records() == []


def test_our_own_death_loses_and_repeats_nothing(tmp_path: Path) -> None:
    made = begun(tmp_path)
    made.start(FACTS, 1.0, 1001.0)
    made.journal.commit()
    (start,) = made.ready(1.0)
    made.taken(start)
    made.journal.commit()
    again = book(tmp_path)  # the same instance: its sessions are up
    assert again.begin(5.0, 1005.0) == (0, 0)
    assert again.ready(5.0) == [] and FACTS.sid in again.sessions
    again.start(FACTS, 6.0, 1006.0)
    assert again.ready(6.0) == []
    assert again.stop(FACTS.sid, Counters(1, 1, 1, 1, 9), "user_request", 1009.0)
    again.journal.commit()
    third = book(tmp_path)
    third.begin(10.0, 1010.0)
    (stop,) = third.ready(10.0)
    assert stop.status == Status.STOP and stop.event == 1009.0
    third.taken(stop)
    assert not third.stop(FACTS.sid, Counters(), "user_request", 1011.0)


def test_a_dead_instance_is_closed_with_what_was_seen(tmp_path: Path) -> None:
    made = begun(tmp_path)
    made.start(FACTS, 1.0, 1001.0)
    for record in made.ready(1.0):
        made.taken(record)
    made.journal.seen([(FACTS.sid, Counters(100, 1, 200, 2, 30))], 1030.0)
    made.journal.commit()
    after = book(tmp_path, epoch=2)
    assert after.begin(0.0, 2000.0) == (1, 1)
    after.journal.commit()
    stop, on = after.ready(0.0)
    assert (stop.status, stop.event) == (Status.STOP, 1030.0)
    assert said(stop, A.ACCT_OUTPUT_OCTETS) == integer(200)
    assert said(stop, A.ACCT_TERMINATE_CAUSE) == integer(11)
    assert on.status == Status.ON
    assert book(tmp_path, epoch=3).begin(0.0, 2001.0) == (0, 1)


def test_starts_wait_for_the_on_before_them(tmp_path: Path) -> None:
    made = book(tmp_path)
    made.begin(0.0, 1000.0)
    made.start(FACTS, 0.1, 1000.1)
    made.stop(FACTS.sid, Counters(), "user_request", 1000.2)
    (on,) = made.ready(0.2)
    assert on.status == Status.ON and made.ready(0.2) == []
    assert made.wake_at(0.2) == FIRST_ON_S
    made.taken(on)
    assert [r.status for r in made.ready(0.3)] == [Status.START]


def test_interims_have_jitter_and_wait_for_the_start(tmp_path: Path) -> None:
    made = begun(tmp_path, interim_s=100)
    made.start(FACTS, 0.0, 1000.0)
    assert made.interims(99.0) == []
    (session,) = made.interims(100.0)
    assert made.interim(session) is None  # its Start is not taken
    made.taken(made.ready(100.0)[0])
    session.counters = Counters(5, 1, 6, 1, 100)
    record = made.interim(session)
    assert record is not None and said(record, A.ACCT_INPUT_OCTETS) == integer(5)
    assert made.interims(199.0) == [] and len(made.interims(200.0)) == 1
    made.change(FACTS.sid, {"interim_s": 0}, 200.0)
    assert made.interims(900.0) == []


def test_counters_are_written_down_in_turn(tmp_path: Path) -> None:
    made = begun(tmp_path)
    for n in range(10):
        made.start(replace(FACTS, sid=f"{n:08x}", index=n), 0.0, 1000.0)
    seen = [s.facts.sid for _ in range(8) for s in made.look(0.25)]
    assert set(seen) == {f"{n:08x}" for n in range(10)}


def test_a_file_that_is_no_journal(tmp_path: Path) -> None:
    (tmp_path / "a.db").write_bytes(b"no database at all, but long enough to be one" * 100)
    with pytest.raises(JournalError, match=r"a\.db"):
        book(tmp_path)


def test_records_survive_in_their_order(tmp_path: Path) -> None:
    journal = Journal(str(tmp_path / "a.db"))
    for n in range(50):
        journal.add(f"{n}", Status.STOP, float(n), b"")
    journal.commit()
    other = Journal(str(tmp_path / "a.db"))
    assert [r.sid for r in other.records()] == [str(n) for n in range(50)]


def test_facts_are_kept_whole() -> None:
    odd = replace(FACTS, user="anna\udcff", prefix6="2001:db8::/64")
    assert Facts.unpack(odd.pack()) == odd
    with pytest.raises(ValueError, match="no facts"):
        Facts.unpack(b"\x01")


def test_a_full_disk_loses_no_record_of_this_process(tmp_path: Path) -> None:
    made = begun(tmp_path)
    made.start(FACTS, 1.0, 1001.0)
    made.journal.commit()
    made.journal._db.execute("PRAGMA max_page_count=1")
    for n in range(2000):
        made.start(replace(FACTS, sid=f"{n:08x}x", index=n), 1.0, 1001.0)
        made.journal.commit()
    assert "full" in made.journal.failure and made.journal.path == ":memory:"
    assert made.stop(FACTS.sid, Counters(), "user_request", 1002.0)
    sent = []
    while records := made.ready(2.0):
        for record in records:
            sent.append((record.sid, record.status))
            made.taken(record)
    assert len(sent) == len(set(sent)) == 2002
    assert (FACTS.sid, Status.STOP) in sent
