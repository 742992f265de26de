"""Where datagrams got lost: the arithmetic."""

from __future__ import annotations

from ops.client.bench import State, cpu, trails
from ops.client.concentrator import Samples
from ops.client.numbers import Way
from ops.client.trail import Trail, device_drops, dropped, since, unseen

DEVICES = """Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo
    lo:       0       0    0    0    0     0          0         0        0       0    0    0    0
pptpc0: 1000      10    0    1    0     0          0         0     2000      20    0    7    0
 pptp1:1000      10    0    2    0     0          0         0     2000      20    0    5    0
"""


def test_unexplained_is_what_no_counter_names() -> None:
    whole = Trail(100, {"queue": 3}, 97, {"socket": 2}, 95)
    assert whole.whole
    torn = Trail(100, {"queue": 3}, 90, {}, 92)
    assert torn.unexplained == (7, -2)
    assert torn.figures()["before"] == {"queue": 3}


def test_device_drops() -> None:
    assert device_drops(DEVICES, ("pptpc",), "tx") == 7
    assert device_drops(DEVICES, ("pptp",), "tx") == 12
    assert device_drops(DEVICES, ("pptp",), "rx") == 3


def test_differences() -> None:
    assert since({"a": 5, "b": 2}, {"a": 3}) == {"a": 2, "b": 2}
    counters = {"drop_rx_late": 4, "drop_tx_too_big": 1, "rx_data": 9}
    assert dropped(counters, "drop_rx_", "clients") == {"clients: late": 4}


def test_a_number_that_was_dropped_unseen_is_not_lost_on_the_way() -> None:
    drops = {"concentrator: overload": 3, "concentrator: late": 9}
    assert unseen(10, 5, drops, "concentrator") == 2
    assert unseen(10, 5, drops, "clients") == 5
    assert unseen(1, 5, {}, "clients") == 0


def page(receive: int, transmit: int, late: int, lost: int, cpu_seconds: float) -> Samples:
    worker = {"worker": "0"}
    return Samples(
        (
            ("pptp_traffic_packets_total", {**worker, "direction": "receive"}, receive),
            ("pptp_traffic_packets_total", {**worker, "direction": "transmit"}, transmit),
            ("pptp_drops_total", {**worker, "direction": "receive", "reason": "late"}, late),
            ("pptp_gre_lost_total", worker, lost),
            ("pptp_worker_cpu_seconds_total", {**worker, "thread": "data"}, cpu_seconds),
            ("pptp_process_cpu_seconds_total", {"process": "keeper"}, 1.0),
        )
    )


def state(up: Way, down: Way, server: Samples, overflows: int, queue: int) -> State:
    return State(
        *(0.0, up, down, {"drop_rx_late": overflows, "gre_lost": 0}),
        *({"overflows": overflows}, {"overflows": 0}, {"clients": queue, "server": 0}, server),
    )


def test_two_states_make_two_trails() -> None:
    """Only what came between them counts."""
    before = state(Way(sent=7, received=7), Way(), page(7, 7, 1, 2, 1.0), 1, 1)
    up_after = Way(sent=107, received=97, lost=10)
    down_after = Way(sent=97, received=95, duplicated=1)
    after = state(up_after, down_after, page(99, 104, 2, 5, 1.5), 3, 5)
    up, down = trails(before, after)
    # 100 sent: 4 in the queue, 3 on the way, 1 late; 92 delivered, 2 in the socket, 90 there
    assert up.unexplained == (0, 0)
    assert (up.sent, up.concentrator, up.received) == (100, 92, 90)
    assert down.unexplained == (0, -1)
    assert cpu(before.server, after.server) == {"keeper": 0.0, "worker data": 0.5}
