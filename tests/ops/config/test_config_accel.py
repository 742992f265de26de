"""import-config accel-ppp: a provider's file against golden ones, then every key, then noise."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from ops.config.accel.importer import _KEYS, import_accel
from ops.config.accel.words import LOST, MODULES, OTHER_SERVICES, SILENT
from ops.config.draft import Imported
from ops.config.load import load_bytes
from ops.config.problems import ConfigError
from ops.settings import Settings

GOLDEN = Path(__file__).parents[2] / "golden" / "accel"
ISP = GOLDEN / "isp" / "accel-ppp.conf"


def run(tmp_path: Path, text: str) -> Imported:
    path = tmp_path / "accel-ppp.conf"
    path.write_text(text)
    return import_accel(str(path), hostname="box")


def settings(tmp_path: Path, text: str) -> Settings:
    return load_bytes(run(tmp_path, text).toml.encode(), "f.toml").settings


def test_golden(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(GOLDEN)
    result = import_accel("isp/accel-ppp.conf", hostname="box")
    assert result.toml == (GOLDEN / "isp" / "out.toml").read_text()
    assert (
        "".join(f"{note}\n" for note in result.notes) == (GOLDEN / "isp" / "out.notes").read_text()
    )


def test_no_secret_is_told() -> None:
    """Notes go to a terminal and into tickets; only the TOML has what the file had."""
    result = import_accel(str(ISP), hostname="box")
    assert "s3cret" in result.toml
    assert "s3cret" not in "".join(result.notes)
    assert "s3cret" not in "".join(
        line for line in result.toml.splitlines() if line.startswith("#")
    )


def test_a_faulty_secret_is_not_told(tmp_path: Path) -> None:
    text = ISP.read_text().replace("server=192.0.2.10,", "server=192.0.2.300,")
    result = run(tmp_path, text)
    assert any("address" in note and ":55" in note for note in result.notes)
    assert "s3cret#one" not in "".join(result.notes)


def test_every_key_is_known(tmp_path: Path) -> None:
    """All of the manual's keys at once: none is reported as unknown."""
    lines = ["[modules]", *MODULES]
    for section, key in sorted({*_KEYS, *SILENT, *LOST}):
        lines += [f"[{section}]", f"{'anything' if key == '*' else key}=1"]
    for section in OTHER_SERVICES:
        lines += [f"[{section}]", "verbose=1", "interface=eth0"]
    lines += ["[client-ip-range]", "disable"]
    notes = run(tmp_path, "\n".join(lines)).notes
    assert not [note for note in notes if "nothing was made of it" in note]


def test_unknown_keys_have_their_line(tmp_path: Path) -> None:
    notes = run(tmp_path, "[pptp]\nverbose=1\nport=1723\nbnid=1.2.3.4\n").notes
    assert any(
        note.endswith("accel-ppp.conf:4: [pptp] bnid: unknown; nothing was made of it")
        for note in notes
    )


@pytest.mark.parametrize(
    "text",
    ["", "# only\n", "localip 1.2.3.4\nremoteip 1.2.3.5\n", "[x]\ny=1\n", "\0", "<html>\n"],
)
def test_what_is_no_accel_file(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError, match=r"is no accel-ppp\.conf"):
        run(tmp_path, text)


@pytest.mark.parametrize(
    ("text", "policy"),
    [
        ("[modules]\nauth_mschap_v2\n[ppp]\nmppe=require", "require"),
        ("[modules]\nauth_mschap_v2\n[ppp]\nmppe=require\n[pptp]\nmppe=deny", "deny"),
        ("[modules]\nauth_mschap_v2\n[ppp]\nverbose=1", "prefer"),
        ("[modules]\nauth_mschap_v2\n[pptp]\nmppe=allow", "prefer"),
        ("[modules]\nauth_mschap_v2\n[ppp]\nccp=0\nmppe=require", "deny"),
        ("[modules]\nauth_pap\nauth_chap_md5\n[ppp]\nverbose=1", "deny"),
    ],
)
def test_mppe(tmp_path: Path, text: str, policy: str) -> None:
    assert settings(tmp_path, text).mppe.policy == policy


def test_pools(tmp_path: Path) -> None:
    s = settings(
        tmp_path,
        "[modules]\npptp\nippool\n[pptp]\nip-pool=b\n[ip-pool]\ngw=10.0.0.1-4\n"
        "10.1.0.0/30,name=a\ntunnel=10.1.0.2-9,b,next=a\n",
    )
    assert s.ip.local == "10.0.0.1-4"
    assert s.ip.pool == "b"
    assert {pool.name: (pool.ranges, pool.next) for pool in s.pools} == {
        "a": (("10.1.0.0-3",), ""),
        "b": (("10.1.0.4-9",), "a"),
    }


def test_pools_of_ipv6(tmp_path: Path) -> None:
    s = settings(
        tmp_path,
        "[modules]\npptp\nauth_mschap_v2\n[ppp]\nipv6=allow\n[pptp]\nipv6-pool-delegate=far\n[ipv6-pool]\n"
        "2001:db8:1::/48,64\n2001:db8:2::/48,64,name=more\ndelegate=2001:db8:8000::/36,56,name=far\n"
        "attr-prefix=Delegated-IPv6-Prefix-Pool\n[ipv6-dns]\n2001:db8::53\ndnssl=example.net.\n"
        "[ipv6-dhcp]\npref-lifetime=600\nvalid-lifetime=1200\n",
    ).ipv6
    assert (s.ipv6cp, s.pool, s.delegated_pool) == ("on", "default6", "far")
    assert {pool.name: (pool.prefixes, pool.length) for pool in s.pools} == {
        "default6": (("2001:db8:1::/48",), 64),
        "more": (("2001:db8:2::/48",), 64),
        "far": (("2001:db8:8000::/36",), 56),
    }
    assert (s.dns, s.search) == (("2001:db8::53",), ("example.net",))
    assert (s.preferred_lifetime_s, s.valid_lifetime_s) == (600, 1200)


def test_obsolete_servers_are_joined(tmp_path: Path) -> None:
    s = settings(
        tmp_path,
        "[modules]\npptp\nradius\n[radius]\nauth-server=192.0.2.1:1645,geheim12\n"
        "acct-server=192.0.2.1:1646,geheim12\ndae-server=192.0.2.9:3799,anders12\n",
    )
    (server,) = s.radius.servers
    assert (server.auth_port, server.acct_port) == (1645, 1646)
    assert [client.address for client in s.radius.clients] == ["192.0.2.1"]


def test_secrets_file(tmp_path: Path) -> None:
    secrets = tmp_path / "chap-secrets"
    secrets.write_text("u * p *\n")
    s = settings(
        tmp_path,
        f"[modules]\npptp\nchap-secrets\n[chap-secrets]\nchap-secrets={secrets}\nencrypted=1\n"
        "gw-ip-address=10.9.0.1/24\n",
    )
    assert (s.accounts.chap_secrets, s.accounts.nt_hashes) == (str(secrets), True)
    assert s.ip.local == "10.9.0.1"


_LISTS = {"modules", "ip-pool", "ipv6-pool", "ipv6-dns", "ipv6-dhcp"}
_SECTIONS = sorted(
    {s for s, _ in {*_KEYS, *SILENT, *LOST}}
    | {"modules", "ip-pool"}
    | {"ipv6-pool", "ipv6-dns", "ipv6-dhcp"}
)
_LINE = st.one_of(
    st.sampled_from([f"[{name}]" for name in _SECTIONS]),
    st.builds(
        "{}={}".format,
        st.sampled_from(sorted({key for _, key in _KEYS} | {"server", "gw", "delegate", "dns"})),
        st.one_of(
            st.sampled_from(["0", "-1", "", "require", "1.2.3.4", "1.2.3.4,x", "10/min", ",,,"]),
            st.text(max_size=20),
        ),
    ),
    st.text(max_size=30),
)


@hypothesis_settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=150
)
@given(st.lists(_LINE, max_size=25))
def test_any_text_is_taken_or_refused_in_words(tmp_path: Path, lines: list[str]) -> None:
    path = tmp_path / "any.conf"
    path.write_text("[pptp]\nverbose=1\n" + "\n".join(lines), errors="surrogateescape")
    try:
        result = import_accel(str(path), hostname="box")
    except ConfigError as e:
        assert e.problems
    else:
        load_bytes(result.toml.encode(), "f.toml")
