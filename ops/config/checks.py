"""Checks across sections: what no key is wrong in by itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Final

from ops.config.addresses import subtract
from ops.config.schema import (
    Accounts,
    Console,
    Filter,
    Gre,
    Ip,
    Ipv6,
    Mppe,
    Pool,
    Ppp,
    Radius,
    Section,
    Shaping,
    Workers,
)
from ops.networks import parse_network
from ops.ranges import count, format_address, parse_ranges
from workers.filters import MAX_FILTERS, MAX_RULES, number_of, parse_rule

SHORT_SECRET: Final = 8
MAX_POOLS: Final = 255  # the record holds one octet; 255 itself is "static address"
MAX_POOL_ADDRESSES: Final = 1 << 20  # a /12

Path = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Remark:
    """Something about a key. `fatal` is False for what is only unwise."""

    path: Path
    text: str
    fatal: bool = True


def cross_check(
    sections: dict[str, Section], pools: dict[str, Pool], names: Sequence[str]
) -> list[Remark]:
    """What no key is wrong in by itself. Sections and pools with own errors are absent.

    `names` are those of all pools, the faulty ones too.
    """
    return [
        *_check_pool_named(sections, names),
        *_check_pools(sections, pools),
        *_check_chains(sections, pools, names),
        *_check_mppe(sections),
        *_check_accounts(sections),
        *_check_console(sections),
        *_check_domains(sections),
        *_check_rules(sections),
        *_check_workers(sections),
        *_check_radius(sections),
        *_check_gre(sections),
        *_check_ipv6(sections),
    ]


def _check_ipv6(sections: dict[str, Section]) -> list[Remark]:
    """Pools that are named exist, are cut into something, and give what is asked of them."""
    six, accounts = sections.get("ipv6"), sections.get("accounts")
    if not isinstance(six, Ipv6):
        return []
    remarks: list[Remark] = []
    by_name = {pool.name: pool for pool in six.pools}
    seen: set[str] = set()
    for at, pool in enumerate(six.pools):
        where: Path = ("ipv6", "pools", at)
        if pool.name in seen or pool.name == "none":
            remarks.append(Remark((*where, "name"), f"{pool.name!r} is taken: choose another name"))
        seen.add(pool.name)
        if pool.next and pool.next not in by_name:
            remarks.append(Remark((*where, "next"), f"there is no pool {pool.next!r}"))
        for text in pool.prefixes:
            if parse_network(text).length > pool.length:
                what = f"{text} is smaller than the /{pool.length} that a session gets"
                remarks.append(Remark((*where, "length"), what))
    wanted: list[tuple[Path, str, int]] = [
        (("ipv6", "pool"), six.pool, 64),
        (("ipv6", "delegated_pool"), six.delegated_pool, 0),
        (("ipv6", "address_pool"), six.address_pool, 128),
    ]
    for at, rule in enumerate(accounts.rules if isinstance(accounts, Accounts) else ()):
        path: Path = ("accounts", "rules", at)
        wanted += [
            ((*path, "pool6"), rule.pool6, 64),
            ((*path, "delegated_pool6"), rule.delegated_pool6, 0),
            ((*path, "address_pool6"), rule.address_pool6, 128),
        ]
    ip = sections.get("ip")
    for at, rule in enumerate(accounts.rules if isinstance(accounts, Accounts) else ()):
        for text in rule.routes:
            if isinstance(ip, Ip) and not ip.default_routes and not parse_network(text).length:
                what = f"{text} needs ip.default_routes = true"
                remarks.append(Remark(("accounts", "rules", at, "routes"), what))
    for path, name, length in wanted:
        if not name or (name == "none" and path[0] == "accounts"):
            continue
        if name not in by_name:
            remarks.append(Remark(path, f"there is no pool {name!r} in [[ipv6.pools]]"))
        elif length and by_name[name].length != length:
            what = f"pool {name!r} gives /{by_name[name].length}; this needs length = {length}"
            remarks.append(Remark(path, what))
    if six.valid_lifetime_s < six.preferred_lifetime_s:
        what = "must be at least preferred_lifetime_s"
        remarks.append(Remark(("ipv6", "valid_lifetime_s"), what))
    if six.ipv6cp == "off" and (six.pool or six.delegated_pool or six.address_pool):
        what = '"off", though pools are named: nobody gets IPv6'
        remarks.append(Remark(("ipv6", "ipv6cp"), what, fatal=False))
    return remarks


def _check_gre(sections: dict[str, Section]) -> list[Remark]:
    gre = sections.get("gre")
    if not isinstance(gre, Gre):
        return []
    if "xdp" in (gre.mode, gre.send) and not gre.interface:
        key = "mode" if gre.mode == "xdp" else "send"
        return [Remark(("gre", key), '"xdp" is for one device: name it as gre.interface')]
    if gre.mode == "raw" and gre.send == "xdp":
        return [Remark(("gre", "send"), '"xdp" goes with packet sockets: change gre.mode = "raw"')]
    if gre.mode != "raw" or not gre.interface:
        return []
    text = 'is for packet sockets, but gre.mode is "raw": leave one of them out'
    return [Remark(("gre", "interface"), text)]


def _check_pool_named(sections: dict[str, Section], names: Sequence[str]) -> list[Remark]:
    ip = sections.get("ip")
    if not isinstance(ip, Ip) or ip.pool in names or not names:
        return []
    known = ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")
    return [Remark(("ip", "pool"), f"must name a pool; there is {known}")]


def _check_chains(
    sections: dict[str, Section], pools: dict[str, Pool], names: Sequence[str]
) -> list[Remark]:
    """A chain of pools goes on to one that exists, and comes to an end."""
    remarks = []
    for name, pool in pools.items():
        seen = [name]
        at = pool.next
        while at in pools and at not in seen:
            seen.append(at)
            at = pools[at].next
        if pool.next and pool.next not in names:
            remarks.append(Remark(("pools", name, "next"), f"there is no pool {pool.next!r}"))
        elif at == name:
            chain = " to ".join([*seen, name])
            remarks.append(Remark(("pools", name, "next"), f"goes round in a circle: {chain}"))
    accounts = sections.get("accounts")
    if isinstance(accounts, Accounts) and names:
        remarks += [
            Remark(("accounts", "rules", at, "pool"), f"there is no pool {rule.pool!r}")
            for at, rule in enumerate(accounts.rules)
            if rule.pool and rule.pool not in names
        ]
    return remarks


def _check_pools(sections: dict[str, Section], pools: dict[str, Pool]) -> list[Remark]:
    """Each address in one pool once, pools of a size that fits in memory, none empty."""
    remarks: list[Remark] = []
    if len(pools) > MAX_POOLS:
        remarks.append(Remark(("pools",), f"at most {MAX_POOLS} pools, not {len(pools)}"))
    ip = sections.get("ip")
    local = parse_ranges(ip.local) if isinstance(ip, Ip) else []
    taken: list[tuple[int, int, Path, int]] = []
    for name, pool in pools.items():
        total = 0
        left = 0
        for at, text in enumerate(pool.ranges):
            where: Path = ("pools", name, "ranges", at)
            found = parse_ranges(text)
            total += count(found)
            left += count(subtract(found, local))
            taken += [(first, last, where, len(taken)) for first, last in found]
        if total > MAX_POOL_ADDRESSES:
            remarks.append(
                Remark(
                    ("pools", name, "ranges"),
                    f"at most {MAX_POOL_ADDRESSES} addresses (a /12) in a pool, not {total};"
                    " split it into pools",
                )
            )
        elif not left:
            remarks.append(
                Remark(
                    ("pools", name, "ranges"),
                    "has no address left: ip.local takes the whole pool",
                )
            )
        elif left < total:
            what = "one is" if total - left == 1 else f"{total - left} are"
            remarks.append(
                Remark(
                    ("pools", name, "ranges"),
                    f"{left} of the {total} addresses are for subscribers: {what} in ip.local",
                    fatal=False,
                )
            )
    return remarks + _overlaps(taken)


def _overlaps(taken: list[tuple[int, int, Path, int]]) -> list[Remark]:
    """One remark for each two range texts that share addresses; `taken` has their order."""
    found: dict[tuple[Path, Path], int] = {}
    end, owner = -1, taken[0][2:] if taken else ((), 0)
    for first, last, path, order in sorted(taken, key=lambda t: t[:2]):
        if first <= end:
            one, other = sorted([owner, (path, order)], key=lambda p: p[1])
            found.setdefault((other[0], one[0]), first)
        if last > end:
            end, owner = last, (path, order)
    return [
        Remark(
            path,
            f"{format_address(first)} is in {other[0]}.{other[1]} already;"
            " an address can have one subscriber only",
        )
        for (path, other), first in found.items()
    ]


def _check_mppe(sections: dict[str, Section]) -> list[Remark]:
    """MPPE's keys come from MS-CHAP (RFC 3079), so no other method can encrypt."""
    ppp, mppe = sections.get("ppp"), sections.get("mppe")
    if not isinstance(ppp, Ppp) or not isinstance(mppe, Mppe):
        return []
    keyed = {"mschap", "mschapv2"} | ({"eap"} if {"mschapv2", "relay"} & {*ppp.eap} else set())
    keyless = [method for method in ppp.auth if method not in keyed]
    if mppe.policy == "require":
        if len(keyless) == len(ppp.auth):
            return [
                Remark(
                    ("mppe", "policy"),
                    f'is "require", but ppp.auth offers only {", ".join(keyless)}, which give no'
                    ' keys; add "mschapv2" to ppp.auth, or set mppe.policy = "deny"',
                )
            ]
        if keyless:
            return [
                Remark(
                    ("ppp", "auth"),
                    f"clients that choose {' or '.join(keyless)} are turned away, because"
                    ' mppe.policy is "require"',
                    fatal=False,
                )
            ]
    return []


def _check_domains(sections: dict[str, Section]) -> list[Remark]:
    accounts = sections.get("accounts")
    if not isinstance(accounts, Accounts):
        return []
    remarks = []
    for policy, key in (("map", "domain_map"), ("allow", "domain_allow")):
        given = bool(getattr(accounts, key))
        if given and accounts.domain != policy:
            remarks.append(
                Remark(
                    ("accounts", key),
                    f'is not used unless accounts.domain = "{policy}"',
                    fatal=False,
                )
            )
        elif accounts.domain == policy and not given:
            remarks.append(Remark(("accounts", "domain"), f'"{policy}" needs accounts.{key}'))
    return remarks


def _check_rules(sections: dict[str, Section]) -> list[Remark]:
    """A rule can narrow the methods that ppp.auth offers, it cannot offer others."""
    accounts, ppp = sections.get("accounts"), sections.get("ppp")
    if not isinstance(accounts, Accounts) or not isinstance(ppp, Ppp):
        return []
    return [
        Remark(
            ("accounts", "rules", at, "auth"),
            f"{', '.join(rule.auth)}: none of them is in ppp.auth, so nobody whom this rule"
            " matches can log in",
            fatal=False,
        )
        for at, rule in enumerate(accounts.rules)
        if rule.auth and not set(rule.auth) & set(ppp.auth)
    ]


def _check_accounts(sections: dict[str, Section]) -> list[Remark]:
    accounts, radius = sections.get("accounts"), sections.get("radius")
    if isinstance(radius, Radius) and any(server.auth_port for server in radius.servers):
        return []
    if isinstance(accounts, Accounts) and not accounts.users and not accounts.chap_secrets:
        return [
            Remark(
                ("accounts",),
                "nobody can log in: set accounts.chap_secrets, or name = password pairs in"
                " [accounts.users]",
                fatal=False,
            )
        ]
    return []


def _check_console(sections: dict[str, Section]) -> list[Remark]:
    """accel_cmd ends sessions: from other hosts only with a password."""
    console = sections.get("console")
    if not isinstance(console, Console) or not console.accel_cmd:
        return []
    host = console.accel_cmd.rpartition(":")[0]
    if ip_address(host).is_loopback:
        return []
    if not console.accel_cmd_password_file:
        text = f"{host} is not loopback: set console.accel_cmd_password_file, too"
        return [Remark(("console", "accel_cmd"), text)]
    text = f"the password and all names cross the network to {host} readable for anybody on the way"
    return [Remark(("console", "accel_cmd"), text, fatal=False)]


def _check_workers(sections: dict[str, Section]) -> list[Remark]:
    workers = sections.get("workers")
    if not isinstance(workers, Workers) or not workers.cpus or workers.count <= len(workers.cpus):
        return []
    return [
        Remark(
            ("workers", "count"),
            f"{workers.count} workers share {len(workers.cpus)} CPUs (workers.cpus); packets are"
            " carried best with one CPU for each",
            fatal=False,
        )
    ]


def filter_check(
    sections: dict[str, Section], filters: dict[str, Filter], names: Sequence[str]
) -> list[Remark]:
    """Filters that are named and not there, or too large. `names`: of the faulty ones, too."""
    remarks: list[Remark] = []
    named: list[tuple[Path, str]] = []
    if isinstance(shaping := sections.get("shaping"), Shaping):
        named.append((("shaping", "filter"), shaping.filter))
    if isinstance(accounts := sections.get("accounts"), Accounts):
        named += [
            (("accounts", "rules", at, "filter"), rule.filter)
            for at, rule in enumerate(accounts.rules)
        ]
    known = ", ".join(names[:8]) + (", ..." if len(names) > 8 else "") or "none"
    for path, name in named:
        if name and name not in names:
            remarks.append(Remark(path, f"must name a filter; there is {known}"))
    if len(filters) > MAX_FILTERS:
        remarks.append(Remark(("filters",), f"at most {MAX_FILTERS} filters, not {len(filters)}"))
    numbers: dict[int, str] = {}
    for name, each in filters.items():
        size = sum(parse_rule(rule).size for rule in each.rules)
        if size > MAX_RULES:
            text = (
                f"at most {MAX_RULES} rules, not {size}; a rule counts once for each pair of its"
                " port ranges"
            )
            remarks.append(Remark(("filters", name, "rules"), text))
        other = numbers.setdefault(number_of(name), name)
        if other != name:
            text = f"has the same number as {other}, by chance; give it another name"
            remarks.append(Remark(("filters", name), text))
    return remarks


def _check_radius(sections: dict[str, Section]) -> list[Remark]:
    ppp, radius = sections.get("ppp"), sections.get("radius")
    if not isinstance(radius, Radius):
        return []
    remarks = []
    asked = [server for server in radius.servers if server.auth_port]
    if isinstance(ppp, Ppp) and "relay" in ppp.eap and not asked:
        where: Path = ("ppp", "eap")
        remarks.append(Remark(where, '"relay" needs a server in [[radius.servers]] with auth_port'))
    seen: dict[str, int] = {}
    for at, server in enumerate(radius.servers):
        name = server.name or server.address
        if name in seen:
            text = f"is the name of server {seen[name] + 1}, too; give each a name of its own"
            remarks.append(Remark(("radius", "servers", at, "name"), text))
        seen.setdefault(name, at)
        if not server.auth_port and not server.acct_port:
            text = "is 0 as auth_port is: what is this server for?"
            remarks.append(Remark(("radius", "servers", at, "acct_port"), text))
        if len(server.secret) < SHORT_SECRET:
            text = f"has {len(server.secret)} characters: who sees the packets can guess it"
            remarks.append(Remark(("radius", "servers", at, "secret"), text, fatal=False))
    if radius.listen and not radius.clients:
        text = "nobody may send anything there: name them in [[radius.clients]]"
        remarks.append(Remark(("radius", "listen"), text, fatal=False))
    if radius.clients and not radius.listen:
        text = "nothing listens for them: set radius.listen"
        remarks.append(Remark(("radius", "clients"), text, fatal=False))
    elif radius.listen and not radius.servers:
        text = "needs a server in [[radius.servers]]: without one this is off"
        remarks.append(Remark(("radius", "listen"), text))
    return remarks
