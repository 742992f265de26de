"""`pptpcon bench`: what it refuses, what counts as passed, what it says."""

from __future__ import annotations

import json
from typing import Any

import click
import pytest
from click.testing import CliRunner

from ops.cli.bench import because, check_target, endpoint
from ops.cli.bench_view import summary_text
from ops.cli.main import cli
from ops.client.bench import Plan

WAY = {"sent": 9, "received": 9, "lost": 0, "duplicated": 0, "reordered": 0, "octets": 900}
TRAIL = {
    "sent": 9,
    "before": {},
    "concentrator": 9,
    "after": {},
    "received": 9,
    "unexplained": [0, 0],
}


def summary(**words: Any) -> dict[str, Any]:
    latency = {"p50": 1.0, "p95": 2.0, "p99": 3.0, "max": 4.0}
    return {
        "passed": True,
        "because": "",
        "profile": "numbered",
        "sessions": 2,
        "up": 2,
        "lost": 0,
        "setup": {"up": 2, "failed": {}, "per_second": 10.0, "latency_ms": latency},
        "udp": {
            "up": WAY,
            "down": WAY,
            "round_trip_ms": {"p50": 1.0, "p99": 2.0},
            "misrouted": 0,
        },
        "account": {"up": TRAIL, "down": TRAIL, "whole": True},
        **words,
    }


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--server", "192.0.2.1", "--user", "u"], "--yes-i-own-this-network"),
        (["--server", "127.0.0.1"], "--user"),
        (["--server", "127.0.0.1", "--user", "u"], "--peer"),
        (["--server", "no.such.host.invalid", "--user", "u"], "no.such.host.invalid"),
        (["--sessions", "4001"], "at most 4000"),
        (["--serve", "here"], "ADDRESS:PORT"),
        (["--serve", "127.0.0.1:0"], "ADDRESS:PORT"),
        (["--profile", "flood"], "flood"),
        (
            ["--server", "127.0.0.1", "--user", "u", "--peer", "127.0.0.1:9", "--processes", "2"],
            "--processes",
        ),
        (
            [
                *("--server", "127.0.0.1", "--user", "u", "--profile", "storm"),
                *("--password-file", "/nonexistent"),
            ],
            "/nonexistent",
        ),
    ],
)
def test_usage(words: list[str], said: str) -> None:
    result = CliRunner().invoke(cli, ["bench", *words])
    assert result.exit_code == 2
    assert said in result.output


def test_targets() -> None:
    check_target("127.1.2.3", consent=False)
    check_target("192.0.2.1", consent=True)
    for address in ("192.0.2.1", "10.0.0.1", "0.0.0.0"):
        with pytest.raises(click.UsageError, match="neither on loopback"):
            check_target(address, consent=False)
    assert endpoint("10.0.0.1:7008", "--peer") == ("10.0.0.1", 7008)


def test_shares_of_processes_are_all_sessions() -> None:
    plan = Plan(2000, 3)
    assert [plan.share(n) for n in range(3)] == [667, 667, 666]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ({}, ""),
        ({"up": 1}, "1 sessions did not come up"),
        ({"lost": 1}, "lost"),
        ({"udp": {"up": {**WAY, "received": 0}}}, "no datagram arrived on the way up"),
        ({"udp": {"up": WAY, "down": {**WAY, "lost": 2}}}, "2 datagrams lost, 0 doubled, way down"),
        ({"udp": {"up": WAY, "down": WAY, "misrouted": 1}}, "1 datagrams came to another"),
        ({"account": {"whole": False}}, "count differently"),
        ({"profile": "imix", "tcp": {"answers": 0}}, "no TCP request"),
        (
            {"profile": "bulk", "udp": {}, "tcp": {"octets_up": 1, "octets_down": 0}},
            "no TCP data arrived on the way down",
        ),
    ],
)
def test_why_a_run_did_not_pass(words: dict[str, Any], said: str) -> None:
    s = summary(**words)
    if not s["udp"]:
        del s["udp"]
    assert (said in because(s)) if said else because(s) == ""


def test_the_summary_names_losses_and_what_nobody_explains() -> None:
    torn = {**TRAIL, "before": {"GRE lost on the way": 2}, "unexplained": [1, 0]}
    text = summary_text(
        summary(
            passed=False,
            because="2 datagrams lost",
            account={"up": torn, "down": TRAIL, "whole": False},
            tcp={"mbit_up": 1.0, "mbit_down": 2.0, "answers": 3, "requests": 4, "failed": 0},
            server={
                "packets": {"receive": 9, "transmit": 9},
                "cpu_seconds": {"worker data": 0.5},
                "cpu_text": "data threads: 1.00 us per packet",
                "drops": {"late": 2},
            },
        )
    )
    assert "2 GRE lost on the way" in text
    assert "1 unexplained before the concentrator" in text
    assert "NOT passed: 2 datagrams lost" in text
    assert "late 2" in text
    json.dumps(summary())
