"""What a configuration may say: one pydantic model for each section of ops.settings.

Names and defaults are those of ops.settings (a test keeps both in step); here are the
limits, the units for the reader, and the checks across sections. A model is only
built on the way from TOML to Settings: nothing else in the program sees one.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from pydantic_core import PydanticCustomError

from ops import settings
from ops.ranges import count, format_address, parse_address, parse_ranges

MAX_WORKERS: Final = 64  # a call ID has 64 buckets; fastpath.layout.MAX_WORKERS
MAX_POOLS: Final = 255  # the record holds one octet; 255 itself is "static address"
MAX_POOL_ADDRESSES: Final = 1 << 20  # a /12
NAME_OCTETS: Final = 63  # text fields of SCCRP hold 64, of the session record 63 and a zero

Path = tuple[str | int, ...]
Ranges = list[tuple[int, int]]


def _refuse(text: str) -> PydanticCustomError:
    return PydanticCustomError("pptpcon", "{text}", {"text": text})


def _address(text: str) -> str:
    try:
        parse_address(text)
    except ValueError:
        raise _refuse('must be an IPv4 address, as in "10.99.0.1"') from None
    return text


def check_ranges(text: str) -> str:
    """The text, if it is ranges of addresses that hosts can have; else ValueError."""
    try:
        found = parse_ranges(text)
    except ValueError as e:
        raise _refuse(f"must be addresses, a range or a prefix: {e}") from None
    for first, last in found:
        # 0/8 and 127/8 are the host's own, from 224/4 on there are no unicast addresses.
        for low, high, what in (
            (0, (1 << 24) - 1, "0.0.0.0/8"),
            (127 << 24, (128 << 24) - 1, "127.0.0.0/8"),
            (224 << 24, (1 << 32) - 1, "224.0.0.0/3"),
        ):
            if first <= high and low <= last:
                raise _refuse(f"must be addresses a host can have, and {what} has none")
    return text


def _name(text: str) -> str:
    if not re.fullmatch(rf"[!-~]{{1,{NAME_OCTETS}}}", text):
        raise _refuse(f"must be 1 to {NAME_OCTETS} printable ASCII characters without spaces")
    return text


def check_pool_name(text: str) -> None:
    """ValueError unless `text` can name a pool: it is a label of metrics and a word of logs."""
    if not re.fullmatch(rf"[A-Za-z0-9._-]{{1,{NAME_OCTETS}}}", text):
        raise ValueError(f"a pool's name must be 1 to {NAME_OCTETS} of A-Z a-z 0-9 . _ -")


def _user_name(text: str) -> str:
    if not 1 <= len(text.encode("utf-8")) <= 255 or not text.isprintable():
        raise _refuse("an account's name must be 1 to 255 octets of printable text")
    return text


def _password(text: str) -> str:
    if not 1 <= len(text) <= 256 or "\0" in text:
        raise _refuse("a password must have 1 to 256 characters")
    return text


def _user(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_.-]{0,31}", text):
        raise _refuse('must be the name of a system user, as in "nobody"')
    return text


def _run_dir(text: str) -> str:
    # sun_path holds 108 octets; the longest name below is /control.sock.
    if text and (not text.startswith("/") or not text.isprintable() or len(text.encode()) > 90):
        raise _refuse("must be an absolute path of at most 90 octets, or empty")
    return text


def _file_path(text: str) -> str:
    if "\0" in text:
        raise _refuse("must be a path; a path holds no NUL")
    return text


def _domain(text: str) -> str:
    if not re.fullmatch(r"[!-\[\]-~]{0,63}", text):
        raise _refuse(r"must be a domain's name alone, without \ and without spaces")
    return text


def _endpoint(text: str) -> str:
    if not text:
        return text
    host, _, port = text.rpartition(":")
    good = port.isascii() and port.isdigit() and len(port) <= 5 and 1 <= int(port) <= 65535
    try:
        parse_address(host)
    except ValueError:
        good = False
    if not good:
        raise _refuse('must be ADDRESS:PORT, as in "127.0.0.1:9723", or empty to switch it off')
    return text


def _strength(bits: int) -> int:
    if bits not in (128, 40):
        raise _refuse("must be 128 or 40")
    return bits


def _distinct(items: tuple[Any, ...]) -> tuple[Any, ...]:
    for at, item in enumerate(items):
        if item in items[:at]:
            raise _refuse(f"names {item} twice")
    return items


# Strict scalars: "1400" is no number, 1 is no boolean, true is no number.
Text = Annotated[str, Field(strict=True)]
Whole = Annotated[int, Field(strict=True)]
Flag = Annotated[bool, Field(strict=True)]
Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]
Address = Annotated[Text, AfterValidator(_address)]
RangeText = Annotated[Text, AfterValidator(check_ranges)]
Seconds = Annotated[Number, Field(gt=0, le=86400)]
Size = Annotated[Whole, Field(ge=576, le=1500)]
Attempts = Annotated[Whole, Field(ge=1, le=255)]
Limit = Annotated[Whole, Field(ge=0, le=1_000_000)]


class Section(BaseModel):
    """What all sections have in common."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Server(Section):
    """The concentrator as a whole."""

    name: Annotated[Text, AfterValidator(_name)] = Field(
        "pptpcon",
        description="Host name told to clients, CHAP name, and the server column of chap-secrets.",
    )
    user: Annotated[Text, AfterValidator(_user)] = Field(
        "nobody", description="Unprivileged user of the processes that read what strangers send."
    )
    run_dir: Annotated[Text, AfterValidator(_run_dir)] = Field(
        "",
        description="Folder of our sockets. Empty: /run/pptpcon, and /run/pptpcon-INODE in"
        " another network namespace than the host's.",
    )


class Listen(Section):
    """Control connections (TCP)."""

    address: Address = Field("0.0.0.0", description="Address to serve; 0.0.0.0 is all of them.")  # noqa: S104
    port: Annotated[Whole, Field(ge=1, le=65535)] = Field(
        1723, description="Clients know no other port than 1723."
    )
    backlog: Annotated[Whole, Field(ge=1, le=65535)] = Field(
        4096, description="Connections the kernel may hold before we take them."
    )
    start_timeout_s: Seconds = Field(
        10.0, description="Seconds from TCP to the client's first message (Start request)."
    )
    call_timeout_s: Seconds = Field(60.0, description="Seconds without a call before we hang up.")
    echo_interval_s: Seconds = Field(
        60.0, description="Seconds of silence before we send an Echo request."
    )
    echo_timeout_s: Seconds = Field(60.0, description="Seconds to wait for the answer to it.")
    gre_timeout_s: Seconds = Field(
        10.0,
        description="Seconds after which a call without any GRE (IP protocol 47) is named in the"
        " log: something on the way drops it.",
    )


class Workers(Section):
    """Worker processes: each carries a share of the sessions on a CPU of its own."""

    count: Annotated[Whole, Field(ge=0, le=MAX_WORKERS)] = Field(
        0, description="Number of workers; 0: one for each CPU given to data."
    )
    cpus: Annotated[
        tuple[Annotated[Whole, Field(ge=0, le=4095)], ...],
        Field(max_length=MAX_WORKERS),
        AfterValidator(_distinct),
    ] = Field((), description="CPUs of the workers' data threads, as in [2, 3]; []: automatic.")


class Gre(Section):
    """The data channel: enhanced GRE."""

    mode: Literal["auto", "packet", "raw"] = Field(
        "auto",
        description="How GRE is received: by packet sockets with fanout (many workers), by a raw"
        " socket (one or two workers, odd links), or whichever fits.",
    )
    batch: Annotated[Whole, Field(ge=1, le=1024)] = Field(
        64, description="Packets taken from a socket at a time, at most."
    )
    window: Annotated[Whole, Field(ge=1, le=65535)] = Field(
        64, description="Receive window told to clients, in packets."
    )
    reorder_depth: Annotated[Whole, Field(ge=0, le=1024)] = Field(
        32, description="Packets of a session held for a late one; 0: none."
    )
    reorder_timeout_ms: Annotated[Whole, Field(ge=1, le=10000)] = Field(
        50, description="Milliseconds they are held."
    )
    ack_delay_ms: Annotated[Whole, Field(ge=0, le=1000)] = Field(
        100, description="Milliseconds an acknowledgement may wait for data to ride on."
    )
    receive_buffer_bytes: Annotated[Whole, Field(ge=65536, le=1 << 30)] = Field(
        8388608, description="Receive buffer of each worker's socket, in bytes."
    )


class Ppp(Section):
    """LCP and authentication."""

    mtu: Size = Field(1400, description="Largest inner packet sent to a subscriber, in bytes.")
    mru: Size = Field(1400, description="Largest inner packet we say we accept, in bytes.")
    auth: Annotated[
        tuple[settings.AuthMethod, ...], Field(min_length=1), AfterValidator(_distinct)
    ] = Field(
        ("mschapv2",),
        description="Methods offered, in this order; no other is accepted."
        ' Of "mschapv2", "mschap", "chap-md5", "pap". MPPE needs one of the first two.',
    )
    restart_interval_s: Annotated[Number, Field(ge=0.1, le=60)] = Field(
        3.0, description="Seconds before an unanswered request is sent again."
    )
    max_configure: Attempts = Field(10, description="Configure requests before giving up.")
    max_terminate: Attempts = Field(2, description="Terminate requests before giving up.")
    max_failure: Attempts = Field(10, description="Naks before an option is rejected instead.")
    negotiation_timeout_s: Seconds = Field(
        60.0, description="Seconds from the call to the session being up."
    )
    auth_timeout_s: Seconds = Field(30.0, description="Seconds authentication may take.")
    lcp_echo_interval_s: Annotated[Whole, Field(ge=0, le=86400)] = Field(
        30, description="Seconds of silence before an LCP echo; any data is life; 0: off."
    )
    lcp_echo_failures: Annotated[Whole, Field(ge=1, le=255)] = Field(
        4, description="Unanswered echoes after which the session is ended."
    )
    mss_clamp: Flag = Field(
        True, description="Lower the TCP MSS to the tunnel's size: path MTU discovery often fails."
    )


class Mppe(Section):
    """Encryption (RC4 with 40 or 128 bit keys)."""

    policy: settings.MppePolicy = Field(
        "require", description='"require": no session without it; "prefer"; "deny".'
    )
    strengths: Annotated[
        tuple[Annotated[Whole, AfterValidator(_strength)], ...],
        Field(min_length=1),
        AfterValidator(_distinct),
    ] = Field((128,), description="Key lengths allowed, best first: of 128 and 40.")


class Ip(Section):
    """What subscribers are given."""

    local: RangeText = Field(
        "10.99.0.1",
        description="Our address inside the tunnels; one, or a range in pptpd's localip syntax."
        " It is never given to a subscriber, even if it lies in a pool.",
    )
    dns: Annotated[tuple[Address, ...], Field(max_length=2), AfterValidator(_distinct)] = Field(
        (), description="Up to two name servers."
    )
    wins: Annotated[tuple[Address, ...], Field(max_length=2), AfterValidator(_distinct)] = Field(
        (), description="Up to two WINS servers."
    )
    pool: Text = Field("default", description="Pool of accounts that name no address.")


class Pool(Section):
    """Addresses for subscribers; any number of pools, each with a name of its own."""

    ranges: Annotated[tuple[RangeText, ...], Field(min_length=1)] = Field(
        description="Ranges in pptpd's remoteip syntax (every address is used), or prefixes"
        " (network and broadcast address are left out)."
    )


class Accounts(Section):
    """Who may log in."""

    chap_secrets: Annotated[Text, AfterValidator(_file_path)] = Field(
        "",
        description="File in pppd's chap-secrets format, read again when it changes; relative to"
        " this file. Empty: none.",
    )
    domain: settings.DomainPolicy = Field(
        "strip",
        description=r'Names that come as DOMAIN\user: "strip" looks up user, "keep" the whole.',
    )
    default_domain: Annotated[Text, AfterValidator(_domain)] = Field(
        "", description="Domain put before names that come without one; empty: none."
    )
    users: dict[
        Annotated[Text, AfterValidator(_user_name)], Annotated[Text, AfterValidator(_password)]
    ] = Field({}, description="name = password, for a few accounts without a file.")


class Limits(Section):
    """How much is served; 0 is no limit."""

    max_sessions: Annotated[Whole, Field(ge=1, le=1_000_000)] = Field(
        16384, description="Slots: sessions of the whole box. 4 KiB of shared memory each."
    )
    per_ip_sessions: Limit = Field(0, description="Sessions from one client address.")
    per_ip_connections: Limit = Field(0, description="Control connections from one address.")
    per_user_sessions: Limit = Field(0, description="Sessions of one account.")
    max_connections: Limit = Field(
        0, description="Control connections; 0: as many as there are file descriptors, less 1000."
    )
    max_starting: Annotated[Whole, Field(ge=1, le=1_000_000)] = Field(
        2000, description="Calls that may be negotiating at a time."
    )


class Metrics(Section):
    """Prometheus."""

    listen: Annotated[Text, AfterValidator(_endpoint)] = Field(
        "127.0.0.1:9723", description="ADDRESS:PORT of http://.../metrics; empty: off."
    )


class Logging(Section):
    """One line for each event, on standard error."""

    level: Literal["error", "warning", "notice", "info", "debug"] = Field(
        "info", description='"error", "warning", "notice", "info" or "debug".'
    )
    format: Literal["text", "json"] = Field("text", description='"text" or "json".')


SECTIONS: Final[dict[str, type[Section]]] = {
    "server": Server,
    "listen": Listen,
    "workers": Workers,
    "gre": Gre,
    "ppp": Ppp,
    "mppe": Mppe,
    "ip": Ip,
    "accounts": Accounts,
    "limits": Limits,
    "metrics": Metrics,
    "log": Logging,
}
TOP_ORDER: Final[tuple[str, ...]] = tuple(field.name for field in fields(settings.Settings))


@dataclass(frozen=True, slots=True)
class Config:
    """All sections, each of them valid; what stands across them is checked by `cross_check`."""

    sections: dict[str, Section]
    pools: dict[str, Pool]

    def to_settings(self) -> settings.Settings:
        """The plain values, with our own addresses cut out of the pools."""
        parts: dict[str, Any] = {}
        for name, section in self.sections.items():
            values = {key: getattr(section, key) for key in type(section).model_fields}
            if name == "accounts":
                values["users"] = tuple(values["users"].items())
            kind = settings.Settings.__dataclass_fields__[name].default_factory
            parts[name] = kind(**values)  # type: ignore[operator]
        local = parse_ranges(parts["ip"].local)
        parts["pools"] = tuple(
            settings.Pool(name, without(pool.ranges, local)) for name, pool in self.pools.items()
        )
        return settings.Settings(**parts)


@dataclass(frozen=True, slots=True)
class Remark:
    """Something about a key. `fatal` is False for what is only unwise."""

    path: Path
    text: str
    fatal: bool = True


def without(texts: tuple[str, ...], local: Ranges) -> tuple[str, ...]:
    """The range texts, those that hold a local address rewritten to leave it out."""
    result: list[str] = []
    for text in texts:
        found = parse_ranges(text)
        left = subtract(found, local)
        if left == found:
            result.append(text)
        elif left:
            result.append(",".join(show_range(first, last) for first, last in left))
    return tuple(result)


def subtract(ranges: Ranges, minus: Ranges) -> Ranges:
    """`ranges`, in their order, less all addresses in `minus`."""
    holes = sorted(minus)
    reach: list[int] = []  # highest address of the holes so far: ascending, for the search
    for _, last in holes:
        reach.append(max(last, reach[-1]) if reach else last)
    kept: Ranges = []
    for first, last in ranges:
        at = first
        for low, high in holes[bisect_left(reach, first) :]:
            if low > last:
                break
            if low > at:
                kept.append((at, low - 1))
            at = max(at, high + 1)
        if at <= last:
            kept.append((at, last))
    return kept


def show_range(first: int, last: int) -> str:
    """A range in the shortest form `parse_ranges` reads back."""
    if first == last:
        return format_address(first)
    if first >> 8 == last >> 8:
        return f"{format_address(first)}-{last & 0xFF}"
    return f"{format_address(first)}-{format_address(last)}"


def cross_check(
    sections: dict[str, Section], pools: dict[str, Pool], names: Sequence[str]
) -> list[Remark]:
    """What no key is wrong in by itself. Sections and pools with own errors are absent.

    `names` are those of all pools, the faulty ones too.
    """
    return [
        *_check_pool_named(sections, names),
        *_check_pools(sections, pools),
        *_check_mppe(sections),
        *_check_accounts(sections),
        *_check_workers(sections),
    ]


def _check_pool_named(sections: dict[str, Section], names: Sequence[str]) -> list[Remark]:
    ip = sections.get("ip")
    if not isinstance(ip, Ip) or ip.pool in names or not names:
        return []
    known = ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")
    return [Remark(("ip", "pool"), f"must name a pool; there is {known}")]


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
    keyless = [method for method in ppp.auth if not method.startswith("mschap")]
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


def _check_accounts(sections: dict[str, Section]) -> list[Remark]:
    accounts = sections.get("accounts")
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
