"""Fixtures of the tests with real clients."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest

from tests.interop import lab
from tests.interop.lab import Concentrator, Topology

NUMBERS = count(1)


def fresh_name() -> str:
    """A topology's name: 1 to 8 letters and digits, of this process alone."""
    return f"p{os.getpid() % 100000}x{next(NUMBERS) % 10}"


@pytest.fixture(autouse=True)
def needs_lab() -> None:
    """Skip where the lab can't run; a build machine has to run it."""
    why = lab.missing()
    if why and os.environ.get("CI") == "true":
        pytest.fail(why)
    if why:
        pytest.skip(why)


@pytest.fixture
def topology() -> Iterator[Topology]:
    """Clients, server and LAN host in namespaces of their own."""
    made = Topology(fresh_name())
    made.up()
    run_dir = made.run_dir()
    try:
        yield made
    finally:
        made.down()
        shutil.rmtree(run_dir, ignore_errors=True)


@pytest.fixture
def concentrator(topology: Topology, tmp_path: Path) -> Iterator[Concentrator]:
    """One that the test starts; it is ended after it, and its log shown if the test failed."""
    made = Concentrator(topology, tmp_path / "concentrator.log")
    try:
        yield made
    finally:
        if hasattr(made, "process") and made.process.poll() is None:
            try:
                made.stop(expect=None)
            finally:
                print(made.tail())  # pytest shows it if the test failed
