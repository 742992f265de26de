"""What of a configuration holds from start to end: the keys a reload can't change."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Final

from ops.settings import Settings

# Section: its keys; () stands for all of them. What they decide is opened, bound or given
# to a data thread once; a child that is replaced meanwhile must get what its neighbours have.
FIXED: Final[dict[str, tuple[str, ...]]] = {
    "server": ("user", "run_dir", "state_dir"),
    "listen": ("address", "port", "backlog"),
    "workers": (),
    "gre": (),
    "ppp": ("mss_clamp",),
    "mppe": ("kernel",),
    "lan": ("netns", "list_table"),
    "hooks": ("user",),
}


def hold(new: Settings, running: Settings) -> tuple[Settings, list[str]]:
    """`new` with the fixed keys as they are `running`; and which ones it would have changed."""
    sections = {}
    kept = []
    for name, listed in FIXED.items():
        old, wanted = getattr(running, name), getattr(new, name)
        keys = listed or tuple(field.name for field in fields(old))
        kept += [f"{name}.{key}" for key in keys if getattr(old, key) != getattr(wanted, key)]
        sections[name] = replace(wanted, **{key: getattr(old, key) for key in keys})
    return replace(new, **sections), kept
