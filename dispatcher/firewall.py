"""What the host's firewall makes of our packets, and which of its rules packet sockets pass by.

Packet sockets take GRE before the kernel's prerouting and input chains see it, and give it to
the device behind output and postrouting. Where such a chain has a word to say about GRE, the
automatic modes take raw sockets, which obey it. A chain that drops by default, or everything
of some addresses, says nothing about GRE: who may not open TCP has no call, and without a call
his GRE finds no session.

As a process (`python -m dispatcher.firewall`) it prints its findings as JSON: the keeper and
netops read no ruleset themselves.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Generator, Iterator
from dataclasses import asdict, dataclass
from typing import Final

from dispatcher import ruleset
from dispatcher.ruleset import OWN_TABLE, Chain, Rule, Ruleset, Test

ROOT: Final = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
MAX_DEPTH: Final = 16  # nft's own limit of jumps
PATIENCE_S: Final = 15.0
GRE: Final = "47"
TCP: Final = "6"
RECEIVE: Final = ("prerouting", "input")
SEND: Final = ("output", "postrouting")
RING_RECEIVE, RING_SEND = ("ingress",), ("egress",)  # AF_XDP passes by these, too

# Whether a test holds for a probe.
NO, SOME, YES = 0, 1, 2


@dataclass(frozen=True, slots=True)
class Probe:
    """The first packet of a stranger's: its protocol, and its port if it has one."""

    protocol: str
    dport: str = ""
    outgoing: bool = False


@dataclass(frozen=True, slots=True)
class Hit:
    """A rule that the probe can meet: what it does, whether surely, and whether the rule, or
    a jump on the way to it, names the probe's protocol."""

    where: str
    verdict: str
    sure: bool
    named: bool


@dataclass(frozen=True, slots=True)
class Remark:
    """`passed` by packet sockets, or `blocks`: nothing gets through."""

    where: str
    hook: str
    kind: str
    text: str


Walk = Generator[Hit, None, bool]


def hits(rules: Ruleset, table: str, chain: Chain, probe: Probe) -> Walk:
    """Everything the probe may meet, in order, the chain's policy last."""
    ended = yield from _walk(rules, table, chain, probe, True, False, 0)
    if not ended:
        yield Hit(f"{chain.where} (its policy)", chain.policy, True, False)
    return True


def _walk(
    rules: Ruleset, table: str, chain: Chain, probe: Probe, sure: bool, named: bool, depth: int
) -> Walk:
    """As `hits`, without the policy; returns True if nothing comes out at the end."""
    for rule in chain.rules:
        holds, names = _judge(rule, probe)
        if holds == NO:
            continue
        certain = sure and holds == YES and not rule.either
        about = named or names
        for verdict, target in rule.either or ((rule.verdict, rule.target),):
            if verdict in ("accept", "drop", "change"):
                yield Hit(rule.where, verdict, certain, about)
            if verdict in ("jump", "goto") and depth < MAX_DEPTH:
                place = rules.chains.get((table, target))
                if place is None:
                    continue
                ended = yield from _walk(rules, table, place, probe, certain, about, depth + 1)
                if certain and (ended or verdict == "goto"):
                    return ended
            if verdict in ("accept", "drop") and certain:
                return True
            if verdict == "return" and certain:
                return False
    return False


def _judge(rule: Rule, probe: Probe) -> tuple[int, bool]:
    holds, names = YES, False
    for test in rule.tests:
        verdict = _test(test, probe)
        holds = min(holds, verdict)
        if test.field == "protocol" and probe.protocol in test.values and not test.inverse:
            names = probe.protocol == GRE or names
        if test.field == "dport" and verdict == YES and not test.inverse:
            names = True
    return holds, names


def _test(test: Test, probe: Probe) -> int:
    if test.field == "some":
        return SOME
    if test.field == "never":
        return NO
    if test.field == "family":
        found = _among(test.values, {"ipv4", "ip"})
    elif test.field == "protocol":
        found = YES if probe.protocol in test.values or "0" in test.values else NO
    elif test.field == "dport":
        found = _port(test.values, probe)
    elif test.field == "input":
        if probe.outgoing:
            return SOME
        found = NO if test.values <= {"lo"} else SOME  # from outside, by an unknown device
    else:  # state: a first packet
        if probe.outgoing and test.values & {"new", "established", "related"}:
            return SOME
        found = YES if "new" in test.values else NO
    if test.inverse and found != SOME:
        return YES if found == NO else NO
    return found


def _among(values: frozenset[str], ours: set[str]) -> int:
    return YES if values & ours else NO


def _port(values: frozenset[str], probe: Probe) -> int:
    if not probe.dport:
        return NO
    for value in values:
        first, _, last = value.partition("-")
        if first.isdigit() and (last or first).isdigit():
            if int(first) <= int(probe.dport) <= int(last or first):
                return YES
        elif first:
            return SOME  # a service by its name
    return NO


def judge(rules: Ruleset, probe: Probe, hooks: tuple[str, ...]) -> list[Remark]:
    """What the chains of these hooks have to say about the probe."""
    found = []
    for (table, _), chain in rules.chains.items():
        if chain.hook not in hooks or table.split()[1].startswith(OWN_TABLE):
            continue
        met = list(hits(rules, table, chain, probe))
        found += [Remark(where, chain.hook, kind, text) for where, kind, text in _sum_up(met)]
    return found


def _sum_up(met: list[Hit]) -> Iterator[tuple[str, str, str]]:
    """(where, kind, text) of what counts in one base chain."""
    may_drop = [hit for hit in met if hit.verdict == "drop"]
    accepted = next((i for i, hit in enumerate(met) if hit.verdict == "accept"), len(met))
    if may_drop and accepted > met.index(may_drop[-1]) and may_drop[-1].sure:
        yield may_drop[-1].where, "blocks", "drops it"
    for hit in met:
        if not hit.named:
            continue
        if hit.verdict == "drop":
            yield hit.where, "passed", "drops " + ("it" if hit.sure else "some of it")
        elif hit.verdict == "change":
            yield hit.where, "passed", "changes it"
        elif hit.verdict == "accept" and not hit.sure and any(h.verdict == "drop" for h in met):
            yield hit.where, "passed", "accepts some of it, and what is left may be dropped"


def look(port: int = 1723) -> dict[str, list[dict[str, str]]]:
    """The host's own rules: what packet sockets pass by, and what blocks us.

    Keys: receive, send, ring_receive, ring_send (about GRE), tcp, forward, unread.
    """
    rules = ruleset.read()
    gre, out, tcp = Probe(GRE), Probe(GRE, outgoing=True), Probe(TCP, str(port))
    return {
        "receive": [asdict(r) for r in judge(rules, gre, RECEIVE)],
        "send": [asdict(r) for r in judge(rules, out, SEND)],
        "ring_receive": [asdict(r) for r in judge(rules, gre, RING_RECEIVE)],
        "ring_send": [asdict(r) for r in judge(rules, out, RING_SEND)],
        "tcp": [asdict(r) for r in judge(rules, tcp, RECEIVE) if r.kind == "blocks"],
        "forward": [
            asdict(r) for r in judge(rules, Probe(TCP, "443"), ("forward",)) if r.kind == "blocks"
        ],
        "unread": [
            asdict(Remark(text, "", "unread", "could not be read")) for text in rules.unread
        ],
    }


@dataclass(frozen=True, slots=True)
class Passed:
    """The first rule that packet sockets would pass by, each way; "": none. `ring_`: the first
    that AF_XDP would, beyond those."""

    receive: str
    send: str
    ring_receive: str = ""
    ring_send: str = ""


def passed_by() -> Passed:
    """Ask in a process of its own; what can't be read counts as no rule."""
    try:
        process = start()
        try:
            text, _ = process.communicate(timeout=PATIENCE_S)
        finally:
            process.kill()
            process.wait()
        return read_answer(text.decode())
    except (OSError, ValueError, subprocess.SubprocessError):
        return Passed("", "")


def start() -> subprocess.Popen[bytes]:
    """The process that prints `look` as JSON."""
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "dispatcher.firewall"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": ROOT},
    )


def read_answer(text: str) -> Passed:
    """What the process printed."""
    found = json.loads(text)
    first = [
        next((f"{r['where']} {r['text']}" for r in found.get(way, ()) if r["kind"] == "passed"), "")
        for way in ("receive", "send", "ring_receive", "ring_send")
    ]
    return Passed(*first)


if __name__ == "__main__":
    print(json.dumps(look()))
