"""Packet filters' rules: iptables-save's text and nft's JSON, whatever a tool may print."""

from __future__ import annotations

import json

from dispatcher import ruleset
from dispatcher.firewall import RECEIVE, SEND, Probe, judge
from tests.fuzz.targets import allowed

PROBES = (Probe("47"), Probe("6", "1723"), Probe("47", outgoing=True))


def one(data: bytes) -> None:
    text = data.decode("utf-8", "replace")
    with allowed(*ruleset.UNREADABLE):
        told(ruleset.from_save(text))
    with allowed(*ruleset.UNREADABLE, RecursionError):
        told(ruleset.from_nft(json.loads(text)))


def told(rules: ruleset.Ruleset) -> None:
    for probe in PROBES:
        for remark in judge(rules, probe, SEND if probe.outgoing else RECEIVE):
            assert remark.where and remark.kind in ("blocks", "passed"), remark
