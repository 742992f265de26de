"""chap-secrets as pppd reads it, and what becomes of lines it cannot use."""

from __future__ import annotations

import time

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from workers.secrets_file import ANY_ADDRESS, Index, Secret, expand, parse


def only(text: bytes) -> Secret:
    index = parse(text)
    assert len(index) == 1, index.problems
    return next(iter(index.lines.values()))


def address(text: str) -> int:
    return int.from_bytes(bytes(int(o) for o in text.split(".")), "big")


@pytest.mark.parametrize(
    ("line", "client", "secret"),
    [
        (b"billy pptp bob *", "billy", b"bob"),
        (b"\tbilly\tpptp bob\t*  # comment", "billy", b"bob"),
        (b'"bill y" pptp "b o b" *', "bill y", b"b o b"),
        (b"'bill \"y' pptp 'b\\'ob' *", 'bill "y', b"b'ob"),
        (b"DBNET\\\\srhodes pptp x *", "DBNET\\srhodes", b"x"),
        (b'"DBNET\\\\srhodes" pptp x *', "DBNET\\srhodes", b"x"),
        (b"DBNET\\srhodes pptp x *", "DBNET rhodes", b"x"),  # \s is a space, as in pppd
        (b"u pptp a#b *", "u", b"a"),  # an unquoted # ends a word and begins a comment
        (b'u pptp "a#b" *', "u", b"a#b"),
        (b"u pptp a\\#b *", "u", b"a#b"),
        (b"u pptp \\x41\\102\\t *", "u", b"AB\t"),
        (b"u pptp ab\"c d\"'e f' *", "u", b"abc de f"),
        (b"u pptp ab\\\ncd *", "u", b"abcd"),  # backslash-newline is nothing
        (b"u pptp \\\n  secret *", "u", b"secret"),
        (b'u pptp "" *', "u", b""),
        (b"\xc3\xbcser pptp p\xc3\xa4ss *", "\u00fcser", b"p\xc3\xa4ss"),
        (b"\xfcser pptp x *", "\udcfcser", b"x"),
    ],
)
def test_words(line: bytes, client: str, secret: bytes) -> None:
    found = only(line)
    assert (found.client, found.secret) == (client, secret)


def test_the_servers_own_line_beats_the_clients_and_the_first_of_equals_wins() -> None:
    text = b"* * any *\nbob * anywhere *\n* pptp anyone *\nbob pptp exact *\nbob pptp second *\n"
    index = parse(text)

    def secret(client: str, server: str) -> bytes:
        match = index.find(client, server)
        assert match is not None
        return match.secret.secret

    assert secret("bob", "pptp") == b"exact"
    assert secret("al", "pptp") == b"anyone"
    assert secret("bob", "other") == b"anywhere"
    assert secret("al", "other") == b"any"
    # pppd: naming the server counts more than naming the client
    both = parse(b"bob * anywhere *\n* pptp anyone *\n")
    match = both.find("bob", "pptp")
    assert match is not None
    assert match.secret.secret == b"anyone"


def test_nobody() -> None:
    assert parse(b"bob pptp x *").find("al", "pptp") is None
    assert parse(b"").find("al", "pptp") is None


@pytest.mark.parametrize(
    ("words", "allowed", "refused", "given"),
    [
        (b"", [], ["10.0.0.1", "0.0.0.0"], ""),
        (b"-", [], ["10.0.0.1"], ""),
        (b"*", ["10.0.0.1"], [], ""),
        (b"10.0.0.5", ["10.0.0.5"], ["10.0.0.6"], "10.0.0.5"),
        (b"10.0.0.5 10.0.0.6", ["10.0.0.5", "10.0.0.6"], ["10.0.0.7"], "10.0.0.5"),
        (b"!10.0.0.5 *", ["10.0.0.6"], ["10.0.0.5"], ""),
        (b"!10.0.0.5 10.0.0.0/24", ["10.0.0.6"], ["10.0.0.5", "10.0.1.1"], ""),
        (b"10.0.0.0/24 10.9.9.9", ["10.0.0.6", "10.9.9.9"], ["10.0.1.1"], "10.9.9.9"),
        (b"10.0.0.0/24+", ["10.0.0.8"], ["10.0.0.7", "10.0.0.9"], "10.0.0.8"),
        (b"- 10.0.0.5", [], ["10.0.0.5"], ""),
        (b"10.0.0.5 -- ms-dns 1.2.3.4", ["10.0.0.5"], ["1.2.3.4"], "10.0.0.5"),
        (b"nohost.example 10.0.0.5", ["10.0.0.5"], ["10.0.0.6"], "10.0.0.5"),
    ],
)
def test_addresses(words: bytes, allowed: list[str], refused: list[str], given: str) -> None:
    column = only(b"u pptp x " + words).addresses
    assert all(column.allows(address(a), 7) for a in allowed)
    assert not any(column.allows(address(a), 7) for a in refused)
    assert column.suggested(7) == (address(given) if given else 0)


def test_unit_beyond_its_network_has_no_address() -> None:
    column = only(b"u pptp x 10.0.0.0/29+").addresses
    assert column.suggested(5) == address("10.0.0.6")
    assert column.suggested(6) == 0
    assert not column.allows(address("10.0.0.7"), 6)


def test_a_pools_name_is_an_address_word() -> None:
    index = parse(b"u pptp x gold", frozenset({"gold"}))
    found = index.lines["u", "pptp"]
    assert found.addresses.pool == "gold"
    assert found.addresses.allows(address("10.0.0.1"))
    assert index.problems == []


def test_bad_lines_are_named_and_cost_only_themselves() -> None:
    text = (
        b"# a comment\n"
        b"first pptp x *\n"
        b'broken pptp "unclosed *\n'
        b"two words\n"
        b"joined \\\n pptp x *\n"
        b"third pptp x\n"
        b"fourth pptp x 10.0.0.0/33\n"
        b"fifth pptp @/etc/secret *\n"
        b"last pptp x *"
    )
    index = parse(text)
    assert [p.line for p in index.problems] == [3, 4, 7, 8, 8, 9]
    assert {client for client, _ in index.lines} == {"first", "joined", "third", "fourth", "last"}
    assert "without its end" in index.problems[0].text
    assert "no address" in str(index.problems[2])
    assert "/etc/secret" in index.problems[-1].text
    assert str(index.problems[1]).startswith("line 4: 2 words")


def test_problems_do_not_tell_secrets() -> None:
    index = parse(b'u pptp "hunter2\nv hunter2\nw pptp hunter2 host.example -- hunter3 x\n')
    assert not any("hunter2" in p.text for p in index.problems)


def test_secret_from_a_file() -> None:
    files = {"/a b": b"# comment\n  'top \"secret\\'' rest\n", "/empty": b"#\n"}

    def read(path: str) -> bytes:
        if path not in files:
            raise FileNotFoundError(2, "No such file or directory")
        return files[path]

    text = b'u pptp "@/a b" *\nplain pptp x *\nv pptp @/none *\nw pptp @/empty *\n'
    expanded, problems = expand(text, read)
    assert [p.line for p in problems] == [3, 4]
    index = parse(expanded)
    assert index.lines["u", "pptp"].secret == b"top \"secret'"
    assert index.lines["plain", "pptp"].secret == b"x"
    assert set(index.clients) == {"u", "plain"}
    assert [p.line for p in index.problems] == [3, 4]


def test_a_secret_in_a_file_may_look_like_a_path() -> None:
    expanded, _ = expand(b"u pptp @/f *", lambda _path: b"@/etc/passwd")
    assert only(expanded).secret == b"@/etc/passwd"


@given(st.binary(min_size=1, max_size=64))
def test_any_secret_survives_expansion(secret: bytes) -> None:
    assume(not secret.startswith(b"nthash:"))  # that word is no password
    quoted = b"".join(b"\\x%02x" % c for c in secret)
    expanded, problems = expand(b"u pptp @/f *\nv pptp x *", lambda _path: quoted)
    assert problems == []
    index = parse(expanded)
    assert index.lines["u", "pptp"].secret == secret
    assert index.lines["u", "pptp"].addresses is ANY_ADDRESS
    assert index.lines["v", "pptp"].line == 2


@given(st.binary(max_size=200))
def test_any_octets_are_read(data: bytes) -> None:
    index = parse(data)
    assert isinstance(index, Index)
    for problem in index.problems:
        assert 1 <= problem.line <= data.count(b"\n") + 1
    again, _ = expand(data, lambda _path: b"x")
    assert len(parse(again)) >= len(index)


def test_a_large_file_is_an_index() -> None:
    text = b"".join(b"user%06d pptpcon password%06d *\n" % (i, i) for i in range(100_000))
    index = parse(text)
    assert len(index) == 100_000
    began = time.perf_counter()
    for i in range(0, 100_000, 100):
        match = index.find(f"user{i:06d}", "pptpcon")
        assert match is not None
        assert match.secret.secret == b"password%06d" % i
    assert time.perf_counter() - began < 0.5


@pytest.mark.parametrize(
    ("words", "rates", "addresses"),
    [
        ("* 5120/512", (5_120_000, 512_000), 1),
        ("10.0.0.5 2048", (2_048_000, 2_048_000), 1),
        ("* 10M/2M", (10_000_000, 2_000_000), 1),
        ("* 0/512", (0, 512_000), 1),
        ("10.0.0.5 10.0.0.6", (0, 0), 2),
        ("*", (0, 0), 1),
    ],
)
def test_the_fifth_word_is_a_rate(words: str, rates: tuple[int, int], addresses: int) -> None:
    index = parse(f"bob * secret {words}\n".encode())
    assert not index.problems
    match = index.find("bob", "x")
    assert match is not None
    assert (match.secret.rate_down, match.secret.rate_up) == rates
    assert len(match.secret.addresses.rules) == addresses


def test_a_rate_out_of_range_is_told() -> None:
    index = parse(b"bob * secret * 1/2000000000000\n")
    (problem,) = index.problems
    assert "rate of client 'bob': '1' is not from 8k to 1000G" in problem.text
    match = index.find("bob", "x")
    assert match is not None
    assert match.secret.rate_down == 0
    assert match.secret.addresses.any_allowed
