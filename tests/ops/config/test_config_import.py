"""import-config pptpd: whole folders against golden files, then single options, then noise."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from ops.config.draft import Imported
from ops.config.load import load_bytes
from ops.config.pptpd.importer import import_pptpd
from ops.config.pptpd.options import _HANDLERS, _REFUSE, _REQUIRE, LOST, SILENT
from ops.config.pptpd.text import Word, conf_lines, option_words
from ops.config.problems import ConfigError
from ops.settings import Settings

GOLDEN = Path(__file__).parents[2] / "golden" / "pptpd"


@pytest.mark.parametrize("name", ["seed", "debian", "old", "hooks"])
def test_golden(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """seed: the HOWTO of 1999. debian: the package's files. old: everything odd at once.
    hooks: scripts of pppd.
    """
    monkeypatch.chdir(GOLDEN)
    result = import_pptpd(f"{name}/pptpd.conf", hostname="box")
    here = str(GOLDEN)
    assert result.toml.replace(here, "@HERE@") == (GOLDEN / name / "out.toml").read_text()
    notes = "".join(f"{note}\n" for note in result.notes).replace(here, "@HERE@")
    assert notes == (GOLDEN / name / "out.notes").read_text()


def run(tmp_path: Path, conf: str, options: str = "", secrets: str = "") -> Imported:
    (tmp_path / "ppp").mkdir(exist_ok=True)
    (tmp_path / "pptpd.conf").write_text(conf)
    (tmp_path / "ppp" / "options").write_text(options)
    (tmp_path / "ppp" / "chap-secrets").write_text(secrets)
    return import_pptpd(str(tmp_path / "pptpd.conf"), hostname="box")


def settings(tmp_path: Path, conf: str, options: str = "") -> Settings:
    return load_bytes(run(tmp_path, conf, options).toml.encode(), "f.toml").settings


def test_the_seed_serves_five(tmp_path: Path) -> None:
    s = settings(
        tmp_path,
        "speed 115200\nlocalip 192.168.0.234-238\nremoteip 192.168.1.234-238\n",
        "debug\nname servername\nauth\nrequire-chap\nproxyarp\n",
    )
    assert s.pools[0].ranges == ("192.168.1.234-238",)
    assert s.ip.local == "192.168.0.234-238"
    assert (s.server.name, s.ppp.auth, s.mppe.policy) == ("servername", ("chap-md5",), "deny")


@pytest.mark.parametrize(
    ("options", "auth"),
    [
        ("require-mschap-v2", ("mschapv2",)),
        ("+chapms-v2 +chapms +chap +pap", ("mschapv2", "mschap", "chap-md5", "pap")),
        ("require-pap require-pap refuse-pap", ("mschapv2",)),
        ("refuse-pap require-pap", ("pap",)),
        ("auth", ("mschapv2", "mschap", "chap-md5", "pap")),
        ("auth refuse-pap refuse-chap refuse-mschap", ("mschapv2",)),
        ("auth -pap -chap", ("mschapv2", "mschap")),
        ("noauth", ("mschapv2",)),
        ("require-eap", ("mschapv2",)),
        ("", ("mschapv2",)),
        ("require-chap require-mppe", ("mschapv2",)),
    ],
)
def test_authentication(tmp_path: Path, options: str, auth: tuple[str, ...]) -> None:
    assert settings(tmp_path, "debug\n", options).ppp.auth == auth


@pytest.mark.parametrize(
    ("options", "policy", "strengths"),
    [
        ("require-mppe", "require", (128, 40)),
        ("require-mppe-128", "require", (128,)),
        ("require-mppe-40", "require", (40,)),
        ("require-mppe-40 require-mppe-128", "require", (128, 40)),
        ("require-mppe nomppe-40", "require", (128,)),
        ("mppe required,no40,no56,stateless", "require", (128,)),
        ("mppe-40 mppe-128 mppe-stateless", "prefer", (128, 40)),
        ("+mppe-128", "prefer", (128,)),
        ("nomppe", "deny", (128,)),
        ("noccp", "deny", (128,)),
        ("", "prefer", (128, 40)),
    ],
)
def test_encryption(tmp_path: Path, options: str, policy: str, strengths: tuple[int, ...]) -> None:
    mppe = settings(tmp_path, "debug\n", f"require-mschap-v2 {options}").mppe
    assert (mppe.policy, mppe.strengths) == (policy, strengths)


def test_addresses_past_connections_are_never_used(tmp_path: Path) -> None:
    s = settings(tmp_path, "connections 7\nremoteip 10.0.0.1-5,10.0.1.1-5,10.0.2.1\n")
    assert s.pools[0].ranges == ("10.0.0.1-5", "10.0.1.1-2")
    assert s.limits.max_sessions == 7
    result = run(tmp_path, "remoteip 10.0.0.1-254\n")
    assert 'ranges = ["10.0.0.1-100"]' in result.toml
    assert 'add "10.0.0.101-254"' in result.toml
    assert any("uses 100 of these 254" in note for note in result.notes)


def test_pptpd_s_own_defaults(tmp_path: Path) -> None:
    s = settings(tmp_path, "debug\n")
    assert (s.ip.local, s.pools[0].ranges) == ("192.168.0.1-100", ("192.168.1.1-100",))
    assert s.limits.max_sessions == 100


def test_localip_is_never_given_away(tmp_path: Path) -> None:
    s = settings(tmp_path, "localip 10.0.0.1\nremoteip 10.0.0.1-9\n")
    assert s.pools[0].ranges == ("10.0.0.2-9",)
    s = settings(tmp_path, "localip 10.0.0.1-9\nremoteip 10.0.0.1-9\n")
    assert s.pools[0].ranges == ("10.0.0.1-9",)
    assert s.ip.local == Settings().ip.local


def test_delegate(tmp_path: Path) -> None:
    result = run(tmp_path, "delegate\nlocalip 10.0.0.1\n", "10.8.0.100:\n")
    assert 'local = "10.8.0.100"' in result.toml
    assert any("fourth column of chap-secrets" in note for note in result.notes)


def test_the_name_of_the_host_and_domain(tmp_path: Path) -> None:
    assert settings(tmp_path, "debug\n").server.name == "box"
    assert settings(tmp_path, "debug\n", "domain example.org").server.name == "box.example.org"
    assert settings(tmp_path, "debug\n", "domain x\nname srv").server.name == "srv"


def test_files_include_each_other_once(tmp_path: Path) -> None:
    path = tmp_path / "ppp" / "options"
    result = run(tmp_path, "debug\n", f"file {path}\ncall isp\nms-dns 10.0.0.9\n")
    assert any("was read already" in note for note in result.notes)
    assert any("call isp: no such file" in note for note in result.notes)
    assert 'dns = ["10.0.0.9"]' in result.toml


def test_a_missing_options_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "pptpd.conf").write_text("option /nowhere/options.pptpd\n")
    result = import_pptpd(str(tmp_path / "pptpd.conf"), secrets="/nowhere/chap", hostname="box")
    assert any("/nowhere/options.pptpd: no such file" in note for note in result.notes)
    assert any("/nowhere/chap: no such file" in note for note in result.notes)


def test_secrets_and_passwords_are_not_told(tmp_path: Path) -> None:
    result = run(
        tmp_path,
        "debug\n",
        "name s\nuser x\npassword geheim1\nradius-secret geheim2\n+ua geheim3\n",
        "a other geheim4 *\nb geheim5\n",
    )
    assert "geheim" not in result.toml
    assert "geheim" not in "\n".join(result.notes)


@pytest.mark.parametrize(
    "data", [b"", b"# nothing\n", b"\0\1\2", b"root:x:0:0\nbin:x:1:1\n", b"[pptp]\nverbose=1\n"]
)
def test_what_is_no_pptpd_conf(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "x"
    path.write_bytes(data)
    with pytest.raises(ConfigError, match=r"x: is no pptpd\.conf: "):
        import_pptpd(str(path))


def test_what_cannot_be_read(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none"):
        with pytest.raises(ConfigError, match="can't be read"):
            import_pptpd(str(path))


def test_words_are_split_as_pppd_does() -> None:
    text = 'a "b c" \'d"e\' f\\ g\\x41\\101 # no\nh\\\ni "j\nk" l#m\n'
    assert list(option_words(text)) == [
        Word(1, "a"), Word(1, "b c", False), Word(1, 'd"e', False), Word(1, "f gAA"),
        Word(2, "hi"), Word(3, "j\nk", False), Word(4, "l"),
    ]  # fmt: skip


def test_lines_of_pptpd_conf() -> None:
    found = [
        (line.number, line.key, line.value) for line in conf_lines("\n debug\nlocalip\ta, b # c")
    ]
    assert found == [(2, "debug", ""), (3, "localip", "a, b")]
    # White space to Python, but not to pptpd.
    assert [line.key for line in conf_lines("\x1c\n\x85\x1d x")] == ["\x1c", "\x85\x1d"]


options = st.sampled_from([*SILENT, *LOST, *_HANDLERS, *_REQUIRE, *_REFUSE, "wibble", "10.0.0.1:"])
arguments = st.one_of(
    st.just(""), st.integers(-5, 99999).map(str), st.sampled_from(["10.0.0.1", "x,y", '"', "\\"]),
    st.text(max_size=5),
)  # fmt: skip
conf_keys = st.sampled_from(
    ["option", "debug", "stimeout", "delegate", "connections", "localip", "remoteip", "listen",
     "vrf", "ppp", "speed", "x"]
)  # fmt: skip
conf_values = st.one_of(
    arguments, st.text("0123456789.,-/ ", max_size=20),
    st.sampled_from(["10.0.0.1-9", "10.0-255.0-255.1,10.1.1.1", "0-255.1.1.1", "127.0.0.1"]),
)  # fmt: skip


def lines(keys: st.SearchStrategy[str], values: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    line = st.tuples(keys, values).map(" ".join)
    return st.lists(line, max_size=8).map("\n".join)


@hypothesis_settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40,
                     deadline=None)  # fmt: skip
@given(lines(conf_keys, conf_values), lines(options, arguments), st.binary(max_size=40))
def test_noise_gives_valid_toml_or_a_message(
    tmp_path: Path, conf: str, opts: str, secrets: bytes
) -> None:
    (tmp_path / "ppp").mkdir(exist_ok=True)
    (tmp_path / "pptpd.conf").write_text(conf, "utf-8", "surrogateescape")
    (tmp_path / "ppp" / "options").write_text(opts)
    (tmp_path / "ppp" / "chap-secrets").write_bytes(secrets)
    try:
        result = import_pptpd(str(tmp_path / "pptpd.conf"), hostname="box")
    except ConfigError as e:
        assert re.search("is no pptpd.conf", e.problems[0])
        return
    assert isinstance(load_bytes(result.toml.encode(), "f.toml").settings, Settings)
    assert all(note.isprintable() for note in result.notes)


@hypothesis_settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40,
                     deadline=None)  # fmt: skip
@given(st.binary(max_size=200), st.binary(max_size=100))
def test_any_octets(tmp_path: Path, conf: bytes, opts: bytes) -> None:
    (tmp_path / "ppp").mkdir(exist_ok=True)
    (tmp_path / "pptpd.conf").write_bytes(b"debug\n" + conf.replace(b"\0", b""))
    (tmp_path / "ppp" / "options").write_bytes(opts)
    try:
        import_pptpd(str(tmp_path / "pptpd.conf"), hostname="box", secrets="/nowhere")
    except ConfigError as e:
        assert "is no pptpd.conf" in e.problems[0]
