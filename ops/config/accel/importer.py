"""accel-ppp.conf becomes one TOML text. accel-ppp.conf(5) says what each key means there.

Unlike pptpd's, its last line of a key counts, except for lists (servers, ranges).
"""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network, IPv6Address, summarize_address_range
from math import ceil
from operator import itemgetter
from typing import Final

from ops.config.accel.pools import Pools
from ops.config.accel.pools6 import Pools6
from ops.config.accel.radius import Servers
from ops.config.accel.text import Line, conf_lines
from ops.config.accel.words import LOST, MODULES, OTHER_SERVICES, SILENT
from ops.config.draft import Draft, Imported, Origin, printable
from ops.config.load import load_bytes
from ops.config.pptpd.text import decode
from ops.config.problems import ConfigError
from ops.config.source import read
from ops.ranges import parse_network, parse_ranges

SECRETS: Final = "/etc/ppp/chap-secrets"
AUTH: Final = {
    "auth_mschap_v2": "mschapv2",
    "auth_mschap_v1": "mschap",
    "auth_chap_md5": "chap-md5",
    "auth_pap": "pap",
}
_LEVELS: Final = {0: "error", 1: "error", 2: "warning", 3: "info", 4: "info", 5: "debug"}
_PER_MINUTE: Final = {"s": 60.0, "sec": 60.0, "m": 1.0, "min": 1.0, "h": 1 / 60, "hour": 1 / 60}


class NoAccelError(ConfigError):
    """The input is no accel-ppp.conf."""


@dataclass(slots=True)
class _Importer:
    path: str
    secrets: str | None
    hostname: str
    draft: Draft = field(default_factory=Draft)
    settings: dict[tuple[str, str], Line] = field(default_factory=dict)
    modules: dict[str, Line] = field(default_factory=dict)
    allowed: list[tuple[IPv4Network, Origin]] = field(default_factory=list)
    pools: Pools = field(init=False)
    pools6: Pools6 = field(init=False)
    servers: Servers = field(init=False)

    def __post_init__(self) -> None:
        self.pools = Pools(self.draft)
        self.pools6 = Pools6(self.draft)
        self.servers = Servers(self.draft)

    def run(self) -> Imported:
        data = read(self.path)
        if b"\0" in data:
            raise NoAccelError([f"{printable(self.path)}: is no accel-ppp.conf: it holds a NUL"])
        self._read(decode(data))
        self._name()
        for take in (
            self._listen,
            self._ppp,
            self._auth,
            self._mppe,
            self._limits,
            self._ipv6,
            self._names,
            self._shaper,
            self._hooks,
            self._records,
            self._log,
        ):
            take()
        self.pools.finish(self._value("pptp", "ip-pool"))
        self.pools6.finish(
            self._value("pptp", "ipv6-pool"), self._value("pptp", "ipv6-pool-delegate")
        )
        self.servers.finish("radius" in self.modules, self.settings)
        self._local()
        self._accounts()
        head = [
            f"Configuration of pptpcon, made from {self.path}.",
            "Each value has the line it comes from. Check with: pptpcon check-config FILE",
        ]
        text = self.draft.toml(head)
        notes = [str(note) for note in self.draft.notes if note.loud]
        checked = load_bytes(text.encode(), "the new configuration")
        return Imported(
            text, notes + [re.sub(r":\d+: ", ": ", w, count=1) for w in checked.warnings]
        )

    # Reading: each line goes where it belongs, or is noted.

    def _read(self, text: str) -> None:
        known = unknown = 0
        first = ""
        for line in conf_lines(text):
            if self._line(line):
                known += 1
            else:
                unknown += 1
                first = first or f"line {line.number} is not"
                self.draft.loud(
                    self._origin(line), f"{self._shown(line)}: unknown; nothing was made of it"
                )
        if known <= unknown:
            why = f"{known} of {known + unknown} lines are accel-ppp's"
            raise NoAccelError(
                [f"{printable(self.path)}: is no accel-ppp.conf: {why}; {first or 'it is empty'}"]
            )

    def _line(self, line: Line) -> bool:
        """False for a line that accel-ppp.conf(5) does not know."""
        origin = self._origin(line)
        where = (line.section, line.key)
        if line.section == "modules":
            return self._module(line, origin)
        if line.section in OTHER_SERVICES:
            if (line.section, "") not in self.settings:
                self.settings[line.section, ""] = line
                self.draft.loud(origin, f"[{line.section}]: {OTHER_SERVICES[line.section]}")
            return True
        if line.section == "client-ip-range":
            return self._client_range(line, origin)
        if line.section == "ip-pool" and self.pools.takes(line, origin):
            return True
        if line.section in ("ipv6-pool", "ipv6-dns", "ipv6-dhcp"):
            return self.pools6.takes(line, origin)
        if line.section == "radius" and self.servers.takes(line, origin):
            return True
        for key in (where, (line.section, "*")):
            if key in SILENT:
                self.draft.quiet(origin, f"{self._shown(line)}: {SILENT[key]}")
                return True
            if key in LOST:
                self.draft.loud(origin, f"{self._shown(line)}: {LOST[key]}")
                return True
        if where not in _KEYS:
            return False
        if where in self.settings:
            self.draft.loud(
                origin,
                f"{self._shown(line)}: replaces line {self.settings[where].number}, as there",
            )
        self.settings[where] = line
        return True

    def _module(self, line: Line, origin: Origin) -> bool:
        # A path may stand there: the module's name is what counts.
        name = os.path.basename(line.key).removesuffix(".so").removeprefix("lib")
        if name not in MODULES:
            return False
        self.modules[name] = line
        if MODULES[name]:
            self.draft.loud(origin, f"{name}: {MODULES[name]}")
        return True

    def _client_range(self, line: Line, origin: Origin) -> bool:
        if line.key in ("disable", "disabled"):
            return True
        try:
            ranges = [parse_network(line.bare)] if "/" in line.bare else parse_ranges(line.bare)
        except ValueError as e:
            self.draft.loud(origin, f"[client-ip-range] {line.bare[:40]}: {e}")
            return True
        for first, last in ranges:
            nets = summarize_address_range(IPv4Address(first), IPv4Address(last))
            self.allowed += [(net, origin) for net in nets]
        return True

    def _origin(self, line: Line) -> Origin:
        return Origin(self.path, line.number)

    @staticmethod
    def _shown(line: Line) -> str:
        """The key alone: a value may be a secret."""
        return f"[{line.section[:40]}] {line.key[:40]}"

    # Values.

    def _value(self, section: str, key: str) -> tuple[str, Origin] | None:
        line = self.settings.get((section, key))
        return None if line is None else (line.value, self._origin(line))

    def _whole(self, section: str, key: str) -> tuple[int, Origin] | None:
        """A number; what is none is noted, and as if it were not there."""
        found = self._value(section, key)
        if found is None:
            return None
        text, origin = found
        if not re.fullmatch(r"-?[0-9]{1,9}", text):
            self.draft.loud(origin, f"[{section}] {key}: {text[:20]!r} is no number; left out")
            return None
        return int(text), origin

    def _number(
        self, section: str, key: str, to: tuple[str, str], make: Callable[[int], int | float] = int
    ) -> None:
        """Set `to` to what `make` makes of a number above 0; 0 leaves our default."""
        found = self._whole(section, key)
        if found is not None and found[0] > 0:
            self.draft.set(*to, make(found[0]), found[1])

    def _name(self) -> None:
        found = self._value("auth", "challenge-name")
        if found is not None:
            self.draft.set("server", "name", found[0], found[1])
        else:
            self.draft.set("server", "name", self.hostname, None, "this host's name")

    def _listen(self) -> None:
        if self.modules and "pptp" not in self.modules:
            self.draft.loud(None, "[modules] does not load pptp: this accel-ppp served no PPTP")
        bind = self._value("pptp", "bind")
        if bind is not None:
            self.draft.set("listen", "address", bind[0], bind[1])
        self._number("pptp", "port", ("listen", "port"))
        self._number("pptp", "timeout", ("listen", "start_timeout_s"), float)
        self._number("pptp", "echo-interval", ("listen", "echo_interval_s"), float)
        interval = self._whole("pptp", "echo-interval")
        failures = self._whole("pptp", "echo-failure")
        if interval is not None and interval[0] > 0 and failures is not None and failures[0] > 0:
            self.draft.set(
                "listen",
                "echo_timeout_s",
                float(interval[0] * failures[0]),
                failures[1],
                f"{failures[0]} x {interval[0]} s",
            )
        if self.allowed:
            nets = tuple(dict.fromkeys(str(net) for net, _ in self.allowed))
            self.draft.set("listen", "allow", nets, self.allowed[0][1])

    def _ppp(self) -> None:
        caps = [
            found
            for found in (self._whole("ppp", "max-mtu"), self._whole("pptp", "ppp-max-mtu"))
            if found is not None and found[0] > 0
        ]
        for key in ("mtu", "mru"):
            found = self._whole("ppp", key)
            if found is not None and found[0] > 0:
                size, origin = min([found, *caps], key=itemgetter(0))
                self.draft.set("ppp", key, size, origin)
            elif caps and key == "mtu":
                self.draft.set("ppp", "mtu", *min(caps, key=itemgetter(0)))
        for key in ("max-configure", "max-failure", "max-terminate"):
            self._number("ppp", key, ("ppp", key.replace("-", "_")))
        self._echo()
        ipv4 = self._value("ppp", "ipv4")
        if ipv4 is not None and ipv4[0] in ("deny", "allow", "0"):
            self.draft.loud(ipv4[1], f"[ppp] ipv4={ipv4[0]}: subscribers always get IPv4")

    def _echo(self) -> None:
        interval = self._whole("ppp", "lcp-echo-interval")
        if interval is None:
            return
        self.draft.set("ppp", "lcp_echo_interval_s", max(0, interval[0]), interval[1])
        adaptive = self._whole("ppp", "lcp-echo-timeout")
        failures = self._whole("ppp", "lcp-echo-failure")
        if adaptive is not None and adaptive[0] > 0 and interval[0] > 0:
            self.draft.set(
                "ppp",
                "lcp_echo_failures",
                min(255, max(1, ceil(adaptive[0] / interval[0]))),
                adaptive[1],
                f"{adaptive[0]} s of silence; any data is life",
            )
        elif failures is not None and failures[0] > 0:
            self.draft.set("ppp", "lcp_echo_failures", *failures)

    def _auth(self) -> None:
        chosen = [AUTH[name] for name in self.modules if name in AUTH]
        if chosen:
            first = next(line for name, line in self.modules.items() if name in AUTH)
            self.draft.set("ppp", "auth", tuple(chosen), self._origin(first))
        elif self.modules:
            self.draft.loud(None, "[modules] loads no auth_...: mschapv2 is offered")
        self._number("auth", "timeout", ("ppp", "auth_timeout_s"), float)
        self._number("auth", "interval", ("ppp", "chap_rechallenge_s"))
        self._number("auth", "max-failure", ("ppp", "auth_retries"), lambda n: min(10, n - 1))

    def _mppe(self) -> None:
        auth = self.draft.values.get(("ppp", "auth"), ("mschapv2",))
        found = self._value("pptp", "mppe") or self._value("ppp", "mppe")
        ccp = self._whole("ppp", "ccp")
        if ccp is not None and ccp[0] == 0:
            self.draft.set("mppe", "policy", "deny", ccp[1], "no CCP, so no MPPE")
        elif not {"mschapv2", "mschap"} & set(auth):
            self.draft.set("mppe", "policy", "deny", None, "no method offered gives MPPE a key")
        elif found is None:
            self.draft.set(
                "mppe",
                "policy",
                "prefer",
                None,
                "mppe is not set: encryption is taken by clients that want it. Better: require",
            )
        elif found[0] in ("require", "prefer", "deny"):
            self.draft.set("mppe", "policy", *found)
        elif found[0] == "allow":
            self.draft.set("mppe", "policy", "prefer", found[1], "allow")
        else:
            self.draft.loud(found[1], f"mppe={found[0][:20]}: unknown; it is required")

    def _limits(self) -> None:
        self._number("common", "max-sessions", ("limits", "max_sessions"))
        self._number("common", "max-starting", ("limits", "max_starting"))
        for section in ("common", "ppp", "pptp"):
            self._number(section, "session-timeout", ("limits", "session_timeout_s"))
        single = self._value("common", "single-session")
        if single is not None and single[0] in ("replace", "deny"):
            self.draft.set("limits", "per_user_sessions", 1, single[1])
            self.draft.set("limits", "over_user_limit", *single)
        elif single is not None:
            self.draft.loud(single[1], f"single-session={single[0][:20]}: replace or deny")
        rate = self._value("connlimit", "limit")
        if rate is None or (self.modules and "connlimit" not in self.modules):
            return
        matched = re.fullmatch(r"([0-9]{1,6})\s*/\s*(s|sec|m|min|h|hour)", rate[0])
        if matched is None:
            self.draft.loud(rate[1], f"[connlimit] limit={rate[0][:20]}: no COUNT/TIME")
            return
        burst = self._whole("connlimit", "burst")
        minute = int(matched[1]) * _PER_MINUTE[matched[2]]
        self.draft.set(
            "limits",
            "per_ip_starts_per_minute",
            max(1, ceil(minute), burst[0] if burst else 0),
            rate[1],
        )

    def _ipv6(self) -> None:
        found = self._value("ppp", "ipv6")
        if found is not None:
            on = found[0] not in ("deny", "0")
            self.draft.set("ipv6", "ipv6cp", "on" if on else "off", found[1])
            if found[0] == "require":
                self.draft.loud(found[1], "ipv6=require: it is offered; IPv4 alone is fine too")
        own = self._value("ppp", "ipv6-intf-id")
        if own is not None:
            self._interface_id(*own)
        peer = self._value("ppp", "ipv6-peer-intf-id")
        if peer is not None:
            if peer[0] in ("ipv4", "random"):
                self.draft.set("ipv6", "subscriber_id", *peer)
            else:
                self.draft.set(
                    "ipv6",
                    "subscriber_id",
                    "ipv4",
                    peer[1],
                    "each subscriber has an identifier of its own here",
                )
        accept = self._whole("ppp", "ipv6-accept-peer-intf-id")
        if accept is not None:
            self.draft.set("ipv6", "subscriber_may_choose", accept[0] > 0, accept[1])

    def _interface_id(self, text: str, origin: Origin) -> None:
        try:
            half = IPv6Address("0:0:0:0:" + text)
        except ValueError:
            self.draft.loud(origin, f"ipv6-intf-id={text[:20]}: one for all sessions is needed")
            return
        self.draft.set("ipv6", "interface_id", str(half), origin)

    def _names(self) -> None:
        for section, key, names in (
            ("dns", "dns", ("dns1", "dns2")),
            ("wins", "wins", ("wins1", "wins2")),
        ):
            found = [f for f in (self._value(section, name) for name in names) if f is not None]
            if found:
                self.draft.set("ip", key, tuple(f[0] for f in found), found[0][1])

    def _shaper(self) -> None:
        if self.modules and "shaper" not in self.modules:
            return
        attribute = self._value("shaper", "attr")
        name = attribute[0] if attribute is not None else "Filter-Id"
        if name not in ("Mikrotik-Rate-Limit", "Cisco-AVPair") and "radius" in self.modules:
            self.draft.loud(
                attribute[1] if attribute is not None else None,
                f"[shaper] attr: rates in {name[:40]} are not read; let the RADIUS server send"
                " Mikrotik-Rate-Limit or Cisco-AVPair (Filter-Id names a filter here)",
            )
        rate = self._value("shaper", "rate-limit")
        if rate is None:
            return
        matched = re.fullmatch(r"([0-9]{1,8})(?:/([0-9]{1,8}))?", rate[0])
        if matched is None:
            self.draft.loud(rate[1], f"[shaper] rate-limit={rate[0][:20]}: no DOWN/UP in kbit/s")
            return
        for direction, kilobits in (("down", matched[1]), ("up", matched[2] or matched[1])):
            bits = int(kilobits) * 1000
            if not bits:
                continue
            self.draft.set("shaping", f"rate_{direction}", f"{int(kilobits)}k", rate[1])
            factor = self._value("shaper", f"{direction}-burst-factor") or self._value(
                "shaper", "burst-factor"
            )
            if factor is None:
                continue
            if re.fullmatch(r"[0-9]{1,3}(\.[0-9]{1,6})?", factor[0]):
                octets = int(bits / 8 * float(factor[0]))
                self.draft.set("shaping", f"burst_{direction}", octets, factor[1])
            else:
                self.draft.loud(factor[1], f"burst-factor: {factor[0][:20]!r} is no number")

    def _log(self) -> None:
        level = self._whole("log", "level")
        if level is not None:
            self.draft.set("log", "level", _LEVELS.get(level[0], "debug"), level[1])

    def _hooks(self) -> None:
        if self.modules and "pppd_compat" not in self.modules:
            return
        for key in ("ip-up", "ip-down", "ip-change"):
            found = self._value("pppd-compat", key)
            if found is not None:
                self.draft.set(
                    "hooks",
                    key.replace("-", "_"),
                    *found,
                    "$1 is a name of the session's own, no interface; it runs as hooks.user",
                )
        prefix = self._value("pppd-compat", "radattr-prefix")
        if prefix is not None:
            self.draft.set("hooks", "radattr", *prefix)
        self._number("pppd-compat", "fork-limit", ("hooks", "at_once"))

    def _records(self) -> None:
        line = self.modules.get("logwtmp")
        if line is not None:
            origin = self._origin(line)
            self.draft.set("records", "utmp", "/run/utmp", origin)
            self.draft.set("records", "wtmp", "/var/log/wtmp", origin)
        port = self._value("cli", "tcp")
        if port is not None:
            where, origin = port
            address, _, number = where.rpartition(":")
            self.draft.set("console", "accel_cmd", f"{address or '127.0.0.1'}:{number}", origin)
        password = self._value("cli", "password")
        if password is not None:
            self.draft.loud(
                password[1],
                "[cli] password: put it into a file named by console.accel_cmd_password_file",
            )

    def _local(self) -> None:
        """Our address in the tunnels: accel-ppp has one for each source of addresses."""
        order = ("radius", "chap-secrets", "ip-pool")
        found = {
            section: value
            for section in order
            if (value := self._value(section, "gw-ip-address")) is not None
        }
        if self.pools.gateways:
            text = ",".join(text for text, _ in self.pools.gateways)
            self.draft.set("ip", "local", text, self.pools.gateways[0][1])
        elif "ip-pool" in found:
            self._gateway(*found.pop("ip-pool"))
        elif found:
            self._gateway(*found.pop(next(iter(found))))
        used = self.draft.values.get(("ip", "local"))
        for section, (text, origin) in found.items():
            if text.partition("/")[0] != used:
                self.draft.loud(origin, f"[{section}] gw-ip-address: one for all: ip.local")

    def _gateway(self, text: str, origin: Origin) -> None:
        self.draft.set("ip", "local", text.partition("/")[0], origin)

    def _accounts(self) -> None:
        loaded = "chap-secrets" in self.modules or not self.modules
        given = self._value("chap-secrets", "chap-secrets")
        hashed = self._whole("chap-secrets", "encrypted")
        if not loaded and self.secrets is None:
            return
        chosen = self.secrets or (given[0] if given is not None else SECRETS)
        origin = given[1] if given is not None and self.secrets is None else None
        path = os.path.abspath(chosen)
        self.draft.set("accounts", "chap_secrets", path, origin)
        if not os.path.isfile(path):
            self.draft.loud(origin, f"{path}: no such file; name it with --secrets")
        if hashed is not None and hashed[0]:
            self.draft.set("accounts", "nt_hashes", True, hashed[1])
        if "radius" in self.modules:
            self.draft.loud(
                None,
                "radius and chap-secrets are both loaded: RADIUS decides, and accounts of the file"
                ' count only where no server answers (radius.fallback = "local")',
            )
            self.draft.set("radius", "fallback", "local", None, "chap-secrets is loaded too")


_KEYS: Final = {
    *(("auth", key) for key in ("timeout", "interval", "max-failure", "challenge-name")),
    *(
        ("common", key)
        for key in ("single-session", "max-sessions", "max-starting", "session-timeout")
    ),
    *(
        ("ppp", key)
        for key in (
            "mtu",
            "mru",
            "max-mtu",
            "ccp",
            "mppe",
            "max-configure",
            "max-failure",
            "max-terminate",
            "ipv4",
            "ipv6",
            "ipv6-intf-id",
            "ipv6-peer-intf-id",
            "ipv6-accept-peer-intf-id",
            "lcp-echo-interval",
            "lcp-echo-failure",
            "lcp-echo-timeout",
            "session-timeout",
        )
    ),
    *(
        ("pptp", key)
        for key in (
            "bind",
            "port",
            "echo-interval",
            "echo-failure",
            "timeout",
            "mppe",
            "ppp-max-mtu",
            "session-timeout",
            "ip-pool",
            "ipv6-pool",
            "ipv6-pool-delegate",
        )
    ),
    *(("dns", key) for key in ("dns1", "dns2")),
    *(("wins", key) for key in ("wins1", "wins2")),
    *(
        ("radius", key)
        for key in (
            "nas-identifier",
            "nas-ip-address",
            "gw-ip-address",
            "dae-server",
            "dae-allowed",
            "timeout",
            "max-try",
            "acct-interim-interval",
            "bind",
        )
    ),
    ("log", "level"),
    ("ip-pool", "gw-ip-address"),
    *(("chap-secrets", key) for key in ("gw-ip-address", "chap-secrets", "encrypted")),
    *(
        ("shaper", key)
        for key in ("attr", "rate-limit", "burst-factor", "up-burst-factor", "down-burst-factor")
    ),
    *(("connlimit", key) for key in ("limit", "burst")),
    *(
        ("pppd-compat", key)
        for key in ("ip-up", "ip-down", "ip-change", "radattr-prefix", "fork-limit")
    ),
    *(("cli", key) for key in ("tcp", "password")),
}


def import_accel(path: str, *, secrets: str | None = None, hostname: str | None = None) -> Imported:
    """Read accel-ppp.conf and make our TOML; ConfigError when that can't be done."""
    host = hostname if hostname is not None else socket.gethostname()
    return _Importer(path, secrets, host).run()
