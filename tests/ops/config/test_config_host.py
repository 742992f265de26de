"""Files that are no files of ours: what is said of them is short and printable, and said soon."""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest

from fastpath import mppe
from ops.config.host import host_remarks
from ops.config.problems import ConfigError
from ops.config.source import parse
from ops.settings import Accounts, Gre, Mppe, Settings

NOISE = random.Random(8).randbytes(20_000)


@pytest.mark.parametrize(
    "octets",
    [
        NOISE,
        bytes(1000),
        b"anna \x1b[2J\x1b]0;x\x07 geheim *\n",
        b"anna " + b"s" * 5000 + b" geheim *\n",
        b"\x1b[31m * geheim 1.2.3.4/99 \x1b[0m\n",
        b"anna * @/etc/\x1b[2J *\n",
        b'"' * 10_000,
    ],
)
def test_remarks_are_printable_and_short(tmp_path: Path, octets: bytes) -> None:
    secrets = tmp_path / "chap-secrets"
    secrets.write_bytes(octets)
    remarks = list(host_remarks(Settings(accounts=Accounts(chap_secrets=str(secrets))), ""))
    assert remarks
    for remark in remarks:
        assert remark.text.isprintable(), remark
        assert len(remark.text) < 2000
        assert "geheim" not in remark.text


def test_a_kernel_that_this_cpu_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mppe, "usable", lambda: ["portable"])
    assert [r for r in host_remarks(Settings(), "") if r.path == ("mppe", "kernel")] == []
    remarks = host_remarks(Settings(mppe=Mppe(kernel="sha-ni")), "")
    (text,) = (r.text for r in remarks if r.path == ("mppe", "kernel"))
    assert text == 'this CPU can\'t run "sha-ni"; "auto", or one of "portable"'


@pytest.mark.parametrize(
    "text",
    [
        "\n\na.b" + ".c" * 30_000 + " = 1\n",
        "\n\n[a.b" + " . c" * 30_000 + "]\n",
        "\n\n[[a.b" + ".c" * 30_000 + "]]\n",
    ],
)
def test_keys_without_end_are_refused_at_once(text: str) -> None:
    begun = time.monotonic()
    with pytest.raises(ConfigError, match="where:3: TOML: keys are nested too deep"):
        parse(text.encode(), "where")
    assert time.monotonic() - begun < 2


def test_dots_in_a_value_are_its_own() -> None:
    words = ".".join("word" for _ in range(200))
    document, _ = parse(f'[accounts.users]\nanna = "{words}"\n'.encode(), "where")
    assert document["accounts"]["users"]["anna"] == words


def test_an_interface_that_is_not_there() -> None:
    def about(name: str) -> list[str]:
        remarks = host_remarks(Settings(gre=Gre(interface=name)), "")
        return [r.text for r in remarks if r.path == ("gre", "interface")]

    assert about("lo") == about("") == []
    assert about("nosuch0") == ['this host has no interface "nosuch0"; `ip link` lists them']
