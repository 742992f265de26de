"""Chains of pools, and pools named by rules."""

from __future__ import annotations

from tests.ops.config.test_config_load import USERS, load, problems

POOLS = """
[pools.default]
ranges = ["10.0.0.0/24"]
next = "b"
[pools.b]
ranges = ["10.0.1.0/24"]
next = "{next}"
"""


def test_a_chain_ends() -> None:
    assert load(POOLS.format(next="") + USERS).settings.pools[0].next == "b"
    assert problems(POOLS.format(next="c") + USERS) == [
        "f.toml:7: pools.b.next: there is no pool 'c', got \"c\""
    ]
    assert problems(POOLS.format(next="default") + USERS) == [
        'f.toml:4: pools.default.next: goes round in a circle: default to b to default, got "b"',
        'f.toml:7: pools.b.next: goes round in a circle: b to default to b, got "default"',
    ]


def test_a_rule_names_a_pool_there_is() -> None:
    text = POOLS.format(next="") + USERS + '[[accounts.rules]]\nmatch = "x"\npool = "gold"\n'
    (problem,) = problems(text)
    assert "accounts.rules" in problem
    assert "there is no pool 'gold'" in problem


def test_a_rules_networks_are_networks() -> None:
    head = USERS + '[[accounts.rules]]\nmatch = "x"\n'
    assert load(head + 'routes = ["192.168.7.0/24"]\n').settings.accounts.rules[0].routes
    assert load(head + 'routes = ["2001:db8:7::/48"]\n').settings.accounts.rules[0].routes
    for text in ("192.168.7.1/24", "0.0.0.0/1", "224.0.0.0/8", "fe80::/64", "fish"):
        (problem,) = problems(head + f'routes = ["{text}"]\n')
        assert "must be" in problem
