"""GRE that comes while a worker stands still: what its socket has no room for is counted by the
kernel, shown at /metrics, and said in the log with what to do about it."""

from __future__ import annotations

import os
import signal
import time

import pytest

from fastpath import gre
from ops.settings import Gre
from tests.netns import rough
from tests.netns.faults import Faults
from tests.netns.rough import Site, client, ping
from tests.netns.spaces import wait_for
from tests.netns.test_gre_sockets import wire
from tests.netns.test_worker import worker_pids

pytestmark = [pytest.mark.netns, pytest.mark.timeout(60)]

BUFFER = 1 << 20
SENT = 3000


@pytest.mark.parametrize("mode", ["packet", "raw"])
def test_an_overflow_is_seen(
    make_space: rough.MakeSpace, start_keeper: rough.StartKeeper, mode: str
) -> None:
    site = Site.make(make_space)
    conf = rough.settings(gre=Gre(mode=mode, receive_buffer_bytes=BUFFER))  # type: ignore[arg-type]
    keeper = start_keeper(site.server, conf, module="dispatcher.keeper")
    keeper.heard("keeper: ready", 30)
    with site.faults(Faults(), Faults()), client(site.client) as one:
        assert one.address
        (pid,) = worker_pids(keeper)

        def lost() -> float:
            time.sleep(0.2)  # the console answers one asker so many times a second
            return site.metrics().total("pptp_kernel_drops_total", direction="receive")

        assert lost() == 0
        read = site.metrics().total("pptp_gre_packets_total", direction="receive")
        os.kill(pid, signal.SIGSTOP)
        try:
            with wire(site.client) as out:
                for number in range(SENT):
                    out.send(gre.build(0xFFC0, bytes(1000), number, None))  # nobody's call
        finally:
            os.kill(pid, signal.SIGCONT)
        wait_for(lambda: lost() > 0, 10)
        # Each packet is accounted for, and what the buffer held is about what was asked for.
        unknown = site.metrics().by("pptp_drops_total", "reason")["no_session"]
        assert unknown >= BUFFER / 4096
        assert lost() + unknown <= SENT
        assert site.metrics().total("pptp_gre_packets_total", direction="receive") > read
        keeper.heard("GRE receive buffer overflowed", 10)
        assert "raise gre.receive_buffer_bytes" in keeper.text
        assert " 0% packet loss" in ping(site.client, one.address)
        assert one.stop() == 0
    assert keeper.stop() == 0
