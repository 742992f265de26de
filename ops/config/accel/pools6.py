"""[ipv6-pool], [ipv6-dns] and [ipv6-dhcp]: prefixes in equal parts, and what goes with them."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, Final

from ops.config.accel.text import Line
from ops.config.draft import Draft, Origin

_ATTRIBUTES: Final = {
    "attr-prefix": "Delegated-IPv6-Prefix-Pool",
    "attr-address": "Stateful-IPv6-Address-Pool",
}
_DELEGATE: Final = "delegate"
_LINK: Final = "link"


@dataclass(slots=True)
class _Pool:
    length: int
    next: str
    origin: Origin
    prefixes: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Pools6:
    """What of IPv6 is known so far: pools by their kind and accel-ppp's name ("" if none)."""

    draft: Draft
    _found: dict[tuple[str, str], _Pool] = field(default_factory=dict)
    _dns: list[tuple[str, Origin]] = field(default_factory=list)
    _search: list[tuple[str, Origin]] = field(default_factory=list)

    def takes(self, line: Line, origin: Origin) -> bool:
        """A line of one of the three sections; False if accel-ppp knows none such."""
        if line.section == "ipv6-dns":
            return self._names(line, origin)
        if line.section == "ipv6-dhcp":
            return self._dhcp(line, origin)
        if line.key in _ATTRIBUTES:
            if line.value != _ATTRIBUTES[line.key]:
                self.draft.loud(
                    origin, f"[ipv6-pool] {line.key}: pools are named by {_ATTRIBUTES[line.key]}"
                )
            return True
        if line.key in ("vendor", "gw-ip6-address"):
            self.draft.quiet(origin, f"[ipv6-pool] {line.key}: is not needed here")
            return True
        text = line.value if line.key == _DELEGATE else line.bare
        if ":" not in text:
            return False
        self._prefix(text, _DELEGATE if line.key == _DELEGATE else _LINK, origin)
        return True

    def _prefix(self, text: str, kind: str, origin: Origin) -> None:
        prefix, *words = [word.strip() for word in text.split(",")]
        length = name = following = ""
        for word in words:
            key, is_pair, value = word.partition("=")
            if is_pair and key == "name":
                name = value
            elif is_pair and key == "next":
                following = value
            elif not is_pair and not length and re.fullmatch(r"[0-9]{1,3}", word):
                length = word
            elif not is_pair and word:
                name = word
            else:
                self.draft.loud(origin, f"[ipv6-pool] {word[:40]!r}: neither name= nor next=")
        size = int(length or 64)
        pool = self._found.setdefault((kind, name), _Pool(size, following, origin))
        if pool.length != size:
            self.draft.loud(
                origin, f"[ipv6-pool] {prefix[:50]}: a pool has parts of one length, {pool.length}"
            )
            return
        pool.next = pool.next or following
        pool.prefixes.append(prefix)

    def _names(self, line: Line, origin: Origin) -> bool:
        if line.key == "dnssl":
            self._search.append((line.value.rstrip("."), origin))
        elif line.key == "dns" or ":" in line.key:
            self._dns.append((line.value if line.key == "dns" else line.key, origin))
        else:
            return False
        return True

    def _dhcp(self, line: Line, origin: Origin) -> bool:
        keys = {"pref-lifetime": "preferred_lifetime_s", "valid-lifetime": "valid_lifetime_s"}
        if line.key in keys and re.fullmatch(r"[0-9]{1,10}", line.value):
            self.draft.set("ipv6", keys[line.key], int(line.value), origin)
        elif line.key in ("verbose", "route-via-gw", "server-id"):
            self.draft.quiet(origin, f"[ipv6-dhcp] {line.key}: is not needed here")
        elif line.key == "aftr-gw":
            self.draft.loud(origin, "[ipv6-dhcp] aftr-gw: DS-Lite is not served")
        else:
            return False
        return True

    def finish(self, link: tuple[str, Origin] | None, delegate: tuple[str, Origin] | None) -> None:
        """Write them; `link` and `delegate` are the pools that [pptp] names."""
        for key, values in (("dns", self._dns), ("search", self._search)):
            if values:
                self.draft.set("ipv6", key, tuple(v for v, _ in values), values[0][1])
        for kind, key, given in (
            (_LINK, "pool", link),
            (_DELEGATE, "delegated_pool", delegate),
        ):
            name = given[0] if given is not None else ""
            if (kind, name) in self._found:
                chosen = self._found[kind, name]
                where = "address_pool" if kind == _LINK and chosen.length == 128 else key
                self.draft.set("ipv6", where, ours(kind, name), given[1] if given else None)
            elif given is not None:
                self.draft.loud(given[1], f"[pptp]: no {kind} pool {name[:40]!r} of IPv6")
        for (kind, name), pool in self._found.items():
            made: dict[str, Any] = {
                "name": ours(kind, name),
                "prefixes": tuple(pool.prefixes),
                "length": pool.length,
            }
            if pool.next and (kind, pool.next) in self._found:
                made["next"] = ours(kind, pool.next)
            elif pool.next:
                self.draft.loud(pool.origin, f"[ipv6-pool] next={pool.next[:40]}: no such pool")
            self.draft.add("ipv6", "pools", made, pool.origin)


def ours(kind: str, name: str) -> str:
    """Our name of a pool: both kinds share one list here, and each has one of theirs."""
    return name or ("default6" if kind == _LINK else "delegated6")
