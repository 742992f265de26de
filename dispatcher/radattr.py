"""The radattr file of a session: its attributes, a line each, as pppd's plugin writes them."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Final

from ops.hook_event import NAME, Event

OLD: Final = "_old"


def _safe(value: str) -> str:
    """What would break a line as \\xXX."""
    return re.sub(r"[^ -~]", lambda found: f"\\x{ord(found[0]):02x}", value)


def _lines(event: Event) -> str:
    return "".join(f"{name} {_safe(value)}\n" for name, value in event.attributes)


def write(prefix: str, event: Event) -> None:
    """As of now; after a change the former one has the name with _old. OSError if it fails."""
    path = f"{prefix}.{event.name}"
    fresh = f"{path}.new"
    # A folder that others may write to, too: a file or link of theirs is not written through.
    Path(fresh).unlink(missing_ok=True)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
    with open(os.open(fresh, flags, 0o600), "w") as file:
        file.write(_lines(event))
    if event.hook == "ip_change" and os.path.exists(path):
        os.replace(path, path + OLD)
    os.replace(fresh, path)


def remove(prefix: str, event: Event) -> None:
    """The session is over."""
    for tail in ("", OLD, ".new"):
        Path(f"{prefix}.{event.name}{tail}").unlink(missing_ok=True)


def sweep(prefix: str, alive: set[str]) -> int:
    """Remove those of sessions that are not; how many files."""
    folder, name = os.path.split(prefix)
    removed = 0
    for entry in os.scandir(folder):
        head, _, tail = entry.name.partition(f"{name}.")
        whose = tail.removesuffix(OLD).removesuffix(".new")
        if not head and NAME.fullmatch(whose) and whose not in alive:
            os.unlink(entry.path)
            removed += 1
    return removed
