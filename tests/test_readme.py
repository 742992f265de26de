"""tests/README.md and ARCHITECTURE.md name tests and files that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parent
DOCUMENTS = (HERE / "README.md", ROOT / "ARCHITECTURE.md")
FILE = re.compile(r"`([\w/.-]+\.(?:py|pyx|pxd|h|md|toml|service))`")
ROW = re.compile(r"`(?P<path>[\w/]+\.py)?::(?P<name>test_\w+)`")


def named() -> list[tuple[str, str]]:
    """(file, test) of each mention; `::name` alone belongs to the file before it."""
    found = []
    for document in DOCUMENTS:
        path = ""
        for match in ROW.finditer(document.read_text()):
            path = match["path"] or path
            found.append((path, match["name"]))
    return found


@pytest.mark.parametrize(("path", "name"), named())
def test_a_named_test_exists(path: str, name: str) -> None:
    text = (HERE / path).read_text()
    assert re.search(rf"^ *(async )?def {name}\(", text, re.M), f"{path} has no {name}"


def test_the_table_was_read() -> None:
    assert len(named()) > 30


# Rows of the feature tables and traps of the protocol notes, by section.
SECTIONS = {"1.1": 14, "1.2": 11, "1.3": 10, "1.4": 9, "1.5": 12, "1.6": 13}


def test_every_row_and_trap_has_its_line() -> None:
    """With a test, or with what was decided instead."""
    lines = re.findall(
        r"^\| (\d\.\d+) \| (.*?) \| (.*) \|$", (HERE / "README.md").read_text(), re.M
    )
    numbers = [number for number, _, _ in lines]
    assert {n: numbers.count(n) for n in SECTIONS} == SECTIONS
    traps = {number for number in numbers if number[0] == "4"}
    assert traps == {f"4.{n}" for n in range(1, 31)}
    for number, what, proof in lines:
        assert ROW.search(proof) or "**Decided**" in proof, (number, what)


def test_files_named_in_the_architecture_exist() -> None:
    """By their path, or the end of it where the text stands under a folder's name."""
    folders = ("dispatcher", "workers", "fastpath", "ops", "tests")
    paths = [f"/{p.relative_to(ROOT)}" for f in folders for p in (ROOT / f).rglob("*")]
    paths += [f"/{p.name}" for p in ROOT.iterdir()]
    named_files = set(FILE.findall((ROOT / "ARCHITECTURE.md").read_text()))
    lost = sorted(n for n in named_files if not any(p.endswith(f"/{n}") for p in paths))
    assert len(named_files) > 30
    assert not lost, f"ARCHITECTURE.md names {', '.join(lost)}"
