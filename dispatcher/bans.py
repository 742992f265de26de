"""Who failed to log in too often: by source address and by user, each ban longer than the last.

A failure counts for `window_s`. As many of them as configured make a ban of `ban_s`; the
next one of the same source or user lasts twice as long, up to `longest_s`, and one that
stays clean for a window after its ban is forgotten. No socket and no clock; memory is
bounded, and what was quiet longest goes first.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final, Literal

from ops.peers import Peers
from ops.ranges import format_address
from ops.realms import user_key
from ops.settings import Bans as Settings

Kind = Literal["user", "source"]
KINDS: Final[tuple[Kind, ...]] = ("user", "source")
ENTRIES_MAX: Final = 65536  # of each kind
LEVEL_MAX: Final = 30  # 2**30 times the first ban is over any `longest_s`


@dataclass(slots=True)
class _Entry:
    failures: deque[float] = field(default_factory=deque)  # when, oldest first
    level: int = 0  # bans so far
    until: float = 0.0
    last: float = 0.0  # the newest failure


@dataclass(frozen=True, slots=True)
class Ban:
    """One that holds now."""

    kind: Kind
    name: str
    until: float
    level: int  # the how manieth in a row


class Bans:
    """All failures that still count, and what they lead to."""

    def __init__(self, settings: Settings) -> None:
        self._entries: dict[Kind, OrderedDict[str, _Entry]] = {
            "user": OrderedDict(),
            "source": OrderedDict(),
        }
        self._holding: dict[tuple[Kind, str], float] = {}  # bans, and until when
        self.configure(settings)

    def configure(self, settings: Settings) -> None:
        """Settings after a reload; bans that hold go on."""
        self._settings = settings
        self._exempt = Peers(settings.exempt) if settings.exempt else None

    def failed(self, name: str, source: int, now: float) -> list[Ban]:
        """A login was refused for its credentials; the bans that begin now."""
        begun = []
        wanted: tuple[tuple[Kind, str, int], ...] = (
            ("user", user_key(name), self._settings.user_failures),
            ("source", format_address(source), self._settings.source_failures),
        )
        exempt = self._exempt is not None and self._exempt.allowed(source)
        for kind, key, limit in wanted:
            if limit and key and not exempt:
                ban = self._count(kind, key, limit, now)
                begun += [ban] if ban is not None else []
        return begun

    def succeeded(self, name: str, now: float) -> None:
        """The user knows the password; its source may still be guessing others'."""
        entries = self._entries["user"]
        entry = entries.get(user_key(name))
        if entry is not None and entry.until <= now:
            del entries[user_key(name)]

    def source_left(self, source: int, now: float) -> float:
        """Seconds for which a source stays banned; 0: it is not."""
        entry = self._entries["source"].get(format_address(source))
        return max(0.0, entry.until - now) if entry is not None else 0.0

    def current(self, now: float) -> Iterator[Ban]:
        """Those that hold now."""
        for (kind, key), until in self._holding.items():
            entry = self._entries[kind].get(key)
            if until > now and entry is not None:
                yield Ban(kind, key, until, entry.level)

    @property
    def holding(self) -> int:
        """How many, for the gauge."""
        return len(self._holding)

    def users(self, now: float) -> tuple[str, ...]:
        """The keys of banned users, for workers."""
        return tuple(ban.name for ban in self.current(now) if ban.kind == "user")

    def lift(self, kind: str, name: str) -> int:
        """Forget a user's or a source's failures and its ban, "all" everybody's; how many
        had any."""
        if kind == "all":
            count = sum(len(entries) for entries in self._entries.values())
            for entries in self._entries.values():
                entries.clear()
            self._holding.clear()
            return count
        for known in KINDS:
            if kind == known:
                key = user_key(name) if kind == "user" else name
                self._holding.pop((known, key), None)
                return int(self._entries[known].pop(key, None) is not None)
        return 0

    def expire(self, now: float) -> bool:
        """Once a second: forget what does not count any more; True if a user's ban ended."""
        ended = [found for found, until in self._holding.items() if until <= now]
        for found in ended:
            del self._holding[found]
        for entries in self._entries.values():
            while entries:
                key, entry = next(iter(entries.items()))
                if max(entry.until, entry.last) + self._settings.window_s > now:
                    break  # those behind it failed later
                del entries[key]
        return any(kind == "user" for kind, _ in ended)

    def _count(self, kind: Kind, key: str, limit: int, now: float) -> Ban | None:
        entries = self._entries[kind]
        entry = entries.setdefault(key, _Entry())
        entries.move_to_end(key)
        while len(entries) > ENTRIES_MAX:
            forgotten, _ = entries.popitem(last=False)
            self._holding.pop((kind, forgotten), None)
        if entry.until > now:
            return None  # in the middle of a ban: a link that had begun before it
        entry.failures.append(now)
        entry.last = now
        while entry.failures[0] < now - self._settings.window_s:
            entry.failures.popleft()
        if len(entry.failures) < limit:
            return None
        entry.failures.clear()
        seconds = self._settings.ban_s * 2 ** min(entry.level, LEVEL_MAX)
        entry.until = now + min(seconds, self._settings.longest_s)
        entry.level += 1
        self._holding[kind, key] = entry.until
        return Ban(kind, key, entry.until, entry.level)
