"""[radius]: servers with their options behind commas, and who may send CoA."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any, Final

from ops.config.accel.text import Line
from ops.config.draft import Draft, Origin

_OPTIONS: Final = {
    "auth-port",
    "acct-port",
    "req-limit",
    "fail-timeout",
    "fail-time",
    "max-fail",
    "weight",
    "backup",
    "bind-device",
}
_DIRECT: Final = (
    ("nas-identifier", "nas_identifier"),
    ("nas-ip-address", "nas_ip"),
    ("bind", "source"),
)


@dataclass(slots=True)
class Servers:
    """The servers so far. No secret ever stands in a note."""

    draft: Draft
    _found: list[tuple[dict[str, Any], Origin]] = field(default_factory=list)
    _limits: list[tuple[int, Origin]] = field(default_factory=list)
    _rests: list[tuple[int, Origin]] = field(default_factory=list)

    def takes(self, line: Line, origin: Origin) -> bool:
        """A server, in the present spelling or one of the two obsolete ones."""
        if line.key in ("auth-server", "acct-server"):
            self._old(line, origin)
        elif line.key == "server":
            self._server(line.value, origin)
        else:
            return False
        return True

    def _old(self, line: Line, origin: Origin) -> None:
        where, _, secret = line.value.partition(",")
        address, _, port = where.strip().partition(":")
        kind = line.key.removesuffix("-server")
        number = int(port) if re.fullmatch(r"[0-9]{1,5}", port) else 1812 + (kind == "acct")
        for values, _ in self._found:
            if (values["address"], values["secret"]) == (address, secret.strip()):
                values[f"{kind}_port"] = number
                return
        values = {"address": address, "secret": secret.strip(), "auth_port": 0, "acct_port": 0}
        self._found.append((values | {f"{kind}_port": number}, origin))

    def _server(self, text: str, origin: Origin) -> None:
        address, *words = [word.strip() for word in text.split(",")]
        if not words:
            self.draft.loud(origin, f"[radius] server={address[:40]}: there is no secret")
            return
        values: dict[str, Any] = {"address": address, "secret": words[0]}
        for word in words[1:]:
            key, _, value = word.partition("=")
            if key not in _OPTIONS:
                self.draft.loud(origin, f"[radius] server: an option unknown, {key[:20]!r}")
            elif key == "backup":
                values["priority"] = 1
            elif key == "bind-device":
                self.draft.loud(
                    origin, f"bind-device={value[:20]}: set radius.source to an address of it"
                )
            elif not re.fullmatch(r"[0-9]{1,6}", value):
                self.draft.loud(origin, f"[radius] server: {key} is no number")
            elif key in ("auth-port", "acct-port", "weight"):
                values[key.replace("-", "_")] = int(value)
            elif key == "req-limit" and int(value):
                self._limits.append((int(value), origin))
            elif key in ("fail-timeout", "fail-time") and int(value):
                self._rests.append((int(value), origin))
        self._found.append((values, origin))

    def finish(self, loaded: bool, settings: dict[tuple[str, str], Line]) -> None:
        """Write them, if the module is loaded at all."""
        if not loaded:
            if self._found:
                self.draft.loud(self._found[0][1], "[radius]: its module is not loaded; left out")
            return
        if not self._found:
            self.draft.loud(None, "the module radius is loaded, but no server is named")
            return
        path = self._found[0][1].path
        for key, ours in _DIRECT:
            line = settings.get(("radius", key))
            if line is not None:
                self.draft.set("radius", ours, line.value, Origin(path, line.number))
        for key, ours, kind in (
            ("timeout", "timeout_s", float),
            ("max-try", "tries", int),
            ("acct-interim-interval", "interim_s", int),
        ):
            line = settings.get(("radius", key))
            if line is None:
                continue
            origin = Origin(path, line.number)
            if re.fullmatch(r"[0-9]{1,6}", line.value):
                self.draft.set("radius", ours, kind(line.value), origin)
            else:
                self.draft.loud(origin, f"[radius] {key}: {line.value[:20]!r} is no number")
        if self._limits:
            self.draft.set("radius", "in_flight", *min(self._limits, key=itemgetter(0)))
        if self._rests:
            rest, origin = min(self._rests, key=itemgetter(0))
            self.draft.set("radius", "dead_time_s", float(rest), origin)
        for values, origin in self._found:
            self.draft.add("radius", "servers", values, origin)
        self._dynamic(settings, path)

    def _dynamic(self, settings: dict[tuple[str, str], Line], path: str) -> None:
        """dae-server and who may talk to it."""
        line = settings.get(("radius", "dae-server"))
        if line is None:
            return
        origin = Origin(path, line.number)
        where, _, rest = line.value.partition(",")
        secret = rest.partition(",")[0].strip()
        if not self.draft.set("radius", "listen", where.strip(), origin):
            return
        allowed = settings.get(("radius", "dae-allowed"))
        if allowed is not None:
            source = Origin(path, allowed.number)
            for address in allowed.value.split(","):
                values = {"address": address.strip(), "secret": secret}
                self.draft.add("radius", "clients", values, source)
            return
        self.draft.loud(origin, "dae-allowed is not set: the RADIUS servers may send CoA")
        for address in dict.fromkeys(values["address"] for values, _ in self._found):
            self.draft.add("radius", "clients", {"address": address, "secret": secret}, origin)
