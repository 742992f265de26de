"""ip-up and ip-down of pppd: which become hooks, and which of their lines need a look.

A copy of /etc has its own `ppp` folder, and then this host's scripts don't belong to it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from typing import Final

from ops.config.draft import Draft, Origin, printable
from ops.config.pptpd.text import decode
from ops.config.problems import ConfigError
from ops.config.source import read

NAMES: Final = ("ip-up", "ip-down")
LINES_MAX: Final = 20  # of one script that are listed
SCRIPTS_MAX: Final = 64  # of one folder
INTERFACE: Final = re.compile(r"\$(?:\{(?:1|IFNAME|PPP_IFACE)\b|1(?!\d)|(?:IFNAME|PPP_IFACE)\b)")
INSTEAD: Final = (
    "is the session's name here, no interface; match the subscriber's address ($5)"
    ' or all interfaces (iifname "pptp*")'
)


def take(path: str, draft: Draft) -> None:
    """Hooks of the host that `path`, its pptpd.conf, is of."""
    folder = os.path.join(os.path.dirname(path), "ppp")
    if not os.path.isdir(folder):
        folder = "/etc/ppp"
    for name in NAMES:
        script = os.path.join(folder, name)
        key = name.replace("-", "_")
        if os.path.isfile(script):
            _look(script, draft)
            if not os.access(script, os.X_OK):
                draft.loud(Origin(script, 1), "is not executable: pppd does not run it")
            elif ("hooks", key) not in draft.values:
                note = "it runs as hooks.user"
                draft.set("hooks", key, os.path.abspath(script), Origin(script, 1), note)
        for part in _parts(f"{script}.d"):
            _look(part, draft)


def _parts(folder: str) -> Iterator[str]:
    try:
        names = sorted(os.listdir(folder))
    except OSError:
        return
    paths = (os.path.join(folder, name) for name in names[:SCRIPTS_MAX])
    yield from (path for path in paths if os.path.isfile(path))


def _look(path: str, draft: Draft) -> None:
    try:
        text = decode(read(path))
    except ConfigError as e:
        draft.loud(None, e.problems[0])
        return
    found = [
        (number, match[0].replace("{", "").replace("}", ""))
        for number, line in enumerate(text.split("\n"), 1)
        if not line.lstrip().startswith("#") and (match := INTERFACE.search(line))
    ]
    for number, word in found[:LINES_MAX]:
        draft.loud(Origin(path, number), f"{printable(word)} {INSTEAD}")
    if len(found) > LINES_MAX:
        draft.loud(Origin(path, found[LINES_MAX][0]), f"and {len(found) - LINES_MAX} more lines")
