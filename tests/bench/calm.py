"""Calm operation: real clients, real RADIUS, our alerts as they are shipped, and none fires.

    python -m tests.bench.calm [--minutes 10] [--clients 80]

Two thirds of the clients stay, the others log in for a while and go, and all that are there
are pinged. Exit status 1 if an alert fired or was pending, or if the
webhook got anything. Needs root, FreeRADIUS, Prometheus and Alertmanager.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # run as a file, too

from ops.settings import Limits, Metrics, RadiusServer
from tests.netns.freeradius import SECRET, FreeRadius
from tests.netns.monitoring import monitoring
from tests.netns.spaces import Keeper, Space, join
from tests.netns.test_radius import client, conf
from tests.netns.test_worker import up

USERS = 'DEFAULT Cleartext-Password := "secret", User-Name =~ "^user"\n'
VISIT_S = 40.0


def pinged(space: Space) -> None:
    """A little traffic on every tunnel there is."""
    space.sh(
        "for a in $(ip -4 -o addr | grep -o '10\\.99\\.1\\.[0-9]*' | sort -u | head -20);"
        " do ping -q -c 2 -i 0.2 -W 1 -I $a 10.99.0.1 >/dev/null || true; done"
    )


def run(minutes: float, clients: int, folder: Path, pair: tuple[Space, Space]) -> int:
    """The exit status."""
    radius = FreeRadius(pair[1], folder / "radius", USERS)
    base = conf(folder / "state", RadiusServer("127.0.0.1", SECRET, name="one"))
    settings = replace(base, limits=Limits(max_sessions=128), metrics=Metrics())
    keeper = Keeper(pair[1], settings, module="dispatcher.keeper").ready()
    seen: set[str] = set()
    visits = 0
    try:
        with monitoring(pair[1], folder / "mon") as watch:
            stay = clients * 2 // 3
            with client(pair[0], "user{i}", "secret", "--rate", "25", count=stay):
                up(keeper, stay)
                ends = time.monotonic() + 60 * minutes
                while time.monotonic() < ends:
                    with client(
                        pair[0], "user9{i}", "secret", "--rate", "25", count=clients - stay
                    ):
                        leaves = time.monotonic() + VISIT_S
                        while time.monotonic() < min(leaves, ends):
                            pinged(pair[0])
                            alerts = watch.get("/api/v1/alerts")["data"]["alerts"]
                            seen |= {f"{a['labels']['alertname']} {a['state']}" for a in alerts}
                            time.sleep(5)
                    visits += 1
                active = watch.query('pptp_sessions{state="active"}')[0]["value"][1]
                samples = watch.query("count_over_time(up[1h])")[0]["value"][1]
                rates = watch.query("sum(increase(pptp_traffic_packets_total[1h]))")
                got = sorted(watch.hook.names())
    finally:
        radius.kill()
    code = keeper.stop()
    print(
        f"{minutes:g} minutes, {stay} clients stayed, {visits} visits of {clients - stay}; "
        f"{active} active at the end, {samples} scrapes, {float(rates[0]['value'][1]):.0f} packets"
    )
    print(f"alerts: {sorted(seen) or 'none'}; webhook: {got or 'nothing'}; exit status {code}")
    return 1 if seen or got or code else 0


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.calm", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--clients", type=int, default=80)
    words = parser.parse_args()
    if os.geteuid() != 0:
        print("calm: needs root for network namespaces", file=sys.stderr)
        return 77
    pair = Space(), Space()
    try:
        join(*pair, "192.0.2")
        with tempfile.TemporaryDirectory(prefix="pptpcon-calm-") as name:
            os.chmod(name, 0o755)  # noqa: S103 - for the unprivileged
            return run(words.minutes, words.clients, Path(name), pair)
    except subprocess.CalledProcessError as e:
        print(f"calm: {e}", file=sys.stderr)
        return 77
    finally:
        for space in pair:
            space.remove()


if __name__ == "__main__":
    sys.exit(main())
