"""How soon 10,000 static routes are back.

    python -m tests.bench.routes [--repeat 5] [--json]

*restart*: netops is killed, all its routes are taken out of the kernel, a new one starts, and
reads from the session table what there has to be. *asked*: a worker asks for 10,000 networks
as it does for those of sessions that come up. Needs root; in a namespace of its own.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time

import msgpack

from ops.netops_client import BATCH
from ops.networks import network
from tests.netns.spaces import Space, wait_for
from tests.netns.test_netops import CONF, Bench, nets, routes_of_sessions

SESSIONS = 400
NETWORKS = 25
GOAL_S = 2.0


def restart(bench: Bench, wanted: set[str]) -> float:
    """Seconds from the start of a new process until it is ready, which it says last."""
    bench.child.kill()
    wait_for(bench.child.reap)
    bench.space.sh("ip -4 route flush proto 201; ip -6 route flush proto 201")
    began = time.monotonic()
    bench.child = bench.start()
    took = time.monotonic() - began
    if set(nets(bench.space)) != wanted:
        raise SystemExit("routes are missing")
    return took


def asked(bench: Bench) -> float:
    """Seconds for 10,000 networks in a worker's batches."""
    ifindex = bench.tuns[0].ifindex
    found = [network(4, (30 << 24) + (n << 8), 24) for n in range(SESSIONS * NETWORKS)]
    began = time.monotonic()
    for at in range(0, len(found), BATCH):
        batch = [[n, "net_add", *net, ifindex] for n, net in enumerate(found[at : at + BATCH], 1)]
        bench.workers[0].send(msgpack.packb(batch))
        answers = msgpack.unpackb(bench.workers[0].recv(65536))
        if any(code for _, code in answers):
            raise SystemExit("a route was refused")
    return time.monotonic() - began


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    words = parser.parse_args()
    space = Space()
    bench = Bench(space, CONF, sessions=SESSIONS)
    try:
        wanted = routes_of_sessions(bench, SESSIONS, NETWORKS)
        restarts = [restart(bench, wanted) for _ in range(words.repeat)]
        times = [asked(bench) for _ in range(words.repeat)]
    finally:
        bench.close()
        space.remove()
    row = {
        "bench": "routes",
        "routes": len(wanted),
        "restart_s": round(statistics.median(restarts), 3),
        "restart_worst_s": round(max(restarts), 3),
        "asked_s": round(statistics.median(times), 3),
        "goal_s": GOAL_S,
    }
    if words.json:
        print(json.dumps(row))
    else:
        print(*(f"{name:16} {value}" for name, value in row.items()), sep="\n")
    return 0 if max(restarts) <= GOAL_S else 1


if __name__ == "__main__":
    sys.exit(main())
