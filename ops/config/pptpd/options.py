"""pppd's options: what each means to us. pppd(8), and the spellings of the patches of 1999.

Three kinds: those that become a setting (methods of Options), those that have no meaning
in a concentrator without ttys (SILENT), and those whose effect is lost (LOST, with what
to do). The number after a name is that of its arguments.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final

from ops.config.draft import Draft, Origin
from ops.config.pptpd.text import Word
from ops.ranges import parse_address

# Strongest first, the order in which they are offered.
METHODS: Final[tuple[str, ...]] = ("mschapv2", "mschap", "chap-md5", "pap")
_MTU: Final = (576, 1500)

_REQUIRE: Final[dict[str, str]] = {
    "require-pap": "pap",
    "+pap": "pap",
    "require-chap": "chap-md5",
    "+chap": "chap-md5",
    "require-mschap": "mschap",
    "require-chapms": "mschap",
    "+chapms": "mschap",
    "+mschap": "mschap",
    "require-mschap-v2": "mschapv2",
    "require-chapms-v2": "mschapv2",
    "+chapms-v2": "mschapv2",
    "+mschap-v2": "mschapv2",
    "require-eap": "eap",
    "+eap": "eap",
}
_REFUSE: Final[dict[str, str]] = {
    "refuse-pap": "pap",
    "-pap": "pap",
    "refuse-chap": "chap-md5",
    "-chap": "chap-md5",
    "refuse-mschap": "mschap",
    "refuse-chapms": "mschap",
    "-chapms": "mschap",
    "-mschap": "mschap",
    "refuse-mschap-v2": "mschapv2",
    "refuse-chapms-v2": "mschapv2",
    "-chapms-v2": "mschapv2",
    "-mschap-v2": "mschapv2",
    "refuse-eap": "eap",
    "-eap": "eap",
}


def _names(text: str) -> dict[str, int]:
    """ "name name:2 ..." as name -> number of arguments."""
    result = {}
    for item in text.split():
        name, _, count = item.partition(":")
        result[name] = int(count or 0)
    return result


SILENT: Final = _names(
    "lock nolock nobsdcomp -bsdcomp nodeflate -deflate nopredictor1 -predictor1 novj -vj"
    " novjccomp -vjccomp vj-max-slots:1 nologfd nolog logfd:1 logfile:1 modem local crtscts"
    " -crtscts nocrtscts cdtrcts nocdtrcts xonxoff asyncmap:1 default-asyncmap -am escape:1"
    " receive-all sync nodefaultroute -defaultroute defaultroute noreplacedefaultroute"
    " nodefaultroute6 ipcp-accept-local ipcp-accept-remote noipdefault noipx -ipx noipv6 -ipv6"
    " nomultilink nomp nompshortseq noendpoint nopersist nodetach -detach updetach up_sdnotify"
    " passive -p silent hide-password show-password dump dryrun unit:1 linkname:1"
    " nomagic -mn nopcomp -pc noaccomp -ac default-mru -mru kdebug:1 ktune noktune maxfail:1"
    " holdoff:1 connect-delay:1 child-timeout:1 speed:1 nopapcrypt noproxyarp -proxyarp"
    " usepeerdns noremoteip lcp-echo-adaptive nolcp-echo-adaptive stop-bits:1 nochapms-strip-domain"
    " chap-restart:1 chap-max-challenge:1 chap-timeout:1 chap-interval:1 pap-restart:1"
    " pap-max-authreq:1 pap-timeout:1 eap-restart:1 eap-max-rreq:1 eap-max-sreq:1 eap-timeout:1"
    " eap-interval:1 ipcp-restart:1 ipcp-max-terminate:1 ipcp-max-configure:1"
    " ipcp-max-failure:1 ipv6cp-restart:1 ipv6cp-max-terminate:1 ipv6cp-max-configure:1"
    " ipv6cp-max-failure:1 nomppe-stateful mppe-stateless require-mppe-stateless +mppe-stateless"
)

_COMPRESSION: Final = "packets are not compressed; clients accept that"
_IPV6: Final = "subscribers get IPv4 only"
_LIMIT: Final = "sessions have no such limit here; leave it out"
_FILTER: Final = "no filter of this kind; use an nftables rule on the subscribers' addresses"
_CLIENT: Final = "is for calling out; a concentrator only answers"
_HOOK: Final = "no program is started for a session; its log lines name user and address"
LOST: Final[dict[str, tuple[int, str]]] = {
    "mppe-stateful": (0, "stateless MPPE is what every client knows; else mppe.stateful"),
    "idle": (1, _LIMIT),
    "maxconnect": (1, _LIMIT),
    "active-filter": (1, _FILTER),
    "pass-filter": (1, _FILTER),
    "bsdcomp": (1, _COMPRESSION),
    "deflate": (1, _COMPRESSION),
    "predictor1": (0, _COMPRESSION),
    "ipv6": (1, _IPV6),
    "+ipv6": (0, _IPV6),
    "multilink": (0, "multilink is not offered"),
    "mp": (0, "multilink is not offered"),
    "login": (0, "system accounts are not asked; put the users into chap-secrets"),
    "papcrypt": (0, "PAP passwords are read as they are; put them into chap-secrets in clear"),
    "plugin": (
        1,
        "plugins of pppd are not loaded; accounts come from chap-secrets (a RADIUS or winbind"
        " plugin has no counterpart yet)",
    ),
    "radius-config-file": (1, "RADIUS has no counterpart yet; accounts come from chap-secrets"),
    "ntlm_auth-helper": (1, "winbind has no counterpart; accounts come from chap-secrets"),
    "allow-ip": (1, "put the address into the fourth column of chap-secrets"),
    "noip": (0, "subscribers always get an IPv4 address"),
    "replacedefaultroute": (0, _CLIENT),
    "connect": (1, _CLIENT),
    "disconnect": (1, _HOOK),
    "welcome": (1, _HOOK),
    "init": (1, _CLIENT),
    "pty": (1, _CLIENT),
    "demand": (0, _CLIENT),
    "persist": (0, _CLIENT),
    "user": (1, _CLIENT),
    "password": (1, _CLIENT),
    "+ua": (1, _CLIENT),
    "remotename": (1, _CLIENT),
    "ip-pre-up-script": (1, _HOOK),
    "privgroup": (1, "only root starts pptpcon"),
    "set": (1, _HOOK),
    "unset": (1, _HOOK),
    "record": (1, "nothing is recorded; use tcpdump on the GRE packets"),
    "mrru": (1, "multilink is not offered"),
    "endpoint": (1, "multilink is not offered"),
    "ifname": (1, "sessions have no interface of their own"),
}


@dataclass(slots=True)
class Options:
    """What the options files say so far; `finish` turns it into settings."""

    draft: Draft
    read: Callable[[str, str, Origin], Iterator[tuple[str, list[Word]]]]  # file, call
    required: dict[str, Origin] = field(default_factory=dict)
    refused: dict[str, Origin] = field(default_factory=dict)
    auth: bool | None = None
    mppe: str = ""  # "", "allow", "require", "deny"
    mppe_origin: Origin | None = None
    strengths: set[int] = field(default_factory=set)
    excluded: set[int] = field(default_factory=set)
    name: str = ""
    name_origin: Origin | None = None
    domain: str = ""
    strip: bool = False
    dns: list[str] = field(default_factory=list)
    wins: list[str] = field(default_factory=list)
    local: str = ""

    def apply(self, path: str, words: list[Word]) -> None:
        """Carry out all options of one file."""
        at = 0
        while at < len(words):
            word = words[at]
            at += 1
            count = self._arguments(word.text)
            if count is None:
                # How many arguments an unknown option has is unknown: the rest of its line.
                while at < len(words) and words[at].number == word.number:
                    at += 1
                self._unknown(word, Origin(path, word.number))
                continue
            given = [w.text for w in words[at : at + count]]
            at += count
            origin = Origin(path, word.number)
            if len(given) < count:
                self.draft.loud(origin, f"{word.text}: its value is missing")
                continue
            self._one(word.text, given, origin)

    def _arguments(self, name: str) -> int | None:
        if name in SILENT:
            return SILENT[name]
        if name in LOST:
            return LOST[name][0]
        if name in _HANDLERS:
            return _HANDLERS[name][0]
        if name in _REQUIRE or name in _REFUSE or _is_address(name) or _is_tty(name):
            return 0
        return None

    def _unknown(self, word: Word, origin: Origin) -> None:
        self.draft.loud(
            origin, f"{word.text[:40]}: unknown option; see pptpcon config show --defaults"
        )

    def _one(self, name: str, given: list[str], origin: Origin) -> None:
        if name in SILENT or _is_tty(name):
            self.draft.quiet(origin, name)
        elif name in LOST:
            self.draft.loud(origin, f"{name}: {LOST[name][1]}")
        elif name in _REQUIRE:
            self.required[_REQUIRE[name]] = origin
            self.refused.pop(_REQUIRE[name], None)
        elif name in _REFUSE:
            self.refused[_REFUSE[name]] = origin
            self.required.pop(_REFUSE[name], None)
        elif name in _HANDLERS:
            _HANDLERS[name][1](self, name, given, origin)
        else:
            self._address(name, origin)

    def _address(self, word: str, origin: Origin) -> None:
        self.local = word.partition(":")[0]
        if ":" in word and word.partition(":")[2]:
            self.draft.loud(origin, f"{word}: the peer's address comes from the pool")
        else:
            self.draft.quiet(origin, word)

    # Handlers: (self, name, arguments, origin).

    def _auth(self, name: str, _: list[str], origin: Origin) -> None:
        self.auth = name == "auth"
        if name == "noauth":
            self.draft.loud(origin, "noauth: nobody is served here without logging in")

    def _size(self, name: str, given: list[str], origin: Origin) -> None:
        """mtu, mru."""
        low, high = _MTU
        size = _number(given[0])
        if size is None:
            self.draft.loud(origin, f"{name}: {given[0][:20]} is no number")
            return
        fits = max(low, min(high, size))
        if fits != size:
            self.draft.loud(origin, f"{name} {size}: {fits} is as near as pptpcon goes")
        self.draft.set("ppp", name, fits, origin)

    def _counted(self, name: str, given: list[str], origin: Origin) -> None:
        key = {
            "lcp-echo-interval": "lcp_echo_interval_s",
            "lcp-max-configure": "max_configure",
            "lcp-max-terminate": "max_terminate",
            "lcp-max-failure": "max_failure",
            "lcp-restart": "restart_interval_s",
        }[name]
        number = _number(given[0])
        if number is None:
            self.draft.loud(origin, f"{name}: {given[0][:20]} is no number")
            return
        self.draft.set("ppp", key, float(number) if key.endswith("val_s") else number, origin)

    def _echo_interval(self, name: str, given: list[str], origin: Origin) -> None:
        number = _number(given[0])
        if number is None:
            self.draft.loud(origin, f"{name}: {given[0][:20]} is no number")
            return
        self.draft.set("ppp", "lcp_echo_interval_s", number, origin)

    def _echo_failure(self, name: str, given: list[str], origin: Origin) -> None:
        number = _number(given[0])
        if number is None:
            self.draft.loud(origin, f"{name}: {given[0][:20]} is no number")
        elif number == 0:
            # pppd then never ends a link for lack of echoes.
            self.draft.set("ppp", "lcp_echo_interval_s", 0, origin, "lcp-echo-failure 0 is off")
        else:
            self.draft.set("ppp", "lcp_echo_failures", min(number, 255), origin)

    def _server(self, name: str, given: list[str], origin: Origin) -> None:
        """ms-dns, ms-wins."""
        servers, key = (self.dns, "dns") if name == "ms-dns" else (self.wins, "wins")
        try:
            parse_address(given[0])
        except ValueError as e:
            self.draft.loud(origin, f"{name}: {e}")
            return
        if given[0] in servers:
            self.draft.loud(origin, f"{name} {given[0]}: is there already")
        elif len(servers) == 2:
            self.draft.loud(origin, f"{name} {given[0]}: PPP carries two servers only")
        else:
            servers.append(given[0])
            self.draft.set("ip", key, list(servers), origin)

    def _proxyarp(self, name: str, _: list[str], origin: Origin) -> None:
        self.draft.set("lan", "proxy", "on", origin)

    def _script(self, name: str, given: list[str], origin: Origin) -> None:
        """ip-up-script, ip-down-script."""
        note = "$1 is a name of the session's own, no interface; it runs as hooks.user"
        self.draft.set("hooks", name[: -len("-script")].replace("-", "_"), given[0], origin, note)

    def _ipparam(self, _: str, given: list[str], origin: Origin) -> None:
        self.draft.set("hooks", "ipparam", given[0], origin)

    def _set_name(self, name: str, given: list[str], origin: Origin) -> None:
        if name == "domain":
            self.domain = given[0]
            self.draft.quiet(origin, name)
        else:
            self.name, self.name_origin = given[0], origin

    def _usehostname(self, name: str, _: list[str], origin: Origin) -> None:
        self.name, self.name_origin = "", None
        self.draft.quiet(origin, name)

    def _strip(self, _: str, __: list[str], origin: Origin) -> None:
        self.strip = True
        self.draft.set("accounts", "domain", "strip", origin)

    def _debug(self, _: str, __: list[str], origin: Origin) -> None:
        self.draft.set("log", "level", "debug", origin)

    def _mppe(self, name: str, given: list[str], origin: Origin) -> None:
        """require-mppe*, nomppe*, and +mppe*, mppe-N, "mppe a,b,c" of the patches."""
        self.mppe_origin = origin
        if name in ("nomppe", "-mppe", "noccp", "-ccp"):
            self.mppe = "deny"
            return
        if name in ("nomppe-40", "-mppe-40"):
            self.excluded.add(40)
            return
        if name in ("nomppe-128", "-mppe-128"):
            self.excluded.add(128)
            return
        words = given[0].split(",") if given else [name]
        for word in words:
            if word in ("no40", "no128"):
                self.excluded.add(int(word[2:]))
            elif word in ("no56", "stateless", "allowed", "optional"):
                continue
            elif word == "stateful":
                self.draft.loud(origin, f"{name} stateful: {LOST['mppe-stateful'][1]}")
            elif word not in ("required", *_HANDLERS):
                self.draft.loud(origin, f"{name}: {word[:20]} is unknown")
        size = re.search(r"-(40|128)$", name)
        if size:
            self.strengths.add(int(size[1]))
        if name.startswith("require-") or "required" in words:
            self.mppe = "require"
        elif self.mppe != "require":
            self.mppe = "allow"

    def _include(self, name: str, given: list[str], origin: Origin) -> None:
        """file, call."""
        for path, words in self.read(name, given[0], origin):
            self.apply(path, words)

    def finish(self) -> None:
        """Authentication and encryption, decided on all options together."""
        methods, comment = self._methods()
        policy, why = self._policy(methods)
        strengths = [bits for bits in (128, 40) if bits in (self.strengths or {128, 40})]
        strengths = [bits for bits in strengths if bits not in self.excluded] or [128]
        if policy == "require" and not any(m.startswith("mschap") for m in methods):
            self.draft.loud(
                self.mppe_origin,
                "MPPE needs MS-CHAP, which no option requires (pppd would end every call);"
                " mschapv2 is taken",
            )
            methods, comment = ["mschapv2"], "MPPE needs it"
        self.draft.set("ppp", "auth", methods, None, comment)
        self.draft.set("mppe", "policy", policy, self.mppe_origin, why)
        if policy != "deny":
            self.draft.set("mppe", "strengths", strengths, self.mppe_origin)

    def _methods(self) -> tuple[list[str], str]:
        if "eap" in self.required:
            self.draft.loud(
                self.required["eap"],
                'require-eap: mschapv2 is what comes close; for EAP itself add "eap" to ppp.auth',
            )
        required: list[str] = [m for m in METHODS if m in self.required]
        if required:
            # refuse-* is about logging in elsewhere; where something is required it adds nothing.
            origins = ", ".join(str(self.required[m]) for m in required)
            return required, f"{origins}: these are required"
        if self.auth and "eap" not in self.required:
            left: list[str] = [m for m in METHODS if m not in self.refused]
            without = " and refuse-*" if self.refused else ""
            return left or ["mschapv2"], f"auth{without} without a require-* option: any of these"
        if self.auth is None and "eap" not in self.required:
            self.draft.loud(None, "no option requires a login (pppd would let anyone in): mschapv2")
        return ["mschapv2"], "the safest; no option names another"

    def _policy(self, methods: list[str]) -> tuple[str, str]:
        if self.mppe == "require":
            return "require", "MPPE is required"
        if self.mppe == "deny":
            return "deny", "MPPE is switched off"
        if not any(m.startswith("mschap") for m in methods):
            return "deny", "nothing asks for MPPE, and these methods give no keys for it"
        return "prefer", "nothing requires MPPE; clients that can do it get it"


def _number(text: str) -> int | None:
    return int(text) if re.fullmatch(r"[0-9]{1,9}", text) else None


def _is_address(word: str) -> bool:
    local, colon, remote = word.partition(":")
    try:
        for part in (local, remote):
            if part:
                parse_address(part)
    except ValueError:
        return False
    return bool(local or (colon and remote))


def _is_tty(word: str) -> bool:
    """A line speed or a device: pppd takes both as bare words."""
    return bool(re.fullmatch(r"[0-9]{1,9}|/dev/\S+|tty\w+", word))


_MPPE_FLAGS: Final = _names(
    "require-mppe require-mppe-40 require-mppe-128 +mppe +mppe-40 +mppe-128 mppe-40 mppe-128"
    " nomppe nomppe-40 nomppe-128 -mppe -mppe-40 -mppe-128 noccp -ccp"
)
_Handler = Callable[[Options, str, list[str], Origin], None]
_HANDLERS: Final[dict[str, tuple[int, _Handler]]] = {
    "auth": (0, Options._auth),
    "noauth": (0, Options._auth),
    "mtu": (1, Options._size),
    "mru": (1, Options._size),
    "lcp-echo-interval": (1, Options._echo_interval),
    "lcp-echo-failure": (1, Options._echo_failure),
    "lcp-max-configure": (1, Options._counted),
    "lcp-max-terminate": (1, Options._counted),
    "lcp-max-failure": (1, Options._counted),
    "lcp-restart": (1, Options._counted),
    "ms-dns": (1, Options._server),
    "ms-wins": (1, Options._server),
    "name": (1, Options._set_name),
    "domain": (1, Options._set_name),
    "usehostname": (0, Options._usehostname),
    "proxyarp": (0, Options._proxyarp),
    "ip-up-script": (1, Options._script),
    "ip-down-script": (1, Options._script),
    "ipparam": (1, Options._ipparam),
    "chapms-strip-domain": (0, Options._strip),
    "debug": (0, Options._debug),
    "-d": (0, Options._debug),
    "file": (1, Options._include),
    "call": (1, Options._include),
    "mppe": (1, Options._mppe),
    **dict.fromkeys(_MPPE_FLAGS, (0, Options._mppe)),
}
