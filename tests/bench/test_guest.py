"""What the guest's bench makes of the lab's figures."""

from __future__ import annotations

from typing import Any

from tests.bench import guest, in_guest
from tests.bench.results import Result


def run(total: float, megabytes: float, **spent: float) -> dict[str, Any]:
    """One direction as the lab's bench and in_guest print it."""
    return {
        "clients": [{"mbytes": megabytes / 2}, {"mbytes": megabytes / 2}],
        "mbit_per_s": 8 * megabytes,
        "cpu_ms_per_mbyte": {"total": total, "server": 1.0, "client": 2.0},
        "threads": spent,
    }


def boot(ours: float, theirs: float) -> dict[str, Any]:
    """One boot with two clients."""
    return {
        "ours-2": {"up": run(ours, 10.0, pppd=1.0), "down": run(ours, 20.0)},
        "one-2": {"up": run(ours / 2, 10.0), "down": run(3 * ours, 20.0)},
        "pptpd-2": {"up": run(theirs, 10.0), "down": run(2 * ours, 20.0)},
    }


def test_the_ratio_is_of_medians() -> None:
    result = Result("guest")
    guest.figures(result, 2, [boot(300.0, 400.0), boot(250.0, 500.0), boot(270.0, 900.0)])
    assert result.ratios["all CPU per MB, 2 clients, up"] == 270.0 / 500.0
    assert result.met == {
        "all CPU per MB, 2 clients, up": True,
        "all CPU per MB, 2 clients, down": True,
        "all CPU per MB, one worker, 2 clients, up": True,
        "all CPU per MB, one worker, 2 clients, down": False,
    }
    assert result.figures["ours, 2 clients, up"]["total_ms_per_mb"] == 270.0
    assert result.figures["  ours, 2 clients, up: pppd"] == {"ms_per_mb": 100.0}


def test_a_failed_run_is_named() -> None:
    good = boot(1.0, 1.0)["ours-2"]
    assert guest.complaint(good) == ""
    good["down"]["clients"][1] = {"error": "unable to connect"}
    assert guest.complaint(good) == "iperf3 down: unable to connect"
    assert guest.complaint({"error": "no clients"}).startswith("no clients")


def test_threads_are_told_apart() -> None:
    ours = "python -P -m workers.process --boot-fd 3 "
    assert in_guest.group_of("data-0", ours, first=False) == "data threads"
    assert in_guest.group_of("python", ours, first=True) == "control threads"
    assert in_guest.group_of("python", "python -m ops.console --b", first=True).endswith(
        "processes"
    )
    assert in_guest.group_of("ksoftirqd/1", "", first=True) == "softirq"
    assert in_guest.group_of("sshd", "sshd", first=True) == "rest"


def test_shares_are_of_what_was_spent_between() -> None:
    before = {1: ("pppd", 1.0), 2: ("rest", 5.0)}
    after = {1: ("pppd", 1.5), 2: ("rest", 5.0), 3: ("pppd", 0.25)}
    assert in_guest.shares(before, after) == {"pppd": 0.75}
