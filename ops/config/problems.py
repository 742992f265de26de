"""What is wrong with a configuration, as lines `file:line: key: what, got what`.

Values are shown as TOML, cut to a line's length; passwords never are.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any, Final

from ops.config.checks import Path, Remark

SETS: Final = "--set"  # the origin of values from the command line
_BARE_KEY: Final = re.compile(r"[A-Za-z0-9_-]+")


class ConfigError(Exception):
    """The configuration can't be used; `problems` are lines for the reader."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = list(problems)


class Report:
    """One validation: collects remarks and knows where each key stands."""

    def __init__(self, origins: dict[Path, str], where: str) -> None:
        self.origins = origins
        self.where = where
        self.problems: list[tuple[int, str]] = []
        self.warnings: list[str] = []

    def origin(self, path: Path) -> str:
        """`file:line` of the key, or of the closest thing around it."""
        for length in range(len(path), 0, -1):
            found = self.origins.get(path[:length])
            if found is not None:
                return found
        return self.where if self.where == SETS else f"{self.where}:1"

    def add(self, path: Path, text: str, *, fatal: bool = True) -> None:
        origin = self.origin(path)
        if fatal:
            number = origin.rpartition(":")[2]
            order = int(number) if number.isdigit() else 1 << 40
            self.problems.append((order, f"{origin}: {show_path(path)}: {text}"))
        else:
            self.warnings.append(f"{origin}: warning: {show_path(path)}: {text}")

    def remark(self, remark: Remark, document: dict[str, Any]) -> None:
        tail = ""
        if remark.fatal and has(document, remark.path):
            tail = got(remark.path, lookup(document, remark.path))
        self.add(remark.path, remark.text + tail, fatal=remark.fatal)


def show_path(path: Path) -> str:
    """A path as in TOML, items of lists counted from 1 as people do: ppp.auth[1]."""
    shown = ""
    for part in path:
        if isinstance(part, int):
            shown += f"[{part + 1}]"
            continue
        name = part if _BARE_KEY.fullmatch(part) else quoted(part)
        shown += f".{name}" if shown else name
    return shown


def has(document: Any, path: Path) -> bool:
    return lookup(document, path) is not None


def lookup(document: Any, path: Path) -> Any:
    value = document
    for part in path:
        try:
            value = value[part]
        except (KeyError, IndexError, TypeError):
            return None
    return value


def got(path: Path, value: Any) -> str:
    if path[:2] == ("accounts", "users") and len(path) > 1:
        return ", got ***"
    return f", got {shown(value)}"


def shown(value: Any) -> str:
    if isinstance(value, str):
        return quoted(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value) if value.bit_length() <= 128 else "a very large number"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list | tuple) and 1 <= len(value) <= 8:
        text = f"[{', '.join(shown(v) if _plain(v) else '...' for v in value)}]"
        return text if len(text) <= 100 else kind_of(value)
    return kind_of(value)


def _plain(value: Any) -> bool:
    return isinstance(value, str | int | float)


def kind_of(value: Any) -> str:
    if isinstance(value, dict):
        return "a section"
    if isinstance(value, list | tuple):
        return f"a list of {len(value)}" if value else "an empty list"
    if isinstance(value, str):
        return "text"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return "a number"
    return "a date or time"


def quoted(value: str) -> str:
    cut = value if len(value) <= 60 else value[:57] + "..."
    return json.dumps(cut, ensure_ascii=not cut.isprintable())


def printable(path: str) -> str:
    return path if path.isprintable() else json.dumps(path)


def reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return str(error)
