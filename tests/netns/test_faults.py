"""The fault injector itself: what goes in comes out, as often and in the order it should."""

from __future__ import annotations

import random
import struct

import pytest

from tests.netns.faults import GROUP, PERIOD, Faults, Pattern, Way, checksum, fragments, is_gre


def frame(n: int, size: int = 100) -> bytes:
    """GRE in IPv4 in Ethernet with a number in it."""
    head = struct.pack(">BBHHHBBHII", 0x45, 0, 20 + size, n & 0xFFFF, 0, 64, 47, 0, 1, 2)
    head = head[:10] + checksum(head).to_bytes(2, "big") + head[12:]
    return bytes(12) + b"\x08\x00" + head + n.to_bytes(4, "big") * (size // 4)


def passed(way: Way, count: int, step: float = 0.001) -> list[int]:
    """Numbers in the order they leave."""
    out = []
    for n in range(count):
        out += way.feed(frame(n), n * step) + way.due(n * step)
    out += way.due(count * step + 10)
    return [int.from_bytes(each[34:38], "big") for each in out]


def test_nothing_is_done_unasked() -> None:
    assert passed(Way(Faults(), 1), 1000) == list(range(1000))
    other = bytes(12) + b"\x08\x06" + bytes(40)
    assert not is_gre(other)
    assert Way(Faults(loss=1.0), 1).feed(other, 0.0) == [other]


@pytest.mark.parametrize(
    ("pattern", "farthest"), [("swap", 1), ("late", GROUP), ("reverse", GROUP - 1)]
)
def test_patterns(pattern: Pattern, farthest: int) -> None:
    found = passed(Way(Faults(pattern=pattern), 1), 10 * PERIOD)
    assert sorted(found) == list(range(10 * PERIOD))
    assert found != sorted(found)
    assert max(abs(at - n) for at, n in enumerate(found)) == farthest


def test_the_seed_tells_it_all() -> None:
    kind = Faults(loss=0.1, duplicate=0.1, delayed=0.2, delay_ms=5, pattern="late")
    assert passed(Way(kind, 7), 2000) == passed(Way(kind, 7), 2000)
    assert passed(Way(kind, 7), 2000) != passed(Way(kind, 8), 2000)
    way = Way(kind, 7)
    found = passed(way, 2000)
    assert len(found) == 2000 - way.counts["lost"] + way.counts["duplicated"] == way.counts["out"]
    assert 100 < way.counts["lost"] < 300
    assert 100 < way.counts["duplicated"] < 300


def test_fragments_are_the_packet() -> None:
    whole = frame(5, 1400)
    parts = fragments(whole, 576)
    assert len(parts) == 3
    data = bytearray(1400)
    for part in parts:
        head = part[14:34]
        assert checksum(head) == 0
        assert len(part) - 14 == int.from_bytes(head[2:4], "big") <= 576
        at = (int.from_bytes(head[6:8], "big") & 0x1FFF) * 8
        data[at : at + len(part) - 34] = part[34:]
    assert bytes(data) == whole[34:]
    assert [bool(p[20] & 0x20) for p in parts] == [True, True, False]
    assert fragments(whole, 1500) == [whole]


def test_fragments_of_fragments() -> None:
    rng = random.Random(1)
    whole = frame(6, 1480)
    parts = [piece for part in fragments(whole, 1000) for piece in fragments(part, 300)]
    rng.shuffle(parts)
    data = bytearray(1480)
    for part in parts:
        at = (int.from_bytes(part[20:22], "big") & 0x1FFF) * 8
        data[at : at + len(part) - 34] = part[34:]
    assert bytes(data) == whole[34:]
    assert sum(not part[20] & 0x20 for part in parts) == 1
