"""How the demo shows itself: a live table on a terminal, lines elsewhere, a summary."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any, Final

import click
from rich.console import Console
from rich.live import Live
from rich.table import Table

from ops.client.concentrator import Samples

PLAIN_EVERY: Final = 3.0  # seconds between lines when nobody watches a terminal


@dataclass(frozen=True, slots=True)
class WorkerRow:
    """One worker, now."""

    worker: str
    sessions: int
    receive_mbit: float  # from subscribers
    transmit_mbit: float
    packets: float  # a second, both ways
    drops: float  # a second


@dataclass(frozen=True, slots=True)
class Frame:
    """What the demo knows, now."""

    stage: str
    seconds: float
    up: int
    wanted: int
    rows: tuple[WorkerRow, ...] = ()
    unanswered: float = 0.0  # per cent of UDP datagrams, those under way included
    round_trip_ms: float = 0.0

    def line(self) -> str:
        """All workers in one line."""
        text = f"{self.seconds:5.1f} s  {self.stage}: {self.up} of {self.wanted} sessions"
        if self.rows:
            receive = sum(r.receive_mbit for r in self.rows)
            transmit = sum(r.transmit_mbit for r in self.rows)
            drops = sum(r.drops for r in self.rows)
            spread = "+".join(str(r.sessions) for r in self.rows)
            text += f" ({spread} by worker), {receive:.1f} Mbit/s up, {transmit:.1f} down"
            text += f", {drops:.0f} drops/s"
        if self.round_trip_ms:
            text += f", UDP {self.unanswered:.2f} % unanswered"
            text += f", round trip {self.round_trip_ms:.2f} ms"
        return text

    def table(self) -> Table:
        """One row a worker."""
        title = f"{self.stage}: {self.up} of {self.wanted} sessions, {self.seconds:.0f} s"
        caption = ""
        if self.round_trip_ms:
            caption = (
                f"UDP {self.unanswered:.2f} % unanswered, round trip {self.round_trip_ms:.2f} ms"
            )
        table = Table(title=title, caption=caption)
        for heading in ("worker", "sessions", "Mbit/s up", "Mbit/s down", "packets/s", "drops/s"):
            table.add_column(heading, justify="right")
        for row in self.rows:
            table.add_row(
                row.worker,
                str(row.sessions),
                f"{row.receive_mbit:.1f}",
                f"{row.transmit_mbit:.1f}",
                f"{row.packets:.0f}",
                f"{row.drops:.0f}",
            )
        return table


@dataclass(slots=True)
class View:
    """Shows frames as they come; nothing at all when `quiet`."""

    quiet: bool = False
    _console: Console = field(default_factory=Console)
    _live: Live | None = None
    _line_at: float = 0.0
    _stage: str = ""

    def show(self, frame: Frame) -> None:
        """Bring what is seen up to date."""
        if self.quiet:
            return
        if self._console.is_terminal:
            if self._live is None:
                self._live = Live(console=self._console, auto_refresh=False, transient=True)
                self._live.start()
            self._live.update(frame.table(), refresh=True)
            return
        now = time.monotonic()
        if frame.stage != self._stage or now >= self._line_at:
            click.echo(frame.line())
            self._stage = frame.stage
            self._line_at = now + PLAIN_EVERY

    def close(self) -> None:
        """Leave the terminal as it was."""
        if self._live is not None:
            self._live.stop()
            self._live = None


def worker_rows(before: Samples, after: Samples, seconds: float) -> tuple[WorkerRow, ...]:
    """The workers' rates between two scrapes."""
    slots = after.by("pptp_slots_used", "worker")

    def rate(name: str, worker: str, **labels: str) -> float:
        now = after.total(name, worker=worker, **labels)
        return (now - before.total(name, worker=worker, **labels)) / max(seconds, 0.001)

    return tuple(
        WorkerRow(
            worker,
            int(used),
            rate("pptp_traffic_bytes_total", worker, direction="receive") * 8e-6,
            rate("pptp_traffic_bytes_total", worker, direction="transmit") * 8e-6,
            rate("pptp_traffic_packets_total", worker),
            rate("pptp_drops_total", worker),
        )
        for worker, used in sorted(slots.items(), key=lambda item: int(item[0]))
    )


def summary_text(s: dict[str, Any]) -> str:
    """The closing summary for a person."""
    spread = ", ".join(f"worker {k}: {v}" for k, v in s["workers"].items())
    setup, udp, tcp = s["setup_ms"], s["udp"], s["tcp"]
    lines = [
        f"sessions    {s['up']} of {s['clients']} up, {s['lost']} lost on the way ({spread})",
        f"set-up      p50 {setup['p50']:.0f} ms, p95 {setup['p95']:.0f} ms, "
        f"all up after {s['login_seconds']:.1f} s",
        f"traffic     {s['mbit_up']:.1f} Mbit/s up, {s['mbit_down']:.1f} Mbit/s down "
        f"of inner packets for {s['seconds']:.1f} s",
    ]
    if udp["up"]["sent"]:
        lines.append(
            f"UDP         {udp['up']['sent']} packets up, {udp['up']['loss_percent']:.2f} % lost; "
            f"{udp['down']['sent']} echoes down, {udp['down']['loss_percent']:.2f} % lost; "
            f"round trip {udp['round_trip_ms']:.2f} ms"
        )
    if tcp["streams"]:
        lines.append(
            f"TCP         {tcp['streams']} streams, {tcp['octets_up'] / 1e6:.1f} MB up, "
            f"{tcp['octets_down'] / 1e6:.1f} MB down"
        )
    drops = ", ".join(f"{k} {v}" for k, v in s["server"]["drops"].items())
    lines.append(f"drops       {drops or 'none'}")
    return "\n".join(lines)
