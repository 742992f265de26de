"""pptpd.conf, the options files it means, and chap-secrets become one TOML text.

pptpd's own rules: the first line of a key counts; remoteip addresses beyond
`connections` (100 if not given) are never used; without localip and remoteip it serves
192.168.0.1-100 and 192.168.1.1-100. pppd reads /etc/ppp/options first, then the file
that `option` names, and later options win.
"""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from ops.config.addresses import show_range, subtract
from ops.config.checks import MAX_POOL_ADDRESSES
from ops.config.draft import POOL, Draft, Imported, Origin, PoolDraft, printable
from ops.config.load import load_bytes
from ops.config.pptpd import scripts
from ops.config.pptpd.options import Options
from ops.config.pptpd.text import Line, Word, conf_lines, decode, option_words
from ops.config.problems import ConfigError
from ops.config.source import read
from ops.config.values import check_ranges
from ops.ranges import count, parse_ranges
from ops.settings import Ip, Server

CONNECTIONS: Final = 100
LOCAL_IP: Final = "192.168.0.1-100"
REMOTE_IP: Final = "192.168.1.1-100"
SECRETS: Final = "/etc/ppp/chap-secrets"
MAX_INCLUDES: Final = 32

_NO_MEANING: Final[dict[str, str]] = {
    "speed": "there is no tty",
    "noipparam": "no ip-up script is started",
    "ppp": "PPP is part of pptpcon",
    "pidfile": "pptpcon stays in the foreground and needs none",
    "fork": "pptpcon stays in the foreground",
    "forks": "pptpcon stays in the foreground",
}
_LOST: Final[dict[str, str]] = {
    "bcrelay": "broadcasts are not relayed; name a WINS server (ms-wins) for Windows networking",
    "vrf": "no VRF devices; run pptpcon in a network namespace of its own (ip netns exec)",
}
_TAKEN: Final = {
    "option",
    "debug",
    "stimeout",
    "delegate",
    "connections",
    "localip",
    "remoteip",
    "listen",
}


class NoPptpdError(ConfigError):
    """The input is no pptpd.conf."""


@dataclass(slots=True)
class _Importer:
    path: str
    secrets: str | None
    options: str | None
    hostname: str
    draft: Draft = field(default_factory=Draft)
    files: list[str] = field(default_factory=list)
    settings: dict[str, Line] = field(default_factory=dict)

    def run(self) -> Imported:
        data = read(self.path)
        if b"\0" in data:
            raise NoPptpdError([f"{printable(self.path)}: is no pptpd.conf: it holds a NUL"])
        self.files.append(self.path)
        self._conf(decode(data))
        options = self._options()
        options.finish()
        scripts.take(self.path, self.draft)
        self._name(options)
        self._simple()
        self._addresses(options)
        self._accounts(options)
        head = [
            "Configuration of pptpcon, made from " + ", ".join(self.files) + ".",
            "Each value has the line it comes from. Check with: pptpcon check-config FILE",
        ]
        text = self.draft.toml(head)
        notes = [str(note) for note in self.draft.notes if note.loud]
        checked = load_bytes(text.encode(), "the new configuration")
        return Imported(
            text, notes + [re.sub(r":\d+: ", ": ", w, count=1) for w in checked.warnings]
        )

    def _origin(self, key: str) -> Origin | None:
        line = self.settings.get(key)
        return Origin(self.path, line.number) if line else None

    def _conf(self, text: str) -> None:
        unknown: list[Line] = []
        known = 0
        for line in conf_lines(text):
            origin = Origin(self.path, line.number)
            if line.key in _NO_MEANING:
                self.draft.quiet(origin, f"{line.key}: {_NO_MEANING[line.key]}")
            elif line.key in _LOST:
                self.draft.loud(origin, f"{line.key}: {_LOST[line.key]}")
            elif line.key == "logwtmp":
                self.draft.set("records", "utmp", "/run/utmp", origin)
                self.draft.set("records", "wtmp", "/var/log/wtmp", origin)
            elif line.key not in _TAKEN:
                unknown.append(line)
                continue
            elif line.key in self.settings:
                first = self.settings[line.key].number
                self.draft.loud(origin, f"{line.key}: pptpd uses line {first}, the first one")
            else:
                self.settings[line.key] = line
            known += 1
        if known < len(unknown) or not known:
            why = f"{known} of {known + len(unknown)} settings are pptpd's"
            if unknown:
                why += f"; line {unknown[0].number} is not"
            raise NoPptpdError([f"{printable(self.path)}: is no pptpd.conf: {why}"])
        for line in unknown:
            self.draft.loud(Origin(self.path, line.number), f"{line.key[:40]}: unknown to pptpd")

    # Files beside the one given come first: it may be a copy from another host.

    def _beside(self, *names: str) -> Iterator[str]:
        folder = os.path.dirname(self.path)
        for name in names:
            yield os.path.join(folder, "ppp", name)
            yield os.path.join(folder, name)

    def _options(self) -> Options:
        options = Options(self.draft, self._include)
        paths: list[str] = []
        system = next((p for p in self._beside("options") if os.path.isfile(p)), None)
        given = self.settings.get("option")
        if self.options is not None:
            paths = [self.options]
        elif given is not None and given.value:
            name = os.path.basename(given.value)
            choices = [*self._beside(name), given.value]
            chosen = next((p for p in choices if os.path.isfile(p)), None)
            if chosen is None:
                self.draft.loud(
                    self._origin("option"),
                    f"option {given.value}: no such file, nor {choices[0]}; name it with --options",
                )
            paths = [p for p in (system, chosen) if p is not None]
        else:
            names = ("pptpd-options", "options.pptpd")
            choices = [*self._beside(*names), *(f"/etc/ppp/{name}" for name in names)]
            paths = [system] if system else [p for p in choices if os.path.isfile(p)][:1]
            if not paths:
                self.draft.loud(None, "no options file of pppd found; name it with --options")
        done: list[str] = []
        for path in paths:
            if os.path.abspath(path) not in done:
                done.append(os.path.abspath(path))
                options.apply(path, self._words(path))
        return options

    def _words(self, path: str) -> list[Word]:
        data = read(path)
        if path not in self.files:
            self.files.append(path)
        return list(option_words(decode(data)))

    def _include(self, name: str, given: str, origin: Origin) -> Iterator[tuple[str, list[Word]]]:
        base = os.path.basename(given)
        if name == "call":
            folder = os.path.dirname(self.path)
            choices = [os.path.join(folder, "ppp", "peers", base), f"/etc/ppp/peers/{base}"]
        else:
            choices = [*self._beside(base), given]
        path = next((p for p in choices if os.path.isfile(p)), None)
        if path is None:
            self.draft.loud(origin, f"{name} {given[:80]}: no such file; its options are missing")
        elif path in self.files or len(self.files) > MAX_INCLUDES:
            self.draft.loud(origin, f"{name} {given[:80]}: was read already")
        else:
            try:
                yield path, self._words(path)
            except ConfigError as e:
                self.draft.loud(origin, e.problems[0])

    def _name(self, options: Options) -> None:
        name, origin, why = options.name, options.name_origin, ""
        if not name:
            # pppd's domain is put behind the host's own name only.
            name = f"{self.hostname}.{options.domain}" if options.domain else self.hostname
            why = "this host's name: the options name none"
        self.draft.set("server", "name", name, origin, why)

    def _simple(self) -> None:
        if "debug" in self.settings:
            self.draft.set("log", "level", "debug", self._origin("debug"))
        timeout = self.settings.get("stimeout")
        if timeout is not None:
            if re.fullmatch(r"[0-9]{1,6}", timeout.value):
                self.draft.set(
                    "listen", "start_timeout_s", float(timeout.value), self._origin("stimeout")
                )
            else:
                self.draft.loud(self._origin("stimeout"), "stimeout: no number of seconds")
        listen = self.settings.get("listen")
        if listen is not None:
            self.draft.set("listen", "address", listen.value, self._origin("listen"))

    def _connections(self) -> int:
        line = self.settings.get("connections")
        origin = self._origin("connections")
        if line is not None and re.fullmatch(r"[0-9]{1,6}", line.value) and int(line.value):
            number = int(line.value)
            self.draft.set("limits", "max_sessions", number, origin)
            return number
        if line is not None:
            self.draft.loud(origin, f"connections: no number; pptpd's {CONNECTIONS} is taken")
        comment = f"pptpd's limit where connections does not say more ({CONNECTIONS})"
        self.draft.set("limits", "max_sessions", CONNECTIONS, None, comment)
        return CONNECTIONS

    def _addresses(self, options: Options) -> None:
        connections = self._connections()
        delegate = "delegate" in self.settings
        if delegate:
            for key in ("localip", "remoteip"):
                if key in self.settings:
                    self.draft.loud(self._origin(key), f"{key}: pptpd ignores it with delegate")
            self.draft.loud(
                self._origin("delegate"),
                "delegate: addresses come from the fourth column of chap-secrets; accounts"
                f" without one get one of [pools.{POOL}]: adapt it",
            )
            default = Ip().local
            self.draft.set(
                "ip",
                "local",
                options.local or default,
                None,
                "from pppd's options" if options.local else "the default: pppd's options name none",
            )
            self.draft.pools[POOL] = PoolDraft(
                ["10.99.1.0-255"], ["pptpd delegates addresses; these are pptpcon's default"]
            )
            return
        self._local()
        self._remote(connections)

    def _local(self) -> None:
        ranges = self._ranges("localip")
        if ranges:
            origin, comment = self._origin("localip"), ""
        else:
            origin, comment = None, "pptpd's default: no usable localip"
            ranges = parse_ranges(LOCAL_IP)
        text = ",".join(show_range(first, last) for first, last in ranges)
        self.draft.set("ip", "local", text, origin, comment)

    def _remote(self, connections: int) -> None:
        ranges = self._ranges("remoteip")
        origin: Origin | None = self._origin("remoteip")
        if not ranges:
            origin, ranges = None, parse_ranges(REMOTE_IP)
        total = count(ranges)
        kept: list[tuple[int, int]] = []
        room = connections
        for first, last in ranges:
            if room > 0:
                kept.append((first, min(last, first + room - 1)))
                room -= kept[-1][1] - first + 1
        where = f"{origin}" if origin else f"pptpd's default, {REMOTE_IP}: no usable remoteip"
        pool = PoolDraft([show_range(first, last) for first, last in kept], [printable(where)])
        self.draft.pools[POOL] = pool
        if total > connections:
            rest = subtract(ranges, kept)
            shown = ", ".join(f'"{show_range(first, last)}"' for first, last in rest[:8])
            if len(rest) > 8:
                shown += ", ..."
            pool.comments += [
                f"pptpd uses the first {connections} of {total} addresses (its connections). For"
                " the others raise",
                f"limits.max_sessions and add {shown}",
            ]
            if "connections" not in self.settings:
                self.draft.loud(
                    origin,
                    f"remoteip: pptpd uses {connections} of these {total} addresses, because"
                    " connections is not set; see the comment at the pool",
                )
        if not self._pool_left(kept):
            self.draft.loud(origin, "remoteip: localip takes all of it; pptpcon's own is taken")
            self.draft.set("ip", "local", Ip().local, None, "was all of remoteip")

    def _pool_left(self, kept: list[tuple[int, int]]) -> bool:
        return bool(subtract(kept, parse_ranges(str(self.draft.values["ip", "local"]))))

    def _ranges(self, key: str) -> list[tuple[int, int]]:
        """The addresses of localip or remoteip, each once, the unusable noted."""
        line = self.settings.get(key)
        if line is None:
            return []
        origin = self._origin(key)
        found: list[tuple[int, int]] = []
        for item in line.value.split(","):
            try:
                check_ranges(item)
                ranges = parse_ranges(item)
            except ValueError as e:
                self.draft.loud(origin, f"{key}: {e}")
                continue
            if "/" in item:
                self.draft.loud(origin, f"{key}: {item.strip()} is no syntax of pptpd's; taken")
            new = subtract(ranges, found)
            if count(new) < count(ranges):
                self.draft.loud(origin, f"{key}: {item.strip()[:40]} is there already, in part")
            if count(found) + count(new) > MAX_POOL_ADDRESSES:
                self.draft.loud(origin, f"{key}: more than {MAX_POOL_ADDRESSES} addresses; cut off")
                break
            found += new
        return found

    def _accounts(self, options: Options) -> None:
        if not options.strip:
            self.draft.set(
                "accounts", "domain", "keep", None, "chapms-strip-domain is not among the options"
            )
        choices = [*self._beside("chap-secrets"), SECRETS]
        if self.secrets is not None:
            choices = [self.secrets]
        path = next((p for p in choices if os.path.isfile(p)), None)
        chosen = os.path.abspath(path if path is not None else choices[-1])
        self.draft.set("accounts", "chap_secrets", chosen, None, "pppd's file, read as it is")
        if path is None:
            self.draft.loud(None, f"{chosen}: no such file; no account but those in it can log in")
        else:
            self._secrets(path)
        if "pap" in self.draft.values.get(("ppp", "auth"), ()):
            pap = next((p for p in self._beside("pap-secrets") if os.path.isfile(p)), None)
            if pap is not None:
                self.draft.loud(
                    None, f"{pap}: is not read; accounts for PAP come from chap-secrets too"
                )

    def _secrets(self, path: str) -> None:
        from workers import secrets_file  # noqa: PLC0415 - only here

        try:
            index = secrets_file.parse(read(path))
        except ConfigError as e:
            self.draft.loud(None, e.problems[0])
            return
        for problem in index.problems:
            if "was not read" not in problem.text:
                self.draft.loud(Origin(path, problem.line), problem.text)
        name = str(self.draft.values.get(("server", "name"), Server().name))
        for secret in index.lines.values():
            if secret.server not in (name, secrets_file.WILD):
                self.draft.loud(
                    Origin(path, secret.line),
                    f'is for server "{secret.server}", but server.name is "{name}": not used',
                )


def import_pptpd(
    path: str,
    *,
    secrets: str | None = None,
    options: str | None = None,
    hostname: str | None = None,
) -> Imported:
    """Read pptpd's files and make our TOML; ConfigError when that can't be done."""
    host = hostname if hostname is not None else socket.gethostname()
    return _Importer(path, secrets, options, host).run()
