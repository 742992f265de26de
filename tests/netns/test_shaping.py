"""Rates and filters as a subscriber meets them: real TCP and pings through the tunnel."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from ops.client.child import ROOT
from ops.client.concentrator import Toml
from ops.client.playground import LAN_HOST, why_not
from tests.netns import shaped, spaces
from tests.netns.shaped import Site

pytestmark = [pytest.mark.netns, pytest.mark.timeout(180)]


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    """One concentrator and one session for all tests here."""
    lacking = why_not()
    if lacking and os.environ.get("CI") == "true":
        pytest.fail(lacking)
    if lacking:
        pytest.skip(lacking)
    extra: dict[str, dict[str, Toml]] = {
        "workers": {"count": 1},
        "shaping": {"exempt": ["198.19.0.1/32"]},
        "filters.no-ping": {"rules": [f"deny up icmp to {LAN_HOST}"]},
    }
    with shaped.site(extra) as made:
        yield made


@pytest.fixture(autouse=True)
def unlimited(site: Site) -> Iterator[None]:
    yield
    site.change(rate_up=0, rate_down=0, filter="")


@pytest.mark.parametrize(("way", "rate"), [("down", 1_000_000), ("up", 20_000_000)])
def test_tcp_gets_its_rate(site: Site, way: str, rate: int) -> None:
    site.change(rate_up=rate, rate_down=rate)
    got = site.rate(way, 2.0, 1.0)
    assert got.inner == pytest.approx(rate, rel=0.05)


@pytest.mark.parametrize("way", ["down", "up"])
def test_a_ping_of_a_full_session(site: Site, way: str) -> None:
    site.change(rate_up=10_000_000, rate_down=10_000_000)
    with site.stream(way, 3.0):
        time.sleep(0.8)
        times = sorted(site.ping(20, every=0.08))
    assert len(times) == 20
    assert times[-2] < 30  # one may meet a busy machine


def test_the_command_line(site: Site) -> None:
    name = site.ground.name("server")
    argv = ["ip", "netns", "exec", name, sys.executable, "-P", "-m", "ops", "set-rate"]
    env = {**os.environ, "PYTHONPATH": ROOT}

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([*argv, *words], capture_output=True, text=True, check=False, env=env)

    done = run("username", shaped.USER, "2M/512k", "--filter", "no-ping")
    assert (done.returncode, done.stdout) == (0, "1 session changed\n"), done.stderr
    assert site.session()["rate-limit"] == "2M/512k"
    assert site.ping(2, every=0.05) == []
    assert run("ip", site.address, "none", "--filter", "").returncode == 0
    assert site.session()["rate-limit"] is None
    assert len(site.ping(2, every=0.05)) == 2
    assert run("username", "nobody-else", "1M").returncode == 5
    for words, code, why in (
        (("username", shaped.USER), 1, "say a rate"),
        (("username", shaped.USER, "10"), 2, "has no unit"),
        (("username", shaped.USER, "10M/x"), 2, "'x' is no rate"),
    ):
        done = run(*words)
        assert done.returncode == code
        assert why in done.stderr


def test_a_filter_and_a_rate_outlive_their_worker(site: Site) -> None:
    site.change(rate_down=5_000_000, rate_up=5_000_000, filter="no-ping")
    assert site.ping(2, every=0.05) == []
    assert len(site.ping(2, every=0.05, to="198.19.0.1")) == 2
    before = site.session()
    (worker,) = site.request("GET", "/api/workers")
    spaces.kill(worker["pid"])
    spaces.wait_for(
        lambda: site.request("GET", "/api/workers")[0]["pid"] not in (None, worker["pid"])
    )
    assert site.ping(2, every=0.05) == []
    assert len(site.ping(2, every=0.05, to="198.19.0.1")) == 2
    after = site.session()
    assert [after[k] for k in ("sid", "rate-limit", "policy")] == [
        before[k] for k in ("sid", "rate-limit", "policy")
    ]
    assert site.rate("down", 1.5, 1.0).inner == pytest.approx(5_000_000, rel=0.05)
    m = site.concentrator.metrics()
    assert m.total("pptp_drops_total", direction="receive", reason="filtered") >= 4
    assert m.total("pptp_drops_total", direction="transmit", reason="shaped") > 0
    spaces.wait_for(
        lambda: site.concentrator.metrics().total("pptp_packets_queued", direction="transmit") == 0
    )
    m = site.concentrator.metrics()
    assert m.total("pptp_tun_packets_total") == (
        m.total("pptp_traffic_packets_total", direction="transmit")
        + m.total("pptp_drops_total", direction="transmit")
    )
