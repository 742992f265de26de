"""The HOWTO's pool of five addresses, with more workers than addresses; and a loaded path."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from ops.client.concentrator import Concentrator, Samples
from ops.client.playground import LAN_HOST, Playground, why_not
from tests.netns.test_client import Client

pytestmark = [pytest.mark.netns, pytest.mark.timeout(120)]
PASSWORD = "correct horse"
POOL = "10.77.0.234-238"


@contextmanager
def served(extra: dict[str, dict[str, object]]) -> Iterator[Concentrator]:
    """A concentrator of its own for one test."""
    lacking = why_not()
    if lacking and os.environ.get("CI") == "true":
        pytest.fail(lacking)
    if lacking:
        pytest.skip(lacking)
    with Playground() as ground:
        users = {f"user{i}": PASSWORD for i in range(1, 9)}
        made = Concentrator(ground, users, extra=extra)  # type: ignore[arg-type]
        made.start()
        yield made
        assert made.stop() == 0


def test_eight_workers_share_a_pool_of_five() -> None:
    extra: dict[str, dict[str, object]] = {
        "workers": {"count": 8},
        "ip": {"local": "10.77.0.1"},
        "pools.default": {"ranges": [POOL]},
    }
    with served(extra) as concentrator:
        five = Client(concentrator, "--user", "user{i}", "--count", "5", "--tun", "five")
        ups = five.wait_for("up", 5)
        assert {e["address"] for e in ups} == {f"10.77.0.{i}" for i in range(234, 239)}
        sixth = Client(concentrator, "--user", "user6", "--tun", "sixth", route=f"{LAN_HOST}/32")
        sixth.wait_for("failed")
        assert sixth.end(0) == 1
        log = concentrator.child.tail()
        assert "pool 'default' is used up: all 5 addresses" in log
        assert "pools.default.ranges" in log
        assert concentrator.metrics().total("pptp_calls_refused_total", reason="no_address") == 1
        assert five.end() == 0


def identity(page: Samples) -> tuple[float, float]:
    """GRE packets received; and where they went (ARCHITECTURE.md, accounting)."""
    ends = page.total("pptp_gre_ack_only_packets_total", direction="receive")
    ends += page.total("pptp_gre_control_packets_total", direction="receive")
    ends += page.total("pptp_traffic_packets_total", direction="receive")
    ends += page.total("pptp_drops_total", direction="receive")
    ends += page.total("pptp_packets_queued", direction="receive")
    return page.total("pptp_gre_packets_total", direction="receive"), ends


def test_batches_grow_under_load_and_every_packet_is_accounted_for() -> None:
    with served({"workers": {"count": 2}}) as concentrator:
        client = Client(concentrator, "--user", "user1")
        (up,) = client.wait_for("up")
        ground = concentrator.playground
        server = ["ip", "netns", "exec", ground.name("lan"), "iperf3", "-s", "-1"]
        with subprocess.Popen(server, stdout=subprocess.DEVNULL) as sink:
            time.sleep(0.5)
            words = ["iperf3", "-c", LAN_HOST, "-B", up["address"], "-t", "3", "-R"]
            argv = ["ip", "netns", "exec", ground.name("clients"), *words]
            done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)
            assert done.returncode == 0, done.stdout + done.stderr
            sink.wait(30)
        time.sleep(0.3)
        page = concentrator.metrics()
        for direction in ("transmit", "receive"):
            packets = page.total("pptp_batch_packets_sum", direction=direction)
            batches = page.total("pptp_batch_packets_count", direction=direction)
            assert packets / batches > 1, (direction, packets, batches)
        received, ends = identity(page)
        assert received == ends > 0
        taken = page.total("pptp_tun_packets_total")
        gone = page.total("pptp_traffic_packets_total", direction="transmit")
        assert taken == gone + page.total("pptp_drops_total", direction="transmit")
        assert client.end() == 0
