"""Debian's pppd logs in by a real FreeRADIUS: every method, and all that an Accept says."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.interop import lab
from tests.interop.lab import Client, Concentrator, Topology
from tests.netns.freeradius import SECRET, FreeRadius

pytestmark = [pytest.mark.interop, pytest.mark.timeout(300)]

USERS = """\
user Cleartext-Password := "secret"
	Framed-IP-Address = 198.19.129.77,
	MS-Primary-DNS-Server = 198.19.0.63,
	Session-Timeout = 600,
	Mikrotik-Rate-Limit = "8M/8M",
	Class = "gold"

DEFAULT Cleartext-Password := "secret", User-Name =~ "^user"
"""
CONFIG = f"""\
[ip]
local = "198.19.128.1"
dns = ["198.19.0.53"]
[pools.default]
ranges = ["198.19.129.1-198.19.129.200"]
[ppp]
auth = ["mschapv2", "mschap", "eap", "chap-md5", "pap"]
[mppe]
policy = "prefer"
[server]
state_dir = "STATE"
[radius]
interim_s = 2
[[radius.servers]]
address = "127.0.0.1"
secret = "{SECRET}"
"""


class Space:
    """The server's namespace, as FreeRadius wants it."""

    def __init__(self, topology: Topology) -> None:
        self._topology = topology

    def argv(self, *words: str) -> list[str]:
        """A command line that runs `words` inside."""
        return self._topology.inside("s", *words)


@pytest.fixture
def server(topology: Topology, tmp_path: Path) -> Iterator[FreeRadius]:
    """FreeRADIUS beside the concentrator."""
    made = FreeRadius(Space(topology), tmp_path / "radius", USERS, eap="mschapv2")
    yield made
    made.kill()


def test_pppd_by_radius(
    topology: Topology, concentrator: Concentrator, server: FreeRadius, tmp_path: Path
) -> None:
    config = tmp_path / "pptpcon.toml"
    config.write_text(CONFIG.replace("STATE", str(tmp_path / "state")))
    config.chmod(0o600)
    concentrator.start(config=config)
    client = Client(topology, "--mb", "5", "--checks", "ping,tcp", log=tmp_path / "v2.log")
    result = client.result()
    assert lab.failures(result) == [], concentrator.tail()
    assert result["mppe_receive"] == result["mppe_send"] == "128-bit stateless"
    assert result["local"] == "198.19.129.77" and result["dns"] == ["198.19.0.63"]
    rates = [c["mbit_per_s"] for c in result["checks"].values() if "mbit_per_s" in c]
    assert rates and all(5.5 < rate < 8.2 for rate in rates), rates
    stop = server.heard("Stop", 1)[0]
    ended: dict[str, Any] = concentrator.json("show", "ends")[0]
    print(stop, ended)
    assert int(stop["Acct-Input-Octets"]) > 5_000_000
    assert int(stop["Acct-Output-Octets"]) > 5_000_000
    assert stop["Class"] == "0x676f6c64" and stop["Acct-Terminate-Cause"] == "User-Request"
    interims = server.records("Interim-Update")
    assert interims
    octets = [int(r["Acct-Input-Octets"]) for r in (*interims, stop)]
    assert octets == sorted(octets)
    waiting = [
        (auth, Client(topology, *words, log=tmp_path / f"{auth}.log"))
        for auth, words in (
            ("mschap", ("--auth", "mschap", "--user", "user1", "--checks", "ping")),
            ("eap", ("--auth", "eap", "--user", "user2", "--checks", "ping")),
            ("pap", ("--auth", "pap", "--mppe", "none", "--user", "user3", "--checks", "ping")),
            ("chap", ("--auth", "chap", "--mppe", "none", "--user", "user4", "--checks", "ping")),
        )
    ]
    for auth, one in waiting:
        result = one.result()
        assert lab.failures(result) == [], (auth, concentrator.tail())
        if auth in ("mschap", "eap"):
            assert result["mppe_send"] == "128-bit stateless", auth
    assert {r["User-Name"] for r in server.heard("Stop", 5)} == {"user", *_numbered(4)}


def _numbered(count: int) -> list[str]:
    return [f"user{n}" for n in range(1, count + 1)]
