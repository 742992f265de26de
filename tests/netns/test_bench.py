"""The benches run: a few bursts each. What they find here says nothing."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.bench import results
from tests.bench.results import NOT_MET, NOT_VALID
from tests.netns.spaces import ROOT, need_root

pytestmark = pytest.mark.netns


BENCHES = {
    "mppe": (),
    "whole": ("--rounds", "1"),
    "tun": ("--bursts", "2"),
    "gre": ("--bursts", "2"),
    "imix": ("--rounds", "1", "--sessions", "100"),
    "routes": ("--repeat", "1"),
    "scrape": ("--sessions", "500", "--scrapes", "2"),
}


@pytest.mark.parametrize("name", BENCHES)
def test_a_bench_ends_with_one_object(name: str) -> None:
    need_root()
    argv = [sys.executable, "-m", f"tests.bench.{name}", *BENCHES[name], "--json"]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False, cwd=ROOT)
    # Nothing is lost on the way, or it would not come to a result at all.
    assert done.returncode in (0, NOT_MET, NOT_VALID), done.stderr
    (line,) = done.stdout.splitlines()
    found = json.loads(line)
    assert found["bench"] == name
    assert found["figures"]
    assert set(found["met"]) == set(found["goals"]) <= set(found["ratios"])
    if not results.like_reference():
        judged = [note for note in found["notes"] if "not judged" in note]
        assert all(results.cpu_name() in note for note in judged)


def test_all_of_them_by_one_command() -> None:
    need_root()
    argv = [sys.executable, "-m", "tests.bench", "--json", "mppe", "routes"]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False, cwd=ROOT)
    assert [json.loads(line)["bench"] for line in done.stdout.splitlines()] == ["mppe", "routes"]
    assert done.returncode in (0, NOT_MET, NOT_VALID), done.stderr
