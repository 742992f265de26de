"""One console with a few sessions and counters, shared by the tests of a file."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.ops.console.rig import Console, Shared, console


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Console]:
    """Sessions: 0 alice up on worker 0, 1 starting on worker 1, 2 bob ending on worker 1."""
    shared = Shared()
    shared.up(0, "alice", "10.99.1.5")
    shared.set_traffic(0, (10, 5000), (20, 30_000), 3)
    shared.call(1, worker=1, peer="192.0.2.8")
    shared.up(2, "bob", "10.50.0.1", worker=1, peer="192.0.2.9", pool=1)
    shared.set_traffic(2, (1, 2_000_000), (2, 100), 0)
    shared.table.set_ending(2)
    shared.count("connections_accepted", 7)
    shared.count("connections_open", 3)
    shared.count("refused_no_slot", 2)
    shared.count("ended_user_request", 4)
    shared.count("sessions_started", 6)
    shared.count("bus_messages_sent", 11)
    shared.count_control(0, "auth_mschapv2_accept", 5)
    shared.count_control(1, "auth_mschapv2_accept", 6)
    shared.count_control(1, "secrets_errors", 1)
    shared.count_netops("routes_added", 9)
    shared.set_data(0, rx_data=100, rx_data_bytes=64_000, drop_rx_duplicate=4, queued=2)
    shared.set_data(1, tx_data=7, tx_data_bytes=700, drop_tx_too_big=1, mppe_rekeys=8)
    shared.set_histogram(0, "gre_rx", [5, 0, 3, 0, 0, 0, 0, 0, 0, 1], 400)
    shared.table.set_config(True)
    with console(shared, tmp_path_factory.mktemp("run")) as found:
        yield found
