"""A pptpd user moves: the configuration of 1999's HOWTO is imported and serves a client."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.interop import lab
from tests.interop.lab import Client, Concentrator, Topology

pytestmark = [pytest.mark.interop, pytest.mark.timeout(120)]

# The HOWTO's three files in section 4, "proxyarp" and "speed" included.
PPTPD = "speed 115200\noption {options}\nlocalip 192.168.0.234-238\nremoteip 192.168.1.234-238\n"
OPTIONS = "debug\nname servername\nauth\nrequire-chap\nproxyarp\n"
SECRETS = "billy servername bob *\n"


def test_the_howtos_example_serves(
    topology: Topology, concentrator: Concentrator, tmp_path: Path
) -> None:
    options = tmp_path / "options"
    options.write_text(OPTIONS)
    secrets = tmp_path / "chap-secrets"
    secrets.write_text(SECRETS)
    secrets.chmod(0o600)
    pptpd = tmp_path / "pptpd.conf"
    pptpd.write_text(PPTPD.format(options=options))
    printed = lab.run(
        *lab.python_command(),
        *("import-config", "pptpd", str(pptpd), "--chap-secrets", str(secrets)),
    )
    config = tmp_path / "pptpcon.toml"
    config.write_text(printed)
    config.chmod(0o600)
    lab.run(*lab.python_command(), "check-config", str(config))
    # the LAN host's default route leads to the concentrator: any pool is reached
    concentrator.start(config=config)
    client = Client(
        topology,
        *("--user", "billy", "--password", "bob", "--auth", "chap", "--mppe", "none"),
        *("--checks", "ping,tcp"),
        log=tmp_path / "c.log",
    )
    result = client.result()
    assert lab.failures(result) == [], concentrator.tail()
    assert result["auth_requested"] == "chap MD5"
    assert result["local"].startswith("192.168.1.23"), result["local"]
    assert result["remote"].startswith("192.168.0.23"), result["remote"]
    concentrator.stop()


# What an administrator changes in Debian's files: addresses, name servers, an account.
DEBIAN = Path(__file__).parents[1] / "golden" / "pptpd" / "debian"
ADDRESSES = "localip 198.19.128.1\nremoteip 198.19.128.10-200\n"
NAMES = "ms-dns 198.19.0.53\nms-dns 198.19.0.54\n"
NOTICED = ("auth_requested", "auth_result", "mppe_receive", "mppe_send", "dns", "remote")


def by_pptpd(tmp_path: Path) -> dict[str, Any]:
    """What a client of Debian's own pptpd gets, with the kernel's MPPE in a guest."""
    topology = Topology(f"d{os.getpid() % 100000}")
    lab.run(str(lab.LAB / "topo"), "up", topology.name, "--server", "guest")
    try:
        said = lab.run(
            str(lab.LAB / "uml-server"),
            *("--topo", topology.name, "--auth", "mschapv2", "--mppe", "128"),
            *("--log", str(tmp_path / "reference.log"), "--", str(lab.LAB / "uml-client")),
            *("--topo", topology.name, "--checks", "ping", "--no-logs"),
            timeout=120,
        )
    finally:
        topology.down()
    found: dict[str, Any] = json.loads(said[said.index("{") : said.rindex("}") + 1])
    return found


@pytest.mark.timeout(240)
def test_a_debian_installation_moves_and_its_clients_notice_nothing(
    topology: Topology, concentrator: Concentrator, tmp_path: Path
) -> None:
    """docs/migrate-pptpd.md, with Debian's sample files; the same client before and after."""
    before = by_pptpd(tmp_path)
    etc = tmp_path / "etc"
    shutil.copytree(DEBIAN, etc)
    for name, text in (
        ("pptpd.conf", ADDRESSES),
        ("ppp/pptpd-options", NAMES),
        ("ppp/chap-secrets", "user pptpd secret *\n"),
    ):
        with open(etc / name, "a", encoding="utf-8") as file:
            file.write(text)
    (etc / "ppp/chap-secrets").chmod(0o600)
    config = tmp_path / "pptpcon.toml"
    config.write_text(
        lab.run(*lab.python_command(), "import-config", "pptpd", str(etc / "pptpd.conf"))
    )
    lab.run(*lab.python_command(), "check-config", str(config))
    concentrator.start(config=config)
    client = Client(topology, "--checks", "ping", log=tmp_path / "c.log")
    after = client.result()
    assert lab.failures(after) == [], concentrator.tail()
    assert before["passed"], before
    assert {key: after[key] for key in NOTICED} == {key: before[key] for key in NOTICED}
    concentrator.stop()
