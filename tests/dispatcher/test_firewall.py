"""What rulesets make of GRE and of TCP 1723: iptables-save texts and nft's JSON."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher import firewall, ruleset
from dispatcher.firewall import RECEIVE, SEND, Probe, judge

GRE = Probe("47")
TCP = Probe("6", "1723")


def save(*rules: str, policy: str = "ACCEPT", table: str = "filter") -> ruleset.Ruleset:
    head = [f"*{table}", f":INPUT {policy} [0:0]", ":OUTPUT ACCEPT [0:0]", ":MORE - [0:0]"]
    return ruleset.from_save("\n".join([*head, *rules, "COMMIT"]))


def kinds(rules: ruleset.Ruleset, probe: Probe = GRE) -> list[str]:
    hooks = SEND if probe.outgoing else RECEIVE
    return [remark.kind for remark in judge(rules, probe, hooks)]


@pytest.mark.parametrize(
    ("rules", "policy", "gre", "tcp"),
    [
        ((), "ACCEPT", [], []),
        ((), "DROP", ["blocks"], ["blocks"]),
        (("-A INPUT -p gre -j ACCEPT",), "DROP", [], ["blocks"]),
        (("-A INPUT -p gre -j DROP",), "ACCEPT", ["blocks", "passed"], []),
        (("-A INPUT -p 47 -j REJECT --reject-with icmp",), "ACCEPT", ["blocks", "passed"], []),
        (("-A INPUT -s 10.0.0.0/8 -p gre -j DROP",), "ACCEPT", ["passed"], []),
        (("-A INPUT -s 10.0.0.0/8 -p gre -j ACCEPT",), "DROP", ["passed"], ["blocks"]),
        (("-A INPUT -s 10.0.0.0/8 -j DROP",), "ACCEPT", [], []),  # not about GRE
        (("-A INPUT ! -p gre -j ACCEPT",), "DROP", ["blocks"], []),
        (("-A INPUT -p gre -j LOG --log-prefix x",), "ACCEPT", [], []),
        (("-A INPUT -p gre -j MARK --set-xmark 0x5/0xff",), "ACCEPT", ["passed"], []),
        (("-A INPUT -i lo -j ACCEPT",), "DROP", ["blocks"], ["blocks"]),
        (
            ("-A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",),
            "DROP",
            ["blocks"],
            ["blocks"],
        ),
        (("-A INPUT -p tcp -m tcp --dport 1723 -j ACCEPT",), "DROP", ["blocks"], []),
        (("-A INPUT -p tcp -m multiport --dports 22,1700:1800 -j ACCEPT",), "DROP", ["blocks"], []),
        (("-A INPUT -p gre -j MORE", "-A MORE -j DROP"), "ACCEPT", ["blocks", "passed"], []),
        (("-A INPUT -j MORE", "-A MORE -j RETURN", "-A MORE -j DROP"), "ACCEPT", [], []),
        (("-A INPUT -g MORE", "-A INPUT -j ACCEPT"), "DROP", ["blocks"], ["blocks"]),
        (("-A INPUT -j MORE", "-A MORE -j MORE"), "ACCEPT", [], []),  # a circle ends
    ],
)
def test_iptables(rules: tuple[str, ...], policy: str, gre: list[str], tcp: list[str]) -> None:
    found = save(*rules, policy=policy)
    assert kinds(found) == gre
    assert [kind for kind in kinds(found, TCP) if kind == "blocks"] == tcp


def test_the_place_is_named() -> None:
    (blocks, passed) = judge(
        save("-A INPUT -p udp -j ACCEPT", "-A INPUT -p gre -j DROP"), GRE, RECEIVE
    )
    assert blocks.where == passed.where == "iptables -t filter chain INPUT rule 2"


def nft(*expressions: list[dict[str, Any]], policy: str = "accept", hook: str = "input") -> Any:
    at = {"family": "inet", "table": "filter"}
    chain = {**at, "name": "input", "handle": 1, "type": "filter", "hook": hook, "policy": policy}
    entries = [{"metainfo": {}}, {"chain": chain}, {"chain": {**at, "name": "more", "handle": 2}}]
    for i, expr in enumerate(expressions):
        name = "more" if expr and expr[0] == {"in": "more"} else "input"
        expr = expr[1:] if name == "more" else expr
        entries.append({"rule": {**at, "chain": name, "handle": 10 + i, "expr": expr}})
    return ruleset.from_nft({"nftables": entries})


def match(left: dict[str, Any], right: Any, op: str = "==") -> dict[str, Any]:
    return {"match": {"op": op, "left": left, "right": right}}


PROTOCOL = {"payload": {"protocol": "ip", "field": "protocol"}}
L4 = {"meta": {"key": "l4proto"}}
DPORT = {"payload": {"protocol": "tcp", "field": "dport"}}
STATE = {"ct": {"key": "state"}}
SADDR = {"payload": {"protocol": "ip", "field": "saddr"}}
ACCEPT: dict[str, Any] = {"accept": None}
DROP: dict[str, Any] = {"drop": None}


@pytest.mark.parametrize(
    ("rules", "policy", "gre", "tcp"),
    [
        (([match(PROTOCOL, 47), ACCEPT],), "drop", [], ["blocks"]),
        (([match(L4, "gre"), DROP],), "accept", ["blocks", "passed"], []),
        (([match(L4, {"set": [6, 47]}), ACCEPT],), "drop", [], []),
        (([match(L4, 47, "!="), ACCEPT],), "drop", ["blocks"], []),
        (([match(SADDR, "@friends"), match(L4, 47), ACCEPT],), "drop", ["passed"], ["blocks"]),
        (([match(DPORT, {"set": [22, {"range": [1700, 1800]}]}), ACCEPT],), "drop", ["blocks"], []),
        (([match(STATE, ["established"], "in"), ACCEPT],), "drop", ["blocks"], ["blocks"]),
        (([match(STATE, "invalid", "in"), DROP],), "accept", [], []),
        (
            ([{"vmap": {"key": STATE, "data": {"set": [["established", ACCEPT]]}}}],),
            "drop",
            [],  # it may let something through: not for sure blocked
            [],
        ),
        (([match(L4, 47), {"limit": {"rate": 5}}, DROP],), "accept", ["passed"], []),
        (([match(L4, 47), {"counter": None}, {"xt": {"type": "target", "name": "REJECT"}}],),
         "accept", ["blocks", "passed"], []),
        (([match(L4, 47), {"mangle": {"key": {"meta": {"key": "mark"}}, "value": 5}}],),
         "accept", ["passed"], []),
        (([{"jump": {"target": "more"}}], [{"in": "more"}, DROP]),
         "accept", ["blocks"], ["blocks"]),
    ],
)  # fmt: skip
def test_nft(rules: Any, policy: str, gre: list[str], tcp: list[str]) -> None:
    found = nft(*rules, policy=policy)
    assert kinds(found) == gre
    assert [kind for kind in kinds(found, TCP) if kind == "blocks"] == tcp


def test_our_own_table_and_other_families_say_nothing() -> None:
    def table(family: str, name: str) -> ruleset.Ruleset:
        at = {"family": family, "table": name}
        chain = {**at, "name": "gre", "handle": 1, "hook": "prerouting", "policy": "accept"}
        rule = {**at, "chain": "gre", "handle": 2, "expr": [match(L4, 47), DROP]}
        return ruleset.from_nft({"nftables": [{"chain": chain}, {"rule": rule}]})

    assert kinds(table("ip", "pptpcon_77")) == []
    assert kinds(table("ip6", "filter")) == kinds(table("bridge", "filter")) == []
    assert kinds(table("ip", "other")) == ["blocks", "passed"]


def test_outgoing() -> None:
    out = Probe("47", outgoing=True)
    assert kinds(save("-A OUTPUT -p gre -j DROP"), out) == ["blocks", "passed"]
    assert kinds(save("-A OUTPUT -p gre -m conntrack --ctstate NEW -j DROP"), out) == ["passed"]
    assert kinds(save("-A OUTPUT -o eth1 -p gre -j MARK --set-mark 1"), out) == ["passed"]
    assert kinds(save("-A INPUT -p gre -j DROP"), out) == []


def test_the_answer_of_the_process() -> None:
    text = (
        '{"receive": [{"where": "a", "kind": "blocks", "text": "drops it"},'
        ' {"where": "b", "kind": "passed", "text": "changes it"}], "send": []}'
    )
    assert firewall.read_answer(text) == firewall.Passed("b changes it", "")


WORDS = """-A INPUT MORE -p gre tcp ! -j -g ACCEPT DROP RETURN -m conntrack --ctstate NEW
--dport 1723 -i lo -s 10.0.0.0/8 :INPUT *filter '"' COMMIT"""
words = st.sampled_from(WORDS.split())


@given(st.lists(st.lists(words, max_size=12).map(" ".join), max_size=12))
def test_any_words(lines: list[str]) -> None:
    text = "*filter\n:INPUT DROP [0:0]\n:MORE - [0:0]\n" + "\n".join(lines)
    try:
        found = ruleset.from_save(text)
    except ValueError:
        return
    for remark in judge(found, GRE, RECEIVE):
        assert remark.where and remark.kind in ("blocks", "passed")
