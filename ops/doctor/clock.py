"""The clock: session numbers, logs and accounting live by it."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from ops.doctor.finding import Finding
from ops.doctor.host import Host

TIME_ERROR: Final = 5  # adjtimex(2): not synchronised
SLOW: Final = frozenset({"hpet", "acpi_pm", "jiffies", "refined-jiffies"})
SOURCE: Final = Path("/sys/devices/system/clocksource/clocksource0/current_clocksource")
DAY_S: Final = 86400


def look(host: Host) -> Iterator[Finding]:
    """Time of day, its synchronisation, the cost of asking for it."""
    installed = Path(__file__).stat().st_mtime
    if time.time() < installed - DAY_S:
        text = "is behind the day this program was installed"
        yield Finding("error", "clock", text, "timedatectl set-ntp true")
    elif _state() == TIME_ERROR:
        text = "is not synchronised: times in log and accounting may be wrong"
        yield Finding("note", "clock", text, "timedatectl set-ntp true")
    try:
        source = SOURCE.read_text().strip()
    except OSError:
        return
    if source in SLOW:
        text = f"is {source}: each look at the clock costs microseconds, the data path looks often"
        yield Finding("warning", "clocksource", text, f"echo tsc > {SOURCE}")


def _state() -> int:
    """adjtimex's answer; 0 where it can't be asked."""
    buffer = ctypes.create_string_buffer(512)  # struct timex is 208; modes 0: only ask
    try:
        return int(ctypes.CDLL(None).adjtimex(buffer))
    except (OSError, AttributeError):
        return 0
