"""All dashboards, as the text of their files."""

from __future__ import annotations

import json
from typing import Final

from ops.dashboards.concentrator import CONCENTRATOR
from ops.dashboards.fleet import FLEET
from ops.dashboards.panels import Dashboard
from ops.dashboards.radius import RADIUS
from ops.dashboards.subscribers import SUBSCRIBERS

DASHBOARDS: Final[dict[str, Dashboard]] = {
    "fleet.json": FLEET,
    "concentrator.json": CONCENTRATOR,
    "radius.json": RADIUS,
    "subscribers.json": SUBSCRIBERS,
}


def files() -> dict[str, str]:
    """Name and text of each."""
    return {name: json.dumps(d.model(), indent=1) + "\n" for name, d in DASHBOARDS.items()}
