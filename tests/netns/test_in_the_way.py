"""Firewalls, NATs and small MTUs between client and concentrator, and what is told of them."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from dispatcher.pptp.messages import (
    OutgoingReply,
    OutgoingRequest,
    StartReply,
    StartRequest,
    decode,
)
from ops.settings import Listen, Ppp
from tests.netns import rough, spaces
from tests.netns.faults import Faults
from tests.netns.rough import LAN_HOST, LOCAL, SERVER, Client, Site, client, drops, ping
from tests.netns.spaces import Keeper, Space

pytestmark = [pytest.mark.netns, pytest.mark.timeout(180)]

GRE_TIMEOUT_S = 2.0


def line(keeper: Keeper, *parts: str) -> str:
    """The first line of the log that has all of them, waiting for it."""

    def found() -> str:
        lines = keeper.text.splitlines()
        return next((text for text in lines if all(part in text for part in parts)), "")

    spaces.wait_for(found, 30)
    return found()


def ends(site: Site, name: str = "") -> list[dict[str, Any]]:
    """What `show ends` tells."""
    rows: list[dict[str, Any]] = site.console(f"/api/ends?name={name}")
    return rows


@pytest.fixture
def site(make_space: rough.MakeSpace) -> Site:
    """Namespaces; the wire is good and always on."""
    return Site.make(make_space)


# -- GRE is blocked


@pytest.mark.parametrize("way", ["output", "input"])
def test_gre_blocked_at_the_client(
    pair: tuple[Space, Space], start_keeper: rough.StartKeeper, way: str
) -> None:
    """Control connection up and no GRE: one cause, named in the log, counted, remembered."""
    site = Site(pair[0], pair[0], pair[1], pair[1], ("", ""), ("", ""))
    conf = rough.settings(
        listen=Listen(address=SERVER, gre_timeout_s=GRE_TIMEOUT_S),
        ppp=Ppp(restart_interval_s=1.0, max_configure=4, negotiation_timeout_s=8.0),
    )
    keeper = start_keeper(pair[1], conf, module="dispatcher.keeper").heard("keeper: ready", 30)
    (device,) = [d for d in pair[0].sh("ls /sys/class/net").split() if d.startswith("veth")]
    # Coming in, at the device: the client's packet sockets pass by what is behind it.
    family, hook = ("ip", "output") if way == "output" else ("netdev", f"ingress device {device}")
    pair[0].sh(
        f"nft add table {family} t && "
        f"nft 'add chain {family} t c {{ type filter hook {hook} priority 0; }}' && "
        f"nft add rule {family} t c ip protocol gre drop"
    )
    with client(pair[0]) as one:
        told = line(keeper, "call ended before it was up")
        assert one.wait("failed")
    (end,) = ends(site)
    samples = site.metrics()
    if way == "output":
        line(keeper, "no GRE from the client", "protocol 47", "NAT")
        assert "cause=no_gre" in told
        assert "IP protocol 47" in told and "NAT without PPTP helper" in told
        assert (end["cause"], end["csid"], end["was-up"]) == ("no_gre", "192.0.2.1", False)
        assert samples.total("pptp_calls_without_gre_total") == 1
        assert samples.total("pptp_sessions_ended_total", reason="no_gre") == 1
    else:
        # Its GRE comes, ours does not reach it: said as what it is.
        assert "cause=lcp_failed" in told
        assert "never answers" in told
        assert end["cause"] == "lcp_failed"
        assert samples.total("pptp_calls_without_gre_total") == 0
    assert samples.total("pptp_sessions_ended_total") == 1
    assert keeper.stop() == 0


def test_a_client_that_goes_after_waiting(
    pair: tuple[Space, Space], start_keeper: rough.StartKeeper
) -> None:
    """As Windows does: it closes TCP when no answer came. One that goes at once only went."""
    site = Site(pair[0], pair[0], pair[1], pair[1], ("", ""), ("", ""))
    conf = rough.settings(listen=Listen(address=SERVER, gre_timeout_s=GRE_TIMEOUT_S))
    keeper = start_keeper(pair[1], conf, module="dispatcher.keeper").heard("keeper: ready", 30)
    for wait, cause in ((0.0, "lost_carrier"), (GRE_TIMEOUT_S + 0.5, "no_gre")):
        with pair[0].inside(), socket.create_connection((SERVER, 1723), 5) as sock:
            sock.sendall(StartRequest().encode())
            assert isinstance(decode(sock.recv(65536)), StartReply)
            sock.sendall(OutgoingRequest(0).encode())
            assert isinstance(decode(sock.recv(65536)), OutgoingReply)
            time.sleep(wait)
        line(keeper, f"cause={cause}", "TCP closed by the client")
    assert [end["cause"] for end in ends(site)] == ["no_gre", "lost_carrier"]
    assert keeper.stop() == 0


# -- several clients behind one address


@pytest.fixture
def nat(make_space: rough.MakeSpace) -> tuple[list[Space], Space, Space]:
    """Two clients' networks, the NAT between them and the server, the server."""
    router, server = make_space(), make_space()
    inside = [make_space() for _ in range(2)]
    for i, space in enumerate(inside):
        spaces.join(space, router, f"10.1.{i}")
        space.sh(f"ip route add default via 10.1.{i}.2")
    near, _ = spaces.join(router, server, "192.0.2")
    router.sh(
        "sysctl -q net.ipv4.ip_forward=1; nft add table ip n; "
        "nft 'add chain ip n post { type nat hook postrouting priority 100; }'; "
        f"nft add rule ip n post oifname {near} masquerade"
    )
    return inside, router, server


def the_site(server: Space) -> Site:
    """For the console of a server without a wire of ours."""
    return Site(server, server, server, server, ("", ""), ("", ""))


def test_nat_with_a_pptp_helper(
    nat: tuple[list[Space], Space, Space], start_keeper: rough.StartKeeper
) -> None:
    """Both clients tell call ID 0; the helper makes them differ, in both directions' GRE."""
    inside, router, server = nat
    router.sh(
        "nft 'add ct helper ip n pptp { type \"pptp\" protocol tcp; }' && "
        "nft 'add chain ip n pre { type filter hook prerouting priority 0; }' && "
        "nft add rule ip n pre tcp dport 1723 ct helper set pptp"
    )
    keeper = start_keeper(server, rough.settings(), module="dispatcher.keeper")
    keeper.heard("keeper: ready", 30)
    with ExitStack() as stack:
        clients = [
            stack.enter_context(client(space, f"user{i + 1}", "--call-id", "0"))
            for i, space in enumerate(inside)
        ]
        for space, one in zip(inside, clients, strict=True):
            assert " 0% packet loss" in ping(space, one.address)
        rows = the_site(server).console("/api/sessions?columns=csid,peer-call-id,state")["rows"]
        assert {row[0] for row in rows} == {"192.0.2.1"}
        assert len({row[1] for row in rows}) == 2
    assert keeper.stop() == 0


def test_nat_without_helper(
    nat: tuple[list[Space], Space, Space], start_keeper: rough.StartKeeper
) -> None:
    """A box that passes all GRE to one client, as simple ones do: that one works, the other
    fails, and the log knows why. Both tell call ID 0, and nobody changes it."""
    inside, router, server = nat
    router.sh(
        "nft 'add chain ip n forth { type nat hook prerouting priority -100; }' && "
        "nft add rule ip n forth ip saddr 192.0.2.2 ip protocol gre dnat to 10.1.0.1"
    )
    conf = rough.settings(ppp=Ppp(restart_interval_s=1.0, max_configure=5))
    keeper = start_keeper(server, conf, module="dispatcher.keeper").heard("keeper: ready", 30)
    site = the_site(server)
    with client(inside[0], "user1", "--call-id", "0") as first:
        address = first.address
        with client(inside[1], "user2", "--call-id", "0") as second:
            told = line(keeper, "call ended before it was up")
            assert second.wait("failed")
            assert " 0% packet loss" in ping(inside[0], address, LOCAL, 20)
        assert "call ID 0 too" in told
        assert "no PPTP helper" in told
        assert " 0% packet loss" in ping(inside[0], address)
        assert [row[0] for row in site.console("/api/sessions?columns=state")["rows"]] == ["active"]
        assert len(ends(site, "192.0.2.1")) == 1
    assert keeper.stop() == 0


def test_several_clients_of_one_address_with_ids_of_their_own(
    pair: tuple[Space, Space], start_keeper: rough.StartKeeper
) -> None:
    """No NAT: an address is no client, the call ID in GRE's key tells them apart."""
    keeper = start_keeper(pair[1], rough.settings(), module="dispatcher.keeper")
    keeper.heard("keeper: ready", 30)
    with client(pair[0], "user{i}", "--count", "6", "--call-id", "0") as six:
        addresses = [event["address"] for event in six.wait("up", 6)]
        assert len(set(addresses)) == 6
        for address in addresses:
            assert " 0% packet loss" in ping(pair[0], address, LOCAL, 2)
    wrong = drops(the_site(pair[1]).metrics())
    assert wrong == {}
    assert keeper.stop() == 0


# -- packets that are too big


@pytest.fixture
def narrow(site: Site, start_keeper: rough.StartKeeper) -> Iterator[Client]:
    """A session whose client takes 1000 octets at most, on a TUN that takes 1400."""
    keeper = start_keeper(site.server, rough.settings(), module="dispatcher.keeper")
    keeper.heard("keeper: ready", 30)
    with (
        site.faults(Faults(), Faults()),
        client(site.client, "user1", "--mtu", "1000") as one,
    ):
        yield one
    assert keeper.stop() == 0


def test_too_big_for_the_session(site: Site, narrow: Client) -> None:
    """Of the LAN's packets: ICMP with the session's MTU where DF is set, else fragments."""
    address = narrow.address
    ((mtu,),) = site.console("/api/sessions?columns=mtu")["rows"]
    assert mtu < 1000
    whole = ping(site.lan, LAN_HOST, address, 5, "-s", "1300", "-M", "dont")
    assert " 0% packet loss" in whole, whole
    refused = ping(site.lan, LAN_HOST, address, 3, "-s", "1300", "-M", "do")
    assert f"mtu={mtu}" in refused or f"mtu = {mtu}" in refused, refused
    assert f"mtu {mtu}" in site.lan.sh(f"ip route get {address}")
    fits = ping(site.lan, LAN_HOST, address, 3, "-s", str(mtu - 28), "-M", "do")
    assert " 0% packet loss" in fits, fits
    assert site.metrics().total("pptp_drops_total", reason="too_big") >= 1
    assert set(drops(site.metrics())) == {"too_big"}


def test_too_big_from_the_concentrator_itself(site: Site, narrow: Client) -> None:
    """A server on the concentrator's own inner address learns the MTU as a host behind does."""
    address = narrow.address
    ((mtu,),) = site.console("/api/sessions?columns=mtu")["rows"]
    refused = ping(site.server, LOCAL, address, 3, "-s", "1300", "-M", "do")
    assert str(mtu) in refused, refused
    fits = ping(site.server, LOCAL, address, 3, "-s", str(mtu - 28), "-M", "do")
    assert " 0% packet loss" in fits, fits
