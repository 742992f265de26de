"""Real sessions end by what a real FreeRADIUS said: time, idleness, octets; or are asked again."""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from tests.netns.freeradius import FreeRadius
from tests.netns.spaces import Keeper, kill, wait_for
from tests.netns.test_radius import (
    Pair,
    Start,
    client,
    conf,
    policy_of,
    radclient,
    serve,
    tmp_path,
)
from tests.netns.test_worker import hellos, up, worker_pids

pytestmark = pytest.mark.netns
FIXTURES = serve, tmp_path

USERS = """\
lim1 Cleartext-Password := "secret"
	Session-Timeout = 8

lim2 Cleartext-Password := "secret"
	Idle-Timeout = 4

lim3 Cleartext-Password := "secret"
	Idle-Timeout = 4, Framed-IP-Address = 10.99.1.13

lim4 Cleartext-Password := "secret"
	Attr-227 = 0x00000bb8, Attr-228 = 0x00000001, Framed-IP-Address = 10.99.1.14

lim5 Cleartext-Password := "secret"
	Mikrotik-Total-Limit = 3000, Mikrotik-Total-Limit-Gigawords = 1,
	Framed-IP-Address = 10.99.1.15

lim6 Cleartext-Password := "secret"
	Mikrotik-Xmit-Limit = 3000, Framed-IP-Address = 10.99.1.16, Session-Timeout = 600

lim7 Cleartext-Password := "secret"
	Session-Timeout = 3, Termination-Action = RADIUS-Request, State = 0x737461746531
"""


def ended(keeper: Keeper, user: str) -> dict[str, str]:
    """The line of a session's end; {} while it is up."""
    for line in keeper.text.splitlines():
        if "session down" in line and f"user={user} " in line:
            return dict(re.findall(r'(\w+)=("[^"]*"|\S+)', line))
    return {}


def test_each_bound_ends_its_session_and_outlives_a_worker(
    pair: Pair, start_keeper: Start, serve: Callable[..., FreeRadius], tmp_path: Path
) -> None:
    server = serve(users=USERS)
    settings = conf(tmp_path / "state")
    settings = replace(settings, log=replace(settings.log, level="debug"))
    keeper = start_keeper(pair[1], settings, module="dispatcher.keeper").ready()
    with client(pair[0], "lim{i}", "secret", count=7):
        up(keeper, 7)
        began = time.monotonic()
        pings = [  # downstream: the answers go up, and all of it is no idleness
            subprocess.Popen(
                pair[1].argv(*f"ping -q -i 0.5 -s 472 -I 10.99.0.1 10.99.1.{n}".split()),
                stdout=subprocess.DEVNULL,
            )
            for n in (13, 14, 15, 16)
        ]
        try:
            for pid in worker_pids(keeper):
                kill(pid)
            hellos(keeper, 4)
            said = radclient(pair[1], "coa", 'User-Name = "lim6"', "Session-Timeout = 6")
            assert "CoA-ACK" in said, said
            for user, cause, reason in (
                ("lim2", "idle_timeout", "no data for 4 s"),
                ("lim4", "volume_limit", "octets from the subscriber, 3000 are allowed"),
                ("lim6", "volume_limit", "octets to it, 3000 are allowed"),
                ("lim1", "session_timeout", "Session-Timeout of 8 s"),
            ):
                wait_for(partial(ended, keeper, user), 30)
                line = ended(keeper, user)
                assert line["cause"] == cause and reason in line["reason"], line
            assert time.monotonic() - began >= 7.0  # nobody's time was up sooner
            # Those with a reason to stay: one that is not idle, one of 4 GiB, one asked again.
            assert not any(ended(keeper, user) for user in ("lim3", "lim5", "lim7"))
            assert policy_of(pair[1], "lim5")["volume"] == 3000 + (1 << 32)
            assert keeper.text.count("session renewed") >= 2
        finally:
            for ping in pings:
                ping.terminate()
                ping.wait()
        wait_for(lambda: ended(keeper, "lim3"), 20)
        assert ended(keeper, "lim3")["cause"] == "idle_timeout"
        stops = {r["User-Name"]: r for r in server.heard("Stop", 5)}
    causes = {user: stop["Acct-Terminate-Cause"] for user, stop in stops.items()}
    assert causes == {
        "lim1": "Session-Timeout",
        "lim2": "Idle-Timeout",
        "lim3": "Idle-Timeout",
        "lim4": "NAS-Request",
        "lim6": "NAS-Request",
    }
    assert 3000 <= int(stops["lim4"]["Acct-Input-Octets"]) <= 6000
    assert keeper.stop() == 0
