"""All checks, in order of what is met first on a packet's way."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Final

from dispatcher import subscribers_side
from dispatcher.descriptors import UnavailableError
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
    "uplinks": forwarding.uplinks,
    "lan": lan.look,
    "routing": routing.look,
    "rings": rings.look,
    "conntrack": tracking.look,
    "buffers": buffers.look,
    "resources": resources.look,
    "clock": clock.look,
    "radius": radius.look,
}


# Of the subscribers' side, which may be another network namespace.
BEHIND: Final = ("forwarding", "lan")


def examine(host: Host) -> list[tuple[str, Finding]]:
    """(check, finding), the worst first. A check that fails is a finding, too."""
    found = []
    try:
        side = subscribers_side.open_side(host.settings.lan.netns)
    except UnavailableError as e:
        found.append(("lan", Finding("error", "lan.netns", str(e))))
        side = -1
    away = bool(host.settings.lan.netns)
    behind = replace(host) if away else host  # what was asked on one side is not true of the other
    for name, check in CHECKS.items():
        there = away and name in BEHIND
        if there and side < 0:
            continue
        try:
            with subscribers_side.inside(side if there else -1):
                found += [(name, finding) for finding in check(behind if there else host)]
        except Exception as e:  # the others are still worth hearing
            text = f"could not be made: {type(e).__name__}: {e}"
            found.append((name, Finding("warning", f"check {name}", text)))
    if side >= 0:
        os.close(side)
    return sorted(found, key=lambda entry: LEVELS.index(entry[1].level))
