"""The text format of tests/clients/*.replay, and the player.

A file is one client, octet by octet. First its head, `key: value` lines:

    family    who it is
    evidence  captured, documented or assumed, in words: which octets are whose
    source    where the octets come from
    policy    what the server is set to: fields of workers.ppp.actions.Policy

then its lines, of two sides: `>` is the client, `<` the server. `c>` and `c<` are control
messages, `p>` and `p<` PPP frames. Words are octets in hex and

    *N          N zero octets                  'text'    text, _ for a blank
    lcp chap pap ccp ipcp ipv6cp eap ip         a protocol number
    len         the packet's length, from its code to its end
    {name:N}    N octets that are not known before: kept under that name
    {name}      what was kept
    ..          anything from here on (server only)

and these lines do what octets alone cannot:

    cut N           what the client sends next comes in segments of N octets
    answer NAME PASSWORD    the answer to the challenge of the server's last CHAP packet
    wait SECONDS    nothing comes from the client
    close           the client closes TCP without a word
    up address=A mppe=BITS [stateful=0..3] [ipv6]      the session is up, with these
    quiet           the server has said no more than was listed
    end CAUSE       the link is over, for this cause

All that the server says must be listed, in order; nothing may be left at the end.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass, field, fields
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any, Final

from dispatcher.pptp.connection import (
    Action,
    CallCleared,
    CallRequested,
    Closed,
    Connection,
    ConnectionSettings,
    Send,
)
from dispatcher.pptp.messages import LENGTHS
from tests.workers.ppp.ends import ADDRESS, LOCAL
from workers.ppp import mschap
from workers.ppp.actions import (
    Admission,
    Authenticate,
    Finished,
    Network6Up,
    NetworkUp,
    Policy,
    SetMppe,
)
from workers.ppp.actions import Send as SendFrame
from workers.ppp.credentials import check
from workers.ppp.link import Link

PROTOCOLS: Final = {
    "lcp": b"\xc0\x21",
    "pap": b"\xc0\x23",
    "chap": b"\xc2\x23",
    "eap": b"\xc2\x27",
    "ccp": b"\x80\xfd",
    "ipcp": b"\x80\x21",
    "ipv6cp": b"\x80\x57",
    "ip": b"\x00\x21",
}
CALL_ID: Final = 0x1234
MAGIC: Final = 0xAABBCCDD
HEAD: Final = ("family", "evidence", "source", "policy")


class ScriptError(Exception):
    """A line of a file that cannot be read, or that did not happen."""


@dataclass(frozen=True)
class Script:
    """A file, taken apart."""

    path: Path
    head: dict[str, str]
    lines: tuple[tuple[int, str, str], ...]  # number, word, rest

    @classmethod
    def read(cls, path: Path) -> Script:
        head: dict[str, str] = {}
        lines: list[tuple[int, str, str]] = []
        for number, text in enumerate(path.read_text().splitlines(), 1):
            text = text.partition("#")[0].strip()
            key, colon, value = text.partition(":")
            if not text:
                continue
            if colon and not lines and (key in HEAD or text[0] == " "):
                head[key] = f"{head[key]} {value.strip()}" if key in head else value.strip()
                continue
            word, _, rest = text.partition(" ")
            lines.append((number, word, rest.strip()))
        missing = [key for key in HEAD if key not in head]
        if missing or not lines:
            raise ScriptError(f"{path.name}: without {', '.join(missing) or 'a line'}")
        return cls(path, head, tuple(lines))

    def policy(self) -> Policy:
        """`key=value` words; lists with commas, numbers and yes where the field wants them."""
        kinds = {f.name: str(f.type) for f in fields(Policy)}
        given: dict[str, Any] = {}
        for word in self.head["policy"].split():
            key, _, value = word.partition("=")
            if key not in kinds:
                raise ScriptError(f"{self.path.name}: policy: {key}")
            if kinds[key].startswith("tuple[int"):
                given[key] = tuple(int(part) for part in value.split(","))
            elif kinds[key].startswith("tuple[str"):
                given[key] = tuple(value.split(","))
            elif kinds[key] in ("int", "float"):
                given[key] = int(value)
            elif kinds[key] == "bool":
                given[key] = value == "yes"
            elif kinds[key] == "bytes":
                given[key] = bytes.fromhex(value)
            else:
                given[key] = value
        return Policy(**{"dns": (0x0A000035, 0x0A000036), **given})


@dataclass
class Player:
    """Plays a client against our connection and link."""

    script: Script
    now: float = 100.0
    kept: dict[str, bytes] = field(default_factory=dict)
    control: list[bytes] = field(default_factory=list)  # said by the server, not yet listed
    frames: list[bytes] = field(default_factory=list)
    challenge: bytes = b""  # the server's last CHAP Challenge, as a frame
    segment: int = 0
    number: int = 0
    up: NetworkUp | None = None
    mppe: SetMppe | None = None
    six: bool = False
    finished: Finished | None = None
    link: Link | None = None
    closed: bool = False

    def __post_init__(self) -> None:
        self.connection = Connection(ConnectionSettings(), self.now)
        self.policy = self.script.policy()
        self.passwords = dict(
            shlex.split(rest.replace("\\", "\\\\"))[:2]
            for _, word, rest in self.script.lines
            if word == "answer"
        )

    def play(self) -> None:
        """The whole file; ScriptError names the line that went otherwise."""
        for number, word, rest in self.script.lines:
            self.number = number
            try:
                self._line(word, rest)
            except ScriptError as e:
                raise ScriptError(f"{self.script.path.name}:{number}: {word} {rest}: {e}") from None
        self._quiet()

    def _line(self, word: str, rest: str) -> None:
        match word:
            case "c>":
                self._client_control(self._octets(rest))
            case "p>":
                self._client_frame(self._octets(rest))
            case "c<":
                self._expect(self.control, rest)
            case "p<":
                self._expect(self.frames, rest)
            case "cut":
                self.segment = int(rest)
            case "answer":
                name, password = shlex.split(rest.replace("\\", "\\\\"))
                self._client_frame(self._answer(name, password))
            case "wait":
                self._wait(float(rest))
            case "close":
                self._control(self.connection.eof())
            case "up":
                self._is_up(dict(w.partition("=")[::2] for w in rest.split()))
            case "quiet":
                self._quiet()
            case "end":
                cause = self.finished.cause if self.finished else "still there"
                if cause != rest:
                    raise ScriptError(f"{cause}: {self.finished}")
            case _:
                raise ScriptError("no such line")

    # -- octets

    def _words(self, text: str) -> list[str]:
        return re.findall(r"'[^']*'|\{[^}]*\}|\S+", text)

    def _octets(self, text: str) -> bytes:
        """What the client sends."""
        out, length_at = b"", -1
        for word in self._words(text):
            if word == "len":
                length_at = len(out)
                out += b"\0\0"
            elif word[0] == "{":
                out += self.kept[word[1:-1]]
            else:
                out += self._plain(word)
        if length_at >= 0:
            size = len(out) - length_at + 2
            out = out[:length_at] + size.to_bytes(2, "big") + out[length_at + 2 :]
        return out

    @staticmethod
    def _plain(word: str) -> bytes:
        if word in PROTOCOLS:
            return PROTOCOLS[word]
        if word[0] == "*":
            return bytes(int(word[1:]))
        if word[0] == "'":
            return word[1:-1].replace("_", " ").encode()
        try:
            return bytes.fromhex(word)
        except ValueError:
            raise ScriptError(f"{word}: no hex") from None

    def _expect(self, said: list[bytes], text: str) -> None:
        if not said:
            raise ScriptError("the server said nothing")
        octets = said.pop(0)
        at = 0
        for word in self._words(text):
            if word == "..":
                return
            if word == "len":
                got, wanted = octets[at : at + 2], (len(octets) - at + 2).to_bytes(2, "big")
            elif word[0] == "{" and ":" in word:
                name, _, size = word[1:-1].partition(":")
                got = wanted = octets[at : at + int(size)]
                self.kept[name] = got
                if len(got) != int(size):
                    raise ScriptError(f"too short: {octets.hex(' ', 2)}")
            else:
                wanted = self.kept[word[1:-1]] if word[0] == "{" else self._plain(word)
                got = octets[at : at + len(wanted)]
            if got != wanted:
                raise ScriptError(f"at octet {at}, {word}: {octets.hex()}")
            at += len(wanted)
        if at != len(octets):
            raise ScriptError(f"{len(octets) - at} octets more: {octets.hex()}")

    def _quiet(self) -> None:
        said = [octets.hex() for octets in self.control + self.frames]
        if said:
            raise ScriptError(f"{self.script.path.name}:{self.number}: then also {said}")

    # -- control connection

    def _client_control(self, octets: bytes) -> None:
        size = self.segment or len(octets)
        for at in range(0, len(octets), size):
            self._control(self.connection.receive(octets[at : at + size], self.now))

    def _control(self, actions: list[Action]) -> None:
        for action in actions:
            match action:
                case Send(data):
                    if LENGTHS[int.from_bytes(data[8:10], "big")] != len(data):
                        raise ScriptError("not one message, one segment")
                    self.control.append(data)
                case CallRequested(number, _):
                    self.connection.assign_call(number, CALL_ID)
                    self.link = Link(self.policy, magic=MAGIC, challenge=bytes(range(16)))
                    self._control(self.connection.accept_call(number, self.now))
                case CallCleared():
                    self._drop_link("the client cleared the call")
                case Closed(_, text, calls):
                    self.closed = True
                    if calls:
                        self._drop_link(text)
                case _:
                    pass

    def _drop_link(self, why: str) -> None:
        if self.link is not None and not self.link.over:
            self.link.abort("lost_carrier", why)
            self._act()

    # -- PPP

    def _client_frame(self, octets: bytes) -> None:
        link = self.link
        if link is None:
            raise ScriptError("there is no call yet")
        if link.deadline is None and self.finished is None and self.up is None:
            link.start(self.now)
        link.receive(octets, self.now)
        self._act()

    def _act(self) -> None:
        link = self.link
        assert link is not None
        while actions := link.take():
            for action in actions:
                match action:
                    case SendFrame(frame):
                        self.frames.append(frame)
                        self._note_challenge(frame)
                    case Authenticate():
                        password = self.passwords.get(action.name, "secret")
                        verdict = check(action, password)
                        link.authenticated(verdict, self.now)
                    case Admission():
                        link.admitted(ADDRESS, LOCAL, "", self.now)
                    case SetMppe():
                        self.mppe = action
                    case NetworkUp():
                        self.up = action
                    case Network6Up():
                        self.six = True
                    case Finished():
                        self.finished = action
                    case _:
                        pass

    def _note_challenge(self, frame: bytes) -> None:
        """A Challenge; or the one inside an MS-CHAP Failure that lets the user try again."""
        if frame[:3] == b"\xc2\x23\x01":
            self.challenge = frame
        found = re.search(rb"R=1 C=([0-9A-F]{32})", frame)
        if frame[:3] == b"\xc2\x23\x04" and found:
            value = bytes.fromhex(found[1].decode())
            head = b"\xc2\x23\x01" + bytes([frame[3] + 1 & 255])
            self.challenge = head + b"\0\x15\x10" + value

    def _answer(self, name: str, password: str) -> bytes:
        """A Response, or PAP's request, as this client computes it."""
        data = self.challenge
        method = self.link.method if self.link else ""
        user = mschap.octets(name)
        if method == "pap":
            secret = mschap.octets(password)
            body = bytes([len(user)]) + user + bytes([len(secret)]) + secret
            return PROTOCOLS["pap"] + b"\x01\x01" + (4 + len(body)).to_bytes(2, "big") + body
        value = data[7 : 7 + data[6]]
        if method == "chap-md5":
            response = mschap.chap_md5(data[3], mschap.octets(password), value)
        elif method == "mschap":
            response = bytes(24) + mschap.nt_challenge_response(value, password) + b"\1"
        else:
            mine = b"P" * 16
            bare = mschap.octets(mschap.split_domain(name)[1])
            nt_hash = mschap.nt_password_hash(password)
            answer = mschap.generate_nt_response(value, mine, bare, nt_hash)
            response = mine + bytes(8) + answer + b"\0"
        body = bytes([len(response)]) + response + user
        head = PROTOCOLS["chap"] + b"\x02" + data[3:4]
        return head + (4 + len(body)).to_bytes(2, "big") + body

    # -- time and the outcome

    def _wait(self, seconds: float) -> None:
        end = self.now + seconds
        while True:
            times = [self.connection.timer_at, self.link.deadline if self.link else None]
            due = min((at for at in times if at is not None and at <= end), default=None)
            if due is None:
                break
            self.now = max(self.now, due)
            self._control(self.connection.handle_timer(self.now))
            if self.link is not None and not self.link.over:
                self.link.handle_timer(self.now)
                self._act()
        self.now = end

    def _is_up(self, wanted: dict[str, str]) -> None:
        if self.up is None or self.link is None or self.link.state != "active":
            raise ScriptError(f"it is not up: {self.finished}")
        agreed = self.up.agreed
        found = {
            "address": str(IPv4Address(agreed.address)),
            "mppe": str(agreed.mppe_tx_bits),
            "stateful": str(agreed.stateful),
            "mtu": str(agreed.mtu),
        }
        if wanted.pop("ipv6", None) is not None and not self.six:
            raise ScriptError("without IPv6")
        wrong = {key: found[key] for key in wanted if found[key] != wanted[key]}
        if wrong or agreed.mppe_tx_bits != agreed.mppe_rx_bits:
            raise ScriptError(f"{wrong}: {agreed}")
        bits = agreed.mppe_rx_bits
        if bits and (self.mppe is None or len(self.mppe.rx_key) != (16 if bits == 128 else 8)):
            raise ScriptError(f"no keys of {bits} bits")
