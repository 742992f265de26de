"""ops/data/pptpcon.service: systemd reads it, and finds little that is left open."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

UNIT = Path(__file__).parents[3] / "ops" / "data" / "pptpcon.service"
MOST_EXPOSED = 40  # tenths; systemd calls up to 4.9 "OK", and root without sandbox is 9.6

pytestmark = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None and not os.environ.get("CI"),
    reason="systemd-analyze is not installed",
)


@pytest.fixture
def unit(tmp_path: Path) -> Path:
    """The unit with a program that exists here."""
    copy = tmp_path / UNIT.name
    text = UNIT.read_text("utf-8").replace("/opt/pptpcon/current/bin/pptpcon", sys.executable)
    copy.write_text(text, "utf-8")
    return copy


def analyze(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["systemd-analyze", *words], capture_output=True, text=True, timeout=60, check=False
    )


def test_systemd_understands_every_line(unit: Path) -> None:
    done = analyze("verify", "--man=no", str(unit))
    complaints = [line for line in done.stderr.splitlines() if UNIT.name in line]
    assert not complaints, done.stderr


def test_the_sandbox_stays_tight(unit: Path) -> None:
    done = analyze("security", "--offline=true", "--no-pager", f"--threshold={MOST_EXPOSED}",
                   str(unit))  # fmt: skip
    found = re.search(r"Overall exposure level.*?: ([0-9.]+)", done.stdout)
    assert found, done.stderr
    assert done.returncode == 0, f"{found[0]}\n{done.stdout}"
    assert float(found[1]) * 10 <= MOST_EXPOSED
