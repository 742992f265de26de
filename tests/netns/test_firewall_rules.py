"""The automatic modes obey rules about GRE that packet sockets would pass by."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from ops.settings import Settings, Workers
from tests.netns import rough
from tests.netns.rough import StartKeeper
from tests.netns.spaces import Space
from tests.netns.test_odd_links import at, becomes

pytestmark = pytest.mark.netns

CHAIN = "nft add table inet t && nft 'add chain inet t c {{ type filter hook {hook} priority 0; }}'"
RULE = "nft add rule inet t c "


@pytest.mark.parametrize(
    ("rules", "mode", "send", "said"),
    [
        ("true", "packet", "packet", "half the cost"),
        (
            f"{CHAIN.format(hook='input')}; {RULE} ip saddr 10.0.0.0/8 ip protocol gre drop",
            "raw",
            "raw",
            "nft chain inet t c handle 2 drops some of it",
        ),
        (
            f"{CHAIN.format(hook='output')}; {RULE} ip protocol 47 ip dscp set cs6",
            "packet",
            "raw",
            "nft chain inet t c handle 2 changes it",
        ),
        (
            f"{CHAIN.format(hook='input')}; {RULE} meta l4proto {{ 6, 47 }} accept",
            "packet",
            "packet",
            "half the cost",
        ),
        (
            "ip xfrm policy add dir out src 10.1.0.0/16 dst 10.2.0.0/16"
            " tmpl src 192.0.2.2 dst 192.0.2.9 proto esp mode tunnel",
            "packet",
            "raw",
            "IPsec",
        ),
        (
            "if iptables-legacy -A INPUT -p gre -s 10.0.0.0/8 -j DROP; then true;"
            f"else {CHAIN.format(hook='input')}; {RULE} ip protocol gre drop; fi",
            "raw",
            "raw",
            "drops",
        ),
    ],
)
def test_automatic_modes(
    rules: str,
    mode: str,
    send: str,
    said: str,
    make_space: Callable[[], Space],
    start_keeper: StartKeeper,
) -> None:
    space = make_space()
    space.sh(rules)
    keeper = start_keeper(space, Settings(workers=Workers(count=1))).ready()
    (line,) = [line for line in keeper.text.splitlines() if "gre mode" in line]
    assert f"mode={mode} " in line and f"send={send} " in line and said in line, line
    assert keeper.stop() == 0


def test_rules_that_come_later(pair: tuple[Space, Space], start_keeper: StartKeeper) -> None:
    """Sending changes with the rules; of receiving it is said what a restart would change."""
    server = pair[1]
    keeper = start_keeper(server, rough.settings(), module="dispatcher.keeper")
    keeper.heard("keeper: ready", 30)
    with rough.client(pair[0]) as one:
        site, address = at(server), one.address
        becomes("packet", site, server, address)
        server.sh(
            CHAIN.format(hook="input") + f"; {RULE} ip saddr 10.0.0.0/8 ip protocol gre drop;"
            "nft 'add chain inet t o { type filter hook output priority 0; }';"
            "nft add rule inet t o ip protocol gre ip dscp set cs6"
        )
        becomes("raw", site, server, address)
        keeper.heard("send=raw").heard("a firewall rule about GRE is passed by")
        server.sh("nft delete table inet t")
        becomes("packet", site, server, address)
        keeper.heard("nothing is passed by any more")
    assert keeper.stop() == 0
