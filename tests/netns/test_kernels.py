"""Whole concentrators with each kernel this CPU has, and with each way in and out for packets."""

from __future__ import annotations

import pytest

from fastpath import mppe
from ops.settings import Gre, Mppe
from tests.netns import rough
from tests.netns.faults import Faults
from tests.netns.rough import LOCAL, Site, both_ways, client, download, drops, ping, upload

pytestmark = [pytest.mark.netns, pytest.mark.timeout(120)]


# (gre.mode, gre.send, gre.tun_writes): every mode with either way to write
WAYS = (
    ("packet", "packet", "io_uring"),
    ("packet", "raw", "plain"),
    ("raw", "raw", "io_uring"),
    ("raw", "raw", "plain"),
    ("xdp", "xdp", "io_uring"),
    ("xdp", "packet", "plain"),
)
KERNELS = mppe.usable()
# Each kernel and each way at least once.
RUNS = [(KERNELS[n % len(KERNELS)], WAYS[n % len(WAYS)]) for n in range(max(len(KERNELS), 6))]


@pytest.mark.parametrize(
    ("kernel", "way"), RUNS, ids=lambda part: "-".join([*part]) if isinstance(part, tuple) else part
)
def test_traffic_with_each_kernel_and_each_way(
    make_space: rough.MakeSpace,
    start_keeper: rough.StartKeeper,
    kernel: str,
    way: tuple[str, str, str],
) -> None:
    mode, send, writes = way
    site = Site.make(make_space)
    conf = rough.settings(
        mppe=Mppe(kernel=kernel),  # type: ignore[arg-type] # a plain str
        gre=Gre(
            mode=mode,  # type: ignore[arg-type]
            send=send,  # type: ignore[arg-type]
            tun_writes=writes,  # type: ignore[arg-type]
            interface=site.ends[1] if mode == "xdp" else "",
        ),
    )
    keeper = start_keeper(site.server, conf, module="dispatcher.keeper")
    keeper.heard("keeper: ready", 30)
    with site.faults(Faults(), Faults()), client(site.client) as one:
        version = site.console("/api/version")
        assert version["mppe"] == mppe.kernels_of(kernel)
        assert version["tun_writes"] == writes
        up, down = both_ways(site, one.address, 500, 400.0)
        assert up.numbers == down.numbers == list(range(500))
        download(site, one.address, 2_000_000)
        upload(site, one.address, 2_000_000)
        samples = site.metrics()
        by_rings = samples.total("pptp_gre_packets_by_xdp_total", direction="receive")
        assert (by_rings > 0) == (mode == "xdp")
        assert " 0% packet loss" in ping(site.client, one.address, LOCAL, 5)
        assert drops(site.metrics()) == {}
        assert one.stop() == 0
    assert keeper.stop() == 0
    assert "Traceback" not in keeper.text
