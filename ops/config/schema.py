"""What a configuration may say: one pydantic model for each section of ops.settings.

Names and defaults are those of ops.settings (a test keeps both in step); here are the
limits and the units for the reader. A model is only built on the way from TOML to
Settings: nothing else in the program sees one.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from ops import settings
from ops.config import values
from ops.config.addresses import without
from ops.ranges import parse_ranges

MAX_WORKERS: Final = 64  # a call ID has 64 buckets; fastpath.layout.MAX_WORKERS

# Strict scalars: "1400" is no number, 1 is no boolean, true is no number.
Text = Annotated[str, Field(strict=True)]
Whole = Annotated[int, Field(strict=True)]
Flag = Annotated[bool, Field(strict=True)]
Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]
Address = Annotated[Text, AfterValidator(values.check_address)]
RangeText = Annotated[Text, AfterValidator(values.check_ranges)]
Network = Annotated[Text, AfterValidator(values.check_network)]
Networks = Annotated[
    tuple[Network, ...], Field(max_length=4096), AfterValidator(values.check_distinct)
]
Seconds = Annotated[Number, Field(gt=0, le=86400)]
Size = Annotated[Whole, Field(ge=576, le=1500)]
Attempts = Annotated[Whole, Field(ge=1, le=255)]
Octets = Annotated[Whole, Field(ge=0, lt=1 << 63)]
Limit = Annotated[Whole, Field(ge=0, le=1_000_000)]
PortOrNone = Annotated[Whole, Field(ge=0, le=65535)]


Rate = Annotated[int, BeforeValidator(values.check_rate)]
Burst = Annotated[Whole, Field(ge=0, le=1 << 40)]
Program = Annotated[Text, AfterValidator(values.check_path)]


class Section(BaseModel):
    """What all sections have in common."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Server(Section):
    """The concentrator as a whole."""

    name: Annotated[Text, AfterValidator(values.check_name)] = Field(
        "pptpcon",
        description="Host name told to clients, CHAP name, and the server column of chap-secrets.",
    )
    user: Annotated[Text, AfterValidator(values.check_user)] = Field(
        "nobody", description="Unprivileged user of the processes that read what strangers send."
    )
    run_dir: Annotated[Text, AfterValidator(values.check_run_dir)] = Field(
        "",
        description="Folder of our sockets. Empty: /run/pptpcon, and /run/pptpcon-INODE in"
        " another network namespace than the host's.",
    )
    state_dir: Annotated[Text, AfterValidator(values.check_run_dir)] = Field(
        "",
        description="Folder of what outlives a restart, such as accounting not sent yet. Empty:"
        " /var/lib/pptpcon, and with the INODE there, too.",
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
    allow: Networks = Field(
        (),
        description='Addresses that may connect and send GRE, as in ["198.51.100.0/24"]; []: all.'
        " A reload ends the calls of those who may not any more.",
    )
    deny: Networks = Field(
        (),
        description="Addresses that may not. Where both lists hold an address, the longest prefix"
        " counts.",
    )


class Workers(Section):
    """Worker processes: each carries a share of the sessions on a CPU of its own."""

    count: Annotated[Whole, Field(ge=0, le=MAX_WORKERS)] = Field(
        0, description="Number of workers; 0: one for each CPU given to data."
    )
    cpus: Annotated[
        tuple[Annotated[Whole, Field(ge=0, le=4095)], ...],
        Field(max_length=MAX_WORKERS),
        AfterValidator(values.check_distinct),
    ] = Field((), description="CPUs of the workers' data threads, as in [2, 3]; []: automatic.")
    realtime: Flag = Field(
        True,
        description="Data threads run ahead of other programs on their CPUs (SCHED_FIFO, priority"
        " 1), so that packets don't wait for these; over 80 % load they are one among others. Only"
        " where a CPU has one worker.",
    )


class Gre(Section):
    """The data channel: enhanced GRE."""

    mode: Literal["auto", "xdp", "packet", "raw"] = Field(
        "auto",
        description="How GRE is received: by an XDP program and AF_XDP rings at gre.interface (the"
        " least CPU), with packet sockets for what these can't take; by packet sockets with fanout;"
        " by a raw socket (one or two workers, odd links); or whichever fits.",
    )
    send: Literal["auto", "xdp", "packet", "raw"] = Field(
        "auto",
        description="How GRE is sent: by AF_XDP rings of gre.interface, its queues by turns,"
        " past its queueing discipline; by packet sockets to the next hop (half the cost of raw"
        " ones; local firewall rules for output see neither); by raw sockets; or packet sockets or"
        " better wherever GRE is received by them, no IPsec policy is set and no rule of the"
        " firewall is about GRE.",
    )
    xdp_mode: Literal["auto", "native", "generic"] = Field(
        "auto",
        description="How the XDP program is attached: by the device's driver (some cards lose"
        " their link for a moment), after it, or by the driver where it can.",
    )
    batch: Annotated[Whole, Field(ge=1, le=1024)] = Field(
        64, description="Packets taken from a socket at a time, at most."
    )
    window: Annotated[Whole, Field(ge=1, le=65535)] = Field(
        64, description="Receive window told to clients, in packets."
    )
    reorder_depth: Annotated[Whole, Field(ge=0, le=64)] = Field(
        32, description="Packets of a session held for a late one; 0: none."
    )
    reorder_timeout_ms: Annotated[Whole, Field(ge=1, le=10000)] = Field(
        50, description="Milliseconds they are held."
    )
    ack_delay_ms: Annotated[Whole, Field(ge=0, le=1000)] = Field(
        100, description="Milliseconds an acknowledgement may wait for data to ride on."
    )
    coalesce_us: Annotated[Whole, Field(ge=0, le=20000)] = Field(
        5000,
        description="Microseconds that packets may wait for others while few come fast, as a"
        " network card's interrupts do; 0: never. Never more than 2,000 times what it costs"
        " to look for news, which is 800 us on a fast machine; a lone packet never waits.",
    )
    receive_buffer_bytes: Annotated[Whole, Field(ge=65536, le=1 << 30)] = Field(
        8388608, description="Receive buffer of each worker's socket, in bytes."
    )
    interface: Annotated[str, Field(pattern=r"^[^\s/]{0,15}$")] = Field(
        "",
        description="The one interface that GRE arrives on, for packet sockets; empty: any."
        " Named, all other traffic of this host is forwarded without a copy for us to look at.",
    )
    tun_writes: settings.TunWrites = Field(
        "auto",
        description='How packets from subscribers go to the TUN: "plain", a system call each;'
        ' "io_uring", a batch with one; "auto": what is quicker here, by trying at the start.'
        " Where the kernel has no io_uring, it is plain whatever is said.",
    )


class Ppp(Section):
    """LCP and authentication."""

    mtu: Size = Field(1400, description="Largest inner packet sent to a subscriber, in bytes.")
    mru: Size = Field(1400, description="Largest inner packet we say we accept, in bytes.")
    auth: Annotated[
        tuple[settings.AuthMethod, ...], Field(min_length=1), AfterValidator(values.check_distinct)
    ] = Field(
        ("mschapv2",),
        description="Methods offered, in this order; no other is accepted."
        ' Of "mschapv2", "mschap", "eap", "chap-md5", "pap". MPPE needs one of the first three.',
    )
    eap: Annotated[
        tuple[settings.EapType, ...], Field(min_length=1), AfterValidator(values.check_distinct)
    ] = Field(
        ("mschapv2", "md5"),
        description='EAP types offered, in this order, where auth has "eap": "mschapv2", "md5", and'
        ' "relay" for whatever the RADIUS server speaks. MPPE needs "mschapv2" or a type of'
        " the server's that gives keys.",
    )
    auth_retries: Annotated[Whole, Field(ge=0, le=10)] = Field(
        1,
        description="How often a client may ask its user for the password again in the same call"
        " (mschap, mschapv2 and EAP's mschapv2).",
    )
    chap_rechallenge_s: Annotated[Whole, Field(ge=0, le=604800)] = Field(
        0,
        description="Seconds after which a session that is up has to prove its password again"
        " (chap-md5, mschap, mschapv2); 0: never.",
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
    """Encryption (RC4 with 40, 56 or 128 bit keys)."""

    policy: settings.MppePolicy = Field(
        "require", description='"require": no session without it; "prefer"; "deny".'
    )
    strengths: Annotated[
        tuple[Annotated[Whole, AfterValidator(values.check_strength)], ...],
        Field(min_length=1),
        AfterValidator(values.check_distinct),
    ] = Field(
        (128,),
        description="Key lengths allowed, best first: of 128, 56 and 40. Who sees the traffic can"
        " read it at once with 40, and in hours with 56.",
    )
    stateful: settings.StatefulPolicy = Field(
        "refuse",
        description='Keys that change once in 256 packets, for old clients: "refuse"; "allow" for'
        ' those that ask; "ask" for it ourselves. Each lost packet then costs more of them.',
    )
    kernel: settings.MppeKernel = Field(
        "auto",
        description='The code that encrypts, for tests: "auto" takes the fastest that this CPU can'
        ' run, as `pptpcon show version` says; "portable" is plain C.',
    )


class Ip(Section):
    """What subscribers are given."""

    local: RangeText = Field(
        "10.99.0.1",
        description="Our address inside the tunnels; one, or a range in pptpd's localip syntax."
        " It is never given to a subscriber, even if it lies in a pool.",
    )
    dns: Annotated[
        tuple[Address, ...], Field(max_length=2), AfterValidator(values.check_distinct)
    ] = Field((), description="Up to two name servers.")
    wins: Annotated[
        tuple[Address, ...], Field(max_length=2), AfterValidator(values.check_distinct)
    ] = Field((), description="Up to two WINS servers.")
    pool: Text = Field("default", description="Pool of accounts that name no address.")
    conflict: Literal["refuse", "old", "new"] = Field(
        "refuse",
        description="A static address that another session has: the new session is refused"
        ' ("refuse"), gets one of its pool instead ("old"), or the other one ends for it ("new").',
    )
    default_routes: Flag = Field(
        False, description="Accounts may name 0.0.0.0/0 or ::/0 as a network behind them."
    )


class Pool6(Section):
    """IPv6 prefixes for sessions: any number of [[ipv6.pools]]."""

    name: Text = Field(description="As [ipv6], accounts and RADIUS name it.")
    prefixes: Annotated[
        tuple[Annotated[Text, AfterValidator(values.check_prefix6)], ...],
        Field(min_length=1, max_length=64),
        AfterValidator(values.check_distinct),
    ] = Field(description='Of what it is cut, as in ["2001:db8:100::/40"].')
    length: Annotated[Whole, Field(ge=16, le=128)] = Field(
        64, description="Of what a session gets: 64 for its link, 48 to 64 to delegate, 128."
    )
    next: Text = Field("", description="The pool to take from when this one is used up.")


class Ipv6(Section):
    """IPv6 inside the tunnels."""

    ipv6cp: Literal["off", "on"] = Field(
        "off", description='"on": IPv6 is offered, and fe80:: and our interface_id set on our side.'
    )
    interface_id: Annotated[Text, AfterValidator(values.check_interface_id)] = Field(
        "::1", description="Our interface identifier, as the low half of an address."
    )
    subscriber_id: Literal["ipv4", "random"] = Field(
        "ipv4", description="Of what the identifier of a client is made that brings none."
    )
    subscriber_may_choose: Flag = Field(
        True, description="Take the identifier that a client brings, if no other has it."
    )
    pool: Text = Field(
        "",
        description="Pool of the /64s that sessions get for their link, told by router"
        " advertisements; empty: link-local addresses only, unless an account says more.",
    )
    delegated_pool: Text = Field("", description="Pool of the prefixes that DHCPv6 delegates.")
    address_pool: Text = Field("", description="Pool of addresses (length 128) for DHCPv6.")
    dns: Annotated[
        tuple[Annotated[Text, AfterValidator(values.check_address6)], ...],
        Field(max_length=3),
        AfterValidator(values.check_distinct),
    ] = Field((), description="Up to three name servers, by advertisements and DHCPv6.")
    search: Annotated[
        tuple[Annotated[Text, AfterValidator(values.check_search)], ...],
        Field(max_length=6),
        AfterValidator(values.check_distinct),
    ] = Field((), description="Domains that hosts complete names by.")
    dhcp: Literal["off", "on"] = Field("on", description="Answer DHCPv6.")
    ra_interval_s: Annotated[Whole, Field(ge=4, le=1800)] = Field(
        600, description="The longest time between two router advertisements."
    )
    ra_lifetime_s: Annotated[Whole, Field(ge=0, le=9000)] = Field(
        1800, description="How long we are a default router without another one; 0: never."
    )
    preferred_lifetime_s: Annotated[Whole, Field(ge=60, le=4294967294)] = Field(
        3600, description="Of prefixes and addresses; clients renew after half of it."
    )
    valid_lifetime_s: Annotated[Whole, Field(ge=60, le=4294967294)] = Field(
        7200, description="At least the preferred lifetime."
    )
    pools: tuple[Pool6, ...] = Field((), description="See the end of this section.")


class Pool(Section):
    """Addresses for subscribers; any number of pools, each with a name of its own."""

    ranges: Annotated[tuple[RangeText, ...], Field(min_length=1)] = Field(
        description="Ranges in pptpd's remoteip syntax (every address is used), or prefixes"
        " (network and broadcast address are left out)."
    )
    next: Text = Field("", description="The pool to take from when this one is used up.")


class AccountRule(Section):
    """What is different for some accounts. The first rule that matches a name counts."""

    match: Annotated[Text, AfterValidator(values.check_user_name)] = Field(
        description=r'Name of the account, with or without its domain; * is any text: "SALES\\*".'
    )
    mppe: Literal["", "require", "prefer", "deny"] = Field(
        "", description="Instead of mppe.policy."
    )
    strengths: Annotated[
        tuple[Annotated[Whole, AfterValidator(values.check_strength)], ...],
        AfterValidator(values.check_distinct),
    ] = Field((), description="Instead of mppe.strengths.")
    auth: Annotated[tuple[settings.AuthMethod, ...], AfterValidator(values.check_distinct)] = Field(
        (), description="Methods these accounts may use, of those in ppp.auth."
    )
    pool: Text = Field("", description="Pool of accounts that name no address or pool themselves.")
    dns: Annotated[
        tuple[Address, ...], Field(max_length=2), AfterValidator(values.check_distinct)
    ] = Field((), description="Instead of ip.dns.")
    wins: Annotated[
        tuple[Address, ...], Field(max_length=2), AfterValidator(values.check_distinct)
    ] = Field((), description="Instead of ip.wins.")
    routes: Annotated[
        tuple[Annotated[Text, AfterValidator(values.check_route)], ...],
        Field(max_length=16),
        AfterValidator(values.check_distinct),
    ] = Field(
        (),
        description="Networks behind the subscriber, of both families, as in"
        ' ["192.168.7.0/24", "2001:db8:7::/48"].',
    )
    prefix6: Annotated[Text, AfterValidator(values.check_prefix6_or_none)] = Field(
        "", description="IPv6 prefix of the subscriber's link, a /64."
    )
    pool6: Text = Field("", description='Instead of ipv6.pool; "none": none.')
    delegated6: Annotated[Text, AfterValidator(values.check_prefix6_or_none)] = Field(
        "", description="IPv6 prefix that DHCPv6 delegates."
    )
    delegated_pool6: Text = Field("", description='Instead of ipv6.delegated_pool; "none": none.')
    address6: Annotated[Text, AfterValidator(values.check_address6_or_none)] = Field(
        "", description="IPv6 address that DHCPv6 gives."
    )
    address_pool6: Text = Field("", description='Instead of ipv6.address_pool; "none": none.')
    dns6: Annotated[
        tuple[Annotated[Text, AfterValidator(values.check_address6)], ...],
        Field(max_length=3),
        AfterValidator(values.check_distinct),
    ] = Field((), description="Instead of ipv6.dns.")
    sessions: Limit = Field(
        0, description="Sessions of each of these users; 0: limits.per_user_sessions."
    )
    session_timeout_s: Annotated[Whole, Field(ge=0, le=31536000)] = Field(
        0, description="Instead of limits.session_timeout_s."
    )
    idle_timeout_s: Annotated[Whole, Field(ge=0, le=31536000)] = Field(
        0, description="Instead of limits.idle_timeout_s."
    )
    volume_up: Octets = Field(0, description="Octets from the subscriber that end the session.")
    volume_down: Octets = Field(0, description="Octets to the subscriber that end the session.")
    volume: Octets = Field(0, description="Octets of both directions that end the session.")
    rate_up: Rate = Field(
        0, description='Instead of shaping.rate_up; "none": no rate, whatever stands there.'
    )
    rate_down: Rate = Field(0, description="Instead of shaping.rate_down.")
    burst_up: Burst = Field(0, description="Instead of shaping.burst_up.")
    burst_down: Burst = Field(0, description="Instead of shaping.burst_down.")
    filter: Text = Field("", description="Instead of shaping.filter.")


class Accounts(Section):
    """Who may log in."""

    chap_secrets: Annotated[Text, AfterValidator(values.check_file_path)] = Field(
        "",
        description="File in pppd's chap-secrets format, read again when it changes; relative to"
        " this file. Empty: none.",
    )
    domain: settings.DomainPolicy = Field(
        "strip",
        description=r'Names that come as DOMAIN\user: "strip" looks up the whole, then user; "keep"'
        ' the whole only; "map" changes the domain first (domain_map); "allow" is "strip", but'
        " for the domains of domain_allow only.",
    )
    domain_map: Annotated[
        tuple[Annotated[Text, AfterValidator(values.check_domain_pair)], ...],
        AfterValidator(values.check_distinct),
    ] = Field((), description='"OLD=NEW", or "OLD=" to take the domain away.')
    domain_allow: Annotated[
        tuple[Annotated[Text, AfterValidator(values.check_domain)], ...],
        AfterValidator(values.check_distinct),
    ] = Field((), description='Domains that may be named, for domain = "allow".')
    default_domain: Annotated[Text, AfterValidator(values.check_domain)] = Field(
        "", description="Domain put before names that come without one; empty: none."
    )
    nt_hashes: Flag = Field(
        False,
        description="32 hex digits in the secret column are an NT hash, as accel-ppp has it;"
        " nthash: before the digits says so in any case.",
    )
    rules: tuple[AccountRule, ...] = Field(
        (), description="What is different for some accounts: see the end of this section."
    )
    users: dict[
        Annotated[Text, AfterValidator(values.check_user_name)],
        Annotated[Text, AfterValidator(values.check_password)],
    ] = Field({}, description="name = password, for a few accounts without a file.")


class RadiusServer(Section):
    """A RADIUS server. Any number; those of the lowest priority that answer are asked."""

    address: Annotated[Text, AfterValidator(values.check_any_address)] = Field(
        description="IPv4 or IPv6 address."
    )
    secret: Annotated[Text, AfterValidator(values.check_secret)] = Field(
        description="Shared secret; long and random."
    )
    name: Annotated[Text, AfterValidator(values.check_label)] = Field(
        "", description="Name in log and metrics; empty: the address."
    )
    auth_port: PortOrNone = Field(1812, description="UDP port for logins; 0: not asked.")
    acct_port: PortOrNone = Field(1813, description="UDP port for accounting; 0: gets none.")
    priority: Annotated[Whole, Field(ge=0, le=1000)] = Field(
        0, description="Servers of a higher number are asked when none of a lower one answers."
    )
    weight: Annotated[Whole, Field(ge=1, le=1000)] = Field(
        1, description="Share of the requests among servers of one priority."
    )
    message_authenticator: Literal["require", "auto", "off"] = Field(
        "auto",
        description='In answers to logins (against forged ones, "BlastRADIUS"): "require" it;'
        ' "auto" from the first answer on that had one; "off" for servers that have it now'
        " and then. One that is there is always checked, and EAP always needs it.",
    )
    probe: Literal["status", "off"] = Field(
        "status", description='How a dead server is watched: Status-Server packets, or "off".'
    )


class RadiusClient(Section):
    """Who may change and end sessions (CoA- and Disconnect-Requests)."""

    address: Annotated[Text, AfterValidator(values.check_any_network)] = Field(
        description="IPv4 or IPv6 address or prefix."
    )
    secret: Annotated[Text, AfterValidator(values.check_secret)] = Field(
        description="Shared secret."
    )


class Radius(Section):
    """Logins and accounting at RADIUS servers. On where servers are given, at its end."""

    timeout_s: Annotated[Number, Field(ge=0.05, le=30)] = Field(
        1.0, description="Seconds before a request is sent again; they double each time."
    )
    tries: Annotated[Whole, Field(ge=1, le=10)] = Field(
        3, description="How often one server is asked before the next."
    )
    in_flight: Annotated[Whole, Field(ge=1, le=8192)] = Field(
        128,
        description="Requests that one server may be working on; more wait here, since a server's"
        " socket that is full drops them.",
    )
    probe_interval_s: Annotated[Number, Field(ge=0.1, le=3600)] = Field(
        5.0, description="Seconds between probes of a server that does not answer."
    )
    dead_time_s: Annotated[Number, Field(ge=1, le=86400)] = Field(
        60.0, description="Seconds after which such a server is tried with a request, too."
    )
    nas_identifier: Annotated[Text, AfterValidator(values.check_short)] = Field(
        "", description="NAS-Identifier; empty: server.name."
    )
    nas_ip: Annotated[Text, AfterValidator(values.check_address_or_none)] = Field(
        "", description="NAS-IP-Address; empty: not sent."
    )
    nas_port_id: Annotated[Text, AfterValidator(values.check_short)] = Field(
        "pptp", description="NAS-Port-Id is this and the number of the session's slot."
    )
    source: Annotated[Text, AfterValidator(values.check_any_address_or_none)] = Field(
        "", description="Address that requests are sent from; empty: as the route has it."
    )
    interim_s: Annotated[Whole, Field(ge=0, le=86400)] = Field(
        300, description="Seconds between accounting updates where the server says none; 0: none."
    )
    accounting: Literal["on", "off"] = Field(
        "on", description="Start, Interim and Stop records; kept in server.state_dir till sent."
    )
    fallback: Literal["off", "local"] = Field(
        "off",
        description='"local": when no server answers, [accounts] decides. A refusal of a server'
        " counts in any case.",
    )
    listen: Annotated[Text, AfterValidator(values.check_endpoint)] = Field(
        "", description='ADDRESS:PORT for CoA and Disconnect, as in "10.0.0.1:3799"; empty: off.'
    )
    event_window_s: Annotated[Whole, Field(ge=0, le=86400)] = Field(
        300, description="Seconds by which their Event-Timestamp may be wrong; 0: any."
    )
    servers: tuple[RadiusServer, ...] = Field((), description="See the end of this section.")
    clients: tuple[RadiusClient, ...] = Field((), description="See the end of this section.")


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
    over_user_limit: Literal["deny", "replace"] = Field(
        "deny",
        description="A session over the user's limit is refused (\"deny\"), or the user's oldest"
        ' one ends for it ("replace").',
    )
    per_realm_sessions: Limit = Field(
        0, description=r"Sessions of one realm: of REALM\user or user@realm."
    )
    per_ip_starts_per_minute: Limit = Field(
        0, description="Calls that one client address may begin in a minute."
    )
    session_timeout_s: Annotated[Whole, Field(ge=0, le=31536000)] = Field(
        0, description="Seconds after which a session ends."
    )
    idle_timeout_s: Annotated[Whole, Field(ge=0, le=31536000)] = Field(
        0, description="Seconds without data after which a session ends; LCP echoes are no data."
    )
    idle_by: Literal["both", "subscriber"] = Field(
        "both", description='Whose data counts: of "both" directions, or of the "subscriber" alone.'
    )


class Bans(Section):
    """Who fails to log in too often is refused for a while. `pptpcon show bans`, `unban`."""

    user_failures: Limit = Field(
        0,
        description="Wrong passwords of one user that ban it, from wherever they came; 0: never."
        " Anybody can have a user banned this way.",
    )
    source_failures: Limit = Field(
        0,
        description="Wrong passwords from one address that ban it; 0: never. Many clients may be"
        " behind one address.",
    )
    window_s: Annotated[Whole, Field(ge=1, le=604800)] = Field(
        600, description="Seconds for which a failure counts."
    )
    ban_s: Annotated[Whole, Field(ge=1, le=604800)] = Field(
        60, description="Seconds of the first ban; each further one is twice as long."
    )
    longest_s: Annotated[Whole, Field(ge=1, le=31536000)] = Field(
        86400, description="Seconds that no ban exceeds."
    )
    exempt: Annotated[
        tuple[Annotated[Text, AfterValidator(values.check_network)], ...],
        AfterValidator(values.check_distinct),
    ] = Field((), description="Client networks whose failures do not count.")


class Shaping(Section):
    """Rates and filter of sessions whose account says nothing of them."""

    rate_up: Rate = Field(
        0,
        description='Bits a second from the subscriber, as in "10M", "512k"; octets of inner IP'
        " packets count. 0: none.",
    )
    rate_down: Rate = Field(0, description="The same to the subscriber.")
    burst_up: Burst = Field(
        0, description="Octets that may go at once after a rest; 0: 10 ms of the rate."
    )
    burst_down: Burst = Field(0, description="The same to the subscriber.")
    filter: Text = Field("", description="Name of a filter: see [filters.NAME].")
    exempt: Annotated[
        tuple[Annotated[Text, AfterValidator(values.check_exempt)], ...], Field(max_length=65536)
    ] = Field(
        (), description="Prefixes that rates do not hold for, such as those of a local exchange."
    )


class Filter(Section):
    """What subscribers may send and get; accounts, RADIUS (Filter-Id) and [shaping] name filters.
    The first rule that fits a packet decides.
    """

    rules: Annotated[
        tuple[Annotated[Text, AfterValidator(values.check_rule)], ...], Field(max_length=1024)
    ] = Field(
        description="(permit | deny) [up | down] [PROTOCOL] [from NET [port PORTS]]"
        " [to NET [port PORTS]]: up is from the subscriber, NET an address, a prefix or any,"
        " PORTS as in 80,443,6881-6889."
    )
    default: Literal["permit", "deny"] = Field(
        "permit", description="What happens to packets that no rule fits."
    )


class Lan(Section):
    """Subscribers and the networks behind: proxy ARP, isolation, address lists."""

    proxy: Literal["off", "on"] = Field(
        "off",
        description="Answer ARP and NDP for subscribers' addresses, so that hosts of a LAN reach"
        " them without a route: an entry for each session, of the LAN's subnet or not.",
    )
    interface: Annotated[Text, AfterValidator(values.check_interface)] = Field(
        "",
        description="Interface of those entries. Empty: the one of the longest route to the"
        " address, apart from ours; of the default route if there is none.",
    )
    isolate: Flag = Field(False, description="Nothing passes from subscriber to subscriber.")
    list_table: Annotated[Text, AfterValidator(values.check_nft_table)] = Field(
        "inet pptpcon_lists",
        description="Family and name of the nft table whose sets get the addresses of sessions with"
        " address lists (Mikrotik-Address-List). What is missing, table or set, is made.",
    )
    netns: Annotated[Text, AfterValidator(values.check_netns)] = Field(
        "",
        description="Network namespace of the subscribers' side (devices, routes, entries): a name"
        " of ip netns or a path. So instances may have the same addresses. Empty: our own.",
    )


class Hooks(Section):
    """Programs that are run when sessions come and go, with pppd's arguments and environment."""

    ip_up: Program = Field("", description="Run when a session is up: absolute path.")
    ip_down: Program = Field("", description="When it is over.")
    ip_change: Program = Field("", description="When CoA or an administrator changed it.")
    auth_up: Program = Field("", description="When a login was accepted.")
    auth_down: Program = Field("", description="When the link of such a login is over.")
    user: Annotated[Text, AfterValidator(values.check_user)] = Field(
        "nobody", description="User that they run as."
    )
    ipparam: Annotated[Text, AfterValidator(values.check_word)] = Field(
        "", description="Their sixth argument. Empty: the subscriber's outer address, as pptpd."
    )
    radattr: Annotated[Text, AfterValidator(values.check_path)] = Field(
        "",
        description="Attributes of a session are put into this path with .NAME added, NAME being"
        " the first argument; at a change the old ones into .NAME_old.",
    )
    at_once: Annotated[Whole, Field(ge=1, le=256)] = Field(
        8, description="How many run at the same time."
    )
    queue: Annotated[Whole, Field(ge=1, le=65536)] = Field(
        8192, description="How many may wait for that; more are not run, and counted."
    )
    timeout_s: Annotated[Number, Field(gt=0, le=600)] = Field(
        10.0, description="Seconds until one is killed."
    )


class Records(Section):
    """Who is and was logged in: pptpcon history, who and last."""

    history_days: Annotated[Whole, Field(ge=0, le=3660)] = Field(
        0,
        description="Days for which sessions are remembered, in server.state_dir; 0: none are.",
    )
    utmp: Annotated[Text, AfterValidator(values.check_path)] = Field(
        "", description="File of who(1), as in /run/utmp. Empty: not written."
    )
    wtmp: Annotated[Text, AfterValidator(values.check_path)] = Field(
        "", description="File of last(1), as in /var/log/wtmp. Empty: not written."
    )
    strip_domain: Flag = Field(False, description="Write DOMAIN\\user as user there.")


class Metrics(Section):
    """Prometheus."""

    listen: Annotated[Text, AfterValidator(values.check_endpoint)] = Field(
        "127.0.0.1:9723", description="ADDRESS:PORT of http://.../metrics; empty: off."
    )
    sessions: Annotated[Text, AfterValidator(values.check_top)] = Field(
        "",
        description='"top:N": two more series for each of the N busiest sessions, at most'
        f" {values.TOP_MOST}; empty: sums only.",
    )
    session_names: bool = Field(
        False,
        description="Those series name the user. Whoever reads /metrics then knows who is online"
        " and how much they do.",
    )


class Console(Section):
    """The status page and its API, which metrics.listen serves."""

    token_file: Annotated[Text, AfterValidator(values.check_file_path)] = Field(
        "",
        description="File with the tokens, one a line, of those who may ask the API for names and"
        " addresses of subscribers (`openssl rand -hex 32` makes one); empty: nobody.",
    )
    hosts: Annotated[
        tuple[Annotated[Text, AfterValidator(values.check_name)], ...],
        Field(max_length=64),
        AfterValidator(values.check_distinct),
    ] = Field(
        (),
        description="Names under which browsers reach the page, besides IP addresses, localhost and"
        " this host's name; others are refused (DNS rebinding).",
    )
    accel_cmd: Annotated[Text, AfterValidator(values.check_endpoint)] = Field(
        "",
        description='ADDRESS:PORT that speaks as the "cli" of accel-ppp, as in "127.0.0.1:2001":'
        " for accel-cmd, panels and exporters; who reaches it may end sessions. Empty: off.",
    )
    accel_cmd_password_file: Annotated[Text, AfterValidator(values.check_file_path)] = Field(
        "",
        description="File with the password that a client of accel_cmd sends as its first line;"
        " needed where the address is not loopback, and readable on the way there.",
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
    "ipv6": Ipv6,
    "accounts": Accounts,
    "radius": Radius,
    "limits": Limits,
    "bans": Bans,
    "shaping": Shaping,
    "lan": Lan,
    "hooks": Hooks,
    "records": Records,
    "metrics": Metrics,
    "console": Console,
    "log": Logging,
}


TOP_ORDER: Final[tuple[str, ...]] = tuple(f.name for f in fields(settings.Settings))


@dataclass(frozen=True, slots=True)
class Config:
    """All sections, each of them valid; what stands across them is checked by `cross_check`."""

    sections: dict[str, Section]
    pools: dict[str, Pool]
    filters: dict[str, Filter] = field(default_factory=dict)

    def to_settings(self) -> settings.Settings:
        """The plain values, with our own addresses cut out of the pools."""
        parts: dict[str, Any] = {}
        for name, section in self.sections.items():
            values = {key: getattr(section, key) for key in type(section).model_fields}
            if name == "accounts":
                values["users"] = tuple(values["users"].items())
                values["rules"] = tuple(
                    settings.AccountRule(**rule.model_dump()) for rule in values["rules"]
                )
            if name == "ipv6":
                values["pools"] = tuple(
                    settings.Pool6(**pool.model_dump()) for pool in values["pools"]
                )
            if name == "radius":
                values["servers"] = tuple(
                    settings.RadiusServer(**server.model_dump()) for server in values["servers"]
                )
                values["clients"] = tuple(
                    settings.RadiusClient(**client.model_dump()) for client in values["clients"]
                )
            kind = settings.Settings.__dataclass_fields__[name].default_factory
            parts[name] = kind(**values)  # type: ignore[operator]
        local = parse_ranges(parts["ip"].local)
        parts["pools"] = tuple(
            settings.Pool(name, without(pool.ranges, local), pool.next)
            for name, pool in self.pools.items()
        )
        parts["filters"] = tuple(
            settings.Filter(name, each.rules, each.default) for name, each in self.filters.items()
        )
        return settings.Settings(**parts)
