"""A pptpd user moves: the configuration of 1999's HOWTO is imported and serves a client."""

from __future__ import annotations

from pathlib import Path

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
