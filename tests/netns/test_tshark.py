"""A second opinion on what is on the wire: tshark decodes captured sessions of every kind.

Our client logs in to the real concentrator under each method, with and without MPPE, moves
packets both ways and hangs up; one login fails, one session is ended by the server.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from ops.client.concentrator import Concentrator
from ops.client.playground import Playground, why_not
from tests.netns.test_client import PASSWORD, Client, ping

pytestmark = [pytest.mark.netns, pytest.mark.timeout(180)]

SESSIONS = {  # label: words for the client
    "mschapv2": ("--auth", "mschapv2", "--mppe", "require"),
    "mschapv2-40": ("--auth", "mschapv2", "--mppe", "require", "--strengths", "40"),
    "mschap": ("--auth", "mschap", "--mppe", "require"),
    "chap-md5": ("--auth", "chap-md5", "--mppe", "deny"),
    "pap": ("--auth", "pap", "--mppe", "deny"),
}


def lacking() -> str:
    for program in ("tshark", "tcpdump"):
        if shutil.which(program) is None:
            return f"{program} is missing: apt-get install {program}"
    return why_not()


@dataclass
class Capture:
    """A file of packets, and tshark's words about it."""

    path: Path

    def ask(self, *words: str) -> list[str]:
        done = subprocess.run(
            ["tshark", "-n", "-r", str(self.path), *words],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "HOME": str(self.path.parent)},  # nobody's preferences
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()

    def count(self, what: str) -> int:
        """Packets that match a display filter."""
        return len(self.ask("-Y", what))


@pytest.fixture(scope="module")
def capture(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Capture]:
    """All sessions, one after the other, in one file."""
    if reason := lacking():
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    path = tmp_path_factory.mktemp("capture") / "wire.pcap"
    with Playground() as ground:
        concentrator = Concentrator(
            ground,
            {f"user{i}": PASSWORD for i in range(1, 9)},
            extra={
                "ppp": {"auth": ["mschapv2", "mschap", "chap-md5", "pap"]},
                "mppe": {"policy": "prefer", "strengths": [128, 40]},
                "listen": {"echo_interval_s": 1},
                "workers": {"count": 2},
            },
        )
        concentrator.start()
        argv = [
            "tcpdump",
            "--immediate-mode",
            "-i",
            "wan",
            "-U",
            "-Z",
            "root",
            "-w",
            str(path),
            "ip",
        ]
        sniffer = ground.start("server", "tcpdump", argv)
        until = time.monotonic() + 20
        while "listening on" not in sniffer.log.read_text():
            assert sniffer.alive() and time.monotonic() < until, sniffer.log.read_text()
            time.sleep(0.02)
        for words in SESSIONS.values():
            client = Client(concentrator, "--user", "user1", *words)
            (up,) = client.wait_for("up")
            assert " 0% packet loss" in ping(concentrator, up["address"])
            assert " 0% packet loss" in ping(concentrator, up["address"], "-s", "1300")
            assert client.end() == 0
        wrong = Client(concentrator, "--user", "user1", password="wrong")
        wrong.wait_for("failed")
        wrong.end(0)
        last = Client(concentrator, "--user", "user2")
        last.wait_for("up")
        time.sleep(1.5)  # an Echo-Request of ours
        assert concentrator.stop() == 0
        last.wait_for("down")
        time.sleep(1.5)  # what the kernel still holds for it
        sniffer.stop()
        yield Capture(path)


def test_nothing_is_malformed(capture: Capture) -> None:
    assert capture.count("gre") > 100
    assert capture.ask("-Y", "_ws.malformed or _ws.short") == []
    wrong = capture.ask("-Y", "_ws.expert.severity == error", "-T", "fields", "-e", "_ws.expert")
    assert not wrong


@pytest.mark.parametrize(
    ("what", "least"),
    [
        *((f"pptp.control_message_type == {n}", 1) for n in (1, 2, 3, 4, 5, 6, 7, 8, 12, 13)),
        *((f"lcp and ppp.code == {n}", 1) for n in (1, 2, 5, 6)),
        ("pap.code == 1", 1),
        ("pap.code == 2", 1),
        *((f"chap.code == {n}", 3) for n in (1, 2, 3)),
        ("chap.code == 4", 1),
        ("ccp", 8),
        ("ccp.opt.type == 18", 4),
        *((f"ipcp and ppp.code == {n}", 5) for n in (1, 2, 3)),
        ("ipcp.opt.type == 3", 5),
        ("gre.flags.sequence_number == 0 and gre.flags.ack == 1", 1),  # pure acknowledgement
        ("gre.flags.sequence_number == 1 and gre.flags.ack == 1", 20),
        ("comp_data", 50),
        ("icmp and gre", 40),  # sessions in the clear
    ],
)  # fmt: skip
def test_each_kind_is_recognised(capture: Capture, what: str, least: int) -> None:
    assert capture.count(what) >= least, what


def test_lengths_agree(capture: Capture) -> None:
    """GRE's payload length is what the IP packet holds; PPTP's is what TCP carried."""
    rows = capture.ask(
        *("-Y", "gre and not icmp.type == 3", "-T", "fields"),
        *("-e", "ip.len", "-e", "gre.flags.sequence_number", "-e", "gre.flags.ack"),
        *("-e", "gre.key.payload_length"),
    )
    assert rows
    for row in rows:
        total, has_seq, has_ack, payload = row.split("\t")
        seq, ack = (word in ("1", "True") for word in (has_seq, has_ack))
        assert int(total.split(",")[0]) == 20 + 8 + 4 * seq + 4 * ack + int(payload or 0), row
    rows = capture.ask("-Y", "pptp", "-T", "fields", "-e", "tcp.len", "-e", "pptp.length")
    assert rows
    for row in rows:
        octets, length = row.split("\t")
        assert octets == length, "one message, one segment"


def test_what_is_encrypted_is_not_read(capture: Capture) -> None:
    """Under MPPE no inner address is on the wire; the layers end at the compressed data."""
    stacks = Counter(capture.ask("-Y", "gre", "-T", "fields", "-e", "frame.protocols"))
    assert any(re.search(r"gre:ppp:comp_data", stack) for stack in stacks), stacks
    assert any(re.search(r"gre:ppp:ip:icmp", stack) for stack in stacks), stacks
    assert not any("comp_data:" in stack for stack in stacks), stacks


def test_the_first_lcp_request_is_answered_at_once(capture: Capture) -> None:
    """Trap 4.6: it comes right behind our Outgoing-Call-Reply, and nobody may miss it."""
    server, wait = "198.18.0.1", 1.0
    rows = capture.ask(
        *("-Y", "pptp.control_message_type == 8 or (lcp and (ppp.code == 1 or ppp.code == 2))"),
        *("-T", "fields", "-e", "frame.time_relative", "-e", "ip.src", "-e", "ppp.code"),
    )
    asked: float | None = None
    calls = answered = 0
    for row in rows:
        at, source, code = row.split("\t")
        if not code:
            calls, asked = calls + 1, None
        elif source != server and code == "1" and asked is None:
            asked = float(at)
        elif source == server and code == "2" and asked is not None and answered < calls:
            assert float(at) - asked < wait
            answered += 1
    assert calls == answered == len(SESSIONS) + 2


def test_our_own_end_is_in_order(capture: Capture) -> None:
    """Trap 4.26: Terminate-Request, its Ack, Call-Disconnect-Notify, Stop, and then FIN."""
    rows = capture.ask(
        *("-Y", "pptp or (lcp and ppp.code >= 5 and ppp.code <= 6) or tcp.flags.fin == 1"),
        *("-T", "fields", "-e", "ip.src", "-e", "ppp.code", "-e", "pptp.control_message_type"),
        *("-e", "tcp.flags.fin"),
    )
    steps = []
    for row in rows:
        source, code, control, fin = row.split("\t")
        who = "s" if source == "198.18.0.1" else "c"
        what = f"lcp{code}" if code else f"pptp{control}" if control else "fin" * (fin != "0")
        steps.append(who + what)
    # The last call of all is the one that the concentrator's stop ended.
    last = len(steps) - 1 - steps[::-1].index("cpptp7")
    tail = [step for step in steps[last:] if step not in ("spptp5", "cpptp6")]
    wanted = ["cpptp7", "spptp8", "slcp5", "clcp6", "spptp13"]
    assert tail[: len(wanted)] == wanted, tail
    assert tail.index("spptp3") > tail.index("spptp13"), tail
    assert tail.index("sfin") > tail.index("spptp3"), tail


def test_the_outer_header_tells_nothing(capture: Capture) -> None:
    """TOS 0 and DF clear on all GRE of ours, whatever is inside."""
    ours = "gre and ip.src == 198.18.0.1 and not icmp.type == 3"
    rows = set(capture.ask("-Y", ours, "-T", "fields", "-e", "ip.dsfield", "-e", "ip.flags.df"))
    outer = {tuple(word.split(",")[0] for word in row.split("\t")) for row in rows}
    assert len(outer) == 1
    dsfield, df = outer.pop()
    assert int(dsfield, 16) == 0 and df in ("0", "False")
