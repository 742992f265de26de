"""Rates and filters of sessions in the data thread, on real sockets."""

from __future__ import annotations

import os
import time
from ipaddress import ip_network

import pytest

from tests.fastpath.peer import INNER, Peer, running, tcp, udp
from workers.filters import Filter, Network, number_of, pack, parse_rule

pytestmark = [
    pytest.mark.netns,
    pytest.mark.usefixtures("each_way"),
    pytest.mark.skipif(
        os.geteuid() != 0 and not os.environ.get("CI"), reason="raw sockets need root"
    ),
]
HOST = 0xC6130005
EXCHANGE = 0xC6140005
SLOW = 64_000


def limit(
    p: Peer, *, up: int = 0, down: int = 0, name: str = "", burst: int = 0, wait: bool = True
) -> None:
    """Set the session's limits, and wait until the data thread has taken them."""
    p.table.set_limits(
        p.index,
        rate_up=up,
        rate_down=down,
        burst_up=burst,
        burst_down=burst,
        filter=number_of(name) if name else 0,
    )
    assert p.engine.set_rates(p.index, p.generation)
    if wait:
        done(p)


def done(p: Peer) -> None:
    """All operations so far are carried out: a frame sent after them has arrived."""
    assert p.engine.send(p.index, p.generation, b"\xc0\x21\x09\x00\x00\x08\x00\x00\x00\x00")
    while p.data()[2:4] != b"\xc0\x21":
        pass


def filters(*rules: str, permits: bool = True, exempt: tuple[str, ...] = ()) -> bytes:
    """One filter, "f"."""
    networks: list[Network] = [ip_network(word) for word in exempt]
    return pack([Filter("f", tuple(map(parse_rule, rules)), permits)], networks)


def sums_hold(p: Peer) -> None:
    """Each packet has one end, once the batch that is under way is counted."""
    for _ in range(200):
        c = p.table.data_counters(0)
        ends = c["rx_ack_only"] + c["rx_control"] + c["rx_data"] + c["queued"]
        ends += sum(n for name, n in c.items() if name.startswith("drop_rx_"))
        sent = c["tx_data"] + c["tx_queued"]
        sent += sum(n for name, n in c.items() if name.startswith("drop_tx_"))
        if (c["gre_rx_packets"], c["tun_rx_packets"]) == (ends, sent):
            return
        time.sleep(0.01)
    assert (c["gre_rx_packets"], c["tun_rx_packets"]) == (ends, sent)


def test_down_waits_and_is_sent_in_time() -> None:
    with running() as p:
        p.install()
        p.up()
        limit(p, down=1_000_000)
        start = time.monotonic()
        for i in range(12):
            p.to_tun(udp(HOST, INNER, bytes((i,)) * 1220))  # 10 ms each
        got = [p.data()[-1] for _ in range(12)]
        took = time.monotonic() - start
        assert got == list(range(12))
        assert 0.07 < took < 0.3
        p.wait_count("tx_data", 12)
        sums_hold(p)
        s = p.table.session(p.index)
        assert (s.tx_packets, s.tx_bytes, s.drops) == (12, 12 * 1248, 0)
        assert p.count("tx_queued") == 0


def test_up_waits_and_is_written_in_time() -> None:
    with running() as p:
        p.install()
        p.up()
        limit(p, up=1_000_000)
        start = time.monotonic()
        for i in range(12):
            p.send(b"\x21" + udp(INNER, HOST, bytes((i,)) * 1220))
        got = [p.from_tun()[1][-1] for _ in range(12)]
        took = time.monotonic() - start
        assert got == list(range(12))
        assert 0.07 < took < 0.3
        p.wait_count("rx_data", 12)
        assert (p.table.session(p.index).rx_packets, p.count("queued")) == (12, 0)
        sums_hold(p)


def test_what_is_too_much_is_dropped_and_counted() -> None:
    with running() as p:
        p.install()
        p.up()
        limit(p, up=SLOW, down=SLOW)
        for _ in range(60):
            p.to_tun(udp(HOST, INNER, bytes(1300)))
            p.send(b"\x21" + udp(INNER, HOST, bytes(1300)))
        p.wait_count("tun_rx_packets", 60)
        p.wait_count("gre_rx_packets", 60)
        p.wait_count("drop_tx_shaped", 15)
        p.wait_count("drop_rx_shaped", 15)
        drops = p.count("drop_tx_shaped") + p.count("drop_rx_shaped")
        assert p.table.session(p.index).drops == drops
        sums_hold(p)
        # The end of the session is the end of what waits.
        assert p.count("tx_queued") > 20
        assert p.count("queued") > 20
        p.engine.remove(p.index, p.generation)
        p.event(3)
        assert (p.count("tx_queued"), p.count("queued")) == (0, 0)
        assert p.count("drop_tx_session_ended") > 20
        assert p.count("drop_rx_session_ended") > 20
        sums_hold(p)


def test_no_rate_any_more_sends_what_waits() -> None:
    with running() as p:
        p.install()
        p.up()
        limit(p, up=SLOW, down=SLOW)
        for i in range(12):
            p.to_tun(udp(HOST, INNER, bytes((i,)) * 1300))
            p.send(b"\x21" + udp(INNER, HOST, bytes((i,)) * 1300))
        p.wait_count("tx_queued", 8)
        p.wait_count("queued", 8)
        limit(p, wait=False)
        assert [p.data()[-1] for _ in range(12)] == list(range(12))
        assert [p.from_tun()[1][-1] for _ in range(12)] == list(range(12))
        sums_hold(p)


def test_a_faster_rate_takes_effect_at_once() -> None:
    with running() as p:
        p.install()
        p.up()
        limit(p, down=SLOW)
        for i in range(12):
            p.to_tun(udp(HOST, INNER, bytes((i,)) * 1300))
        p.wait_count("tx_queued", 8)
        start = time.monotonic()
        limit(p, down=100_000_000, wait=False)
        assert [p.data()[-1] for _ in range(12)] == list(range(12))
        assert time.monotonic() - start < 0.5


def test_a_super_packet_is_sent_at_the_rate() -> None:
    with running() as p:
        p.install()
        p.up()
        limit(p, down=2_000_000)
        start = time.monotonic()
        p.to_tun(tcp(HOST, INNER, bytes(30_000)), (1, 1, 40, 1300, 20, 16))
        sizes = [len(p.data()) - 4 for _ in range(24)]
        took = time.monotonic() - start
        assert sum(sizes) == 30_000 + 24 * 40
        assert 0.09 < took < 0.3
        sums_hold(p)


def test_exempt_addresses_have_no_rate() -> None:
    with running() as p:
        p.install()
        p.up()
        p.engine.set_filters(filters(exempt=("198.20.0.0/16", "2001:db8::/32")))
        limit(p, up=SLOW, down=SLOW)
        for i in range(20):
            p.to_tun(udp(EXCHANGE, INNER, bytes((i,)) * 1300))
            p.send(b"\x21" + udp(INNER, EXCHANGE, bytes((i,)) * 1300))
        assert [p.data(0.4)[-1] for _ in range(20)] == list(range(20))
        assert [p.from_tun(0.4)[1][-1] for _ in range(20)] == list(range(20))
        p.to_tun(udp(HOST, INNER, bytes(1300)))
        p.data(0.2)  # and paid nothing for it
        sums_hold(p)


def test_a_filter_denies_and_permits_by_direction() -> None:
    with running() as p:
        p.install()
        p.up()
        p.engine.set_filters(
            filters("deny up udp to 198.19.0.0/16 port 2000", "deny down tcp from any port 1000")
        )
        limit(p, name="f")
        p.send(b"\x21" + udp(INNER, HOST, b"no"))
        p.send(b"\x21" + udp(INNER, EXCHANGE, b"yes"))
        assert p.from_tun()[1].endswith(b"yes")
        p.to_tun(tcp(HOST, INNER, bytes(3000)), (1, 1, 40, 1000, 20, 16))
        p.to_tun(udp(HOST, INNER, b"yes"))
        assert p.data().endswith(b"yes")
        assert p.count("drop_rx_filtered") == 1
        assert p.count("drop_tx_filtered") == 3
        assert p.table.session(p.index).drops == 4
        sums_hold(p)


def test_new_words_of_a_filter_hold_for_sessions_that_are_up() -> None:
    with running() as p:
        p.install()
        p.up()
        p.engine.set_filters(filters("deny udp"))
        limit(p, name="f")
        p.send(b"\x21" + udp(INNER, HOST, b"1"))
        p.wait_count("drop_rx_filtered", 1)
        p.engine.set_filters(filters("permit udp", permits=False))
        done(p)
        p.send(b"\x21" + udp(INNER, HOST, b"2"))
        assert p.from_tun()[1].endswith(b"2")
        p.engine.set_filters(pack([]))  # gone: nothing is denied
        done(p)
        p.send(b"\x21" + tcp(INNER, HOST, b"3"))
        assert p.from_tun()[1].endswith(b"3")


def test_a_successor_goes_on_with_rates_and_filter() -> None:
    with running() as p:
        p.install()
        p.up()
        p.engine.set_filters(filters("deny up udp to any port 2000"))
        limit(p, up=500_000, down=SLOW, name="f", burst=9000)
        for _ in range(20):
            p.to_tun(udp(HOST, INNER, bytes(1300)))
        p.wait_count("tx_queued", 8)
        table, index = p.table, p.index
    with running(table) as p:
        p.index, p.generation = index, table.session(index).generation
        p.engine.set_filters(filters("deny up udp to any port 2000"))
        done(p)
        sums_hold(p)
        s = table.session(index)
        assert (s.rate_up, s.rate_down, s.burst_up) == (500_000, SLOW, 9000)
        p.seq = s.rx_seq
        p.send(b"\x21" + udp(INNER, HOST, b"no"))
        p.wait_count("drop_rx_filtered", 1)
        for _ in range(20):
            p.to_tun(udp(HOST, INNER, bytes(1300)))
        p.wait_count("tx_queued", 8)
        sums_hold(p)


def test_a_renewed_handle_has_no_limits_of_the_former() -> None:
    with running() as p:
        p.install()
        p.up()
        limit(p, up=SLOW, down=SLOW)
        p.engine.remove(p.index, p.generation)
        p.event(3)
        p.table.release(p.index)
        p.seq = 0
        p.install()
        p.up()
        assert p.table.session(p.index).rate_up == 0
        for i in range(20):
            p.to_tun(udp(HOST, INNER, bytes((i,)) * 1300))
        assert [p.data(0.4)[-1] for _ in range(20)] == list(range(20))


def test_no_filters_in_these_octets() -> None:
    with running() as p:
        for octets in (b"", bytes(15), bytes(17), b"\x01" + bytes(15)):
            with pytest.raises(ValueError, match="no filters"):
                p.engine.set_filters(octets)
