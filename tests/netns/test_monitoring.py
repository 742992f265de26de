"""Dashboards and alerts against a real Prometheus that scrapes a concentrator at work."""

from __future__ import annotations

import http.client
import json
import re
import signal
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from ops.console.series import SERIES
from ops.settings import Limits, Metrics, Pool, RadiusServer
from tests.netns.freeradius import SECRET, FreeRadius
from tests.netns.monitoring import hurried, monitoring
from tests.netns.spaces import ROOT, Keeper, Space, kill, wait_for
from tests.netns.test_radius import client, conf
from tests.netns.test_worker import up, worker_pids

pytestmark = [pytest.mark.netns, pytest.mark.timeout(180)]

DASHBOARDS = ROOT / "ops/data/dashboards"
CLIENTS = 60
HURRY = 30  # five minutes are ten seconds
USERS = 'DEFAULT Cleartext-Password := "secret", User-Name =~ "^user"\n'
VALUES = {"$__rate_interval": "8s", "$instance": "127.0.0.1:9723", "[1h]": "[8s]"}


def scrape(space: Space) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """Every counter of /metrics, parts of histograms among them."""
    with space.inside():
        sock = socket.socket()
    sock.settimeout(10)
    sock.connect(("127.0.0.1", 9723))
    link = http.client.HTTPConnection("127.0.0.1", 9723)
    link.sock = sock
    link.request("GET", "/metrics")
    text = link.getresponse().read().decode()
    link.close()
    return {
        (s.name, tuple(sorted(s.labels.items()))): s.value
        for family in text_string_to_metric_families(text)
        if family.type in ("counter", "histogram")
        for s in family.samples
    }


def expressions() -> list[tuple[str, str, str]]:
    """(dashboard, panel, PromQL with values in place of variables)"""
    found = []
    for path in sorted(DASHBOARDS.glob("*.json")):
        for panel in json.loads(path.read_text())["panels"]:
            for target in panel.get("targets", ()):
                if "expr" in target:
                    expr = target["expr"]
                    for name, value in VALUES.items():
                        expr = expr.replace(name, value)
                    assert "$" not in expr
                    found.append((path.name, panel["title"], expr))
    return found


@pytest.fixture
def folder() -> Iterator[Path]:
    """Short and open to the unprivileged."""
    with tempfile.TemporaryDirectory(prefix="pptpcon-mon-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


def test_everything_at_work(
    pair: tuple[Space, Space], start_keeper: Callable[..., Keeper], folder: Path
) -> None:
    """One concentrator from its first session to the loss of all: what dashboards show,
    what counters do when workers die, and which alerts reach the webhook."""
    radius = FreeRadius(pair[1], folder / "radius", USERS)
    base = conf(folder / "state", RadiusServer("127.0.0.1", SECRET, name="one"))
    settings = replace(
        base,
        limits=Limits(max_sessions=CLIENTS + 2),
        metrics=Metrics(sessions="top:3", session_names=True),
        pools=(Pool("default", ("10.99.1.1-250",)),),
    )
    keeper = start_keeper(pair[1], settings, module="dispatcher.keeper").ready()
    try:
        with monitoring(pair[1], folder / "mon", hurry=HURRY) as watch:
            with client(pair[0], "user{i}", "secret", "--rate", "100", count=CLIENTS) as fleet:
                up(keeper, CLIENTS)

                # Totals never go back, whoever counts them dies.
                before = scrape(pair[1])
                assert before["pptp_sessions_started_total", ()] == CLIENTS
                setups = ("pptp_session_setup_seconds_count", (("phase", "total"),))
                assert before[setups] == CLIENTS
                for pid in worker_pids(keeper):
                    kill(pid)
                wait_for(lambda: keeper.text.count("worker said Hello") >= 4)
                after = scrape(pair[1])
                assert set(before) <= set(after) and after[setups] == CLIENTS
                assert not {k: (v, after[k]) for k, v in before.items() if after[k] < v}

                rows = expressions()
                assert len(rows) > 60
                ends = time.monotonic() + 40
                while rows:  # a rate needs two scrapes, the first one of new series
                    rows = [row for row in rows if not watch.query(row[2])]
                    assert time.monotonic() < ends, rows
                    time.sleep(0.2 if rows else 0)
                busiest = watch.query("pptp_session_traffic_bytes_total")
                assert {row["metric"]["username"][:4] for row in busiest} == {"user"}
                for series in SERIES:
                    if series.kind == "counter":
                        assert not watch.query(f"resets({series.name}[1m]) > 0"), series.name

                watch.heard("PptpSlotsFull", "PptpWorkerRestarting")
                active = "instance:pptp_sessions_active:sum offset 10s"
                wait_for(lambda: watch.query(f"{active} == {CLIENTS}"), 30)
                quiet = {"PptpMassDisconnect", "PptpRadiusServerDown", "PptpRadiusAllDown"}
                assert not quiet & watch.hook.names()
                radius.kill()
                fleet.send_signal(signal.SIGKILL)
                watch.heard("PptpMassDisconnect", "PptpRadiusAllDown")
            sent = [a for a in watch.hook.alerts if a["labels"]["alertname"] == "PptpSlotsFull"]
            assert re.search(
                r"127\.0\.0\.1:9723 is nearly full: 9\d\.", sent[0]["annotations"]["summary"]
            )
            assert "user" not in json.dumps([a["labels"] for a in watch.hook.alerts])
    finally:
        radius.kill()
    assert keeper.stop() == 0


def test_times_in_a_hurry() -> None:
    assert hurried("rate(a_5m:b[5m] offset 1w) > 1 for 30s", 30) == (
        "rate(a_5m:b[10s] offset 1w) > 1 for 1s"
    )
    assert hurried("10m", 30) == "20s"
