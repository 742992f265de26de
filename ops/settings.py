"""The typed configuration every process sees: plain frozen values, units in the names.

Leaf module: standard library only. `ops.config` validates a TOML file and makes
these; the keeper hands them to its children as JSON in a memfd. The file's
sections and keys have the same names as the classes' fields below.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

T = TypeVar("T")

AuthMethod = Literal["pap", "chap-md5", "mschap", "mschapv2", "eap"]
EapType = Literal["mschapv2", "md5", "relay"]
MppePolicy = Literal["require", "prefer", "deny"]
MppeKernel = Literal["auto", "portable", "sse4.1", "avx2", "avx512", "sha-ni"]
TunWrites = Literal["auto", "plain", "io_uring"]
StatefulPolicy = Literal["refuse", "allow", "ask"]
DomainPolicy = Literal["keep", "strip", "map", "allow"]


@dataclass(frozen=True, slots=True)
class Server:
    """[server] The concentrator as a whole."""

    name: str = "pptpcon"  # host name in SCCRP, CHAP name, server column of chap-secrets
    user: str = "nobody"  # unprivileged user of dispatcher, workers and console
    run_dir: str = ""  # "": /run/pptpcon, or /run/pptpcon-<inode> in another network namespace
    state_dir: str = ""  # "": /var/lib/pptpcon, or RUN_DIR/state in another network namespace


@dataclass(frozen=True, slots=True)
class Listen:
    """[listen] Control connections, RFC 2637 section 1.2."""

    address: str = "0.0.0.0"  # noqa: S104 - a concentrator serves every interface by default
    port: int = 1723
    backlog: int = 4096
    start_timeout_s: float = 10.0  # TCP accepted, no SCCRQ yet
    call_timeout_s: float = 60.0  # control connection up, no call
    echo_interval_s: float = 60.0  # silence (control messages only) before our Echo-Request
    echo_timeout_s: float = 60.0  # silence after it before the connection is closed
    gre_timeout_s: float = 10.0  # call up, no GRE at all: named in the log
    allow: tuple[str, ...] = ()  # prefixes that may connect; (): all
    deny: tuple[str, ...] = ()  # prefixes that may not; the longest prefix of both lists counts


@dataclass(frozen=True, slots=True)
class Workers:
    """[workers] Worker processes and the CPUs of their data threads."""

    count: int = 0  # 0: one for each CPU given to data
    cpus: tuple[int, ...] = ()  # (): automatic
    realtime: bool = True  # data threads ahead of other programs, while they leave them time


@dataclass(frozen=True, slots=True)
class Gre:
    """[gre] Enhanced GRE, RFC 2637 section 4."""

    mode: Literal["auto", "xdp", "packet", "raw"] = "auto"
    send: Literal["auto", "xdp", "packet", "raw"] = "auto"
    xdp_mode: Literal["auto", "native", "generic"] = "auto"  # how the program is attached
    batch: int = 64  # packets drained for each wake-up and socket
    window: int = 64  # our receive window, told in OCRP
    reorder_depth: int = 32  # packets held for a late one; 0: none
    reorder_timeout_ms: int = 50
    ack_delay_ms: int = 100
    coalesce_us: int = 5000  # longest nap between few packets that come fast; 0: none
    receive_buffer_bytes: int = 8388608  # of each worker's socket
    interface: str = ""  # where GRE arrives, for packet sockets; "": anywhere
    tun_writes: TunWrites = "auto"  # small packets to the TUN: "auto" times both at the start


@dataclass(frozen=True, slots=True)
class Ppp:
    """[ppp] LCP and authentication, RFC 1661, 1334, 1994, 2433, 2759, 3748."""

    mtu: int = 1400  # largest inner packet sent to a subscriber
    mru: int = 1400  # what we tell the peer it may send
    auth: tuple[AuthMethod, ...] = ("mschapv2",)  # offered in this order; the list is the minimum
    eap: tuple[EapType, ...] = ("mschapv2", "md5")  # types of "eap", offered in this order
    auth_retries: int = 1  # MS-CHAP: how often a user may try again in the same call
    chap_rechallenge_s: int = 0  # between challenges of a session that is up; 0: off
    restart_interval_s: float = 3.0
    max_configure: int = 10
    max_terminate: int = 2
    max_failure: int = 10
    negotiation_timeout_s: float = 60.0  # from call to IPCP up
    auth_timeout_s: float = 30.0
    lcp_echo_interval_s: int = 30  # of silence; any data counts as life; 0: off
    lcp_echo_failures: int = 4
    mss_clamp: bool = True


@dataclass(frozen=True, slots=True)
class Mppe:
    """[mppe] RFC 3078."""

    policy: MppePolicy = "require"
    strengths: tuple[int, ...] = (128,)  # of 128, 56 and 40, in order of preference
    stateful: StatefulPolicy = "refuse"  # agree to it, or ask for it where we receive
    kernel: MppeKernel = "auto"  # the code that encrypts: the fastest that the CPU can run


@dataclass(frozen=True, slots=True)
class Ip:
    """[ip] What IPCP gives to subscribers."""

    local: str = "10.99.0.1"  # address or range (pptpd's localip syntax)
    dns: tuple[str, ...] = ()  # at most 2
    wins: tuple[str, ...] = ()  # at most 2
    pool: str = "default"  # pool of accounts that name no address
    conflict: Literal["refuse", "old", "new"] = "refuse"  # two sessions, one static address
    default_routes: bool = False  # may an account have 0.0.0.0/0 or ::/0 behind it?


@dataclass(frozen=True, slots=True)
class Pool6:
    """[[ipv6.pools]]"""

    name: str
    prefixes: tuple[str, ...]
    length: int = 64  # of what a session gets: /64 for its link, /128 an address
    next: str = ""  # the pool to take from when this one is used up


@dataclass(frozen=True, slots=True)
class Ipv6:
    """[ipv6] IPv6CP, RFC 5072; router advertisements, RFC 4861; DHCPv6, RFC 8415."""

    ipv6cp: Literal["off", "on"] = "off"
    interface_id: str = "::1"  # ours, written as the low half of an address
    subscriber_id: Literal["ipv4", "random"] = "ipv4"  # for clients that bring none
    subscriber_may_choose: bool = True
    pool: str = ""  # of the links' /64s; "": link-local only, unless the account says more
    delegated_pool: str = ""  # of prefixes handed on by DHCPv6
    address_pool: str = ""  # of single addresses by DHCPv6
    dns: tuple[str, ...] = ()  # at most 3
    search: tuple[str, ...] = ()  # domains
    dhcp: Literal["off", "on"] = "on"
    ra_interval_s: int = 600  # the longest between two router advertisements
    ra_lifetime_s: int = 1800  # of the default route; 0: none by us
    preferred_lifetime_s: int = 3600
    valid_lifetime_s: int = 7200
    pools: tuple[Pool6, ...] = ()


@dataclass(frozen=True, slots=True)
class Pool:
    """[pools.NAME]"""

    name: str
    ranges: tuple[str, ...]  # pptpd's remoteip syntax or CIDR: "192.168.1.234-238", "10.0.0.0/22"
    next: str = ""  # the pool to take from when this one is used up


@dataclass(frozen=True, slots=True)
class AccountRule:
    """[[accounts.rules]] What is different for some accounts; the first match counts."""

    match: str  # a name, with * for any text: "bob", "SALES\\*"
    mppe: Literal["", "require", "prefer", "deny"] = ""  # "": as in [mppe]
    strengths: tuple[int, ...] = ()  # (): as in [mppe]
    auth: tuple[AuthMethod, ...] = ()  # (): as in [ppp]
    pool: str = ""  # "": as the account says, or ip.pool
    dns: tuple[str, ...] = ()  # (): as in [ip]
    wins: tuple[str, ...] = ()
    routes: tuple[str, ...] = ()  # networks behind the subscriber, of both families
    prefix6: str = ""  # of its link, a /64
    pool6: str = ""  # "": as in [ipv6]; "none": none
    delegated6: str = ""
    delegated_pool6: str = ""
    address6: str = ""
    address_pool6: str = ""
    dns6: tuple[str, ...] = ()
    sessions: int = 0  # of each of these users at once; 0: as in [limits]
    session_timeout_s: int = 0
    idle_timeout_s: int = 0
    volume_up: int = 0  # octets; 0: no limit
    volume_down: int = 0
    volume: int = 0
    rate_up: int = 0  # bit/s; 0: as in [shaping], -1: none
    rate_down: int = 0
    burst_up: int = 0  # octets; 0: from the rate
    burst_down: int = 0
    filter: str = ""  # "": as in [shaping]


@dataclass(frozen=True, slots=True)
class Accounts:
    """[accounts] The local user file; entries here need no file (for first runs)."""

    chap_secrets: str = ""  # path, pppd's format; "": none
    domain: DomainPolicy = "strip"  # DOMAIN\\user: how it is looked up
    domain_map: tuple[str, ...] = ()  # "OLD=NEW" or "OLD=": for domain "map"
    domain_allow: tuple[str, ...] = ()  # for domain "allow"
    default_domain: str = ""  # put before names that come without one
    nt_hashes: bool = False  # 32 hex digits in chap-secrets are an NT hash, as in accel-ppp
    rules: tuple[AccountRule, ...] = ()
    users: tuple[tuple[str, str], ...] = ()  # (name, password): [accounts.users]


@dataclass(frozen=True, slots=True)
class RadiusServer:
    """[[radius.servers]]"""

    address: str
    secret: str = field(repr=False)
    name: str = ""  # "": the address
    auth_port: int = 1812  # 0: not asked for logins
    acct_port: int = 1813  # 0: gets no accounting
    priority: int = 0  # the lowest that live are asked
    weight: int = 1  # share among those of one priority
    message_authenticator: Literal["require", "auto", "off"] = "auto"  # in answers
    probe: Literal["status", "off"] = "status"  # Status-Server while it is dead


@dataclass(frozen=True, slots=True)
class RadiusClient:
    """[[radius.clients]] Who may send CoA- and Disconnect-Requests, RFC 5176."""

    address: str  # or prefix
    secret: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Radius:
    """[radius] Logins and accounting elsewhere: RFC 2865, 2866, 5080, 5176."""

    timeout_s: float = 1.0  # before the first repetition; doubles
    tries: int = 3  # of one server, then the next
    in_flight: int = 128  # requests at one server without an answer; more are held back
    probe_interval_s: float = 5.0  # of a dead server
    dead_time_s: float = 60.0  # then a live request may try it, too
    nas_identifier: str = ""  # "": server.name
    nas_ip: str = ""  # NAS-IP-Address; "": none
    nas_port_id: str = "pptp"  # and the number of the session's slot
    source: str = ""  # address requests are sent from; "": by the route
    interim_s: int = 300  # Acct-Interim-Interval where the server says none; 0: none
    accounting: Literal["on", "off"] = "on"
    fallback: Literal["off", "local"] = "off"  # [accounts] when no server answers
    listen: str = ""  # ADDRESS:PORT for CoA and Disconnect; "": off
    event_window_s: int = 300  # how far Event-Timestamp of those may be off; 0: any
    servers: tuple[RadiusServer, ...] = ()
    clients: tuple[RadiusClient, ...] = ()


@dataclass(frozen=True, slots=True)
class Limits:
    """[limits]"""

    max_sessions: int = 16384  # slots of the box
    per_ip_sessions: int = 0  # 0: no limit
    per_ip_connections: int = 0  # control connections of one address; 0: no limit
    per_user_sessions: int = 0
    max_connections: int = 0  # 0: RLIMIT_NOFILE - 1000
    max_starting: int = 2000  # calls not up yet
    over_user_limit: Literal["deny", "replace"] = "deny"  # the new session, or the oldest
    per_realm_sessions: int = 0
    per_ip_starts_per_minute: int = 0
    session_timeout_s: int = 0
    idle_timeout_s: int = 0
    idle_by: Literal["both", "subscriber"] = "both"  # whose data is no idleness


@dataclass(frozen=True, slots=True)
class Bans:
    """[bans] Who fails to log in too often is refused for a while; 0 failures: never."""

    user_failures: int = 0
    source_failures: int = 0
    window_s: int = 600  # a failure counts so long
    ban_s: int = 60  # the first ban; each one in a row is twice as long
    longest_s: int = 86400
    exempt: tuple[str, ...] = ()  # sources whose failures do not count


@dataclass(frozen=True, slots=True)
class Shaping:
    """[shaping] Rates and filter of sessions whose account says none; up is from them."""

    rate_up: int = 0  # bit/s; 0: none
    rate_down: int = 0
    burst_up: int = 0  # octets; 0: from the rate
    burst_down: int = 0
    filter: str = ""  # "": none
    exempt: tuple[str, ...] = ()  # prefixes that no rate holds for


@dataclass(frozen=True, slots=True)
class Filter:
    """[filters.NAME]"""

    name: str
    rules: tuple[str, ...]  # workers.filters
    default: Literal["permit", "deny"] = "permit"  # what no rule speaks of


@dataclass(frozen=True, slots=True)
class Lan:
    """[lan] The side of the subscribers: where their addresses are to be seen, and by whom."""

    proxy: Literal["off", "on"] = "off"  # entries of ARP and NDP for each subscriber's address
    interface: str = ""  # that they are on; "": where the routing table leads
    isolate: bool = False  # nothing from subscriber to subscriber
    list_table: str = "inet pptpcon_lists"  # family and name of the nft table with address lists
    netns: str = ""  # network namespace of the subscribers' side; "": our own


@dataclass(frozen=True, slots=True)
class Hooks:
    """[hooks] Programs run when sessions come, go or change; "": none."""

    ip_up: str = ""
    ip_down: str = ""
    ip_change: str = ""
    auth_up: str = ""
    auth_down: str = ""
    user: str = "nobody"  # that they run as
    ipparam: str = ""  # their sixth argument; "": the subscriber's outer address
    radattr: str = ""  # path that, with ".NAME" added, holds a session's attributes; "": none
    at_once: int = 8
    queue: int = 8192  # that wait; more are not run
    timeout_s: float = 10.0  # then it is killed

    @property
    def wanted(self) -> bool:
        """Whether there is anything to do."""
        return any(
            (self.ip_up, self.ip_down, self.ip_change, self.auth_up, self.auth_down, self.radattr)
        )


@dataclass(frozen=True, slots=True)
class Records:
    """[records] Who is and was logged in."""

    history_days: int = 0  # sessions are remembered for, in state_dir; 0: none are
    utmp: str = ""  # /run/utmp: who(1); "": not written
    wtmp: str = ""  # /var/log/wtmp: last(1); "": not written
    strip_domain: bool = False  # DOMAIN\\user is user there

    @property
    def wanted(self) -> bool:
        """Whether there is anything to do."""
        return bool(self.history_days or self.utmp or self.wtmp)


@dataclass(frozen=True, slots=True)
class Metrics:
    """[metrics]"""

    listen: str = "127.0.0.1:9723"  # "": off
    sessions: str = ""  # "top:N": series of the N busiest sessions; "": none
    session_names: bool = False  # with their users' names


@dataclass(frozen=True, slots=True)
class Console:
    """[console] Status page and API of metrics.listen, and a port that speaks as accel-ppp's."""

    token_file: str = ""  # tokens for what names subscribers, one a line; "": none may ask
    hosts: tuple[str, ...] = ()  # names the page is asked by, besides addresses and this host's
    accel_cmd: str = ""  # ADDRESS:PORT; "": off
    accel_cmd_password_file: str = ""  # "": no password is asked for
    # SHA-256 of what is in the files, in hexadecimal: made by ops.config, no keys of the file.
    token_digests: tuple[str, ...] = field(default=(), repr=False, metadata={"made": True})
    accel_cmd_digest: str = field(default="", repr=False, metadata={"made": True})


@dataclass(frozen=True, slots=True)
class Logging:
    """[log]"""

    level: Literal["error", "warning", "notice", "info", "debug"] = "info"
    format: Literal["text", "json"] = "text"


@dataclass(frozen=True, slots=True)
class Settings:
    """The whole configuration."""

    server: Server = field(default_factory=Server)
    listen: Listen = field(default_factory=Listen)
    workers: Workers = field(default_factory=Workers)
    gre: Gre = field(default_factory=Gre)
    ppp: Ppp = field(default_factory=Ppp)
    mppe: Mppe = field(default_factory=Mppe)
    ip: Ip = field(default_factory=Ip)
    ipv6: Ipv6 = field(default_factory=Ipv6)
    pools: tuple[Pool, ...] = (Pool("default", ("10.99.1.0-255", "10.99.2.0-255")),)
    accounts: Accounts = field(default_factory=Accounts)
    radius: Radius = field(default_factory=Radius)
    limits: Limits = field(default_factory=Limits)
    bans: Bans = field(default_factory=Bans)
    shaping: Shaping = field(default_factory=Shaping)
    filters: tuple[Filter, ...] = ()
    lan: Lan = field(default_factory=Lan)
    hooks: Hooks = field(default_factory=Hooks)
    records: Records = field(default_factory=Records)
    metrics: Metrics = field(default_factory=Metrics)
    console: Console = field(default_factory=Console)
    log: Logging = field(default_factory=Logging)

    @property
    def needs_accounts(self) -> bool:
        """Whether there is an accounts process."""
        return bool(self.radius.servers) or self.records.wanted


def _build(kind: Any, value: Any) -> Any:
    if isinstance(kind, type) and is_dataclass(kind):
        hints = get_type_hints(kind)
        known = {f.name for f in fields(kind)}
        return kind(**{k: _build(hints[k], v) for k, v in value.items() if k in known})
    if get_origin(kind) is tuple:
        inner = get_args(kind)
        if len(inner) == 2 and inner[1] is Ellipsis:
            return tuple(_build(inner[0], item) for item in value)
        return tuple(_build(k, item) for k, item in zip(inner, value, strict=True))
    return value


def dumps(settings: Settings) -> bytes:
    """Settings as JSON, for a memfd."""
    return json.dumps(asdict(settings)).encode()


def loads(data: bytes) -> Settings:
    """The inverse of `dumps`; trusts its input, which our own processes wrote."""
    result: Settings = _build(Settings, json.loads(data))
    return result
