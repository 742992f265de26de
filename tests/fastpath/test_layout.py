"""The session table: one form for everything, readable after any crash."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastpath import layout
from fastpath.layout import LayoutError, Table


@pytest.fixture
def fd() -> Iterator[int]:
    made = os.memfd_create("table")
    yield made
    os.close(made)


def take(table: Table, index: int, worker: int = 0) -> tuple[int, int]:
    return table.allot(
        index,
        worker=worker,
        call_id=640,
        peer_call_id=0,
        local_address=1,
        peer_address=2,
        peer_port=3,
        peer_window=64,
        peer_speed=5,
        connection=6,
    )


def test_sizes_and_names(fd: int) -> None:
    table = Table.create(fd, 100, 3, 77)
    assert (table.capacity, table.workers, table.epoch) == (100, 3, 77)
    assert os.fstat(fd).st_size == layout.table_size(100, 3)
    assert table.sessions() == []
    assert len(set(layout.DATA_COUNTERS)) == len(layout.DATA_COUNTERS)
    assert set(table.data_counters(2).values()) == {0}


def test_handles_and_sids_are_never_reused(fd: int) -> None:
    table = Table.create(fd, 4, 1, 9)
    seen = set()
    for _ in range(10):
        generation, sid = take(table, 2)
        assert sid >> 32 == 9
        seen.add((generation, sid))
        with pytest.raises(LayoutError, match="in use"):
            take(table, 2)
        table.release(2)
    assert len(seen) == 10


def test_fields_of_an_older_generation_read_as_nothing(fd: int) -> None:
    table = Table.create(fd, 4, 1, 9)
    generation, _ = take(table, 0)
    table.begin_link(0, generation)
    table.set_user(0, "bob", 4)
    table.set_state(0, layout.STATE_ACTIVE)
    table.write_blob(0, b"secret things")
    assert table.session(0).name == "bob"
    assert table.used() == [1]
    table.release(0)
    take(table, 0)
    s = table.session(0)
    assert (s.name, s.state, s.address) == ("", 0, 0)
    assert table.blob(0) == b""


def test_the_older_blob_survives_a_torn_write(fd: int) -> None:
    table = Table.create(fd, 4, 1, 9)
    generation, _ = take(table, 1)
    table.begin_link(1, generation)
    table.write_blob(1, b"first")
    table.write_blob(1, b"second")
    assert table.blob(1) == b"second"
    # Break the newer copy as a process that died in the middle of it would have.
    size = os.fstat(fd).st_size
    at = os.pread(fd, size, 0).index(b"second")
    os.pwrite(fd, b"SEC", at)
    assert table.blob(1) == b"first"
    with pytest.raises(LayoutError, match="at most"):
        table.write_blob(1, bytes(layout.BLOB_MAX + 1))


def test_long_names_are_cut(fd: int) -> None:
    table = Table.create(fd, 1, 1, 9)
    generation, _ = take(table, 0)
    table.begin_link(0, generation)
    table.set_user(0, "é" * 100, 4)
    assert table.session(0).name.startswith("é" * 30)


def test_read_only_and_wrong_memory(fd: int) -> None:
    Table.create(fd, 10, 1, 9)
    again = os.open(f"/proc/self/fd/{fd}", os.O_RDONLY)
    assert Table.attach(again, writable=False).capacity == 10
    os.close(again)
    os.pwrite(fd, b"\x63", 8)
    with pytest.raises(LayoutError, match="version"):
        Table.attach(fd)
    os.pwrite(fd, b"x", 0)
    with pytest.raises(LayoutError, match="not a session table"):
        Table.attach(fd)


@given(st.binary(max_size=200))
def test_any_memory_is_refused(octets: bytes) -> None:
    made = os.memfd_create("junk")
    try:
        os.pwrite(made, octets + bytes(20000), 0)
        with pytest.raises(LayoutError):
            Table.attach(made)
    finally:
        os.close(made)


def test_indexes_are_checked(fd: int) -> None:
    table = Table.create(fd, 4, 2, 9)
    for call in (
        lambda: table.session(4),
        lambda: table.worker(2),
        lambda: table.release(99),
        lambda: table.dispatcher_count(9999),
        lambda: table.control_count(0, 9999),
        lambda: table.histogram(0, 9),
    ):
        with pytest.raises(IndexError):
            call()
