"""docs/: every command, key, metric, file and link that a page names is there."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from ops.cli.main import cli
from ops.config import schema
from ops.config.load import load_bytes
from ops.config.show import TABLES

ROOT = Path(__file__).parents[1]
DOCS = sorted((ROOT / "docs").glob("*.md"))
METRICS = (ROOT / "ops" / "console" / "METRICS.md").read_text()

pytestmark = pytest.mark.parametrize("page", DOCS, ids=lambda page: page.name)


def blocks(page: Path) -> Iterator[str]:
    """The indented blocks, without their indentation."""
    for block in re.findall(r"(?:^ {4,}.*\n|^\n(?= {4}))+", page.read_text(), re.MULTILINE):
        if block.strip():
            yield "\n".join(line.strip() for line in block.splitlines())


def words_of(page: Path) -> Iterator[list[str]]:
    """Each `pptpcon ...` of the page, in blocks and in the text."""
    found = [line for block in blocks(page) for line in block.splitlines()]
    found += re.findall(r"`([^`\n]+)`", page.read_text())
    for line in found:
        for part in re.split(r"&&|;|\|(?!\|)|\$\(|^\(", line):
            part = re.sub(r"\s#.*", "", part).strip().removeprefix(".venv/bin/")
            if part.startswith("pptpcon ") and "..." not in part:
                yield shlex.split(re.split(r"\s>", part.rstrip(")"))[0])


def test_commands(page: Path) -> None:
    for words in words_of(page):
        command: click.Command = cli
        rest = words[1:]
        while isinstance(command, click.Group) and rest and not rest[0].startswith("-"):
            name = rest.pop(0)
            chosen = command.get_command(click.Context(command), name)
            assert chosen is not None, f"{' '.join(words)}: no command {name!r}"
            command = chosen
        known = {option for param in command.params for option in param.opts} | {"--help", "-h"}
        for word in rest:
            if word.startswith("-"):
                assert word.partition("=")[0] in known, f"{' '.join(words)}: no option {word}"


def test_keys(page: Path) -> None:
    """`section.key` is a key, `[section]` a section."""
    text = page.read_text()
    for section, key in re.findall(r"`([a-z0-9]+)\.([a-z0-9_]+)(?:`| = )", text):
        if section in schema.SECTIONS and key not in ("md", "toml", "conf", "service"):
            fields = schema.SECTIONS[section].model_fields
            assert key in fields, f"{section} has no key {key}"
    for section in re.findall(r"`\[([a-z0-9]+)\]`", text):
        assert section in schema.SECTIONS, f"there is no section [{section}]"
    for section, key in re.findall(r"`\[\[([a-z0-9]+)\.([a-z0-9]+)\]\]`", text):
        assert key in TABLES.get(section, ()), f"there is no [[{section}.{key}]]"


def test_configurations(page: Path) -> None:
    """A block that begins with a section is a configuration without a problem."""
    for block in blocks(page):
        if re.match(r"\[{1,2}[a-z]", block):
            load_bytes(block.encode(), page.name)


def test_metrics(page: Path) -> None:
    for name in re.findall(r"`(pptp_[a-z0-9_]+)", page.read_text()):
        assert name in METRICS, f"no metric {name}"


def test_alerts(page: Path) -> None:
    rules = "".join(path.read_text() for path in (ROOT / "ops" / "data").rglob("*.y*ml"))
    for name in re.findall(r"`(Pptp[A-Za-z]+)`", page.read_text()):
        assert f"alert: {name}" in rules, f"no alert {name}"


def anchors(page: Path) -> set[str]:
    titles = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^a-z0-9 -]", "", title.lower()).replace(" ", "-") for title in titles}


def test_links(page: Path) -> None:
    for target in re.findall(r"\]\(([^)]+)\)", page.read_text()):
        name, _, anchor = target.partition("#")
        if "://" in target:
            continue
        there = page.parent / name if name else page
        assert there.exists(), f"no {name}"
        if anchor:
            assert anchor in anchors(there), f"{name or page.name} has no {anchor}"


def test_files_of_the_project(page: Path) -> None:
    for name in re.findall(r"`((?:ops|tests|docs)/[A-Za-z0-9_./-]+)`", page.read_text()):
        assert (ROOT / name).exists(), f"no {name}"
    for name in re.findall(r"`(ARCHITECTURE\.md)`", page.read_text()):
        assert (ROOT / name).exists()
