"""How soon 10,000 static routes are back.

    python -m tests.bench.routes [--repeat 5] [--json]

*restart*: netops is killed, all its routes are taken out of the kernel, a new one starts, and
reads from the session table what there has to be. *asked*: a worker asks for 10,000 networks
as it does for those of sessions that come up. Needs root; in a namespace of its own.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time

import msgpack

from ops.netops_client import BATCH
from ops.networks import network
from tests.bench.results import Result, arguments, cannot
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
    words = arguments("routes", parser)
    if os.geteuid() != 0:
        return cannot("routes", "needs root for network namespaces")
    space = Space()
    bench = Bench(space, CONF, sessions=SESSIONS)
    try:
        wanted = routes_of_sessions(bench, SESSIONS, NETWORKS)
        restarts = [restart(bench, wanted) for _ in range(words.repeat)]
        times = [asked(bench) for _ in range(words.repeat)]
    finally:
        bench.close()
        space.remove()
    result = Result("routes")
    result.figure("routes", count=len(wanted))
    result.figure("restart", median_s=statistics.median(restarts), worst_s=max(restarts))
    result.figure("asked", median_s=statistics.median(times), worst_s=max(times))
    result.ratio("routes: restart, worst s", max(restarts), at_most=GOAL_S)
    return result.finish(as_json=words.json)


if __name__ == "__main__":
    sys.exit(main())
