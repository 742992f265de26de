"""Settings as TOML: what `config show` prints, and a round trip for tests."""

from __future__ import annotations

import re
from dataclasses import fields
from typing import Any, Final

from ops.settings import Settings

MASK: Final = "***"
# Keys of sections that are written as [[section.key]], and as [section.key].
TABLES: Final[dict[str, tuple[str, ...]]] = {
    "accounts": ("rules",),
    "radius": ("servers", "clients"),
    "ipv6": ("pools",),
}
KEYED: Final[dict[str, tuple[str, ...]]] = {"accounts": ("users",)}
_BARE: Final = re.compile(r"[A-Za-z0-9_-]+")
_ESCAPES: Final = {
    '"': '\\"',
    "\\": "\\\\",
    "\b": "\\b",
    "\t": "\\t",
    "\n": "\\n",
    "\f": "\\f",
    "\r": "\\r",
}


def quote(text: str) -> str:
    """A basic string of TOML; what does not print is escaped."""
    shown = ""
    for c in text:
        if c in _ESCAPES:
            shown += _ESCAPES[c]
        elif c.isprintable():
            shown += c
        else:
            shown += f"\\u{ord(c):04X}" if ord(c) <= 0xFFFF else f"\\U{ord(c):08X}"
    return f'"{shown}"'


def value(item: Any) -> str:
    """One plain value as TOML."""
    if isinstance(item, bool):
        return "true" if item else "false"
    if isinstance(item, str):
        return quote(item)
    if isinstance(item, tuple | list):
        return f"[{', '.join(value(part) for part in item)}]"
    return repr(item)


def key(name: str) -> str:
    """A key, quoted if it must be."""
    return name if _BARE.fullmatch(name) else quote(name)


def to_toml(settings: Settings, *, secrets: bool = False) -> str:
    """All effective values; passwords only if `secrets`."""
    lines: list[str] = []
    for part in fields(settings):
        section = getattr(settings, part.name)
        if part.name == "pools":
            for pool in section:
                lines += [f"[pools.{key(pool.name)}]", f"ranges = {value(pool.ranges)}", ""]
            continue
        if part.name == "filters":
            for each in section:
                lines += [f"[filters.{key(each.name)}]", f"rules = {value(each.rules)}"]
                lines += [f"default = {value(each.default)}", ""]
            continue
        lines.append(f"[{part.name}]")
        for field in fields(section):
            if field.metadata.get("made"):
                continue
            if field.name not in TABLES.get(part.name, ()) + KEYED.get(part.name, ()):
                lines.append(f"{field.name} = {value(getattr(section, field.name))}")
        lines.append("")
        for table in TABLES.get(part.name, ()):
            for row in getattr(section, table):
                lines.append(f"[[{part.name}.{table}]]")
                for field in fields(row):
                    hidden = field.name == "secret" and not secrets
                    item = MASK if hidden else getattr(row, field.name)
                    lines.append(f"{field.name} = {value(item)}")
                lines.append("")
        if part.name == "accounts" and section.users:
            lines.append("[accounts.users]")
            for name, password in section.users:
                lines.append(f"{key(name)} = {quote(password if secrets else MASK)}")
            lines.append("")
    return "\n".join(lines)
