"""The host's packet filters, read into one plain form: nft (iptables-nft too) and iptables-legacy.

Only what the question "what becomes of GRE and of TCP to our port?" needs is understood: the
protocol, the port, loopback, the conntrack state. Any other condition is *some*: it holds for
some packets. Nothing is changed, and nothing here decides; see firewall.py.
"""

from __future__ import annotations

import ctypes
import json
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from dispatcher.nft import LIBRARIES

# libnftables.h: stateless, handles, JSON, protocols as numbers, sets without their members
OUTPUT_FLAGS: Final = 0x04 | 0x08 | 0x10 | 0x80 | 0x800
OWN_TABLE: Final = "pptpcon_"
HOOKS: Final = ("prerouting", "input", "forward", "output", "postrouting")
FAMILIES: Final = ("ip", "inet", "netdev")
LEGACY_TABLES: Final = Path("/proc/net/ip_tables_names")
PATIENCE_S: Final = 10.0
PROTOCOLS: Final = {"gre": "47", "tcp": "6", "udp": "17", "icmp": "1", "all": "0"}
QUIET: Final = frozenset({"counter", "log", "comment", "LOG", "NFLOG", "ULOG", "TRACE"})
FINAL: Final = frozenset({"accept", "drop", "return", "reject", "queue", "continue"})


@dataclass(frozen=True, slots=True)
class Test:
    """A condition: `field` is one of `values`, or with `inverse` none of them.

    Fields: protocol (number), dport, input (interface), state; "some" for all others.
    """

    field: str
    values: frozenset[str] = frozenset()
    inverse: bool = False


@dataclass(frozen=True, slots=True)
class Rule:
    """What it asks for, and what it does: accept, drop, return, jump, change or nothing ("")."""

    where: str
    tests: tuple[Test, ...]
    verdict: str
    target: str = ""  # of a jump
    # A verdict map: of which of these it does one; () for an ordinary rule.
    either: tuple[tuple[str, str], ...] = ()


@dataclass(slots=True)
class Chain:
    """Rules in order. `hook` is "" for one that is only jumped to."""

    where: str
    hook: str
    policy: str
    rules: list[Rule] = field(default_factory=list)


@dataclass(slots=True)
class Ruleset:
    """Chains by (table, name); `unread`: what could not be asked, and why."""

    chains: dict[tuple[str, str], Chain] = field(default_factory=dict)
    unread: list[str] = field(default_factory=list)

    def add(self, other: Ruleset) -> None:
        self.chains |= other.chains
        self.unread += other.unread


# Not there, refused, or in a form that a newer tool may give.
UNREADABLE: Final = (
    *(OSError, ValueError, TypeError, LookupError, AttributeError),
    subprocess.SubprocessError,
)


def read() -> Ruleset:
    """Both kinds, as far as this host has them."""
    found = Ruleset()
    for reader in (_read_nft, _read_legacy):
        try:
            found.add(reader())
        except UNREADABLE as e:
            found.unread.append(f"{reader.__doc__}: {type(e).__name__}: {e}")
    return found


def _read_nft() -> Ruleset:
    """nft's rules"""
    for name in LIBRARIES:
        try:
            library = ctypes.CDLL(name)
            break
        except OSError:
            continue
    else:
        if shutil.which("nft"):
            raise ValueError("libnftables is not installed (Debian: apt install libnftables1)")
        return Ruleset()
    library.nft_ctx_new.restype = ctypes.c_void_p
    library.nft_ctx_get_output_buffer.restype = ctypes.c_char_p
    library.nft_ctx_get_error_buffer.restype = ctypes.c_char_p
    context = ctypes.c_void_p(library.nft_ctx_new(0))
    try:
        library.nft_ctx_buffer_output(context)
        library.nft_ctx_buffer_error(context)
        tables = _nft_says(library, context, "list tables").split("\n")
        library.nft_ctx_output_set_flags(context, OUTPUT_FLAGS)
        found = Ruleset()
        # One by one: where a table has an owner, as ours has, nft 1.0.6 breaks off in the middle
        # of its JSON.
        for table in (line.removeprefix("table ").strip() for line in tables):
            family, _, name = table.partition(" ")
            if family not in FAMILIES or name.startswith(OWN_TABLE):
                continue
            try:
                found.add(from_nft(json.loads(_nft_says(library, context, f"list table {table}"))))
            except UNREADABLE as e:
                found.unread.append(f"nft table {table}: {type(e).__name__}: {e}")
        return found
    finally:
        library.nft_ctx_free(context)


def _nft_says(library: Any, context: ctypes.c_void_p, command: str) -> str:
    if library.nft_run_cmd_from_buffer(context, command.encode()) != 0:
        text = library.nft_ctx_get_error_buffer(context).decode("utf-8", "replace")
        raise ValueError(" ".join(text.split())[:200] or "nft does not answer")
    answer: bytes = library.nft_ctx_get_output_buffer(context)
    return answer.decode("utf-8", "replace")


def _read_legacy() -> Ruleset:
    """iptables' rules"""
    # The file is not there without the kernel's part, and empty before anybody made a rule.
    # Asking iptables-save would make the tables.
    if not LEGACY_TABLES.exists() or not LEGACY_TABLES.read_text().split():
        return Ruleset()
    command = shutil.which("iptables-legacy-save") or shutil.which("iptables-save")
    if command is None:
        raise ValueError("iptables-legacy-save is not installed (Debian: apt install iptables)")
    done = subprocess.run(
        [command], capture_output=True, text=True, timeout=PATIENCE_S, check=False, env=_plain()
    )
    if done.returncode != 0:
        raise ValueError(" ".join(done.stderr.split())[:200] or f"{command} failed")
    return from_save(done.stdout)


def _plain() -> dict[str, str]:
    return {"PATH": os.environ.get("PATH", "/usr/sbin:/usr/bin:/sbin:/bin"), "LC_ALL": "C"}


# -- nft: libnftables-json(5)


def from_nft(ruleset: dict[str, Any]) -> Ruleset:
    """The JSON of `nft -j list ruleset`. What it does not know is a condition for some."""
    found = Ruleset()
    for entry in ruleset.get("nftables", []):
        chain, rule = entry.get("chain"), entry.get("rule")
        if chain and chain.get("family") in FAMILIES:
            table = f"{chain['family']} {chain['table']}"
            hook = chain.get("hook", "")
            where = f"nft chain {table} {chain['name']}"
            found.chains[table, chain["name"]] = Chain(where, hook, chain.get("policy", "accept"))
        elif rule and rule.get("family") in FAMILIES:
            table = f"{rule['family']} {rule['table']}"
            place = found.chains.get((table, rule["chain"]))
            if place is not None:
                where = f"{place.where} handle {rule.get('handle', '?')}"
                place.rules += _nft_rules(where, rule.get("expr", []))
    return found


def _nft_rules(where: str, expressions: list[dict[str, Any]]) -> Iterator[Rule]:
    """One rule; several if it changes the packet and then decides."""
    tests: list[Test] = []
    for expression in expressions:
        kind, what = next(iter(expression.items())) if len(expression) == 1 else ("", {})
        what = what if isinstance(what, dict) else {}
        if kind == "match":
            tests.append(_nft_test(what))
        elif kind in ("limit", "") or (kind == "xt" and what.get("type") == "match"):
            tests.append(Test("some"))
        elif kind in FINAL:
            yield Rule(where, tuple(tests), "drop" if kind in ("reject", "queue") else kind)
            return
        elif kind in ("jump", "goto"):
            yield Rule(where, tuple(tests), kind, what["target"])
        elif kind == "vmap":
            yield Rule(where, tuple(tests), "either", either=tuple(_verdicts(what)))
        elif kind == "xt" and what.get("name") not in QUIET:
            dropped = what.get("name") in ("REJECT", "DROP", "NFQUEUE")
            yield Rule(where, tuple(tests), "drop" if dropped else "change")
        elif kind not in QUIET and kind != "xt":
            yield Rule(where, tuple(tests), "change")


def _nft_test(match: dict[str, Any]) -> Test:
    left, op = match.get("left"), match.get("op")
    if not isinstance(left, dict) or op not in ("==", "!=", "in"):
        return Test("some")
    payload, meta, ct = left.get("payload"), left.get("meta"), left.get("ct")
    name = ""
    if isinstance(payload, dict):
        kind, key = payload.get("protocol"), payload.get("field")
        if (kind, key) == ("ip", "protocol"):
            name = "protocol"
        elif (kind, key) in (("tcp", "dport"), ("th", "dport")):
            name = "dport"
        elif kind == "ip6":
            return Test("never")
        elif kind in ("tcp", "udp", "icmp", "sctp", "dccp", "esp", "ah", "gre"):
            return Test("protocol", frozenset({PROTOCOLS.get(str(kind), str(kind))}))
    elif isinstance(meta, dict):
        name = {"l4proto": "protocol", "iifname": "input", "iif": "input"}.get(
            str(meta.get("key")), ""
        )
        if meta.get("key") in ("nfproto", "protocol"):
            name = "family"
    elif isinstance(ct, dict) and ct.get("key") == "state":
        name = "state"
    values = _values(match.get("right"))
    if not name or values is None:
        return Test("some")
    if name == "protocol":
        values = {PROTOCOLS.get(value, value) for value in values}
    return Test(name, frozenset(values), op == "!=")


def _values(right: Any) -> set[str] | None:
    """What is compared with, ranges as "first-last"; None: not to be known from here."""
    if isinstance(right, bool) or right is None:
        return None
    if isinstance(right, int):
        return {str(right)}
    if isinstance(right, str):
        return None if right.startswith("@") else {right}
    if isinstance(right, list):
        found: set[str] = set()
        for item in right:
            part = _values(item)
            if part is None:
                return None
            found |= part
        return found
    if isinstance(right, dict):
        if "set" in right:
            return _values(right["set"] if isinstance(right["set"], list) else [right["set"]])
        if "range" in right:
            first, last = right["range"]
            return {f"{first}-{last}"}
    return None


def _verdicts(vmap: dict[str, Any]) -> Iterator[tuple[str, str]]:
    data = vmap.get("data")
    items = data.get("set", []) if isinstance(data, dict) else []
    if not items:  # a named map
        yield "drop", ""
        yield "accept", ""
    for item in items:
        for kind, what in item[1].items() if isinstance(item, list) and len(item) == 2 else ():
            yield (
                ("drop" if kind in ("reject", "queue") else kind),
                (what["target"] if isinstance(what, dict) else ""),
            )


# -- iptables-save(8)


def from_save(text: str) -> Ruleset:
    """What iptables-save prints."""
    found = Ruleset()
    table = ""
    for line in text.splitlines():
        if line.startswith("*"):
            table = f"legacy {line[1:].strip()}"
        elif line.startswith(":"):
            name, policy = line[1:].split()[:2]
            hook = name.lower() if name.lower() in HOOKS else ""
            where = f"iptables -t {table.split()[1]} chain {name}"
            found.chains[table, name] = Chain(where, hook, "drop" if policy == "DROP" else "accept")
        elif line.startswith("-A "):
            words = shlex.split(re.sub(r"^\[\d+:\d+\] ", "", line))
            place = found.chains.get((table, words[1]))
            if place is not None:
                where = f"{place.where} rule {len(place.rules) + 1}"
                place.rules.append(_save_rule(where, words[2:]))
    return found


def _save_rule(where: str, words: list[str]) -> Rule:
    tests: list[Test] = []
    verdict, target = "", ""
    inverse = False
    at = 0
    while at < len(words):
        word = words[at]
        value = words[at + 1] if at + 1 < len(words) else ""
        at += 1
        if word == "!":
            inverse = True
            continue
        if word in ("-p", "--protocol"):
            tests.append(Test("protocol", frozenset({PROTOCOLS.get(value, value)}), inverse))
        elif word in ("--dport", "--dports", "--destination-port", "--destination-ports"):
            ports = frozenset(part.replace(":", "-") for part in value.split(","))
            tests.append(Test("dport", ports, inverse))
        elif word == "-i":
            tests.append(Test("input", frozenset({value}), inverse))
        elif word in ("--ctstate", "--state"):
            tests.append(Test("state", frozenset(value.lower().split(",")), inverse))
        elif word in ("-j", "-g"):
            verdict, target = _save_target(word, value)
            break  # what follows are the target's own words
        elif word == "-m":
            pass
        elif word.startswith("-"):
            tests.append(Test("some"))
            inverse = False
            continue
        else:
            continue
        inverse = False
        at += 1
    return Rule(where, tuple(tests), verdict, target)


def _save_target(word: str, name: str) -> tuple[str, str]:
    if name in QUIET:
        return "", ""
    if name in ("ACCEPT", "DROP", "RETURN"):
        return name.lower(), ""
    if name in ("REJECT", "NFQUEUE", "QUEUE"):
        return "drop", ""
    if name.isupper() and name in KNOWN_TARGETS:
        return "change", ""
    return ("goto" if word == "-g" else "jump"), name


KNOWN_TARGETS: Final = frozenset(
    {
        *("MARK", "CONNMARK", "DSCP", "TOS", "TTL", "TCPMSS", "CLASSIFY", "NOTRACK", "CT"),
        *("SNAT", "DNAT", "MASQUERADE", "REDIRECT", "NETMAP", "TPROXY", "SET", "HMARK"),
        *("CHECKSUM", "TEE", "SECMARK", "CONNSECMARK", "IDLETIMER", "RATEEST", "AUDIT"),
    }
)
