"""The table of traps in tests/README.md names tests that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROW = re.compile(r"`(?P<path>[\w/]+\.py)?::(?P<name>test_\w+)`")


def named() -> list[tuple[str, str]]:
    """(file, test) of each mention; `::name` alone belongs to the file before it."""
    found, path = [], ""
    for match in ROW.finditer((HERE / "README.md").read_text()):
        path = match["path"] or path
        found.append((path, match["name"]))
    return found


@pytest.mark.parametrize(("path", "name"), named())
def test_a_named_test_exists(path: str, name: str) -> None:
    text = (HERE / path).read_text()
    assert re.search(rf"^ *(async )?def {name}\(", text, re.M), f"{path} has no {name}"


def test_the_table_was_read() -> None:
    assert len(named()) > 30
