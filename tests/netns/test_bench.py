"""The benches run: a few bursts each. What they find here says nothing."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.bench.results import NOT_MET, NOT_VALID
from tests.netns.spaces import ROOT, need_root

pytestmark = pytest.mark.netns


@pytest.mark.parametrize(
    ("name", "words"),
    [("whole", ("--rounds", "1")), ("tun", ("--bursts", "2")), ("gre", ("--bursts", "2"))],
)
def test_a_bench_ends_with_one_object(name: str, words: tuple[str, ...]) -> None:
    need_root()
    argv = [sys.executable, str(ROOT / "tests" / "bench" / f"{name}.py"), *words, "--json"]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    # Nothing is lost on the way, or it would not come to a result at all.
    assert done.returncode in (0, NOT_MET, NOT_VALID), done.stderr
    found = json.loads(done.stdout)
    assert found["bench"] == name
    assert found["figures"] and found["ratios"]
    assert set(found["met"]) == set(found["goals"])
