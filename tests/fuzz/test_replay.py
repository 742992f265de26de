"""The kept inputs of every fuzz target, once more and without a fuzzer."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.fuzz.targets import NEEDS_ROOT, TARGETS, load

CORPUS = Path(__file__).parent / "corpus"


@pytest.mark.parametrize("name", TARGETS)
def test_the_corpus_is_harmless(name: str) -> None:
    if name in NEEDS_ROOT and os.geteuid() != 0:
        if os.environ.get("CI") == "true":
            pytest.fail("raw sockets need root")
        pytest.skip("raw sockets need root")
    one = load(name)
    paths = sorted((CORPUS / name).iterdir())
    assert paths, "a corpus is kept for each target"
    for path in paths:
        try:
            one(path.read_bytes())
        except BaseException as e:
            raise AssertionError(f"{path.relative_to(CORPUS)}: {e!r}") from e


def test_the_corpora_are_small() -> None:
    assert sum(p.stat().st_size for p in CORPUS.rglob("*") if p.is_file()) < 1_000_000
    assert {p.name for p in CORPUS.iterdir()} == set(TARGETS)
