"""10,000 sessions: what a scrape and a listing cost; the figures are printed."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from ops.ranges import format_address
from tests.ops.console.rig import Shared, console, free_port
from tests.ops.console.test_accel import accel_cmd, with_port
from tests.ops.console.test_show import show

SESSIONS = 10_000


def test_ten_thousand_sessions(tmp_path: Path) -> None:
    shared = Shared(SESSIONS)
    base = 10 << 24
    for i in range(SESSIONS):
        shared.up(i, f"user{i}", format_address(base + i), worker=i % 2)
    figures: dict[str, float] = {}
    accel = free_port()
    with console(shared, tmp_path, with_port(accel)) as rig:
        rig.metrics(tcp=True)
        begin = time.perf_counter()
        page = rig.metrics(tcp=True)
        figures["scrape"] = time.perf_counter() - begin
        assert 'pptp_sessions{state="active"} 10000.0' in page
        begin = time.perf_counter()
        rows = rig.json("/api/sessions")["rows"]
        figures["api/sessions, all columns"] = time.perf_counter() - begin
        assert len(rows) == SESSIONS
        begin = time.perf_counter()
        rig.json("/api/status", tcp=True)
        figures["api/status"] = time.perf_counter() - begin
        begin = time.perf_counter()
        found = rig.json("/api/sessions?search=user99&order=-ip&limit=50&offset=50")
        figures["api/sessions, searched and ordered"] = time.perf_counter() - begin
        assert found["total"] == 111 and len(found["rows"]) == 50
        begin = time.perf_counter()
        lines = accel_cmd(accel, "show sessions").splitlines()
        figures["accel-cmd show sessions"] = time.perf_counter() - begin
        assert len(lines) == SESSIONS + 2
        begin = time.perf_counter()
        listed = show(rig, "sessions")
        figures["show sessions"] = time.perf_counter() - begin
        assert len(listed.stdout.splitlines()) == SESSIONS + 2
        begin = time.perf_counter()
        assert show(rig, "session", "user9999").returncode == 0
        figures["show session"] = time.perf_counter() - begin
    for name, seconds in figures.items():
        print(f"{SESSIONS} sessions, {name}: {seconds * 1000:.0f} ms", file=sys.stderr)
    # Wide bounds: the machine may be busy.
    assert figures["scrape"] < 1
    assert figures["show sessions"] < 5
