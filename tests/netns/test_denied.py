"""listen.deny against GRE: dropped before its call is looked up, whichever way it comes in."""

from __future__ import annotations

import socket
from dataclasses import replace
from pathlib import Path

import pytest

from ops.settings import Gre, Listen
from tests.netns import rough, spaces
from tests.netns.rough import LOCAL, SERVER, drops, ping
from tests.netns.spaces import Space, enhanced
from tests.netns.test_limits import reload
from tests.netns.test_odd_links import at, served
from tests.netns.test_xdp import device

pytestmark = [pytest.mark.netns, pytest.mark.timeout(120)]

DENIED = "192.0.2.77"
PACKETS = 50


@pytest.mark.parametrize("mode", ["packet", "raw", "xdp"])
def test_a_denied_address(
    mode: str, pair: tuple[Space, Space], start_keeper: rough.StartKeeper
) -> None:
    """Others' sessions go on; what is counted is said to be denied, and nothing else."""
    near, server = pair
    gre = Gre(mode=mode, interface=device(server) if mode == "xdp" else "")  # type: ignore[arg-type]
    near.sh(f"ip addr add {DENIED}/32 dev {device(near)}")
    server.sh(f"ip route add {DENIED}/32 via 192.0.2.1")
    listen = Listen(address=SERVER, deny=(f"{DENIED}/32",))
    with served(pair, start_keeper, gre=gre, listen=listen) as (site, one, keeper):
        with near.inside(), socket.socket(socket.AF_INET, socket.SOCK_STREAM) as refused:
            refused.bind((DENIED, 0))
            refused.settimeout(5)
            refused.connect((SERVER, 1723))
            assert refused.recv(1) == b""
        ((call,),) = site.console("/api/sessions?columns=call-id")["rows"]
        with near.inside():
            out = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_GRE)
        with out:
            out.bind((DENIED, 0))
            for _ in range(PACKETS):
                out.sendto(enhanced(call), (SERVER, 0))  # of the session's own call
                out.sendto(enhanced(1), (SERVER, 0))
                out.sendto(b"\x00", (SERVER, 0))
        assert " 0% packet loss" in ping(near, one.address, LOCAL, 10)
        found = drops(site.metrics())
        # The kernel's filters let enhanced GRE alone through to the worker.
        assert found.keys() == {"denied"}
        assert found["denied"] == 2 * PACKETS
        assert keeper.text.count("session up") == 1


def test_denied_by_a_reload(
    pair: tuple[Space, Space], start_keeper: rough.StartKeeper, tmp_path: Path
) -> None:
    """A session's own address: it ends, and its GRE is heard no more; allowed again, it is."""
    conf = rough.settings()
    near, server = pair
    config = tmp_path / "pptpcon.toml"
    keeper = start_keeper(server, conf, module="dispatcher.keeper", config_path=str(config))
    keeper.heard("keeper: ready", 30)
    site = at(server)
    with rough.client(near) as one:
        assert one.address
        denied = replace(conf.listen, deny=("192.0.2.0/24",))
        reload(keeper, config, replace(conf, listen=denied))
        one.wait("down")
    spaces.wait_for(lambda: site.console("/api/sessions")["rows"] == [])
    assert "denied by listen.allow and listen.deny" in keeper.text
    before = drops(site.metrics()).get("denied", 0)
    with near.inside():
        out = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_GRE)
    with out:
        out.sendto(enhanced(1), (SERVER, 0))
        spaces.wait_for(lambda: drops(site.metrics()).get("denied", 0) == before + 1)
        reload(keeper, config, conf)
        with rough.client(near) as again:
            assert again.address
            out.sendto(enhanced(1), (SERVER, 0))
            spaces.wait_for(lambda: drops(site.metrics()).get("no_session", 0) >= 1)
    assert drops(site.metrics())["denied"] == before + 1
    assert keeper.stop() == 0
