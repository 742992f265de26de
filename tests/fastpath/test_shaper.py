"""The rate of a session: what it lets through, in which order, and what it drops."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastpath.shaper import Shaper, Waiting
from tests.fastpath.slow_shaper import SlowShaper

MS = 1_000_000
SECOND = 1000 * MS


def sent(shaper: Shaper, now: int) -> list[bytes]:
    """All that may go now."""
    found: list[bytes] = []
    while True:
        packet, _ = shaper.next(now)
        if packet is None:
            return found
        found.append(packet)


def offer(shaper: Shaper, flow: int, packet: bytes, now: int) -> list[bytes]:
    """As the data path does: at once, or in the queue."""
    if shaper.passes(len(packet), now):
        return [packet]
    shaper.put(flow, packet, now)
    return []


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["put", "put", "put", "next", "next", "passes", "set", "clear"]),
        st.sampled_from([*range(40), 64, 2**32 - 1]),
        st.integers(0, 1700),
        st.sampled_from([0, 0, 1, 40_000, MS, 7 * MS, 60 * MS, 300 * MS]),
    ),
    max_size=200,
)
RATES = st.sampled_from([1, 8_000, 64_000, 1_000_000, 10_000_000, 1_000_000_000, 10**15])


@settings(max_examples=300, deadline=None)
@given(RATES, st.sampled_from([0, 1, 5000, 10**9]), st.sampled_from([3, 40, 1024]), STEPS)
def test_the_twin_does_the_same(
    rate: int, burst: int, places: int, steps: list[tuple[str, int, int, int]]
) -> None:
    fast, slow = Shaper(rate, burst, places), SlowShaper(rate, burst, places)
    now = 100 * SECOND
    for i, (what, flow, size, later) in enumerate(steps):
        now += later
        if what == "put":
            packet = bytes((i & 0xFF,)) * size
            assert fast.put(flow, packet, now) == slow.put(flow, packet, now)
        elif what == "next":
            assert fast.next(now) == slow.next(now)
        elif what == "passes":
            assert fast.passes(size, now) == slow.passes(size, now)
        elif what == "set":
            fast.set(rate * 3, size)
            slow.set(rate * 3, size)
        else:
            assert fast.clear() == slow.clear()
        packets, octets, ready, target, interval, free = fast.state
        assert (packets, octets, ready) == (slow.packets, slow.octets, slow.ready)
        assert (target, interval) == (slow.target, slow.interval)
        assert free == places - packets


@pytest.mark.parametrize(
    "rate", [64_000, 1_000_000, 10_000_000, 155_000_000, 1_000_000_000, 10_000_000_000]
)
@pytest.mark.parametrize("grain", [MS // 5, 3 * MS])
def test_the_rate_is_kept(rate: int, grain: int) -> None:
    shaper = Shaper(rate, places=8192)
    now = start = 5 * SECOND
    octets = 0
    span = max(SECOND, 40 * 1400 * 8 * SECOND // rate) if rate < 10**9 else SECOND // 5
    while now < start + span:
        for i in range(max(2, int(rate * grain / SECOND / 8 / 1400) + 2)):
            octets += sum(map(len, offer(shaper, i, bytes(1400), now)))
        now += grain
        octets += sum(map(len, sent(shaper, now)))
    burst = max(rate // 800, 3200)
    span = now - start
    assert octets * 8 * SECOND / span / rate == pytest.approx(
        1, abs=0.02 + burst * 8 / rate / (span / SECOND)
    )
    assert octets <= rate * span // SECOND // 8 + burst + 2 * 1400


def test_a_burst_goes_at_once_and_comes_back_with_time() -> None:
    shaper = Shaper(1_000_000, 14_000)
    now = 5 * SECOND
    assert sum(shaper.passes(1400, now) for _ in range(30)) in (10, 11)
    now += 112 * MS
    assert sum(shaper.passes(1400, now) for _ in range(30)) in (10, 11)


def test_a_lone_packet_overtakes_the_queue_of_a_full_session() -> None:
    shaper = Shaper(10_000_000)
    now = 5 * SECOND
    for _ in range(30):
        offer(shaper, 1, b"D" * 1400, now)
    assert len(sent(shaper, now + 4 * MS)) > 1
    assert offer(shaper, 2, b"ping", now) == []
    now += 8 * MS
    assert sent(shaper, now)[0] == b"ping"


@pytest.mark.parametrize("other", range(32))
def test_two_flows_never_share_a_queue_while_there_are_others(other: int) -> None:
    shaper = Shaper(10_000_000)
    now = 5 * SECOND
    for _ in range(30):
        offer(shaper, 64 + other, b"D" * 1400, now)
    sent(shaper, now + 4 * MS)
    for last in (0, 32, 64, 96):  # the same place by their hashes
        if last != 64:
            assert offer(shaper, last + other, b"ping", now) == []
    assert sent(shaper, now + 8 * MS)[:3] == [b"ping"] * 3


def test_two_flows_share_by_octets() -> None:
    shaper = Shaper(8_000_000, places=4096)
    now = 5 * SECOND
    got = {65: 0, 66: 0}
    for _ in range(2000):
        for packet in (b"A" * 1400, b"B" * 200, b"B" * 200):
            for out in offer(shaper, packet[0], packet, now):
                got[out[0]] += len(out)
        now += MS
        for out in sent(shaper, now):
            got[out[0]] += len(out)
    # B asks for 3.2 Mbit/s, less than half: it gets that, A the rest.
    assert got[66] == pytest.approx(800_000, rel=0.05)
    assert sum(got.values()) == pytest.approx(2_000_000, rel=0.03)


def test_what_stands_too_long_is_dropped_at_its_head() -> None:
    shaper = Shaper(10_000_000, places=4096)
    now = 5 * SECOND
    dropped = 0
    for i in range(3000):
        if not shaper.passes(1400, now):
            dropped += shaper.put(1, i.to_bytes(4, "big") * 350, now)
        now += MS
        while True:
            packet, more = shaper.next(now)
            dropped += more
            if packet is None:
                break
    # 11.2 Mbit/s come, 10 go: one in nine is too much, and the queue does not grow for ever.
    assert 200 < dropped < 400
    assert shaper.state[0] < 150


def test_one_session_never_takes_the_whole_pool() -> None:
    shaper = Shaper(1_000_000_000, places=100)
    now = 5 * SECOND
    while shaper.passes(1400, now):
        pass
    for _ in range(300):
        shaper.put(1, bytes(1400), now)
    packets, _, _, _, _, free = shaper.state
    assert packets + free == 100
    assert packets <= free + 1


def test_what_waits_at_a_low_rate_is_bounded() -> None:
    shaper = Shaper(64_000)
    now = 5 * SECOND
    for i in range(200):
        shaper.put(i, bytes(1400), now)
    assert shaper.state[1] <= 49152


def test_codel_gives_low_rates_their_time() -> None:
    assert Shaper(10_000_000).state[3:5] == (5 * MS, 100 * MS)
    target, interval = Shaper(64_000).state[3:5]
    assert target == 281_250_000  # one packet and a half
    assert interval == 562_500_000


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 19), st.one_of(st.none(), st.integers(0, 50))), max_size=100)
)
def test_the_earliest_comes_first(steps: list[tuple[int, int | None]]) -> None:
    fast = Waiting(20)
    slow: dict[int, int] = {}
    for i, due in steps:
        if due is None:
            fast.remove(i)
            slow.pop(i, None)
        else:
            fast.put(i, due)
            slow[i] = due
        first = fast.first()
        if not slow:
            assert first is None
        else:
            assert first is not None
            assert first[1] == min(slow.values())
            assert slow[first[0]] == first[1]


def test_no_rate_no_shaper() -> None:
    with pytest.raises(ValueError, match="rate"):
        Shaper(0)
    with pytest.raises(ValueError, match="rate"):
        Shaper(1).set(0)
