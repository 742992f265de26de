"""ops/status_page.py: always a whole value, whoever writes meanwhile."""

from __future__ import annotations

import os

from ops.status_page import COPY, HEAD, StatusPage


def test_the_newest_whole_value_is_read() -> None:
    fd = os.memfd_create("page")
    writer = StatusPage(fd, writable=True)
    assert writer.read() == {}
    reader = StatusPage(fd)
    for n in range(5):
        assert writer.write({"n": n, "text": "x" * n})
        assert reader.read() == {"n": n, "text": "x" * n}
    os.close(fd)


def test_a_torn_write_leaves_the_one_before() -> None:
    fd = os.memfd_create("page")
    writer = StatusPage(fd, writable=True)
    writer.write({"n": 1})
    writer.write({"n": 2})
    for at in (0, COPY):
        before = os.pread(fd, 1, at + HEAD.size + 3)
        os.pwrite(fd, bytes((before[0] ^ 1,)), at + HEAD.size + 3)
        assert StatusPage(fd).read() in ({"n": 1}, {"n": 2})
        os.pwrite(fd, before, at + HEAD.size + 3)
    assert not writer.write({"long": "x" * COPY}) and writer.read() == {"n": 2}
    os.close(fd)


def test_a_page_nobody_made_is_empty() -> None:
    fd = os.memfd_create("page")
    assert StatusPage(fd).read() == {}
    os.close(fd)
