"""ops.config.lines against tomllib: the same paths, and each line holds its key."""

from __future__ import annotations

import tomllib
from typing import Any

from hypothesis import assume, given
from hypothesis import strategies as st

from ops.config.lines import key_lines
from ops.config.show import quote

GOLDEN = '''\
a = 1 # a = 2
b.c."d e" = """x
"" [no] y"""
b.c.'f.g' = \'\'\'
'it''\'\'\'
[t]
u = [ 1, # ]
  {x = 1, y.z = [2]},

 "a]", \'}\' ]
when = 1979-05-27 07:32:00
[[aot]]
k = 2
[aot.sub]
z = "\\"#"
[[aot]]
[[aot.n]]
"q\\u0041" = 'x'
[t.deep . "x"]
'''


def paths(value: Any, path: tuple[str | int, ...] = ()) -> set[tuple[str | int, ...]]:
    found = {path} if path else set()
    items: Any = ()
    if isinstance(value, dict):
        items = value.items()
    elif isinstance(value, list):
        items = enumerate(value)
    for key, inner in items:
        found |= paths(inner, (*path, key))
    return found


def test_golden() -> None:
    lines = key_lines(GOLDEN)
    assert set(lines) == paths(tomllib.loads(GOLDEN))
    assert {path: line for path, line in lines.items() if path[0] != "b"} == {
        ("a",): 1,
        ("t",): 6,
        ("t", "u"): 7,
        ("t", "u", 0): 7,
        ("t", "u", 1): 8,
        ("t", "u", 1, "x"): 8,
        ("t", "u", 1, "y"): 8,
        ("t", "u", 1, "y", "z"): 8,
        ("t", "u", 1, "y", "z", 0): 8,
        ("t", "u", 2): 10,
        ("t", "u", 3): 10,
        ("t", "when"): 11,
        ("t", "deep"): 19,
        ("t", "deep", "x"): 19,
        ("aot",): 12,
        ("aot", 0): 12,
        ("aot", 0, "k"): 13,
        ("aot", 0, "sub"): 14,
        ("aot", 0, "sub", "z"): 15,
        ("aot", 1): 16,
        ("aot", 1, "n"): 17,
        ("aot", 1, "n", 0): 17,
        ("aot", 1, "n", 0, "qA"): 18,
    }
    assert lines["b", "c", "f.g"] == 4


# Texts made of pieces that often fit together: most examples are TOML.
names = st.sampled_from(["a", "b", "c-d", "1", '"q r"', "'s.t'", '"\\u0061\\""', '"#"', '"]"'])
keys = st.lists(names, min_size=1, max_size=3).flatmap(
    lambda parts: st.sampled_from([".", " . ", ".\t"]).map(lambda dot: dot.join(parts))
)
blank = st.sampled_from(["", " ", "\n", " # x = [1]\n", "\r\n", "\n\n\t"])
scalars = st.one_of(
    st.sampled_from(
        ["1", "-0x1F".replace("-", ""), "1.5e3", "inf", "true", "07:32:00", "1979-05-27 07:32:00Z"]
    ),
    st.text("ab#[]{}=,.\"'\\\n\t é", max_size=8).map(quote),
    st.text("ab#[]{}=,. ", max_size=8).map(lambda t: f"'{t}'"),
    st.text("ab#[]\n'=\"", max_size=8)
    .filter(lambda t: '""' not in t)
    .map(lambda t: '"""' + t + '"""'),
    st.text("ab#[]\n'=\"", max_size=8)
    .filter(lambda t: "''" not in t)
    .map(lambda t: "'''" + t + "'''"),
    st.sampled_from(['"""a\\\n  b"""', '"""a\\""""', '"""x"""""', "'''x'''''", '""', "''"]),
)


def _containers(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    items = st.lists(st.tuples(blank, inner, blank).map("".join), max_size=3)
    arrays = st.tuples(items.map(",".join), st.sampled_from(["", ","]), blank).map(
        lambda t: f"[{t[0]}{t[1] if t[0] else ''}{t[2]}]"
    )
    pairs = st.tuples(keys, st.sampled_from(["=", " = "]), inner).map("".join)
    tables = st.lists(pairs, max_size=3).map(lambda ps: "{" + ", ".join(ps) + "}")
    return arrays | tables


values = st.recursive(scalars, _containers, max_leaves=6)
statements = st.one_of(
    st.tuples(keys, values).map(lambda t: f"{t[0]} = {t[1]}"),
    keys.map(lambda k: f"[{k}]"),
    keys.map(lambda k: f"[[ {k} ]]"),
    st.just("# comment [x] a = 1"),
    st.just(""),
)


@given(st.lists(statements, max_size=8), st.sampled_from(["\n", "\r\n", "\n  "]))
def test_the_same_paths_as_tomllib(parts: list[str], end: str) -> None:
    text = end.join(parts)
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        assume(False)
    lines = key_lines(text.replace("\r\n", "\n"))
    assert set(lines) == paths(document)
    assert all(1 <= line <= text.count("\n") + 1 for line in lines.values())


@given(st.text("ab[]{}=.,\"'#\n\\ 1", max_size=40))
def test_any_text_ends(text: str) -> None:
    """It is meant for TOML only, but must not hang or grow on anything."""
    try:
        lines = key_lines(text)
    except (ValueError, IndexError):
        return
    try:
        assert set(lines) == paths(tomllib.loads(text))
    except tomllib.TOMLDecodeError:
        pass
