"""ops/package's .deb in a booted system of its own: installed, started under its unit with a real
session, upgraded under that session, removed.

The container's root is this machine's, with all that is written going to memory.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TRIAL = Path(__file__).with_name("package_trial.sh")
UNIT = """[Unit]
Description=The trial of a package
[Service]
Type=oneshot
ExecStart=/bin/bash /trial/trial.sh
StandardOutput=file:/trial/result
StandardError=inherit
"""
STEPS = ["installed", "started", "session", "upgraded under a session", "restarted", "removed"]

pytestmark = [pytest.mark.interop, pytest.mark.slow]


def run(*words: str, timeout: float = 60) -> str:
    done = subprocess.run(words, capture_output=True, text=True, timeout=timeout, check=False)
    assert done.returncode == 0, f"{words}: {done.stdout[-4000:]}{done.stderr[-4000:]}"
    return done.stdout


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one.deb, and two.deb, which is the same with another version."""
    folder = tmp_path_factory.mktemp("dist")
    made = run("bash", str(ROOT / "ops" / "package"), str(folder), timeout=900).split()
    assert [Path(name).suffix for name in sorted(made)] == [".whl", ".gz", ".deb"]
    (first,) = (name for name in made if name.endswith(".deb"))
    shutil.move(first, folder / "one.deb")
    renamed(folder / "one.deb", folder / "two.deb", folder / "tree")
    return folder


def renamed(deb: Path, to: Path, tree: Path) -> None:
    """The package of another build: every place that names the build names another one."""
    run("dpkg-deb", "-R", str(deb), str(tree))
    (home,) = (tree / "usr/lib/pptpcon").iterdir()
    new = home.name + "x"
    texts = [
        *(tree / "DEBIAN" / name for name in ("control", "postinst", "md5sums")),
        home / "bin" / "pptpcon",
    ]
    for text in texts:
        said = text.read_text().replace(home.name, new)
        version = home.name.replace("-", "+", 1)
        text.write_text(said.replace(f"Version: {version}", f"Version: {version}x"))
    home.rename(home.with_name(new))
    run("dpkg-deb", "--root-owner-group", "-Znone", "-b", str(tree), str(to), timeout=120)


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Path]:
    """The root of a system: ours below, memory above."""
    memory = tmp_path / "memory"
    root = tmp_path / "root"
    memory.mkdir()
    root.mkdir()
    run("mount", "-t", "tmpfs", "-o", "size=1g", "trial", str(memory))
    try:
        for name in ("upper", "work"):
            (memory / name).mkdir()
        layers = f"lowerdir=/,upperdir={memory}/upper,workdir={memory}/work"
        run("mount", "-t", "overlay", "-o", layers, "trial", str(root))
        try:
            yield root
        finally:
            run("umount", "-l", str(root))
    finally:
        run("umount", "-l", str(memory))


@pytest.mark.timeout(1200)
def test_a_package_lives(packages: Path, machine: Path) -> None:
    if shutil.which("systemd-nspawn") is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)("no systemd-nspawn")
    trial = machine / "trial"
    trial.mkdir()
    for name in ("one.deb", "two.deb"):
        shutil.copy(packages / name, trial / name)
    shutil.copy(TRIAL, trial / "trial.sh")
    (machine / "etc/systemd/system/trial.service").write_text(UNIT)
    # A machine of its own has an id of its own, and no pptpcon.
    (machine / "etc/machine-id").unlink(missing_ok=True)
    (machine / "etc/machine-id").write_text("0123456789abcdef0123456789abcdef\n")
    container = subprocess.Popen(
        [
            "systemd-nspawn",
            "--quiet",
            "--register=no",
            "--keep-unit",
            "--private-network",
            "--bind=/dev/net/tun",
            f"--directory={machine}",
            "--boot",
            "systemd.unit=trial.service",
        ],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    result = ""
    try:
        # A container is not always seen to power off, so the trial's own last word counts.
        for _ in range(600):
            if (trial / "result").exists():
                result = (trial / "result").read_text(errors="replace")
            if "ok done" in result or "\nfailed: " in result or container.poll() is not None:
                break
            time.sleep(0.5)
    finally:
        container.kill()
        container.wait(30)
    assert [f"ok {step}" for step in [*STEPS, "done"]] == [
        line for line in result.splitlines() if line.startswith("ok ")
    ], result[-6000:]
