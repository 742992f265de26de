"""What of a configuration holds from start to end: the keys a reload can't change."""

from __future__ import annotations

from dataclasses import fields, is_dataclass, replace
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
    "lan": ("list_table", "netns"),
    "hooks": ("user",),
}


def changed(new: Settings, old: Settings) -> list[str]:
    """Keys whose values differ, section.key each; no value, since some are secrets."""
    found = []
    for section in fields(new):
        ours, theirs = getattr(new, section.name), getattr(old, section.name)
        if is_dataclass(ours) and is_dataclass(theirs):
            found += [
                f"{section.name}.{key.name}"
                for key in fields(ours)
                if getattr(ours, key.name) != getattr(theirs, key.name)
            ]
        elif ours != theirs:
            found.append(section.name)
    return found


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
