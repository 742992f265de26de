"""Real clients by every way of GRE and TUN I/O, and by every kernel of MPPE that this CPU has.

All other tests here run by what the automatic modes choose; PPTPCON_WAY runs them by another.
"""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path

import pytest

from fastpath import mppe
from tests.interop import lab
from tests.interop.lab import Client, Concentrator, Topology

pytestmark = [pytest.mark.interop, pytest.mark.timeout(240)]

# gre.* and what the log says of them
MODES = {
    "raw": (("gre.mode=raw", "gre.send=raw"), "gre mode mode=raw "),
    "packet": (("gre.mode=packet", "gre.send=packet"), "gre mode mode=packet "),
    "xdp": (
        ("gre.mode=xdp", "gre.send=xdp", "gre.interface=wan", "gre.xdp_mode=generic"),
        'mode="xdp generic"',
    ),
    "native": (
        ("gre.mode=xdp", "gre.send=xdp", "gre.interface=wan", "gre.xdp_mode=native"),
        'mode="xdp native"',
    ),
}


def settings(*words: str) -> list[str]:
    """Arguments of `run`."""
    return [f"--set={word}" for word in words]


@pytest.mark.parametrize(("mode", "writes"), list(product(MODES, ("plain", "io_uring"))))
def test_each_way(
    mode: str, writes: str, topology: Topology, concentrator: Concentrator, tmp_path: Path
) -> None:
    """Two clients at once, all that they check; what they moved went the way it was told to."""
    words, said = MODES[mode]
    concentrator.start(*settings("workers.count=1", f"gre.tun_writes={writes}", *words))
    assert said in concentrator.text(), concentrator.tail()
    client = Client(
        topology,
        *("--count", "2", "--user", "user{i}", "--mb", "6", "--checks", "ping,tcp"),
        log=tmp_path / "clients.log",
    )
    try:
        result = client.result()
    finally:
        client.stop()
    assert lab.failures(result) == [], concentrator.tail()
    counted = concentrator.metrics()

    def total(name: str, word: str = "") -> float:
        return sum(v for k, v in counted.items() if k.startswith(name) and word in k)

    received = total("pptp_gre_packets_total", 'direction="receive"')
    by_ring = total("pptp_gre_packets_by_xdp_total", 'direction="receive"')
    by_hop = total("pptp_gre_packets_by_next_hop_total")
    sent_by_ring = total("pptp_gre_packets_by_xdp_total", 'direction="transmit"')
    assert received > 2000
    assert (by_ring > received / 2) == (sent_by_ring > 1000) == (mode in ("xdp", "native"))
    assert (by_hop > 1000) == (mode == "packet")
    # What pppd sends after its Terminate-Ack may come to no session.
    lost = {k: v for k, v in counted.items() if k.startswith("pptp_drops_total") and v}
    assert all("no_session" in k for k in lost), lost
    assert concentrator.sessions() == []


@pytest.mark.parametrize("stateful", ["no", "ask"])
@pytest.mark.parametrize("kernel", mppe.usable())
def test_each_kernel(
    kernel: str,
    stateful: str,
    topology: Topology,
    concentrator: Concentrator,
    tmp_path: Path,
) -> None:
    """128 bits, each packet with a key of its own; 40 bits, a key for many packets."""
    bits = "128" if stateful == "no" else "40"
    concentrator.start(
        *settings("workers.count=1", f"mppe.kernel={kernel}"),
        LAB_MPPE=bits,
        LAB_STATEFUL=stateful,
    )
    assert json.loads(concentrator.api("/api/version"))["mppe"] == mppe.kernels_of(kernel)
    client = Client(
        topology,
        *("--mppe", bits, "--stateful", stateful, "--mb", "4", "--checks", "ping,tcp"),
        log=tmp_path / "client.log",
    )
    try:
        result = client.result()
    finally:
        client.stop()
    assert lab.failures(result) == [], concentrator.tail()
    form = "stateless" if stateful == "no" else "stateful"
    assert result["mppe_receive"] == result["mppe_send"] == f"{bits}-bit {form}"
