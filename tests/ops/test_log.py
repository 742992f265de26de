"""Log lines: one line whatever strangers put in, and not more than a disk can take."""

from __future__ import annotations

import json
import os

import pytest

from ops import log as log_module
from ops.log import BURST, RATE, Log, text


class Clock:
    """Stands in for the module `time`."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now

    def time(self) -> float:
        return self.now

    def localtime(self, now: float) -> float:
        return now

    def strftime(self, form: str, now: float) -> str:
        return form


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(log_module, "time", made)
    return made


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    found: list[str] = []
    monkeypatch.setattr(os, "write", lambda fd, data: found.append(data.decode()))
    return found


def test_a_storm_of_one_event_is_rationed(clock: Clock, lines: list[str]) -> None:
    log = Log("test")
    for n in range(BURST + 500):
        log.info("login refused", n=n)
    assert len(lines) == BURST
    log.info("something else")
    assert len(lines) == BURST + 1
    clock.now += 1.0
    for n in range(100):
        log.info("login refused", n=n)
    assert len(lines) == BURST + 1 + int(RATE)
    assert "omitted_before=500" in lines[BURST + 1]
    assert not any("omitted" in line for line in lines[BURST + 2 :])


def test_sessions_are_told_whole(clock: Clock, lines: list[str]) -> None:
    log = Log("test")
    for _ in range(BURST * 2):
        log.info("session up", user="anna")
        log.info("session down", user="anna")
    assert len(lines) == BURST * 4


def test_what_the_level_leaves_out_costs_no_ration(clock: Clock, lines: list[str]) -> None:
    log = Log("test", level=log_module.WARNING)
    for _ in range(BURST * 2):
        log.info("event")
    log.warning("event")
    assert len(lines) == 1
    assert "omitted" not in lines[0]


@pytest.mark.parametrize(
    "stranger",
    [
        "a\nerror keeper: all is lost",
        "\x1b[2J\x1b]0;title\x07",
        "\r\v\f\x85\u2028\u2029",
        "\u202egnp.exe",
        "\x00\x7f\x9b31m",
        "\udcff\udc80",
        'a" cause=none b="',
        b"\xff\xfe\n\x1b[0m",
    ],
)
@pytest.mark.parametrize("style", ["text", "json"])
def test_strangers_stay_in_their_line(
    clock: Clock, lines: list[str], stranger: str | bytes, style: str
) -> None:
    log = Log("test", style=style)
    log.warning("login refused", user=stranger, cause="auth_failed")
    (line,) = lines
    assert line.endswith("\n")
    assert line[:-1].isprintable()
    assert line.count(" cause=") == 1 or style == "json" or '\\" cause=' in line
    if style == "json":
        assert json.loads(line)["cause"] == "auth_failed"


def test_text_of_plain_values() -> None:
    assert text("anna") == "anna"
    assert text("") == '""'
    assert text("two words") == '"two words"'
    assert text(True) == "yes"
    assert text(None) == "-"
    assert text(0.25) == "0.25"
