"""All checks, in order of what is met first on a packet's way."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from ops.doctor import (
    buffers,
    clock,
    devices,
    filtering,
    forwarding,
    lan,
    ports,
    radius,
    resources,
    rings,
    routing,
    tracking,
)
from ops.doctor.finding import LEVELS, Finding
from ops.doctor.host import Host

Check = Callable[[Host], Iterator[Finding]]

CHECKS: Final[dict[str, Check]] = {
    "devices": devices.look,
    "ports": ports.look,
    "firewall": filtering.look,
    "forwarding": forwarding.look,
    "lan": lan.look,
    "routing": routing.look,
    "rings": rings.look,
    "conntrack": tracking.look,
    "buffers": buffers.look,
    "resources": resources.look,
    "clock": clock.look,
    "radius": radius.look,
}


def examine(host: Host) -> list[tuple[str, Finding]]:
    """(check, finding), the worst first. A check that fails is a finding, too."""
    found = []
    for name, check in CHECKS.items():
        try:
            found += [(name, finding) for finding in check(host)]
        except Exception as e:  # the others are still worth hearing
            text = f"could not be made: {type(e).__name__}: {e}"
            found.append((name, Finding("warning", f"check {name}", text)))
    return sorted(found, key=lambda entry: LEVELS.index(entry[1].level))
