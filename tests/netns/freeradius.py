"""A real FreeRADIUS in a namespace, with a folder of its own; what it was told, as it says.

Its configuration is ours and small. Accounting goes to a file of one line a packet, so
that a test can count what arrived, and how often.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import Protocol

import pytest

from tests.netns.spaces import wait_for

SECRET = "testing123-and-longer"
BINARY = "freeradius"
# name=value pairs of one line, in the order of FIELDS
FIELDS = (
    "Acct-Status-Type",
    "Acct-Session-Id",
    "User-Name",
    "Acct-Session-Time",
    "Acct-Input-Octets",
    "Acct-Output-Octets",
    "Acct-Input-Packets",
    "Acct-Output-Packets",
    "Acct-Terminate-Cause",
    "Acct-Delay-Time",
    "Class",
    "Framed-IP-Address",
    "NAS-Port-Type",
    "Tunnel-Client-Endpoint",
    "Framed-IPv6-Prefix",
    "Delegated-IPv6-Prefix",
)

CONFIG = """\
prefix = /usr
logdir = {folder}
run_dir = {folder}
libdir = /usr/lib/freeradius
pidfile = {folder}/pid
max_request_time = 10
cleanup_delay = 5
max_requests = 65536
thread pool {{
	start_servers = 4
	max_servers = 4
	min_spare_servers = 1
	max_spare_servers = 4
	max_requests_per_server = 0
}}
security {{
	reject_delay = 0
	status_server = yes
}}
modules {{
	always ok {{
		rcode = ok
	}}
	mschap {{
		use_mppe = yes
		require_encryption = yes
		require_strong = yes
	}}
	chap {{
	}}
	pap {{
	}}
	files {{
		filename = {folder}/users
	}}
	linelog {{
		filename = {folder}/accounting
		permissions = 0600
		format = "{format}"
	}}
{eap}
}}
client lo {{
	ipaddr = 127.0.0.1
	secret = {secret}
	require_message_authenticator = yes
}}
server default {{
	listen {{
		type = auth
		ipaddr = 127.0.0.1
		port = {port}
	}}
	listen {{
		type = acct
		ipaddr = 127.0.0.1
		port = {acct_port}
	}}
	authorize {{
		mschap
		chap
{eap_authorize}
		files
		pap
	}}
	authenticate {{
		Auth-Type MS-CHAP {{
			mschap
		}}
		Auth-Type CHAP {{
			chap
		}}
		Auth-Type PAP {{
			pap
		}}
{eap_use}
	}}
	post-auth {{
		update reply {{
			&Message-Authenticator := 0x00
		}}
		Post-Auth-Type REJECT {{
			update reply {{
				&Message-Authenticator := 0x00
			}}
		}}
	}}
	accounting {{
		linelog
		ok
	}}
}}
{inner}
"""

EAP = """\
	eap {{
		default_eap_type = {kind}
		timer_expire = 60
		ignore_unknown_eap_types = no
		max_sessions = 4096
		md5 {{
		}}
		gtc {{
			auth_type = PAP
		}}
		mschapv2 {{
		}}
		tls-config common {{
			private_key_file = {folder}/key.pem
			certificate_file = {folder}/cert.pem
			ca_file = {folder}/cert.pem
			fragment_size = 500
			tls_max_version = "1.2"
		}}
		peap {{
			tls = common
			default_eap_type = mschapv2
			virtual_server = inner
		}}
	}}
"""

INNER = """\
server inner {
	authorize {
		mschap
		eap {
			ok = return
		}
		files
	}
	authenticate {
		Auth-Type MS-CHAP {
			mschap
		}
		eap
	}
}
"""


def need() -> None:
    """Skip where there is no FreeRADIUS; under CI that is a failure."""
    if shutil.which(BINARY):
        return
    reason = "needs FreeRADIUS: apt-get install freeradius freeradius-utils"
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


class Place(Protocol):
    """Where it runs."""

    def argv(self, *words: str) -> list[str]:
        """A command line that runs `words` there."""


class FreeRadius:
    """One server; `users` is its users file."""

    def __init__(
        self, space: Place, folder: Path, users: str, *, port: int = 1812, eap: str = ""
    ) -> None:
        need()
        self.space = space
        self.folder = folder
        self.port, self.acct_port = port, port + 1
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "users").write_text(users)
        if eap:
            words = ["-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=test"]
            words += ["-keyout", str(folder / "key.pem"), "-out", str(folder / "cert.pem")]
            subprocess.run(["openssl", "req", *words], check=True, capture_output=True)
        fields = "|".join(f"%{{{name}}}" for name in FIELDS)
        text = CONFIG.format(
            folder=folder,
            secret=SECRET,
            port=self.port,
            acct_port=self.acct_port,
            format=fields,
            eap=EAP.format(folder=folder, kind=eap) if eap else "",
            eap_authorize="\t\teap {\n\t\t\tok = return\n\t\t}" if eap else "",
            eap_use="\t\teap" if eap else "",
            inner=INNER if eap == "peap" else "",
        )
        (folder / "radiusd.conf").write_text(text)
        self.process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> FreeRadius:
        """Start it, or start it again."""
        out = open(self.folder / "output", "ab")  # noqa: SIM115 - for the child
        words = [BINARY, "-f", "-l", "stdout", "-d", str(self.folder), "-n", "radiusd"]
        self.process = subprocess.Popen(
            self.space.argv(*words, "-D", "/usr/share/freeradius"), stdout=out, stderr=out
        )
        out.close()
        said = self.folder / "output"
        before = said.read_bytes().count(b"Ready to process requests")

        def ready() -> bool:
            assert self.process is not None
            assert self.process.poll() is None, said.read_text()
            return said.read_bytes().count(b"Ready to process requests") > before

        wait_for(ready, 20)
        return self

    def kill(self) -> None:
        """As a crash."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    @property
    def accounting(self) -> list[dict[str, str]]:
        """Accounting-Requests that arrived, in order."""
        try:
            lines = (self.folder / "accounting").read_text().splitlines()
        except FileNotFoundError:
            return []
        return [dict(zip(FIELDS, line.split("|"), strict=True)) for line in lines]

    def records(self, kind: str) -> list[dict[str, str]]:
        """Those of one Acct-Status-Type."""
        return [r for r in self.accounting if r["Acct-Status-Type"] == kind]

    def heard(self, kind: str, count: int, seconds: float = 15.0) -> list[dict[str, str]]:
        """Wait for so many of a kind."""
        ends = time.monotonic() + seconds
        while len(found := self.records(kind)) < count:
            assert time.monotonic() < ends, (kind, count, self.accounting)
            time.sleep(0.05)
        return found
