"""The way between client and concentrator loses, doubles, reorders, delays and cuts packets."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from ops.settings import Gre, Mppe, Settings
from tests.netns import rough
from tests.netns.faults import Faults
from tests.netns.rough import LOCAL, Site, both_ways, client, download, drops, ping
from tests.netns.spaces import Keeper

pytestmark = [pytest.mark.netns, pytest.mark.timeout(180)]

PACKETS = 2000
RATE = 800.0
# A packet behind a gap waits for gre.reorder_timeout_ms, 50; the rest is what a wire made of
# Python adds, on a machine that does other things too. tests/fastpath/test_reorder.py
# measures it without a wire.
STALL_S = 0.5
# So long that no standstill of the wire looks like a loss.
PATIENT_MS = 2000

ORDERLY = [
    Faults(duplicate=0.05, pattern="swap"),
    Faults(duplicate=0.02, pattern="late"),
    Faults(pattern="reverse"),
    Faults(delayed=0.1, delay_ms=15, fragment=200, shuffle_fragments=0.3),
]


@pytest.fixture
def site(make_space: rough.MakeSpace) -> Site:
    """Namespaces."""
    return Site.make(make_space)


@pytest.fixture
def conf() -> Settings:
    """Of the concentrator."""
    return rough.settings()


@pytest.fixture
def keeper(site: Site, start_keeper: rough.StartKeeper, conf: Settings) -> Iterator[Keeper]:
    """A concentrator, which is stopped in order."""
    made = start_keeper(site.server, conf, module="dispatcher.keeper")
    yield made.heard("keeper: ready", 30)
    assert made.stop() == 0
    assert "Traceback" not in made.text
    assert "internal error" not in made.text


def acks_bounded(site: Site, seconds: float) -> None:
    """Pure acknowledgements: one in 16 packets, or in 100 ms."""
    samples = site.metrics()
    sent = samples.total("pptp_gre_ack_only_packets_total", direction="transmit")
    received = samples.total("pptp_gre_packets_total", direction="receive")
    assert sent <= received / 16 + seconds / 0.1 + 5, (sent, received, seconds)


@pytest.mark.parametrize("conf", [rough.settings(gre=Gre(reorder_timeout_ms=PATIENT_MS))])
@pytest.mark.parametrize("kind", ORDERLY, ids=["swap", "late", "reverse", "fragments"])
def test_nothing_is_lost_within_the_window(site: Site, keeper: Keeper, kind: Faults) -> None:
    """All data in order, each once, and MPPE in step with it."""
    words = "user1", "--reorder-ms", str(PATIENT_MS)
    with site.faults(kind, kind) as wire, client(site.client, *words) as one:
        began = time.monotonic()
        address = one.address
        up, down = both_ways(site, address, PACKETS, RATE)
        for stream in (up, down):
            assert stream.numbers == list(range(PACKETS))
        seconds = download(site, address, 3_000_000)
        assert seconds < 30
        assert " 0% packet loss" in ping(site.client, address)
        found = drops(site.metrics())
        # TCP mends what a machine that stands still for seconds makes late; UDP has it all.
        assert set(found) <= {"duplicate", "late"}, found
        assert found.get("late", 0) <= 10, found
        acks_bounded(site, time.monotonic() - began)
        assert one.stop() == 0
        counts = wire.stop()
    if kind.duplicate:
        # Those of acknowledgements only are no duplicates to a receiver: no sequence.
        assert 0 < found["duplicate"] <= counts[0]["duplicated"]
    if kind.pattern != "none":
        assert counts[0]["kept_back"] > 10
    if kind.fragment:
        assert counts[0]["fragmented"] >= PACKETS


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_everything_at_once(site: Site, keeper: Keeper, seed: int) -> None:
    """With losses: what arrives is in order and right, and nothing stands still."""
    kind = Faults(loss=0.02, duplicate=0.02, pattern="late", delayed=0.05, delay_ms=10)
    with site.faults(kind, kind, seed) as wire, client(site.client) as one:
        began = time.monotonic()
        address = one.address
        up, down = both_ways(site, address, PACKETS, RATE)
        samples = site.metrics()
        download(site, address, 500_000)
        pinged = ping(site.client, address, LOCAL, 20)
        acks_bounded(site, time.monotonic() - began)
        # The login may be another try's; the session is up all the time.
        assert len(one.of("up")) == 1
        assert not one.of("down")
        one.stop()
        counts = wire.stop()
    for stream, way in zip((up, down), counts, strict=True):
        assert stream.ordered
        assert PACKETS - way["lost"] <= len(stream.numbers) < PACKETS
        assert len(stream.numbers) > PACKETS * 0.95
        assert max(stream.delays) < STALL_S
    assert " 100% packet loss" not in pinged
    found = drops(samples)
    # A packet that comes after its gap was given up is late; none decrypts to rubbish.
    assert set(found) <= {"duplicate", "late"}, found
    assert samples.total("pptp_gre_lost_total") > 0


@pytest.mark.parametrize("conf", [rough.settings(mppe=Mppe(stateful="ask"))])
def test_stateful_mppe(site: Site, keeper: Keeper) -> None:
    """A loss costs what comes until the peer's Reset; then the keys are in step again."""
    kind = Faults(loss=0.01, duplicate=0.02, pattern="swap")
    with site.faults(kind, kind), client(site.client, "user1", "--stateful", "ask") as one:
        address = one.address
        (row,) = site.console("/api/sessions?columns=mppe")["rows"]
        assert row == ["128 stateful"]
        for stream in both_ways(site, address, PACKETS, RATE):
            assert stream.ordered
            assert PACKETS * 0.5 < len(stream.numbers) < PACKETS
        download(site, address, 300_000)
        samples = site.metrics()
        assert samples.total("pptp_mppe_reset_requests_total", direction="transmit") > 3
        assert samples.total("pptp_mppe_reset_requests_total", direction="receive") > 3
        found = drops(samples)
        assert set(found) <= {"duplicate", "late", "mppe_coherency"}, found
        assert not one.of("down")
        one.stop()


@pytest.mark.parametrize("mode", ["packet", "raw", "xdp"])
def test_outer_packets_in_fragments(
    make_space: rough.MakeSpace, start_keeper: rough.StartKeeper, mode: str
) -> None:
    """An MTU of 1000 on the way: full-size inner packets travel in two pieces, both ways."""
    site = Site.make(make_space, mtu=1000)
    conf = rough.settings(mode)
    if mode == "xdp":
        conf = rough.settings(gre=Gre(mode="xdp", send="xdp", interface=site.ends[1]))
    keeper = start_keeper(site.server, conf, module="dispatcher.keeper")
    keeper.heard("keeper: ready", 30)
    with site.faults(Faults(), Faults()) as wire, client(site.client) as one:
        address = one.address
        full = ping(site.client, address, LOCAL, 10, "-s", "1368", "-M", "do")
        assert " 0% packet loss" in full, full
        up, down = both_ways(site, address, 500, 400.0, 1300)
        assert up.numbers == down.numbers == list(range(500))
        download(site, address, 2_000_000)
        assert drops(site.metrics()) == {}
        assert one.stop() == 0
        counts = wire.stop()
    # The injector counts first fragments as GRE, and the others too: by protocol alone.
    assert counts[0]["in"] > 2 * 500
    assert counts[1]["in"] > 2 * 500
    assert keeper.stop() == 0
