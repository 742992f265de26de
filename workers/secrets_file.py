"""pppd's secrets file: `client server secret [addresses]`, read once into an index.

A last word after the addresses may be a rate, `DOWN/UP` or one for both in kbit/s, as
accel-ppp has it in its fifth column; `10M/2M` is understood, too.

No file is opened here. Semantics are those of pppd(8),
AUTHENTICATION: words with quotes, escapes and comments; `*` as client or server; a
line that names the server beats one that does not, then one that names the client,
then the first one; three words alone allow no address at all. Where pppd would read
on to the end of the file (a quote without its end) only that line is lost.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final

from ops.rates import parse_pair

WILD: Final = "*"
NT_HASH: Final = b"nthash:"  # before 32 hex digits: in place of the password
MAX_WORD: Final = 1023  # pppd's MAXWORDLEN less its zero

_SPACE: Final = frozenset(b" \t\n\v\f\r")
_SPECIAL: Final = re.compile(rb"[\"'\\]")
_ESCAPES: Final = {
    ord("a"): 7,
    ord("b"): 8,
    ord("f"): 12,
    ord("n"): 10,
    ord("r"): 13,
    ord("s"): 32,
    ord("t"): 9,
}
_OCTAL: Final = frozenset(b"01234567")
_HEX: Final = frozenset(b"0123456789abcdefABCDEF")
_RATE: Final = re.compile(r"\d+[kKmMgG]?(/\d+[kKmMgG]?)?")
KBIT: Final = 1000  # a rate without a unit, as accel-ppp has it


class WordError(ValueError):
    """This line cannot be split into words."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One line that could not be used as it stands; `text` never holds a secret."""

    line: int
    text: str

    def __str__(self) -> str:
        return f"line {self.line}: {self.text}"


@dataclass(frozen=True, slots=True)
class Rule:
    """One address word. `unit`: the address is the network's base plus unit number plus 1."""

    permit: bool
    base: int
    mask: int
    unit: bool = False


@dataclass(frozen=True, slots=True)
class Addresses:
    """The address column: which inner addresses the client may have, in file order."""

    rules: tuple[Rule, ...] = ()
    pool: str = ""  # a word that is the name of a pool of ours

    def _rules(self, unit: int) -> Iterator[tuple[bool, int, int]]:
        for rule in self.rules:
            if not rule.unit:
                yield rule.permit, rule.base, rule.mask
            elif unit + 1 < (~rule.mask & 0xFFFFFFFF):
                yield rule.permit, rule.base + unit + 1, 0xFFFFFFFF

    def allows(self, address: int, unit: int = 0) -> bool:
        """First matching word decides; none means no."""
        for permit, base, mask in self._rules(unit):
            if address & mask == base:
                return permit
        return False

    def suggested(self, unit: int = 0) -> int:
        """The first single address allowed, which the client gets; 0: one from a pool."""
        for permit, base, mask in self._rules(unit):
            if permit and mask == 0xFFFFFFFF:
                return base
        return 0

    @property
    def any_allowed(self) -> bool:
        """Whether at least one word permits something."""
        return any(rule.permit for rule in self.rules)


ANY_ADDRESS: Final = Addresses((Rule(True, 0, 0),))
NO_ADDRESS: Final = Addresses()


@dataclass(frozen=True, slots=True)
class Secret:
    """One usable line."""

    line: int
    client: str
    server: str
    secret: bytes = field(repr=False)
    addresses: Addresses
    rate_down: int = 0  # bit/s; accel-ppp's fifth word
    rate_up: int = 0


@dataclass(frozen=True, slots=True)
class Match:
    """What `Index.find` found; higher `rank` is a better match."""

    rank: int  # 2: the line names the server, plus 1: it names the client
    secret: Secret


@dataclass(slots=True)
class Index:
    """Lines by (client, server): a lookup costs the same in a file of any length."""

    lines: dict[tuple[str, str], Secret] = field(default_factory=dict)
    clients: set[str] = field(default_factory=set)
    problems: list[Problem] = field(default_factory=list)

    def find(self, client: str, server: str) -> Match | None:
        """The line that pppd would take for this client on this server."""
        keys = ((client, server), (WILD, server), (client, WILD), (WILD, WILD))
        for rank, key in zip((3, 2, 1, 0), keys, strict=True):
            found = self.lines.get(key)
            if found is not None:
                return Match(rank, found)
        return None

    def __len__(self) -> int:
        return len(self.lines)


@dataclass(frozen=True, slots=True)
class _Word:
    value: bytes
    start: int  # span in the data, quotes and escapes included
    end: int


@dataclass(slots=True)
class _Line:
    number: int
    words: list[_Word]
    error: str = ""


def _escape(data: bytes, at: int) -> tuple[int, int]:
    """The octet that the escape at data[at] (after its backslash) means, and its end."""
    c = data[at]
    if c in _OCTAL:
        end = at
        while end < at + 3 and end < len(data) and data[end] in _OCTAL:
            end += 1
        return int(data[at:end], 8) & 0xFF, end
    if c == ord("x"):
        end = at + 1
        while end < at + 3 and end < len(data) and data[end] in _HEX:
            end += 1
        return int(data[at + 1 : end] or b"0", 16), end
    return _ESCAPES.get(c, c), at + 1


def _word(data: bytes, at: int) -> tuple[_Word, int]:
    """The word that starts at data[at], and how many newlines are joined within it."""
    start = at
    value = bytearray()
    quote = joined = 0
    while at < len(data):
        c = data[at]
        if c == ord("\\"):
            at += 1
            if at == len(data):
                break
            if data[at] == ord("\n"):
                joined += 1
                at += 1
                continue
            octet, at = _escape(data, at)
            value.append(octet)
            continue
        if quote:
            if c == ord("\n"):
                break
            if c == quote:
                quote = 0
                at += 1
                continue
        elif c in b"\"'":
            quote = c
            at += 1
            continue
        elif c in _SPACE or c == ord("#"):
            break
        value.append(c)
        at += 1
    if quote:
        raise WordError(f"quote {chr(quote)} without its end")
    return _Word(bytes(value), start, at), joined


def _slow_line(data: bytes, at: int, number: int) -> tuple[_Line, int, int]:
    """A line with quotes or escapes; returns it, where the next starts, lines taken."""
    line = _Line(number, [])
    taken = 1
    while at < len(data):
        c = data[at]
        if c == ord("\n"):
            return line, at + 1, taken
        if c == ord("#"):
            end = data.find(b"\n", at)
            at = len(data) if end < 0 else end
        elif c in _SPACE:
            at += 1
        elif data.startswith(b"\\\n", at):
            taken += 1
            at += 2
        else:
            try:
                word, joined = _word(data, at)
            except WordError as e:
                line.error = str(e)
                end = data.find(b"\n", at)
                at = len(data) if end < 0 else end
                continue
            taken += joined
            at = word.end
            line.words.append(word)
    return line, at, taken


def _lines(data: bytes) -> Iterator[_Line]:
    """All lines with words, joined where a backslash ends one."""
    at, number = 0, 1
    while at < len(data):
        end = data.find(b"\n", at)
        if end < 0:
            end = len(data)
        if _SPECIAL.search(data, at, end):
            line, at, taken = _slow_line(data, at, number)
            number += taken
        else:
            # Nearly every line of a large file ends here: no octet of it is looked at twice.
            words = data[at:end].partition(b"#")[0].split()
            line = _Line(number, [_Word(word, at, at) for word in words])
            at = end + 1
            number += 1
        if line.words or line.error:
            yield line


def _text(octets: bytes) -> str:
    return octets.decode("utf-8", "surrogateescape")


def _rule(text: str) -> Rule:
    """One address word other than `*`, `-` and `--`; ValueError says what is wrong."""
    permit = not text.startswith("!")
    host, slash, length = text.removeprefix("!").partition("/")
    base = int(ipaddress.IPv4Address(host))
    if not slash:
        return Rule(permit, base, 0xFFFFFFFF)
    unit = length.endswith("+")
    digits = length.removesuffix("+")
    if not digits.isdecimal() or not 1 <= int(digits) <= 32:
        raise ValueError(f"prefix length {length!r} is not 1 to 32")
    mask = 0xFFFFFFFF << (32 - int(digits)) & 0xFFFFFFFF
    return Rule(permit, base & mask, mask, unit)


def parse_addresses(words: list[str], pools: frozenset[str]) -> tuple[Addresses, list[str]]:
    """The address column and what is wrong with it; a wrong word allows nothing."""
    rules: list[Rule] = []
    pool = ""
    wrong: list[str] = []
    for at, word in enumerate(words):
        if word == "--":
            if at + 1 < len(words):
                wrong.append("pppd options after -- are not used here")
            break
        if word == "-":
            break
        if word == WILD or word in pools:
            rules.append(Rule(True, 0, 0))
            pool = "" if word == WILD else word
            break
        try:
            rules.append(_rule(word))
        except ValueError as e:
            wrong.append(
                f"address word {word!r} is neither an IPv4 address, a network nor a pool: {e}"
            )
    if not rules and not pool:
        return NO_ADDRESS, wrong
    if not pool and rules == [Rule(True, 0, 0)]:
        return ANY_ADDRESS, wrong
    return Addresses(tuple(rules), pool), wrong


def nt_hash(secret: bytes, *, bare: bool = False) -> bytes | None:
    """The 16 octets of `nthash:<32 hex digits>`, of the digits alone if `bare`; else None."""
    digits = secret.removeprefix(NT_HASH)
    if len(digits) != 32 or not _HEX.issuperset(digits) or (digits == secret and not bare):
        return None
    return bytes.fromhex(digits.decode("ascii"))


def parse(data: bytes, pools: frozenset[str] = frozenset()) -> Index:
    """Read a whole file. Never raises: what cannot be used is listed in `problems`."""
    index = Index()
    known: dict[bytes, str] = {}  # server names repeat on every line: keep one copy
    for line in _lines(data):
        words = line.words
        if line.error:
            index.problems.append(Problem(line.number, f"{line.error}; line not used"))
            continue
        if len(words) < 3:
            text = f"{len(words)} words, needs client, server and secret; line not used"
            index.problems.append(Problem(line.number, text))
            continue
        if max(len(word.value) for word in words) > MAX_WORD:
            text = f"a word is longer than {MAX_WORD} octets; line not used"
            index.problems.append(Problem(line.number, text))
            continue
        client = _text(words[0].value)
        server = known.setdefault(words[1].value, _text(words[1].value))
        secret = words[2]
        if secret.value.startswith(b"@/") and not data.startswith(b"\\x40", secret.start):
            text = f"secret file {_text(secret.value[1:])!r} was not read; line not used"
            index.problems.append(Problem(line.number, text))
            continue
        if secret.value.startswith(NT_HASH) and nt_hash(secret.value) is None:
            text = "nthash: is not followed by 32 hex digits; line not used"
            index.problems.append(Problem(line.number, text))
            continue
        rate = 0, 0
        if len(words) == 4 and words[3].value == WILD.encode():
            addresses = ANY_ADDRESS
        else:
            column = [_text(word.value) for word in words[3:]]
            if len(column) > 1 and _RATE.fullmatch(column[-1]) and column[-1] not in pools:
                try:
                    rate = parse_pair(column.pop(), KBIT)
                except ValueError as e:
                    text = f"rate of client {client!r}: {e}; it has none of its own"
                    index.problems.append(Problem(line.number, text))
            addresses, wrong = parse_addresses(column, pools)
            index.problems.extend(Problem(line.number, text) for text in wrong)
            if not addresses.any_allowed:
                text = (
                    f"client {client!r} may have no address (fourth word missing or only"
                    " refusals): logins will be refused; write * for any address"
                )
                index.problems.append(Problem(line.number, text))
        index.clients.add(client)
        index.lines.setdefault(
            (client, server), Secret(line.number, client, server, secret.value, addresses, *rate)
        )
    return index


def _first_word(data: bytes) -> bytes | None:
    for line in _lines(data):
        if line.error:
            return None
        return line.words[0].value
    return None


def _quoted(secret: bytes) -> bytes:
    """`secret` as a word that stays on its line and is never read as `@/path` again."""
    plain = set(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-+=.,:;%^&/")
    word = b"".join(bytes((c,)) if c in plain else b"\\x%02x" % c for c in secret)
    return word or b'""'


def expand(data: bytes, read: Callable[[str], bytes]) -> tuple[bytes, list[Problem]]:
    """Put the first word of each `@/path` secret file in its place.

    `read` returns a file's octets or raises OSError; the caller has the privilege to
    open it. Line numbers stay. A secret that cannot be read stays `@/path`, which
    `parse` does not accept as a password.
    """
    out: list[bytes] = []
    problems: list[Problem] = []
    done = 0
    if b"@/" not in data:
        return data, problems
    for line in _lines_with_spans(data):
        if line.error or len(line.words) < 3 or not line.words[2].value.startswith(b"@/"):
            continue
        word = line.words[2]
        path = _text(word.value[1:])
        try:
            secret = _first_word(read(path))
        except OSError as e:
            text = f"secret file {path!r}: {e.strerror or e}; line not used"
            problems.append(Problem(line.number, text))
            continue
        if secret is None:
            problems.append(Problem(line.number, f"no secret in file {path!r}; line not used"))
            continue
        out += [data[done : word.start], _quoted(secret)]
        done = word.end
    out.append(data[done:])
    return b"".join(out), problems


def _lines_with_spans(data: bytes) -> Iterator[_Line]:
    at, number = 0, 1
    while at < len(data):
        line, at, taken = _slow_line(data, at, number)
        number += taken
        if line.words or line.error:
            yield line
