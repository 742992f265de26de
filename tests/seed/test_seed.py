"""The table of README.md here: nothing of the HOWTO is left out, and what it points to exists."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SEED = ROOT.parent / "shared" / "SEED-poptop-howto-1999.txt"
ROWS = re.findall(
    r"^\| (?!words|---)(.+?) \| (.+) \|$",
    Path(__file__).with_name("README.md").read_text(),
    re.MULTILINE,
)
# What the configuration files and command lines of the HOWTO hold, as it prints them.
LINES = re.compile(
    r"speed \d+|localip \S+|remoteip \S+|require-chap|proxyarp|billy \S+ \S+ \*"
    r"|workgroup\\\\user \S+ \S+ \*|daemon\.debug|ipchains -[AP] \w+ (?:-p \w+|DENY)|arp --set"
)


def test_every_row_points_to_something() -> None:
    assert len(ROWS) > 40
    for words, targets in ROWS:
        found = re.findall(r"`([^`]+)`", targets)
        assert found, f"{words}: answered by nothing"
        for target in found:
            check(words, target)


def check(words: str, target: str) -> None:
    path, _, name = target.partition("::")
    path, _, anchor = path.partition("#")
    text = (ROOT / path).read_text() if (ROOT / path).is_file() else ""
    assert text, f"{words}: no {path}"
    if name:
        assert f"def {name}(" in text, f"{words}: no {target}"
    if anchor:
        titles = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
        anchors = {re.sub(r"[^a-z0-9 -]", "", t.lower()).replace(" ", "-") for t in titles}
        assert anchor in anchors, f"{words}: no paragraph {target}"


@pytest.fixture
def seed() -> str:
    if not SEED.exists():
        (pytest.fail if os.environ.get("CI") else pytest.skip)(
            "the HOWTO is not beside the checkout"
        )
    return re.sub(r"\s+", " ", SEED.read_text(errors="replace"))


def test_every_row_is_the_howtos_words(seed: str) -> None:
    for words, _ in ROWS:
        assert words in seed, f"{words!r} is not in the HOWTO"


def test_every_question_has_a_row(seed: str) -> None:
    """The FAQ's questions are told apart by rows of asterisks; the first has none before it."""
    faq = re.split(r"\*{20,}", seed[seed.index(" Q&A ") :])
    questions = [part for part in faq if re.search(r"\bQ[.&]", part)]
    assert len(questions) >= 15
    for question in questions:
        assert any(words in question for words, _ in ROWS), question[:120]


def test_every_line_has_a_row(seed: str) -> None:
    for found in LINES.finditer(seed):
        line = found[0]
        assert any(line in words or words in line for words, _ in ROWS) or any(
            line.split()[0] in words and line.split()[1] in words for words, _ in ROWS
        ), line
