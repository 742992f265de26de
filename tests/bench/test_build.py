"""A bench refuses to measure modules that are older than their sources."""

from __future__ import annotations

import argparse
import os
import sys
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import pytest

from tests.bench import build, results
from tests.bench.results import CANNOT, NOT_VALID, Result

OLD, BUILT, NEW = 1_000, 2_000, 3_000  # seconds of the epoch


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """`one` takes from `two`, which takes from `three`; `four` from nobody. All is built."""
    made = tmp_path / "fastpath"
    made.mkdir()
    texts = {
        "one.pyx": "from fastpath.two cimport thing\n",
        "two.pyx": "",
        "two.pxd": "from fastpath.three cimport (\n    other)\n",
        "three.pyx": "",
        "three.pxd": "",
        "four.pyx": "# from fastpath.one cimport nothing\n",
        "lanes.h": "",
    }
    for name, text in texts.items():
        (made / name).write_text(text)
        os.utime(made / name, (OLD, OLD))
    for name in ("one", "two", "three", "four"):
        module = made / f"{name}{EXTENSION_SUFFIXES[0]}"
        module.write_bytes(b"")
        os.utime(module, (BUILT, BUILT))
    return made


def said(folder: Path) -> str:
    return build.why_stale(folder.glob("*.pyx"))


def test_a_whole_build_is_taken(folder: Path) -> None:
    assert said(folder) == ""


@pytest.mark.parametrize(
    ("touched", "first", "more"),
    [
        ("four.pyx", "four", 0),
        ("two.pxd", "one", 1),  # and two itself
        ("three.pxd", "one", 2),  # through two's .pxd
        ("lanes.h", "four", 3),  # setup.py compiles all anew for a header
    ],
)
def test_what_is_newer_is_named(folder: Path, touched: str, first: str, more: int) -> None:
    os.utime(folder / touched, (NEW, NEW))
    text = said(folder)
    assert f"stale build in {folder}: {first}{EXTENSION_SUFFIXES[0]} is older than" in text
    assert touched in text
    assert (f"(and {more} more)" in text) == (more > 0)
    assert text.endswith(f": run {build.MEND} in {folder.parent}")


def test_what_was_never_compiled(folder: Path) -> None:
    (folder / f"two{EXTENSION_SUFFIXES[0]}").unlink()
    assert "two is not compiled" in said(folder)


def test_no_bench_begins_and_none_counts(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(build, "why_stale", lambda: "stale build in X: y is older than y.pyx")
    monkeypatch.setattr(sys, "argv", ["some", "--json"])
    with pytest.raises(SystemExit) as left:
        results.arguments("some", argparse.ArgumentParser())
    assert left.value.code == CANNOT
    assert capsys.readouterr().err == "some: stale build in X: y is older than y.pyx\n"
    # Compiled while it ran, or by a bench with a command line of its own.
    assert Result("some").finish(as_json=False) == NOT_VALID
    assert "INVALID: stale build in X" in capsys.readouterr().out
