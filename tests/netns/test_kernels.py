"""Whole concentrators that encrypt with each kernel this CPU has, and a client with the best."""

from __future__ import annotations

import pytest

from fastpath import mppe
from ops.settings import Mppe
from tests.netns import rough
from tests.netns.faults import Faults
from tests.netns.rough import LOCAL, Site, both_ways, client, download, drops, ping

pytestmark = [pytest.mark.netns, pytest.mark.timeout(120)]


@pytest.mark.parametrize("kernel", mppe.usable())
def test_traffic_with_each_kernel(
    make_space: rough.MakeSpace, start_keeper: rough.StartKeeper, kernel: str
) -> None:
    site = Site.make(make_space)
    conf = rough.settings(mppe=Mppe(kernel=kernel))  # type: ignore[arg-type] # a plain str
    keeper = start_keeper(site.server, conf, module="dispatcher.keeper")
    keeper.heard("keeper: ready", 30)
    with site.faults(Faults(), Faults()), client(site.client) as one:
        assert site.console("/api/version")["mppe"] == mppe.kernels_of(kernel)
        up, down = both_ways(site, one.address, 500, 400.0)
        assert up.numbers == down.numbers == list(range(500))
        download(site, one.address, 2_000_000)
        assert " 0% packet loss" in ping(site.client, one.address, LOCAL, 5)
        assert drops(site.metrics()) == {}
        assert one.stop() == 0
    assert keeper.stop() == 0
    assert "Traceback" not in keeper.text
