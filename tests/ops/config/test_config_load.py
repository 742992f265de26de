"""ops.config: what a file may say, what it is told, and that it becomes Settings."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from ops import settings
from ops.boot import make_memfd, read_memfd
from ops.config import schema
from ops.config.defaults import embedded
from ops.config.example import example
from ops.config.load import Loaded, load_bytes, load_file, load_overrides
from ops.config.overrides import VARIABLE
from ops.config.problems import ConfigError
from ops.config.show import MASK, to_toml
from ops.config.source import MAX_BYTES
from ops.settings import Settings

ROOT = Path(__file__).parents[3]
USERS = "[accounts.users]\nbob = 'secret-of-bob'\n"


def problems(text: str | bytes, *overrides: str) -> list[str]:
    data = text.encode() if isinstance(text, str) else text
    with pytest.raises(ConfigError) as caught:
        load_bytes(data, "f.toml", overrides)
    return caught.value.problems


def load(text: str, *overrides: str) -> Loaded:
    return load_bytes(text.encode(), "f.toml", overrides)


# Schema and ops.settings


def test_sections_are_those_of_settings() -> None:
    assert set(schema.SECTIONS) | {"pools", "filters"} == {f.name for f in fields(Settings)}


@pytest.mark.parametrize("name", sorted(schema.SECTIONS))
def test_keys_and_defaults_are_those_of_settings(name: str) -> None:
    ours = schema.SECTIONS[name].model_fields
    theirs = getattr(Settings(), name)
    assert is_dataclass(theirs)
    assert list(ours) == [f.name for f in fields(theirs) if not f.metadata.get("made")]
    for key, field in ours.items():
        default = field.get_default()
        if key == "users":
            default = tuple(default.items())
        assert default == getattr(theirs, key), key
        assert field.description, f"{name}.{key} has no description"


def test_account_rules() -> None:
    text = USERS + '[[accounts.rules]]\nmatch = "SALES\\\\*"\nmppe = "prefer"\n'
    text += '[[accounts.rules]]\nmatch = "bob"\nstrengths = [56, 40]\nauth = ["pap"]\n'
    loaded = load(text)
    assert loaded.settings.accounts.rules == (
        settings.AccountRule("SALES\\*", mppe="prefer"),
        settings.AccountRule("bob", strengths=(56, 40), auth=("pap",)),
    )
    assert [w for w in loaded.warnings if "rules" in w] == [
        "f.toml:9: warning: accounts.rules[2].auth: pap: none of them is in ppp.auth, so nobody"
        " whom this rule matches can log in"
    ]
    assert problems(USERS + '[[accounts.rules]]\nmppe = "no"\nmatches = ""\n') == [
        "f.toml:3: accounts.rules[1].match: is required",
        'f.toml:4: accounts.rules[1].mppe: must be "", "require", "prefer" or "deny", got "no"',
        "f.toml:5: accounts.rules[1].matches: unknown key, did you mean match?",
    ]


def test_domain_policies() -> None:
    head = "[accounts]\nchap_secrets = 'x'\n"
    assert problems(head + 'domain = "map"\n') == [
        'f.toml:3: accounts.domain: "map" needs accounts.domain_map, got "map"'
    ]
    (warning,) = load(head + 'domain_allow = ["A"]\n').warnings
    assert warning == (
        'f.toml:3: warning: accounts.domain_allow: is not used unless accounts.domain = "allow"'
    )
    (problem,) = problems(head + 'domain = "map"\ndomain_map = ["A"]\n')
    assert problem.endswith('must be "OLD=NEW", or "OLD=" for none, got "A"')


@pytest.mark.parametrize("text", ["::", "fe80::1", "1", "10.0.0.1", "x"])
def test_interface_identifiers(text: str) -> None:
    (problem,) = problems(f'[ipv6]\ninterface_id = "{text}"\n{USERS}')
    assert "must be the low half of an IPv6 address and not zero" in problem


def test_eap_and_encryption() -> None:
    assert load('[ppp]\nauth = ["eap"]\n' + USERS).warnings == ()
    (problem,) = problems('[ppp]\nauth = ["eap"]\neap = ["md5"]\n' + USERS)
    assert "offers only eap, which give no keys" in problem


def test_an_interface_is_for_packet_sockets() -> None:
    (problem,) = problems('[gre]\nmode = "raw"\ninterface = "lo"\n' + USERS)
    assert problem.startswith("f.toml:3: gre.interface: is for packet sockets")
    assert load('[gre]\ninterface = "lo"\n' + USERS).settings.gre.interface == "lo"
    for name in ("sixteen-letters-", "a b", "a/b"):
        assert problems(f'[gre]\ninterface = "{name}"\n' + USERS)


def test_an_empty_file_is_the_defaults() -> None:
    loaded = load("")
    assert loaded.settings == Settings()
    assert [w.split(": ")[2] for w in loaded.warnings] == ["accounts"]


def test_the_example_is_up_to_date_and_means_the_defaults() -> None:
    text = (ROOT / "ops/config/example.toml").read_text("utf-8")
    assert text == example(), "run: python -m ops.config.example > ops/config/example.toml"
    assert load(text).settings == Settings()
    # With every key taken in, it is still the defaults.
    full = re.sub(r"^#(?=[a-z_]+ = )", "", text, flags=re.M)
    settings_ = load(full).settings
    assert settings_.accounts.users == (("alice", "a long password"),)
    assert load(full.replace("alice =", "#alice =")).settings == Settings()


# Messages

BAD = """\
mtu = 1400
[ppp]
mtu = 9000
mtuu = 3
auth = [
  "mschapv2",
  "mschap3",
]
mss_clamp = 1
restart_interval_s = nan
[limmits]
max_sessions = 1
[listen]
start_timeout = 4
port = "1723"
address = "1.2.3"
[accounts.users]
bob = 5
alice = ""
"x\\ty" = "secret-of-x"
[pools.a]
ranges = ["10.0.0.0/24", "10.0.0.5-9"]
[pools."b c"]
ranges = []
[pools.c]
range = 1
[ip]
pool = "x"
dns = ["10.0.0.300", "1.1.1.1", "1.1.1.2"]
[mppe]
strengths = [57]
[metrics]
listen = "9723"
[workers]
cpus = [1, 1]
[wins]
"""

GOLDEN = """\
f.toml:1: mtu: unknown key outside any section, it belongs under [ppp]
f.toml:3: ppp.mtu: must be at most 1500, got 9000
f.toml:4: ppp.mtuu: unknown key, did you mean mtu?
f.toml:7: ppp.auth[2]: must be "pap", "chap-md5", "mschap", "mschapv2" or "eap", got "mschap3"
f.toml:9: ppp.mss_clamp: must be true or false, got 1
f.toml:10: ppp.restart_interval_s: must be a finite number, got nan
f.toml:11: limmits: unknown section, did you mean limits?
f.toml:14: listen.start_timeout: unknown key, did you mean start_timeout_s?
f.toml:15: listen.port: must be a whole number, got "1723"
f.toml:16: listen.address: must be an IPv4 address, as in "10.99.0.1", got "1.2.3"
f.toml:18: accounts.users.bob: must be text in quotes, got ***
f.toml:19: accounts.users.alice: a password must have 1 to 256 characters, got ***
f.toml:20: accounts.users."x\\ty": an account's name must be 1 to 255 octets of printable text, \
got "x\\ty"
f.toml:22: pools.a.ranges[2]: 10.0.0.5 is in pools.a already; an address can have one subscriber \
only, got "10.0.0.5-9"
f.toml:23: pools."b c": a pool's name must be 1 to 63 of A-Z a-z 0-9 . _ -, got "b c"
f.toml:25: pools.c.ranges: is required
f.toml:26: pools.c.range: unknown key, did you mean ranges?
f.toml:29: ip.dns[1]: must be an IPv4 address, as in "10.99.0.1", got "10.0.0.300"
f.toml:31: mppe.strengths[1]: must be 128, 56 or 40, got 57
f.toml:33: metrics.listen: must be ADDRESS:PORT, as in "127.0.0.1:9723", or empty to switch it \
off, got "9723"
f.toml:35: workers.cpus: names 1 twice, got [1, 1]
f.toml:36: wins: unknown section, it belongs under [ip]
"""


def test_all_problems_at_once_in_the_order_of_the_file() -> None:
    assert "\n".join(problems(BAD)) + "\n" == GOLDEN


def test_what_the_host_says_is_told_with_the_rest(tmp_path: Path) -> None:
    file = tmp_path / "f.toml"
    file.write_text(
        "[server]\nuser = 'no-such-user'\n[ppp]\nmtu = 'big'\n"
        "[accounts]\nchap_secrets = 'nowhere'\n[workers]\ncpus = [4000]\nnope = 1\n"
        "[pools.default]\nranges = ['10.0.0.1', '10.0.0.1']\n"
    )
    with pytest.raises(ConfigError) as caught:
        load_file(str(file))
    # [workers] is faulty by itself: what it says besides is not looked at.
    told = [p.removeprefix(f"{file}:").split(": ")[:2] for p in caught.value.problems]
    assert told == [
        ["2", "server.user"],
        ["4", "ppp.mtu"],
        ["6", "accounts.chap_secrets"],
        ["9", "workers.nope"],
        ["11", "pools.default.ranges[2]"],
    ]
    assert f"{tmp_path}/nowhere" in caught.value.problems[2]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "[ppp]\nauth = ['pap', 'chap-md5']",
            'f.toml:1: mppe.policy: is "require", but ppp.auth offers only pap, chap-md5, which'
            ' give no keys; add "mschapv2" to ppp.auth, or set mppe.policy = "deny"',
        ),
        (
            "[ip]\nlocal='10.0.0.0/24'\n[pools.default]\nranges=['10.0.0.7']",
            "f.toml:4: pools.default.ranges: has no address left: ip.local takes the whole pool,"
            ' got ["10.0.0.7"]',
        ),
        ("[ip]\npool = 'gold'",
         'f.toml:2: ip.pool: must name a pool; there is default, got "gold"'),
        (
            "[pools.a]\nranges=['10.0.0.0/8']\n[ip]\npool='a'",
            "f.toml:2: pools.a.ranges: at most 1048576 addresses (a /12) in a pool, not 16777214;"
            ' split it into pools, got ["10.0.0.0/8"]',
        ),
        (
            "pools.a.ranges=['10.0.0.0-9']\npools.b.ranges=['10.0.0.9']\nip.pool='a'",
            "f.toml:2: pools.b.ranges[1]: 10.0.0.9 is in pools.a already; an address can have one"
            ' subscriber only, got "10.0.0.9"',
        ),
        (
            "pools = {}",
            'f.toml:1: pools: is empty: give at least [pools.default] with ranges = ["..."]',
        ),
        ("pools = 5", "f.toml:1: pools: must be sections, as in [pools.default], got a number"),
        (
            "[pools]\ndefault = ['10.0.0.0/24']",
            "f.toml:2: pools.default: must be a section, as in [pools.default] with ranges ="
            ' ["..."], got a list of 1',
        ),
        ("[[ppp]]", "f.toml:1: ppp: must be a section, as in [ppp], got a list of 1"),
        ("[ppp]\nauth = 'pap'", "f.toml:2: ppp.auth: must be a list in brackets, as in"
         ' ["one", "two"], got "pap"'),
        ("[ppp]\nauth = []", "f.toml:2: ppp.auth: must not be empty, got an empty list"),
        (
            "[pools.default]\nranges=['127.0.0.1-5']",
            "f.toml:2: pools.default.ranges[1]: must be addresses a host can have, and 127.0.0.0/8"
            ' has none, got "127.0.0.1-5"',
        ),
        (
            "accounts.users = 'secret'",
            "f.toml:1: accounts.users: must be a section of name = value lines, got ***",
        ),
        ("[log]\nlevel = 'loud'", 'f.toml:2: log.level: must be "error", "warning", "notice",'
         ' "info" or "debug", got "loud"'),
        ("[ppp]\nmtu = 0x" + "f" * 9000, "f.toml:2: ppp.mtu: must be at most 1500,"
         " got a very large number"),
        (
            "a = b",
            "f.toml:1: TOML: invalid value at column 5; text must stand in quotes, as in"
            ' name = "value", and lists in brackets',
        ),
        (
            "[ppp]\nmtu = 1400\nmtu = 1300",
            "f.toml:3: TOML: cannot overwrite a value at the end of the file; the key or section"
            " is given twice",
        ),
        (
            "[ppp]\n\nmtu\n",
            "f.toml:3: TOML: expected '=' after a key in a key/value pair at column 4; a line must"
            " be key = value or [section]",
        ),
        (b"[ppp]\nx = '\xff'", "f.toml:2: is not UTF-8 (octet 0xff); save it as UTF-8"),
        (b"\x7fELF\n\0", "f.toml:2: holds a NUL: this is no text, so no TOML"),
    ],
)  # fmt: skip
def test_message(text: str | bytes, expected: str) -> None:
    assert problems(text) == [expected]


@pytest.mark.parametrize("text", ["x = " + "[" * 100000, "x = " + "{a=" * 100000])
def test_nesting_has_an_end(text: str) -> None:
    assert problems(text)[0].startswith("f.toml:1: TOML: ")


def test_a_number_longer_than_python_reads() -> None:
    assert problems("x = " + "9" * 5000)[0].startswith("f.toml:1: ")


def test_warnings_name_their_line() -> None:
    loaded = load(
        "[ppp]\nauth = ['mschapv2', 'pap']\n[ip]\nlocal = '10.0.0.1'\n[pools.default]\n"
        "ranges = ['10.0.0.0-9']\n[workers]\ncpus = [0]\ncount = 3\n" + USERS
    )
    assert loaded.warnings == (
        "f.toml:6: warning: pools.default.ranges: 9 of the 10 addresses are for subscribers: one is"
        " in ip.local",
        "f.toml:2: warning: ppp.auth: clients that choose pap are turned away, because mppe.policy"
        ' is "require"',
        "f.toml:9: warning: workers.count: 3 workers share 1 CPUs (workers.cpus); packets are"
        " carried best with one CPU for each",
    )
    assert loaded.settings.pools[0].ranges == ("10.0.0.0,10.0.0.2-9",)


def test_a_byte_order_mark_and_crlf_are_fine() -> None:
    assert load_bytes(b"\xef\xbb\xbf[ppp]\r\nmtu = 1300\r\n", "f").settings.ppp.mtu == 1300


# Overrides


def test_overrides() -> None:
    s = load(
        "[ppp]\nmtu = 9000\n[server]\nname='a'",
        "ppp.mtu=1300",
        "server.name = 5",
        "ip.dns=10.0.0.1,10.0.0.2",
        "ppp.auth=mschapv2",
        "mppe.strengths=128,40",
        'pools."a.b".ranges=["10.1.0.0/24"]',
        "ip.pool=a.b",
        "metrics.listen=",
        "ppp.mss_clamp=false",
        "workers.cpus=3",
    ).settings
    assert (s.ppp.mtu, s.server.name, s.ip.dns) == (1300, "5", ("10.0.0.1", "10.0.0.2"))
    assert (s.ppp.auth, s.mppe.strengths) == (("mschapv2",), (128, 40))
    assert s.pools == (settings.Pool("a.b", ("10.1.0.0/24",)),)
    assert (s.metrics.listen, s.ppp.mss_clamp, s.workers.cpus) == ("", False, (3,))


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("mtu=5", '--set: must be section.key=value, as in ppp.mtu=1400, got "mtu=5"'),
        ("ppp.mtu", '--set: must be section.key=value, as in ppp.mtu=1400, got "ppp.mtu"'),
        ("ppp.mtu=5", "--set: ppp.mtu: must be at least 576, got 5"),
        ("ppp.mtu=x", '--set: ppp.mtu: must be a whole number, got "x"'),
        ("ppp.mut=1", "--set: ppp.mut: unknown key, did you mean mtu?"),
        ("p p.mtu=1", '--set: must be section.key=value, as in ppp.mtu=1400, got "p p.mtu=1"'),
    ],
)  # fmt: skip
def test_override_messages(override: str, expected: str) -> None:
    [problem] = problems("[ppp]\nmtu = 1400", override)
    assert expected in problem


def test_a_password_is_not_taken_from_the_command_line() -> None:
    [problem] = problems("", "accounts.users.bob=geheim")
    assert "command line" in problem
    assert "geheim" not in problem


@given(st.text(max_size=30))
def test_any_override_gives_settings_or_a_message(text: str) -> None:
    try:
        load("", text)
    except ConfigError as e:
        assert all(p.startswith(("--set", "f.toml:1: ")) for p in e.problems)


# Any octets


def masked(document: dict[str, dict[str, Any]]) -> bytes:
    return "\n".join(
        f"[{section}]\n" + "\n".join(f"{k} = {v}" for k, v in keys.items())
        for section, keys in document.items()
    ).encode()


pieces = st.sampled_from(
    ["[ppp]", "[ip]", "mtu", "=", "\n", "1400", '"', "'", "[", "]", "{", "}", ",", ".", "#", "auth",
     "[pools.a]", "ranges", '["10.0.0.0/24"]', "\\", "1e999", "-1", "true", "inf",
     "[accounts.users]", "\r\n", "é", "\0", " "]
)  # fmt: skip


@given(
    st.one_of(st.binary(max_size=80), st.lists(pieces, max_size=25).map("".join).map(str.encode))
)
def test_any_octets_give_settings_or_lines_with_a_place(data: bytes) -> None:
    try:
        loaded = load_bytes(data, "f.toml")
    except ConfigError as e:
        assert e.problems
        for problem in e.problems:
            assert re.match(r"f\.toml:\d+: \S", problem), problem
            assert problem.isprintable(), problem
    else:
        assert isinstance(loaded.settings, Settings)


words = st.one_of(
    st.integers(-2, 70000).map(str), st.text("abz.-\"'é", max_size=6).map(json.dumps),
    st.lists(st.integers(0, 200), max_size=3).map(json.dumps), st.just("true"), st.just("nan"),
    st.lists(st.text("0123.-/,", max_size=9), max_size=3).map(json.dumps), st.just("1979-05-27"),
)  # fmt: skip
known = st.sampled_from(
    [(s, k) for s, model in schema.SECTIONS.items() for k in model.model_fields]
    + [("pools.a", "ranges"), ("accounts.users", "bob"), ("ppp.x", "y"), ("pools", "a")]
)


@given(st.dictionaries(known, words, max_size=6))
def test_any_value_of_any_key_is_taken_or_named(given_: dict[tuple[str, str], str]) -> None:
    by_section: dict[str, dict[str, Any]] = {}
    for (section, key), value in given_.items():
        by_section.setdefault(section, {})[key] = value
    data = masked(by_section)
    try:
        load_bytes(data, "f.toml")
    except ConfigError as e:
        for problem in e.problems:
            match = re.match(r"f\.toml:(\d+): (\S+): ", problem)
            assert match, problem


# Round trip

address = st.tuples(st.integers(1, 126), *[st.integers(0, 255)] * 3).map(
    lambda t: ".".join(map(str, t))
)
seconds = st.floats(0.001, 86400)
label = st.text("abcXYZ019._-", min_size=1, max_size=20)
pool_numbers = st.lists(st.integers(0, 200), min_size=1, max_size=4, unique=True)


def rules(names: st.SearchStrategy[str]) -> st.SearchStrategy[settings.AccountRule]:
    return st.builds(
        settings.AccountRule,
        names,
        st.sampled_from(["", "prefer", "deny"]),
        st.sampled_from([(), (128, 56)]),
        st.sampled_from([(), ("mschapv2",)]),
    )


@st.composite
def whole_settings(draw: st.DrawFn) -> Settings:
    numbers = draw(pool_numbers)
    pools = tuple(settings.Pool(f"p{n}", (f"172.16.{n}.0/24",)) for n in numbers)
    limit = st.integers(0, 1_000_000)
    run_dirs = st.just("") | label.map("/run/".__add__)
    files = st.just("") | label.map("/etc/".__add__)
    kinds: list[Literal["auto", "packet", "raw"]] = ["auto", "packet", "raw"]
    modes = st.sampled_from(kinds)
    cpus = st.lists(st.integers(0, 4095), max_size=4, unique=True).map(tuple)
    addresses = st.lists(address, max_size=2, unique=True).map(tuple)
    weak: list[settings.AuthMethod] = ["pap", "chap-md5", "mschap"]
    methods: st.SearchStrategy[tuple[settings.AuthMethod, ...]] = st.lists(
        st.sampled_from(weak), max_size=3, unique=True
    ).map(lambda m: ("mschapv2", *m))
    names = st.text(st.characters(codec="utf-8", categories=["L", "N", "P", "S"]), min_size=1,
                    max_size=12)  # fmt: skip
    passwords = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1,
                        max_size=12)  # fmt: skip
    return Settings(
        server=settings.Server(draw(label), "nobody", draw(run_dirs)),
        listen=settings.Listen(
            draw(address), draw(st.integers(1, 65535)), draw(st.integers(1, 65535)),
            draw(seconds), draw(seconds), draw(seconds), draw(seconds), draw(seconds),
        ),
        workers=settings.Workers(draw(st.integers(0, 64)), draw(cpus)),
        gre=settings.Gre(draw(modes), batch=draw(st.integers(1, 1024))),
        ppp=settings.Ppp(draw(st.integers(576, 1500)), draw(st.integers(576, 1500)), draw(methods),
                         mss_clamp=draw(st.booleans())),
        mppe=settings.Mppe(draw(st.sampled_from(["require", "prefer", "deny"])),
                           draw(st.sampled_from([(128,), (40,), (128, 40), (56, 128)])),
                           draw(st.sampled_from(["refuse", "allow", "ask"]))),
        ip=settings.Ip("10.99.0.1", draw(addresses), draw(addresses), pools[0].name),
        ipv6=settings.Ipv6(draw(st.sampled_from(["off", "on"])), "::a:b", "random",
                           draw(st.booleans())),
        pools=pools,
        accounts=settings.Accounts(
            draw(files), draw(st.sampled_from(["keep", "strip"])),
            default_domain=draw(st.just("") | label), nt_hashes=draw(st.booleans()),
            rules=tuple(draw(st.lists(rules(names), max_size=2))),
            users=tuple(draw(st.dictionaries(names, passwords, max_size=3)).items()),
        ),
        limits=settings.Limits(draw(st.integers(1, 1_000_000)), draw(limit), draw(limit),
                               draw(limit), draw(limit)),
        metrics=settings.Metrics(draw(st.sampled_from(["", "10.0.0.1:1"]))),
        log=settings.Logging(draw(st.sampled_from(["error", "debug"])), draw(
            st.sampled_from(["text", "json"]))),
    )  # fmt: skip


@hypothesis_settings(max_examples=40, deadline=None)
@given(whole_settings())
def test_settings_survive_toml_and_json(wanted: Settings) -> None:
    loaded = load_bytes(to_toml(wanted, secrets=True).encode(), "f.toml").settings
    assert loaded == wanted
    assert settings.loads(settings.dumps(loaded)) == wanted


def test_shown_settings_hold_no_password() -> None:
    text = to_toml(load(USERS).settings)
    assert "secret-of-bob" not in text
    assert f'bob = "{MASK}"' in text


# Files


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    huge = tmp_path / "huge"
    with huge.open("wb") as file:
        file.truncate(MAX_BYTES + 1)
    started = time.monotonic()
    for path, says in (
        (tmp_path, "it is a directory"),
        (tmp_path / "none", "no such file"),
        (fifo, "not a regular file"),
        (Path("/dev/zero"), "not a regular file"),
        (huge, "larger than 4 MiB"),
    ):
        with pytest.raises(ConfigError) as caught:
            load_file(str(path))
        [problem] = caught.value.problems
        assert problem.startswith(f"{path}: ")
        assert says in problem
    assert time.monotonic() - started < 5


def test_what_only_the_host_knows(tmp_path: Path) -> None:
    file = tmp_path / "f.toml"
    file.write_text(
        "[server]\nuser = 'no-such-user'\n[workers]\ncpus = [4000]\n"
        "[accounts]\nchap_secrets = 'none'\n"
    )
    with pytest.raises(ConfigError) as caught:
        load_file(str(file))
    user, cpus, secrets = caught.value.problems
    assert user.startswith(f"{file}:2: server.user: this host has no user")
    assert cpus.startswith(f"{file}:4: workers.cpus: CPU 4000 can't be used here")
    assert secrets == f"{file}:6: accounts.chap_secrets: {tmp_path}/none: no such file or directory"


def test_chap_secrets_are_looked_at(tmp_path: Path) -> None:
    file, secrets = tmp_path / "f.toml", tmp_path / "chap-secrets"
    file.write_text("[accounts]\nchap_secrets = 'chap-secrets'\n" + USERS)
    file.chmod(0o644)
    secrets.write_text('a other "geheim" *\nb\n')
    secrets.chmod(0o644)
    loaded = load_file(str(file))
    assert loaded.settings.accounts.chap_secrets == str(secrets)
    text = "\n".join(loaded.warnings)
    assert "geheim" not in text
    assert "secret-of-bob" not in text
    where = f"{file}:2: warning: accounts.chap_secrets: "
    assert loaded.warnings == (
        f"{where}others can read {secrets}; chmod o= {secrets}",
        f"{where}{secrets}:2: 1 words, needs client, server and secret; line not used",
        f'{where}{secrets}: every line is for another server (other); server.name is "pptpcon"',
        f"{file}:3: warning: accounts.users: others can read these passwords; chmod o= {file}",
    )


# Without a file


def test_embedded_defaults() -> None:
    one, password = embedded()
    _, other = embedded()
    assert password != other
    assert one.accounts.users == (("demo", password),)
    assert (one.mppe.policy, one.mppe.strengths) == ("require", (128,))
    loaded = load_overrides(["ppp.mtu=1300"], one)
    assert loaded.settings.accounts.users == one.accounts.users
    assert loaded.settings.ppp.mtu == 1300
    assert loaded.warnings == ()


# The keeper's child


def reload(file: Path, **environment: str) -> tuple[int, str, bytes]:
    fd = make_memfd("test", b"what was there before, and is longer than it will be" * 99)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "ops.config.load", str(file), "--out-fd", str(fd)],
            pass_fds=[fd], cwd=ROOT, env={**os.environ, **environment}, capture_output=True,
            text=True, timeout=60, check=False,
        )  # fmt: skip
        return done.returncode, done.stderr, read_memfd(fd)
    finally:
        os.close(fd)


def test_the_child_writes_settings_or_says_why(tmp_path: Path) -> None:
    file = tmp_path / "f.toml"
    file.write_text("[ppp]\nmtu = 1300\n" + USERS)
    file.chmod(0o600)
    status, told, data = reload(file, **{VARIABLE: '["ppp.mru=1200"]'})
    assert (status, told) == (0, "")
    new = settings.loads(data)
    assert (new.ppp.mtu, new.ppp.mru) == (1300, 1200)
    assert new.accounts.users == (("bob", "secret-of-bob"),)
    file.write_text("[ppp]\nmtu = 13\n" + USERS)
    status, told, _ = reload(file)
    assert (status, told) == (78, f"{file}:2: ppp.mtu: must be at least 576, got 13\n")


# Rates and filters

FILTERS = """[shaping]
rate_down = "10M"
rate_up = 512000
burst_up = 9000
filter = "guest"
exempt = ["192.0.2.0/24", "2001:db8::/32"]

[filters.guest]
rules = ["deny up tcp to any port 25"]

[filters."no mail"]
rules = [
    "permit tcp",
    "deny up tcp to any port twenty",
]
default = "drop"
"""


def test_rates_and_filters() -> None:
    good = FILTERS.split('[filters."', maxsplit=1)[0]
    rule = '[[accounts.rules]]\nmatch = "bob"\nrate_down = "none"\nfilter = "guest"\n'
    loaded = load(good + USERS + rule)
    assert loaded.settings.shaping == settings.Shaping(
        512_000, 10_000_000, 9000, 0, "guest", ("192.0.2.0/24", "2001:db8::/32")
    )
    assert loaded.settings.filters == (settings.Filter("guest", ("deny up tcp to any port 25",)),)
    assert loaded.settings.accounts.rules[0].rate_down == -1
    assert load_bytes(to_toml(loaded.settings, secrets=True).encode(), "f").settings == (
        loaded.settings
    )


def test_wrong_filters_are_told_with_their_lines() -> None:
    assert problems(FILTERS + USERS) == [
        'f.toml:11: filters."no mail": a filter\'s name must be 1 to 63 printable ASCII characters'
        ' without spaces, got "no mail"'
    ]
    assert problems(FILTERS.replace("no mail", "mail") + USERS) == [
        "f.toml:14: filters.mail.rules[2]: is no rule: 'twenty' is no port: a number up to 65535,"
        ' or two with a dash, got "deny up tcp to any port twenty"',
        'f.toml:16: filters.mail.default: must be "permit" or "deny", got "drop"',
    ]
    (problem,) = problems(USERS + "[filters.a]\nrule = []\nrules = []\n")
    assert problem == "f.toml:4: filters.a.rule: unknown key, did you mean rules?"
    assert problems("filters = 1\n" + USERS) == [
        "f.toml:1: filters: must be sections, as in [filters.guest], got a number"
    ]


def test_filters_that_are_named_and_not_there() -> None:
    text = '[shaping]\nfilter = "gust"\n[filters.guest]\nrules = []\n'
    rule = '[[accounts.rules]]\nmatch = "bob"\nfilter = "x"\n'
    assert problems(text + USERS + rule) == [
        'f.toml:2: shaping.filter: must name a filter; there is guest, got "gust"',
        'f.toml:9: accounts.rules[1].filter: must name a filter; there is guest, got "x"',
    ]
    ports = ",".join(["1", "3"] * 17)
    many = f'[filters.f]\nrules = ["deny udp from any port {ports} to any port {ports}"]\n'
    (problem,) = problems(many + USERS)
    assert "at most 1024 rules, not 1156" in problem


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ('"fast"', "'fast' is no rate"),
        ('"10"', "has no unit: write 10k or 10M"),
        ("10", "'10' is not from 8k to 1000G"),
        ("true", "must be a rate in quotes"),
        ("1.5", "must be a rate in quotes"),
    ],
)
def test_wrong_rates(given: str, why: str) -> None:
    (problem,) = problems(f"[shaping]\nrate_up = {given}\n{USERS}")
    assert problem.startswith("f.toml:2: shaping.rate_up: must be a rate")
    assert why in problem
