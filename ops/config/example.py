"""The commented example configuration, made from the schema so that it can't go stale.

`python -m ops.config.example > ops/config/example.toml` after a change of the schema;
a test compares both.
"""

from __future__ import annotations

import textwrap
from typing import Final

from ops.config import schema
from ops.config.show import value
from ops.settings import Settings

_HEAD = """\
# Configuration of pptpcon. Every key is shown with its default, commented out: take away
# the # of what you change. Check it with: pptpcon check-config FILE
# The usual place is /etc/pptpcon/pptpcon.toml. SIGHUP makes a running pptpcon read it again.
"""
_WIDTH = 96
TABLES: Final[dict[str, type[schema.Section]]] = {
    "accounts.rules": schema.AccountRule,
    "radius.servers": schema.RadiusServer,
    "radius.clients": schema.RadiusClient,
    "ipv6.pools": schema.Pool6,
}


def _comment(text: str) -> str:
    return textwrap.fill(
        text,
        _WIDTH,
        initial_indent="# ",
        subsequent_indent="# ",
        break_on_hyphens=False,
        break_long_words=False,
    )


def example() -> str:
    """The text of example.toml."""
    parts = [_HEAD]
    for name in schema.TOP_ORDER:
        if name == "pools":
            parts.append(_pools())
            continue
        if name == "filters":
            parts.append(_filters())
            continue
        kind = schema.SECTIONS[name]
        lines = [_comment(kind.__doc__ or ""), f"[{name}]"]
        for key, field in kind.model_fields.items():
            if f"{name}.{key}" in TABLES or (name, key) == ("accounts", "users"):
                continue
            lines.append(_comment(field.description or ""))
            lines.append(f"#{key} = {value(field.get_default())}")
        parts.append("\n".join(lines) + "\n")
        if name == "accounts":
            description = kind.model_fields["users"].description or ""
            users = [_comment(description), "[accounts.users]", '#alice = "a long password"']
            parts.append("\n".join(users) + "\n")
            parts.append(_table("accounts.rules", "NAME"))
        if name == "ipv6":
            parts.append(_table("ipv6.pools", "..."))
        if name == "radius":
            parts.append(_table("radius.servers", "..."))
            parts.append(_table("radius.clients", "..."))
    return "\n".join(parts)


def _table(name: str, sample: str) -> str:
    kind = TABLES[name]
    lines = [_comment(kind.__doc__ or ""), f"# [[{name}]]"]
    for key, field in kind.model_fields.items():
        lines.append(_comment(field.description or ""))
        shown = value(sample) if field.is_required() else value(field.get_default())
        lines.append(f"# {key} = {shown}")
    return "\n".join(lines) + "\n"


def _pools() -> str:
    default = Settings().pools[0]
    field = schema.Pool.model_fields["ranges"]
    lines = [
        _comment(schema.Pool.__doc__ or ""),
        f"[pools.{default.name}]",
        _comment(field.description or ""),
        f"ranges = {value(default.ranges)}",
    ]
    return "\n".join(lines) + "\n"


def _filters() -> str:
    lines = [_comment(schema.Filter.__doc__ or ""), "# [filters.guest]"]
    shown = {
        "rules": [
            "deny up tcp to any port 25",
            "permit to 10.99.0.53",
            "deny to 10.0.0.0/8",
        ],
        "default": "permit",
    }
    for key, field in schema.Filter.model_fields.items():
        lines.append(_comment(field.description or ""))
        lines.append(f"# {key} = {value(shown[key])}")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(example(), end="")
