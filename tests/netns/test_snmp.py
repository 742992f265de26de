"""Debian's snmpd asks `pptpcon snmp`, snmpwalk asks snmpd; our MIB gives the names."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ops.cli import mib
from tests.netns.spaces import ROOT, Space
from tests.ops.console.rig import Shared, console, settings
from tests.ops.console.test_show import open_dir

__all__ = ["open_dir"]
pytestmark = pytest.mark.netns
PORT = 1161
# The IETF's modules are not in Debian: what ours needs of them, for net-snmp's parser.
MODULES = {
    "SNMPv2-SMI": """
        org OBJECT IDENTIFIER ::= { iso 3 }
        dod OBJECT IDENTIFIER ::= { org 6 }
        internet OBJECT IDENTIFIER ::= { dod 1 }
        private OBJECT IDENTIFIER ::= { internet 4 }
        enterprises OBJECT IDENTIFIER ::= { private 1 }
    """,
    "SNMPv2-TC": """
        DisplayString ::= TEXTUAL-CONVENTION
            DISPLAY-HINT "255a" STATUS current DESCRIPTION "Text."
            SYNTAX OCTET STRING (SIZE (0..255))
        TruthValue ::= TEXTUAL-CONVENTION
            STATUS current DESCRIPTION "Truth." SYNTAX INTEGER { true(1), false(2) }
    """,
}


def tools() -> None:
    for name in ("snmpd", "snmpwalk"):
        if shutil.which(name) is None:
            if os.environ.get("CI"):
                pytest.fail(f"{name} is not installed; see TEST_PACKAGES in ops/environment.sh")
            pytest.skip(f"needs {name}")


def test_walk_by_name(space: Space, open_dir: Path) -> None:
    tools()
    shared = Shared()
    for i in range(7):
        shared.up(i, f"user{i}", f"10.99.1.{i + 1}", worker=i % 2)
    shared.count("ended_no_gre", 3)
    shared.set_data(0, rx_data_bytes=5_000_000_000)
    mibs = open_dir / "mibs"
    mibs.mkdir()
    for name, body in MODULES.items():
        (mibs / f"{name}.txt").write_text(f"{name} DEFINITIONS ::= BEGIN\n{body}\nEND\n")
    (mibs / "PPTPCON-MIB.txt").write_text((ROOT / "ops/data/PPTPCON-MIB.txt").read_text())
    base = ".".join(map(str, mib.BASE))
    conf = open_dir / "snmpd.conf"
    command = f"{sys.executable} -m ops snmp --run-dir {open_dir}"
    conf.write_text(
        f"agentaddress udp:127.0.0.1:{PORT}\nrocommunity public 127.0.0.1\n"
        f"pass_persist .{base} {command}\n"
    )
    with console(shared, open_dir, settings(0)):
        log = open_dir / "snmpd.log"
        with log.open("wb") as out:
            snmpd = subprocess.Popen(
                space.argv("snmpd", "-f", "-Lo", "-C", "-c", str(conf), "-I", "-smux", "-r"),
                cwd=ROOT,
                stdout=out,
                stderr=out,
                env={**os.environ, "SNMP_PERSISTENT_DIR": str(open_dir), "MIBS": ""},
            )
        try:
            walk = [
                "snmpbulkwalk", "-v2c", "-cpublic", "-r1", "-t10",
                "-M", f"{mibs}:/usr/share/snmp/mibs", "-m", "PPTPCON-MIB",
                f"127.0.0.1:{PORT}", f".{base}",
            ]  # fmt: skip
            ends = time.monotonic() + 20
            while True:
                done = subprocess.run(
                    space.argv(*walk), capture_output=True, text=True, check=False
                )
                if "pptpconSlotsUsed" in done.stdout:
                    break
                assert time.monotonic() < ends, done.stdout + done.stderr + log.read_text()
            values = dict(
                line.removeprefix("PPTPCON-MIB::").split(" = ", 1)
                for line in done.stdout.splitlines()
                if " = " in line
            )
            assert values["pptpconSlotsUsed.0"] == "Gauge32: 7"
            assert values["pptpconSlotsCapacity.0"] == "Gauge32: 64"
            assert values["pptpconInOctets.0"] == "Counter64: 5000000000"
            assert values["pptpconReady.0"] == "INTEGER: false(2)"
            assert values["pptpconWorkerSessions.1"] == "Gauge32: 4"
            assert values["pptpconRadiusName.1"] == "STRING: one"
            assert values["pptpconRadiusAnswers.2"] == "INTEGER: false(2)"
            assert values["pptpconPoolUsed.1"] == "Gauge32: 7"
            causes = {v for k, v in values.items() if k.startswith("pptpconEndCause.")}
            assert "STRING: no_gre" in causes
            count = sum(k.startswith("pptpcon") for k in values)
            assert count == len([line for line in done.stdout.splitlines() if " = " in line])
            assert "user" not in done.stdout.replace("user_request", "").replace("per_user", "")
            assert not done.stderr, done.stderr
        finally:
            snmpd.terminate()
            snmpd.wait(10)
