"""Each client family's octets against our control connection and our PPP link."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.clients.script import Player, Script, ScriptError

HERE = Path(__file__).parent
FILES = sorted(HERE.glob("*.replay"))


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
@pytest.mark.parametrize("cut", [0, 1, 100])
def test_client(path: Path, cut: int) -> None:
    """As it is, octet by octet, and in odd segments."""
    player = Player(Script.read(path))
    player.segment = cut
    player.play()
    assert player.finished is not None or player.up is not None


def test_the_families_are_there_and_in_the_table() -> None:
    table = (HERE / "README.md").read_text()
    named = set(re.findall(r"`([\w-]+)\.replay`", table))
    assert named == {path.stem for path in FILES}
    families = " ".join(Script.read(path).head["family"] for path in FILES)
    for family in (
        *("Windows 98", "Windows 2000", "Windows XP", "Windows 10", "RouterOS", "TP-Link"),
        *("Android", "pptp-linux", "Cisco"),
    ):
        assert family in families


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("c< 009c", "c< 009d", "at octet 0"),
        ("up address=10.99.1.2", "up address=10.99.1.3", "'address': '10.99.1.2'"),
        ("mppe=128", "mppe=40", "'mppe': '128'"),
        ("p< lcp 04", "p< lcp 03", "at octet 2"),
        ("quiet\n", "p< lcp 01 ..\n", "said nothing"),
    ],
)
def test_the_player_sees_what_differs(tmp_path: Path, old: str, new: str, says: str) -> None:
    text = (HERE / "windows-10.replay").read_text()
    assert old in text
    path = tmp_path / "broken.replay"
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(ScriptError, match=re.escape(says)):
        Player(Script.read(path)).play()
