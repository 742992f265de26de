"""pptp-linux that disturbs the order of its own packets on purpose (its option --test-type)."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.interop import lab
from tests.interop.lab import Client, Concentrator, Topology

pytestmark = [pytest.mark.interop, pytest.mark.slow, pytest.mark.timeout(300)]

SWAP, RETRANSMIT, REVERSE = 1, 2, 3
RATE = 100  # packets from one disturbance to the next; fewer starve TCP at the client already


@pytest.mark.parametrize("kind", [SWAP, RETRANSMIT, REVERSE], ids=["swap", "late", "reverse"])
def test_disturbed_order(
    topology: Topology, concentrator: Concentrator, tmp_path: Path, kind: int
) -> None:
    concentrator.start()
    client = Client(
        topology,
        *("--pptp-opt", f"--test-type {kind}", "--pptp-opt", f"--test-rate {RATE}"),
        *("--mb", "3", "--checks", "ping,tcp", "--hold", "2"),
        log=tmp_path / "client.log",
    )
    try:
        concentrator.wait_traffic(500)
        result = client.result()
    finally:
        client.stop()
    assert lab.failures(result) == [], concentrator.tail()
    assert result["mppe_receive"] == result["mppe_send"] == "128-bit stateless"
    assert not result["ccp_resets"]
    counted = concentrator.metrics()
    reordered = sum(v for k, v in counted.items() if k.startswith("pptp_gre_reordered_total"))
    from_it = 'pptp_drops_total{direction="receive"'
    dropped = {k: v for k, v in counted.items() if k.startswith(from_it) and v}
    print(kind, reordered, dropped)
    assert reordered > 10
    # Nothing that was only out of order may be thrown away, nor get the keys out of step.
    assert all('reason="duplicate"' in k for k in dropped), dropped
