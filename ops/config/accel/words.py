"""accel-ppp's sections and keys that become no setting: those without a meaning here, and those
whose effect is lost, with what to do. "*" is every other key of a section.
"""

from __future__ import annotations

from typing import Final

_FILES: Final = "the log is one line an event on standard error; journald or a redirection keep it"
_LAYER: Final = "there is no such interface: all sessions of a worker share one TUN device"
_KERNEL: Final = "is about the kernel's queues; the rate is kept in the data path"

# Sections of services that are not PPTP: their keys are not gone through.
OTHER_SERVICES: Final[dict[str, str]] = {
    name: f"{label} is not served: pptpcon is for PPTP alone"
    for name, label in (
        ("pppoe", "PPPoE"),
        ("ipoe", "IPoE"),
        ("l2tp", "L2TP"),
        ("sstp", "SSTP"),
    )
}

# Modules we have a counterpart of, or need none.
_KNOWN: Final = """
    log_file log_syslog log_tcp connlimit radius chap-secrets pptp auth_mschap_v2 auth_mschap_v1
    auth_chap_md5 auth_pap ippool ipv6pool ipv6_nd ipv6_dhcp sigchld pppd_compat shaper net-snmp
    logwtmp vlan-mon metrics
"""
MODULES: Final[dict[str, str]] = dict.fromkeys(_KNOWN.split(), "") | {
    "log_pgsql": "nothing is logged to a database; read the journal, or --set log.format=json",
    "pppoe": OTHER_SERVICES["pppoe"],
    "ipoe": OTHER_SERVICES["ipoe"],
    "l2tp": OTHER_SERVICES["l2tp"],
    "sstp": OTHER_SERVICES["sstp"],
}

SILENT: Final[dict[tuple[str, str], str]] = {
    ("core", "*"): "is about accel-ppp's own threads; see [workers]",
    ("common", "sid-case"): "a session's id is 16 lower-case hexadecimal digits, never reused",
    ("common", "sid-source"): "a session's id is never reused, across restarts too",
    ("common", "seq-file"): "a session's id is never reused, across restarts too",
    ("common", "check-ip"): "an address is never given twice; see ip.conflict",
    ("common", "nl-snd-buffer"): "the buffers of netlink are ours to size",
    ("common", "nl-rcv-buffer"): "the buffers of netlink are ours to size",
    ("ppp", "verbose"): "one line an event is logged; log.level = debug for more",
    ("ppp", "accomp"): "is accepted from every client",
    ("ppp", "pcomp"): "is accepted from every client",
    ("ppp", "ccp-max-configure"): "ppp.max_configure holds for all protocols",
    ("ppp", "check-ip"): "an address is never given twice; see ip.conflict",
    ("ppp", "unit-cache"): _LAYER,
    ("ppp", "unit-preallocate"): _LAYER,
    ("pptp", "verbose"): "one line an event is logged; log.level = debug for more",
    ("pptp", "ifname"): _LAYER,
    ("radius", "dictionary"): "attributes are built in",
    ("radius", "verbose"): "log.level = debug tells of each request",
    ("radius", "interim-verbose"): "log.level = debug tells of each request",
    ("radius", "acct-timeout"): "records wait in a journal until a server takes them",
    ("radius", "acct-delay-time"): "is always sent",
    ("radius", "acct-on"): "Accounting-On and -Off are always sent",
    ("radius", "acct-interim-jitter"): "interim records are spread by 10 % either way",
    ("radius", "sid-in-auth"): "Acct-Session-Id is always sent",
    ("radius", "nas-port-id-in-req"): "NAS-Port-Id is always sent",
    ("radius", "blast-protection"): "a Message-Authenticator is always sent; see"
    " message_authenticator of [[radius.servers]] for answers",
    ("radius", "framed-route-strict"): "routes with host bits are always named and left out",
    ("log", "copy"): _FILES,
    ("log", "color"): _FILES,
    ("log", "per-session"): _FILES,
    ("ip-pool", "shuffle"): "a user gets the address of the last time if it is free",
    ("shaper", "verbose"): "the rate of a session is in its log line, and in show session",
    ("shaper", "up-limiter"): _KERNEL,
    ("shaper", "down-limiter"): _KERNEL,
    ("shaper", "leaf-qdisc"): "each session has 32 fair queues with CoDel",
    ("shaper", "latency"): "CoDel keeps queues short",
    ("shaper", "mpu"): _KERNEL,
    ("shaper", "mtu"): _KERNEL,
    ("shaper", "r2q"): _KERNEL,
    ("shaper", "quantum"): _KERNEL,
    ("shaper", "moderate-quantum"): _KERNEL,
    ("shaper", "cburst"): _KERNEL,
    ("shaper", "ifb"): _KERNEL,
    ("pppd-compat", "verbose"): "failures of hooks are logged in any case",
    ("cli", "verbose"): "every change by command is in the log",
    ("cli", "telnet"): "the command line is `pptpcon`, over a socket with permissions",
    ("cli", "prompt"): "there is no prompt",
    ("cli", "history-file"): "there is no prompt",
    ("cli", "sessions-columns"): "name columns behind `pptpcon show sessions`",
    ("ipv6-nd", "verbose"): "one line an event is logged",
}

LOST: Final[dict[tuple[str, str], str]] = {
    ("common", "single-session-ignore-case"): "names are compared as they are written",
    ("ppp", "min-mtu"): "clients with a smaller MRU are served, not refused; leave it out",
    ("auth", "any-login"): "nobody gets in without an account",
    ("auth", "noauth"): "nobody gets in without an account",
    ("radius", "attr-tunnel-type"): "Tunnel-Type is sent as RFC 2868 has it",
    ("radius", "acct-delay-start"): "a Start is sent at once",
    ("radius", "require-nas-identification"): "who may send CoA is named by [[radius.clients]]",
    ("radius", "dm-coa-secret"): "put the secret into [[radius.clients]]",
    ("radius", "dm_coa_secret"): "put the secret into [[radius.clients]]",
    ("radius", "default-realm"): "accounts.default_domain is put before names, not behind; let the"
    " RADIUS server add a realm",
    ("radius", "strip-realm"): "names go to RADIUS as they came; let the server strip the realm",
    ("log", "log-tcp"): _FILES,
    ("log", "syslog"): _FILES,
    ("log", "log-file"): _FILES,
    ("log", "log-emerg"): _FILES,
    ("log", "log-debug"): _FILES,
    ("log", "log-fail-file"): "failed logins are log lines of their own, with the real cause",
    ("log", "per-session-dir"): "grep sid= finds the lines of a session",
    ("log", "per-user-dir"): "grep user= finds the lines of a user",
    ("log-pgsql", "*"): "nothing is logged to a database",
    ("chap-secrets", "username-hash"): "names are read as they are; write them in clear",
    ("pppd-compat", "ip-pre-up"): "packets of a session pass filters from the first one on: see"
    " [filters.NAME]; a program for each start is hooks.ip_up",
    ("shaper", "vendor"): "Mikrotik-Rate-Limit and Cisco-AVPair are understood as they are",
    ("shaper", "attr-up"): "rates come from Mikrotik-Rate-Limit or Cisco-AVPair",
    ("shaper", "attr-down"): "rates come from Mikrotik-Rate-Limit or Cisco-AVPair",
    ("shaper", "rate-multiplier"): "multiply in the RADIUS server",
    ("shaper", "fwmark"): "name the destinations without a rate in shaping.exempt",
    ("shaper", "time-range"): "change rates by CoA or pptpcon set-rate at these times",
    ("connlimit", "timeout"): "the limit is per minute, always on",
    ("snmp", "*"): "SNMP goes by snmpd's pass_persist: see pptpcon snmp --help",
    ("metrics", "*"): "metrics are served at metrics.listen",
    ("ipv6-nd", "*"): "see [ipv6]",
}
