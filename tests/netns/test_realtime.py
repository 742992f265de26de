"""Data threads ahead of all others (workers.realtime) under a flood: logins are served, LCP is
answered, and nobody is taken for dead. With a CPU for each worker, and with several on one."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ops.client.playground import LAN_HOST, WAN_SERVER
from ops.ranges import format_address
from tests.netns.hostile import LCP, Field, Peer, frame
from tests.netns.spaces import ROOT, need_root

pytestmark = [pytest.mark.netns, pytest.mark.slow, pytest.mark.timeout(120)]

SECONDS = 3.5
FLOODS = 2  # processes, sessions each
CPUS = sorted(os.sched_getaffinity(0))


@contextmanager
def flood(field: Field, peers: list[Peer]) -> Iterator[list[int]]:
    """Data of these sessions, of each process's half; the list has what was sent, afterwards."""
    sent: list[int] = []
    processes = []
    try:
        for number in range(FLOODS):
            mine = peers[number::FLOODS]
            wire = field.raw(mine[0].source)
            words = [f"{p.server_id}:{p.seq}:{format_address(p.address)}:{LAN_HOST}" for p in mine]
            argv = [sys.executable, "-m", "tests.netns.flood", str(wire.fileno()), WAN_SERVER]
            processes.append(
                subprocess.Popen(
                    [*argv, *words],
                    cwd=ROOT,
                    pass_fds=[wire.fileno()],
                    stdout=subprocess.PIPE,
                    text=True,
                )
            )
            wire.close()
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        yield sent
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            out, _ = process.communicate(timeout=20)
            sent.append(int(out or 0))


def data_threads(field: Field) -> dict[int, int]:
    """Data threads by number, with the policy of each at the moment."""
    found = {}
    for pid, module in field.processes().items():
        if module != "workers.process":
            continue
        for task in Path(f"/proc/{pid}/task").iterdir():
            if (task / "comm").read_text().startswith("data-"):
                found[int(task.name)] = os.sched_getscheduler(int(task.name))
    return found


def spent(threads: dict[int, int]) -> float:
    """CPU seconds of threads."""
    ticks = 0
    for tid in threads:
        stat = Path(f"/proc/{tid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(stat[11]) + int(stat[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def echoes(peer: Peer, count: int) -> int:
    """LCP Echo-Requests, one in 50 ms; those that are answered within a second of the last."""
    assert peer.link is not None
    for _ in peer.frames(0.0):
        pass
    answered: set[int] = set()
    for number in range(count):
        peer.send(frame(LCP, 9, number, bytes(4)))
        until = time.monotonic() + (1.0 if number == count - 1 else 0.05)
        while (left := until - time.monotonic()) > 0 and len(answered) < count:
            for octets in peer.frames(left):
                if octets[:3] == LCP + b"\x0a":
                    answered.add(octets[3])
                if len(answered) == count or time.monotonic() > until:
                    break
    return len(answered)


@pytest.mark.parametrize(
    ("count", "cpus", "ahead"),
    [
        pytest.param(1, CPUS[-1:], True, id="one worker"),
        pytest.param(
            *(2, CPUS[:2], True),
            id="two workers on two CPUs",
            marks=pytest.mark.skipif(
                len(CPUS) < 2 and os.environ.get("CI") != "true", reason="this machine has one CPU"
            ),
        ),
        pytest.param(2, CPUS[:1], False, id="two workers on one CPU"),
    ],
)
def test_a_flood_starves_nobody(count: int, cpus: list[int], ahead: bool) -> None:
    need_root()
    extra: dict[str, dict[str, object]] = {
        "workers": {"count": count, "cpus": cpus, "realtime": True},
        "mppe": {"policy": "prefer"},
        "ppp": {"lcp_echo_interval_s": 1, "lcp_echo_failures": 3},
    }
    # An idle session of our client: our Echo-Requests to it are all that it hears and says.
    with Field(extra=extra, canaries=2, silent=1) as field:
        threads = data_threads(field)
        assert len(threads) == count
        wanted = os.SCHED_FIFO if ahead else os.SCHED_OTHER
        assert set(threads.values()) == {wanted}
        floods = [Peer(field, 2 + n, 100 + n) for n in range(2 * FLOODS)]
        for n, p in enumerate(floods):
            assert p.login(f"user{2 + n % 2}", mppe="deny")
        quiet = Peer(field, 6, 200)
        assert quiet.login("user4", mppe="deny")
        before, began, busy = field.metrics(), time.monotonic(), spent(threads)
        waited: list[float] = []
        with flood(field, floods) as sent:
            time.sleep(0.5)  # windows enough to be judged by
            answered, asked = echoes(quiet, 20), 20
            while time.monotonic() - began < SECONDS or len(waited) < 3:
                login = time.monotonic()
                p = Peer(field, 7, 300 + len(waited))
                assert p.login("user5", mppe="deny"), p.cause
                waited.append(time.monotonic() - login)
                p.close()
                answered, asked = answered + echoes(quiet, 4), asked + 4
        took = time.monotonic() - began
        busy = spent(threads) - busy
        after = field.metrics()
        read = after.total("pptp_gre_packets_total", direction="receive") - before.total(
            "pptp_gre_packets_total", direction="receive"
        )
        lost = after.total("pptp_kernel_drops_total", direction="receive")
        told = (
            f"{sum(sent)} sent, {read:.0f} read, {lost:.0f} lost by the kernel;"
            f" {len(waited)} logins, the longest {max(waited):.3f} s;"
            f" {answered} of {asked} echoes answered;"
            f" data threads {busy:.1f} s of CPU in {took:.1f} s"
        )
        print(told)
        assert sum(sent) > 10_000 * took, told
        assert max(waited) < 5.0, told
        assert answered > 0.5 * asked, told
        assert after.total("pptp_lcp_echo_timeouts_total") == 0, told
        # Nobody went that did not want to.
        log = field.log()
        assert not re.search(r"worker (lost|died|stands still)|Traceback", log), log[-2000:]
        assert len(data_threads(field)) == count
        assert data_threads(field).keys() == threads.keys()
        # And ahead of others again, once it is over.
        until = time.monotonic() + 5
        while set(data_threads(field).values()) != {wanted}:
            assert time.monotonic() < until, data_threads(field)
            time.sleep(0.05)
        field.check_sums()
        field.hang_up()
        field.quiet()
        assert not [e for e in field.canary_events if e["event"] == "down"]
