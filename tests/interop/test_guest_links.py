"""Network devices that this kernel may lack, in the lab's guest with Debian's kernel."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.interop import lab

pytestmark = [pytest.mark.interop, pytest.mark.timeout(600)]

KERNEL = Path("/var/cache/pptp-lab/kernel")
ROOT = Path(__file__).resolve().parents[2]
DATAGRAMS = "tests/netns/test_odd_links.py::test_a_tun_takes_datagrams_of_one_size"


def test_odd_devices_and_no_udp_segmentation() -> None:
    """VLAN, QinQ, macvlan, bond, GRE, IPIP; and a kernel that takes no UDP super-packets."""
    if not shutil.which("qemu-system-x86_64"):
        if os.environ.get("CI") == "true":
            pytest.fail("needs qemu-system-x86 (ops/test installs it)")
        pytest.skip("needs qemu-system-x86 (ops/test installs it)")
    guest = [str(lab.LAB / "qemu-bench-guest")]
    if not KERNEL.is_dir():
        subprocess.run([*guest, "prepare"], check=True, timeout=300)
    guest += ["run", "--time-limit", "300", "--"]
    tests = f"{sys.executable} -m pytest -q -p no:cacheprovider tests/netns/odd_devices.py"
    done = subprocess.run(
        [*guest, "sh", "-c", f"modprobe tun && exec {tests} {DATAGRAMS}"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
