"""`--set section.key=value`: single values over those of the file.

The keeper's reload has to apply them again: they go to it, and so to the child that
reads the file at SIGHUP, in an environment variable. Passwords are not taken here.
"""

from __future__ import annotations

import json
import os
import re
import tomllib
from collections.abc import Iterable
from typing import Any, Final

from ops.config import schema
from ops.config.checks import Path
from ops.config.problems import SETS, Report, quoted

VARIABLE: Final = "PPTPCON_SET"  # JSON list of texts


def apply(document: dict[str, Any], overrides: Iterable[str], check: Report) -> set[Path]:
    """Put `--set section.key=value` into the document. Returns the paths set."""
    done: set[Path] = set()
    for text in overrides:
        try:
            path, value = _override(text)
        except ValueError as e:
            check.problems.append((1 << 40, f"{SETS}: {e}"))
            continue
        table = document
        for name in path[:-1]:
            inner = table.setdefault(str(name), {})
            if not isinstance(inner, dict):
                inner = table[str(name)] = {}
            table = inner
        table[str(path[-1])] = value
        for known in [p for p in check.origins if p[: len(path)] == path]:
            del check.origins[known]
        check.origins[path] = SETS
        done.add(path)
    return done


def _override(text: str) -> tuple[Path, Any]:
    key, equals, raw = text.partition("=")
    names = _dotted(key.strip())
    if not equals or names is None or len(names) < 2:
        raise ValueError(f"must be section.key=value, as in ppp.mtu=1400, got {quoted(text)}")
    if names[:2] == ["accounts", "users"]:
        raise ValueError(
            "accounts.users: a password on a command line is seen by everyone on the host; put it"
            " into the configuration file"
        )
    raw = raw.strip()
    wanted = _field_kind(names)
    try:
        parsed = tomllib.loads(f"v = {raw}")
        if list(parsed) != ["v"]:
            raise ValueError
        value = parsed["v"]
    except (ValueError, RecursionError):
        value = raw
    if wanted == "text" and not isinstance(value, str):
        value = raw
    elif wanted == "list" and not isinstance(value, list):
        words = [word.strip() for word in raw.split(",")] if raw else []
        value = [value] if not isinstance(value, str) else [w for w in words if w]
        if isinstance(parsed_list := _numbers(value), list):
            value = parsed_list
    return tuple(names), value


def _numbers(words: list[Any]) -> list[Any]:
    return [int(w) if isinstance(w, str) and re.fullmatch(r"\d{1,9}", w) else w for w in words]


def _dotted(key: str) -> list[str] | None:
    """The names of a dotted key; None when it is none."""
    try:
        value: Any = tomllib.loads(f"{key} = 0")
    except (ValueError, RecursionError):
        return None
    names = []
    while isinstance(value, dict):
        if len(value) != 1:
            return None
        name, value = next(iter(value.items()))
        names.append(name)
    return names


def _field_kind(names: list[str]) -> str:
    """text, list or other: how a bare word for this key is to be taken."""
    if names[0] == "pools":
        kind: type[schema.Section] | None = schema.Pool
    elif names[0] == "filters":
        kind = schema.Filter
    else:
        kind = schema.SECTIONS.get(names[0])
    field = kind.model_fields.get(names[-1]) if kind else None
    if field is None:
        return "other"
    if getattr(field.annotation, "__origin__", None) is tuple:
        return "list"
    default = field.get_default()
    return "text" if isinstance(default, str) else "other"


def from_environment() -> list[str]:
    """The --set texts of the `run` that started the keeper."""
    try:
        texts = json.loads(os.environ.get(VARIABLE, "[]"))
    except ValueError:
        return []
    return [text for text in texts if isinstance(text, str)] if isinstance(texts, list) else []
