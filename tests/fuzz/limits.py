"""Filters, exemptions and rates against any packets, blocks and times.

Compiled code: the sanitizers watch for octets beside packet, block and pool; the checks
here are against the plain Python twin of the shaper and of what a rule's words mean.
"""

from __future__ import annotations

import contextlib

from fastpath import filter as rules
from fastpath.shaper import Shaper, Waiting
from tests.fastpath.slow_shaper import SlowShaper
from tests.fuzz.targets import Reader
from workers.filters import Filter, RuleError, number_of, pack, parse_network, parse_rule

NUMBERS = [number_of(name) for name in ("a", "b")]


def one(data: bytes) -> None:
    reader = Reader(data)
    kind = reader.number() % 4
    if kind == 0:
        any_block(reader)
    elif kind == 1:
        any_words(reader)
    elif kind == 2:
        any_times(reader)
    else:
        any_order(reader)


def any_block(reader: Reader) -> None:
    """A block that nobody compiled: refused, or harmless."""
    block = reader.block()
    try:
        book = rules.Book(block)
    except ValueError:
        return
    packet = reader.rest()
    for address in (packet[:4], packet[:16]):
        if len(address) in (4, 16):
            book.exempts(address)
    number = int.from_bytes(block[16:20], "little")
    for up in (True, False):
        with contextlib.suppress(KeyError, ValueError):
            book.permits(number, packet, up)


def any_words(reader: Reader) -> None:
    """Words of rules, and a packet."""
    found, networks = [], []
    for _ in range(reader.number() % 5):
        text = reader.block().decode("utf-8", "replace")
        with contextlib.suppress(RuleError):
            found.append(parse_rule(text))
        with contextlib.suppress(RuleError):
            network = parse_network(text)
            networks += [network] if network is not None else []
    book = rules.Book(pack([Filter("a", tuple(found), True), Filter("b", (), False)], networks))
    for network in networks:
        assert book.exempts(network[0].packed)
        assert book.exempts(network[-1].packed)
    packet = reader.rest()
    try:
        number = rules.flow(packet)
    except ValueError:
        assert (
            len(packet) < 20
            or packet[0] >> 4 not in (4, 6)
            or packet[0] < 0x45
            or (packet[0] >> 4 == 6 and len(packet) < 40)
        )
        return
    assert number == rules.flow(packet)
    for up in (True, False):
        verdict = book.permits(NUMBERS[0], packet, up)
        if not found:
            assert verdict
        assert not book.permits(NUMBERS[1], packet, up)


def any_times(reader: Reader) -> None:
    """Both shapers, the same steps."""
    rate, burst, places = 1 + reader.number(4), reader.number(3), 1 + reader.number()
    fast, slow = Shaper(rate, burst, places), SlowShaper(rate, burst, places)
    now = 10**9
    for _ in range(300):
        if not reader:
            break
        what = reader.number()
        now += reader.number() ** 2 * 1000
        size = reader.number(2) % 1800
        if what < 128:
            packet = bytes((what,)) * size
            assert fast.put(what % 40, packet, now) == slow.put(what % 40, packet, now)
        elif what < 224:
            assert fast.next(now) == slow.next(now)
        elif what < 240:
            assert fast.passes(size, now) == slow.passes(size, now)
        elif what < 250:
            rate = 1 + size * 1000
            fast.set(rate, burst)
            slow.set(rate, burst)
        else:
            assert fast.clear() == slow.clear()
        packets, octets, ready, _, _, free = fast.state
        assert (packets, octets, ready) == (slow.packets, slow.octets, slow.ready)
        assert free == places - packets


def any_order(reader: Reader) -> None:
    """The heap of those that wait."""
    heap = Waiting(16)
    slow: dict[int, int] = {}
    while reader:
        i, due = reader.number() % 20, reader.number()
        if i >= 16:
            i -= 4
            heap.remove(i)
            slow.pop(i, None)
        else:
            heap.put(i, due)
            slow[i] = due
        first = heap.first()
        assert (first is None) == (not slow)
        if first is not None:
            assert first[1] == min(slow.values()) == slow[first[0]]
