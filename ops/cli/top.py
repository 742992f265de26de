"""`pptpcon top`: workers and the busiest sessions, live."""

from __future__ import annotations

import contextlib
import json
import os
import select
import sys
import termios
import time
import tty
from collections.abc import Iterator
from typing import Final

import click

from ops.cli import top_view
from ops.cli.control import EXIT_CONNECT, ClientCommand, ClientError, Control, run_dir_option
from ops.cli.stopped import Stopped, signals
from ops.cli.top_view import Row, Sample, State

LOOK_S: Final = 0.2  # between looks at the window's size
KEYS: Final = {
    b"\x1b[A": "up",
    b"\x1bOA": "up",
    b"\x1b[B": "down",
    b"\x1bOB": "down",
    b"\x1b[5~": "page up",
    b"\x1b[6~": "page down",
}
BEGIN: Final = "\x1b[?1049h\x1b[?25l"  # another screen, no cursor
END: Final = "\x1b[?25h\x1b[?1049l"
BOLD, PLAIN = "\x1b[1m", "\x1b[0m"


@click.command(cls=ClientCommand, short_help="Show workers and the busiest sessions, live.")
@click.option(
    "--interval",
    type=click.FloatRange(0.5, 3600),
    default=2.0,
    show_default=True,
    metavar="S",
    help="Seconds between two looks.",
)
@click.option("--once", is_flag=True, help="Print one interval and end, for scripts.")
@click.option(
    "--sort",
    type=click.Choice(["both", "rx", "tx", "drops", "loss", "uptime", "name", "worker"]),
    default="both",
    show_default=True,
    help="The order to begin with.",
)
@click.option(
    "--limit",
    type=click.IntRange(min=0),
    default=20,
    show_default=True,
    metavar="N",
    help="Sessions of --once.",
)
@click.option("--json", "as_json", is_flag=True, help="With --once: as JSON.")
@run_dir_option
def top(
    interval: float, once: bool, sort: str, limit: int, as_json: bool, run_dir: str | None
) -> None:
    """Show workers and the busiest sessions, live.

    \b
    b r t  by bit/s: both ways, from (rx), to (tx) subscribers
    d l    by drops, by loss        u n w  by uptime, name, worker
    R      the other way round      /      search; Esc shows all again
    s      another interval         h      help       q  end
    """
    control = Control(run_dir)
    state = State(sort=sort[0], interval=interval)
    if as_json and not once:
        raise click.UsageError("--json goes with --once")
    if once:
        before = _sample(control)
        time.sleep(interval)
        now = _sample(control)
        state.rows = top_view.rows_of(before, now, state)
        if as_json:
            click.echo(json.dumps([_value(row) for row in state.rows[:limit]], indent=1))
        else:
            click.echo("\n".join(top_view.plain(before, now, state, limit)))
        return
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise click.UsageError("this is no terminal; use `pptpcon top --once`")
    with _terminal(), contextlib.suppress(Stopped), signals():
        _live(control, state)


def _sample(control: Control) -> Sample:
    status = control.get("/api/status")
    listing = control.get(f"/api/sessions?columns={','.join(top_view.COLUMNS)}")
    return top_view.sample_of(time.monotonic(), status, listing)


def _value(row: Row) -> dict[str, object]:
    names = ("sid", "username", "ip", "csid", "worker", "state", "uptime-raw", "loss")
    rates = {"rx-bps": round(row.rx), "tx-bps": round(row.tx), "drops-ps": round(row.drops, 1)}
    return {name: row.said[name] for name in names} | rates


@contextlib.contextmanager
def _terminal() -> Iterator[None]:
    """Keys one by one and a screen of its own; as it was, afterwards."""
    fd = sys.stdin.fileno()
    before = termios.tcgetattr(fd)
    try:
        tty.setcbreak(fd)
        sys.stdout.write(BEGIN)
        yield
    finally:
        termios.tcsetattr(fd, termios.TCSADRAIN, before)
        sys.stdout.write(END)
        sys.stdout.flush()


def _live(control: Control, state: State) -> None:
    now = before = _sample(control)
    due = time.monotonic() + min(1.0, state.interval)  # the first figures soon
    drawn = (0, 0)
    stale = True
    while True:
        size = _size()
        if stale or size != drawn:
            state.rows = top_view.rows_of(before, now, state)
            _draw(before, now, state, *size)
            drawn, stale = size, False
        for key in _keys(max(0.0, min(LOOK_S, due - time.monotonic()))):
            stale = True
            if key == " " and not state.typing:
                due = 0.0
            elif not top_view.press(state, key, max(1, drawn[1] // 2)):
                return
        if time.monotonic() >= due:
            try:
                before, now = now, _sample(control)
                state.note = ""
            except ClientError as e:
                if e.exit_code != EXIT_CONNECT:
                    raise
                state.note = f"{e.message}; asked again"  # a restart is no reason to end
            due = time.monotonic() + state.interval
            stale = True


def _size() -> tuple[int, int]:
    """Columns and lines now; some terminals, serial ones, do not know."""
    width, height = os.get_terminal_size(sys.stdout.fileno())
    return width or 80, height or 24


def _keys(timeout: float) -> list[str]:
    """What was pressed meanwhile."""
    fd = sys.stdin.fileno()
    if not select.select([fd], [], [], timeout)[0]:
        return []
    octets = os.read(fd, 64)
    if not octets:
        return ["q"]  # the terminal is gone
    if octets in KEYS:
        return [KEYS[octets]]
    if octets[:2] in (b"\x1b[", b"\x1bO"):
        return []  # a key we do not know
    return list(octets.decode("utf-8", "replace"))


def _draw(before: Sample, now: Sample, state: State, width: int, height: int) -> None:
    lines = top_view.screen(before, now, state, width, height)
    parts = ["\x1b[H"]
    for at, line in enumerate(lines):
        text = f"{BOLD}{line.text}{PLAIN}" if line.heading else line.text
        parts.append(f"{text}\x1b[K" + ("\r\n" if at < len(lines) - 1 else ""))
    sys.stdout.write("".join(parts))
    sys.stdout.flush()


def register(group: click.Group) -> None:
    """Add the command."""
    group.add_command(top)
