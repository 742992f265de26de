"""Files that are no files of ours: what is said of them is short and printable, and said soon."""

from __future__ import annotations

import hashlib
import random
import time
from pathlib import Path

import pytest

from fastpath import mppe
from ops.config.host import host_remarks
from ops.config.load import load_file
from ops.config.problems import ConfigError
from ops.config.source import parse
from ops.settings import Accounts, Gre, Mppe, Settings, dumps

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


def test_tokens_go_on_as_digests_only(tmp_path: Path) -> None:
    secret = "0123456789abcdef0123456789abcdef"
    (tmp_path / "tokens").write_text(f"# of the wall display\n{secret}\n\n")
    (tmp_path / "tokens").chmod(0o640)
    (tmp_path / "word").write_text("accel\n")
    (tmp_path / "word").chmod(0o600)
    file = tmp_path / "f.toml"
    file.write_text(
        '[console]\ntoken_file = "tokens"\naccel_cmd = "192.0.2.1:2001"\n'
        'accel_cmd_password_file = "word"\n'
    )
    loaded = load_file(str(file))
    assert loaded.settings.console.token_digests == (hashlib.sha256(secret.encode()).hexdigest(),)
    assert loaded.settings.console.accel_cmd_digest == hashlib.sha256(b"accel").hexdigest()
    assert secret not in dumps(loaded.settings).decode()
    assert "token_digests" not in repr(loaded.settings)
    assert any("console.accel_cmd: the password" in text for text in loaded.warnings)


@pytest.mark.parametrize(
    ("content", "mode", "text"),
    [
        (None, 0, "no such file"),
        (b"", 0o600, "must hold 1 to 100 lines, holds 0"),
        (b"short\n", 0o600, "20 or more printable ASCII"),
        (b"two words that are long enough\n", 0o600, "without spaces"),
        (b"\xff" * 40, 0o600, "printable ASCII"),
    ],
)
def test_token_files_that_hold_no_token(
    tmp_path: Path, content: bytes | None, mode: int, text: str
) -> None:
    if content is not None:
        (tmp_path / "tokens").write_bytes(content)
        (tmp_path / "tokens").chmod(mode)
    file = tmp_path / "f.toml"
    file.write_text('[console]\ntoken_file = "tokens"\n')
    with pytest.raises(ConfigError) as caught:
        load_file(str(file))
    assert any("f.toml:2: console.token_file: " in p and text in p for p in caught.value.problems)


def test_a_token_others_can_read_and_accel_cmd_for_all(tmp_path: Path) -> None:
    (tmp_path / "tokens").write_text("0123456789abcdef0123456789abcdef\n")
    (tmp_path / "tokens").chmod(0o644)
    file = tmp_path / "f.toml"
    file.write_text('[console]\ntoken_file = "tokens"\n')
    assert any("chmod o=" in text for text in load_file(str(file)).warnings)
    file.write_text('[console]\naccel_cmd = "0.0.0.0:2001"\n')
    with pytest.raises(ConfigError) as caught:
        load_file(str(file))
    assert "accel_cmd_password_file" in caught.value.problems[0]
