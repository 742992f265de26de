"""History, utmp and wtmp: what they hold, what a crash leaves, what the next start makes of it."""

from __future__ import annotations

import os
import sqlite3
from dataclasses import replace
from pathlib import Path

from click.testing import CliRunner

from ops.cli.history import history as history_command
from ops.cli.history import select
from ops.log import Log
from ops.settings import Records
from workers.radius import utmp
from workers.radius.accounting import Counters, Facts
from workers.radius.history import FILE, History
from workers.radius.journal import Journal
from workers.radius.logbook import Logbook

EPOCH = 0x6925A1B2
FACTS = Facts(
    sid="6925a1b200000001", index=1, generation=1, calling="192.0.2.7", called="198.51.100.1",
    address=0x0A630105, connection=1, user="DOM\\bob", method="mschapv2", source="users",
    up_unix=1764200000.0,
)  # fmt: skip
OTHER = replace(FACTS, sid="6925a1b200000002", user="eve", address=0x0A630106)


def records(path: Path) -> list[tuple[int, str, str]]:
    """(type, line, user) of each record of a file."""
    data = path.read_bytes()
    assert len(data) % utmp.SIZE == 0
    found = []
    for at in range(0, len(data), utmp.SIZE):
        values = utmp.RECORD.unpack_from(data, at)
        found.append((values[0], *(v.partition(b"\0")[0].decode() for v in (values[2], values[4]))))
    return found


def test_sizes() -> None:
    assert (384 if utmp.NARROW else 400) == utmp.SIZE


def test_a_login_and_its_end(tmp_path: Path) -> None:
    for name in ("utmp", "wtmp"):
        (tmp_path / name).touch()
    conf = Records(30, f"{tmp_path}/utmp", f"{tmp_path}/wtmp", strip_domain=True)
    book = Logbook(conf, str(tmp_path), EPOCH, Log("test"))
    book.begin()
    for facts in (FACTS, FACTS, OTHER):
        book.started(facts)
    assert records(tmp_path / "utmp") == [
        (7, "pptp1.6925a1b2", "bob"), (7, "pptp2.6925a1b2", "eve"),
    ]  # fmt: skip
    assert book.open == {FACTS.sid, OTHER.sid}
    book.seen([(OTHER.sid, Counters(1, 2, 3, 4, 5))], 1764200060.0)
    book.stopped(FACTS.sid, Counters(10, 20, 30, 40, 50), "user_request", 1764200050.0)
    book.stopped(FACTS.sid, Counters(), "again", 1764200051.0)
    book.started(replace(OTHER, sid="6925a1b200000003"))  # into the place that is free
    kinds = [kind for kind, _, _ in records(tmp_path / "utmp")]
    assert kinds == [7, 7] and len(records(tmp_path / "wtmp")) == 4
    book.commit()
    rows = select(tmp_path / FILE, user="DOM\\bob")
    assert len(rows) == 1 and rows[0]["cause"] == "user_request" and rows[0]["output_octets"] == 30
    assert [row["user"] for row in select(tmp_path / FILE, still=True)] == ["eve", "eve"]
    assert select(tmp_path / FILE, address="10.99.1.5")[0]["sid"] == FACTS.sid
    assert select(tmp_path / FILE, since=1764200055.0, until=1764200070.0, user="DOM\\bob") == []
    book.close()


def test_a_crash_leaves_no_ghost(tmp_path: Path) -> None:
    for name in ("utmp", "wtmp"):
        (tmp_path / name).touch()
    conf = Records(30, f"{tmp_path}/utmp", f"{tmp_path}/wtmp")
    book = Logbook(conf, str(tmp_path), EPOCH, Log("test"))
    book.begin()
    book.started(FACTS)
    book.seen([(FACTS.sid, Counters(1, 2, 3, 4, 5))], 1764200060.0)
    book.close()
    # the same instance: only this process died
    again = Logbook(conf, str(tmp_path), EPOCH, Log("test"))
    again.begin()
    assert again.open == {FACTS.sid}
    again.started(FACTS)
    again.close()
    # somebody else's login, and a session of an instance that lives, stay
    with (tmp_path / "utmp").open("ab") as file:
        file.write(utmp.pack(7, os.getpid(), "pptp9.7fffffff", "zoe", "192.0.2.9", 1.0))
        foreign = bytearray(utmp.pack(7, 1, "pptp8.7fffffff", "root", "", 1.0))
        foreign[8:40] = b"tty1".ljust(32, b"\0")
        file.write(foreign)
    after = Logbook(conf, str(tmp_path), EPOCH + 1000, Log("test"))
    after.begin()
    after.commit()
    found = records(tmp_path / "utmp")
    assert [kind for kind, _, _ in found] == [8, 7, 7]
    assert records(tmp_path / "wtmp")[-1][0] == 8
    (row,) = select(tmp_path / FILE)
    assert (row["cause"], row["end"], row["input_octets"]) == ("crash", 1764200060.0, 1)
    after.close()


def test_old_ones_are_forgotten_and_a_broken_file_costs_nothing(tmp_path: Path) -> None:
    history = History(f"{tmp_path}/{FILE}", EPOCH)
    history.started(FACTS, 100.0)
    assert history.ended(FACTS.sid, None, "user_request", 200.0)
    assert history.forget(150.0) == 0 and history.forget(300.0) == 1
    assert history._db is not None
    history.commit()
    history._db.close()
    history.started(OTHER, 100.0)
    assert "closed database" in history.failure
    history.commit()
    history.close()
    (tmp_path / "other.db").write_bytes(b"no database" * 100)
    try:
        History(f"{tmp_path}/other.db", EPOCH)
    except OSError as e:
        assert "not a database" in str(e)
    else:
        raise AssertionError("it was taken")
    assert sqlite3.connect(f"{tmp_path}/{FILE}").execute("SELECT count(*) FROM session")


def damage(path: Path) -> None:
    """All but the first page, which has the schema."""
    size = path.stat().st_size
    with open(path, "r+b") as file:
        file.seek(4096)
        file.write(b"\xa5" * (size - 4096))


def test_a_damaged_history_is_given_up(tmp_path: Path) -> None:
    history = History(f"{tmp_path}/{FILE}", EPOCH)
    history.started(FACTS, 1764200000.0)
    history.close()
    damage(tmp_path / FILE)
    book = Logbook(Records(30), str(tmp_path), EPOCH + 1, Log("test"))
    book.begin()
    book.started(OTHER)
    book.stopped(OTHER.sid, None, "user_request", 1764200050.0)
    book.commit()
    book.close()


def test_a_damaged_journal_is_given_up(tmp_path: Path) -> None:
    journal = Journal(f"{tmp_path}/journal")
    journal.enter(EPOCH)
    journal.opened(FACTS.sid, EPOCH, FACTS.pack(), 1764200000.0)
    journal.close()
    damage(tmp_path / "journal")
    journal = Journal(f"{tmp_path}/journal")
    assert journal.epoch == 0 and not list(journal.left()) and journal.records() == []
    assert f"{tmp_path}/journal" in journal.failure
    journal.add(FACTS.sid, 2, 1764200050.0, b"")
    assert journal.commit() and len(journal.records()) == 1
    journal.close()


def test_a_name_sends_no_escape_to_the_terminal_of_who() -> None:
    data = utmp.pack(7, 1, "pptp1.6925a1b2", "eve\x1b[2J\n\udcff" + "x" * 99, "192.0.2.7", 1.0)
    assert utmp.RECORD.unpack(data)[4] == b"eve?[2J??" + b"x" * 23


def test_a_name_sends_no_escape_to_who_reads_the_history(tmp_path: Path) -> None:
    folder = tmp_path / "100% what?"
    folder.mkdir()
    history = History(f"{folder}/{FILE}", EPOCH)
    history.started(replace(FACTS, user="eve\x1b[2J\udcff"), 1764200000.0)
    history.close()
    runner = CliRunner()
    for words in ([], ["eve\x1b[2J\udcff"]):
        result = runner.invoke(history_command, ["--state-dir", str(folder), *words])
        assert result.exit_code == 0 and "eve\\x1b[2J" in result.output, result.output
        assert "\x1b" not in result.output
    for words in (["--since", "9" * 400 + "d"], ["--limit", "9" * 30]):
        result = runner.invoke(history_command, ["--state-dir", str(folder), *words])
        assert result.exit_code == 2 and "Error" in result.output
