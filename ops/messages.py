"""All that dispatcher, workers and console say to each other over ZeroMQ.

Leaf module. Change a message, raise VERSION. Truth is the shared session table;
a message is a hint about a record, named by (index, generation), and may come
twice. On the wire: msgpack of [tag, *fields] with the tag being the position in
MESSAGES. The dispatcher binds a ROUTER at `ipc://RUN_DIR/bus.sock`; a worker is a
DEALER with identity `worker-N`, a console one with `console-PID-N`.

Order of a call (D dispatcher, W worker):
  D Install -> W Installed          then D sends Outgoing-Call-Reply
  W Admit -> D Admitted             after authentication, before IPCP is acknowledged
  W Up                              address routed, data flows
  D End (control side) or W Down (link side), then W Ended: the record is free again
Every (re)connect of a worker: W Hello (what it has up, what is starting or ending
there, what has ended lately) -> D Welcome (those to end). What Hello does not list and
the dispatcher has on that worker is ended. After Welcome W says again what D may have
missed: Installed, Admit, Up, Down, Ended.
Credit: a worker grants the number of Installs the dispatcher may have unanswered;
at zero new calls are refused. Ends need no credit and are never dropped.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, ClassVar, get_args, get_origin, get_type_hints

import msgpack

VERSION = 6

# A call that is over, in Ends' answer: Unix time in ms, sid, user (who it said it was, if it
# never was known), inner and outer address (host order; 0: none), cause of
# ops.metrics.END_CAUSES, why in a sentence, whether data flowed, seconds it was up (or
# trying), inner octets from and to the subscriber.
PastCall = tuple[int, int, str, int, int, str, str, bool, int, int, int]
HeldBan = tuple[str, str, int, int]
# Number, by, value (as in Terminate), whether inner packets are wanted, too.
Traced = tuple[int, str, str, bool]


class MessageError(Exception):
    """A frame that is no message of this list: our own bug, or another version."""


@dataclass(frozen=True, slots=True)
class Hello:
    """W to D, first on every connection. `version` is read before all else."""

    version: int
    worker: int
    pid: int
    credit: int
    sessions: tuple[tuple[int, int], ...]  # (index, generation) that are up here
    starting: tuple[tuple[int, int], ...] = ()  # not up yet, or not any more
    ended: tuple[tuple[int, int], ...] = ()  # lately: Ended is said again


@dataclass(frozen=True, slots=True)
class Welcome:
    """D to W: reconciliation's answer; `ends` are sessions D no longer knows."""

    version: int
    epoch: int
    ends: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class Refused:
    """D to anyone: your version is not mine; names both."""

    version: int
    reason: str


@dataclass(frozen=True, slots=True)
class Install:
    """D to W: this record is yours; it holds call IDs and addresses."""

    index: int
    generation: int


@dataclass(frozen=True, slots=True)
class Installed:
    """W to D: GRE for the call is demultiplexed (ok), or why not."""

    index: int
    generation: int
    ok: bool
    reason: str


@dataclass(frozen=True, slots=True)
class Admit:
    """W to D: authenticated; may this user have a session, and which address?

    `address`: 0 = from `pool`; else this one (host-order IPv4), static from the
    account. `pool` may be "" for the default pool.
    """

    index: int
    generation: int
    user: str
    address: int
    pool: str
    name: str = ""  # as the peer sent it, with its realm
    sessions: int = 0  # of this user at once; 0: as configured
    # IPv6: a prefix or "", then the pool or "", for its link, to be delegated, one address
    six: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Admitted:
    """D to W. Refused when `reason` is not "" (then a refusal reason of ops.metrics)."""

    index: int
    generation: int
    address: int  # host-order IPv4
    local: int  # our side's address
    reason: str
    text: str  # for the log and the peer, "" when admitted


@dataclass(frozen=True, slots=True)
class Up:
    """W to D: the session carries data."""

    index: int
    generation: int


@dataclass(frozen=True, slots=True)
class Down:
    """W to D: the link ended (cause of ops.metrics.END_CAUSES); D sends CDN, then End.

    `reason` is one sentence for the log. It may come although D has said End: the link was
    ending already, for a cause of its own.
    """

    index: int
    generation: int
    cause: str
    reason: str


@dataclass(frozen=True, slots=True)
class End:
    """D to W: end this session. Soft: LCP Terminate first. Answered by Ended."""

    index: int
    generation: int
    cause: str
    soft: bool


@dataclass(frozen=True, slots=True)
class Ended:
    """W to D: nothing of the session is left here; the record may be reused."""

    index: int
    generation: int


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """Both ways, every second; the worker's carries its current credit."""

    credit: int


@dataclass(frozen=True, slots=True)
class LinkInfo:
    """D to W: Set-Link-Info arrived. Never fatal; GRE carries no asynchronous framing."""

    index: int
    generation: int
    send_accm: int
    receive_accm: int


@dataclass(frozen=True, slots=True)
class Terminate:
    """Console to D: end the sessions that match. One of `by`: sid username ip csid if all,
    or sids, with commas between them; if is the record's number."""

    request: int
    by: str
    value: str
    soft: bool


@dataclass(frozen=True, slots=True)
class Terminated:
    """D to console: how many matched and are being ended."""

    request: int
    count: int


@dataclass(frozen=True, slots=True)
class Ends:
    """Console to D: the newest `limit` calls that ended, 0: all that are remembered.

    `value`: a sid, user name, inner or outer address; "": any.
    """

    request: int
    value: str
    limit: int


@dataclass(frozen=True, slots=True)
class PastCalls:
    """D to console: the answer to Ends, newest first."""

    request: int
    calls: tuple[PastCall, ...]


@dataclass(frozen=True, slots=True)
class Apply:
    """D to W: other values for some fields of the session's workers.policy.Policy."""

    index: int
    generation: int
    request: int
    changes: bytes  # workers.policy.pack_changes


@dataclass(frozen=True, slots=True)
class Applied:
    """W to D: the change is in force and in the blob, or `error` says why not."""

    index: int
    generation: int
    request: int
    error: str


@dataclass(frozen=True, slots=True)
class Change:
    """Console to D: Apply to the sessions that match, chosen as in Terminate."""

    request: int
    by: str
    value: str
    changes: bytes


@dataclass(frozen=True, slots=True)
class Changed:
    """D to console: how many sessions changed, and what was said about others."""

    request: int
    count: int
    errors: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Failed:
    """W to D: these credentials were wrong; `name` as the peer sent it."""

    index: int
    generation: int
    name: str


@dataclass(frozen=True, slots=True)
class Banned:
    """D to W, after Welcome and at each change: users (ops.realms) whose logins are refused
    unseen. It replaces what was said before."""

    users: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ListBans:
    """Console to D: which bans hold?"""

    request: int


@dataclass(frozen=True, slots=True)
class BanList:
    """D to console: (kind, name, seconds left, the how manieth in a row) of each."""

    request: int
    bans: tuple[HeldBan, ...]


@dataclass(frozen=True, slots=True)
class Unban:
    """Console to D: forget bans and failures. `kind`: user, source or all."""

    request: int
    kind: str
    name: str


@dataclass(frozen=True, slots=True)
class Unbanned:
    """D to console: how many had any."""

    request: int
    count: int


@dataclass(frozen=True, slots=True)
class Drain:
    """Console to D: these workers (none: all) get no new calls, or get them again."""

    request: int
    workers: tuple[int, ...]
    on: bool


@dataclass(frozen=True, slots=True)
class Drained:
    """D to console: workers that get no new calls now, and the calls that are left on them."""

    request: int
    workers: tuple[int, ...]
    calls: int


@dataclass(frozen=True, slots=True)
class Watch:
    """Console to D: tell `trace.sock` what happens to the sessions that match."""

    request: int
    number: int
    by: str
    value: str
    packets: bool


@dataclass(frozen=True, slots=True)
class Unwatch:
    """Console to D: no more of it."""

    request: int
    number: int


@dataclass(frozen=True, slots=True)
class Watched:
    """D to console: how many sessions match now, or why it can't be."""

    request: int
    count: int
    reason: str


@dataclass(frozen=True, slots=True)
class Traces:
    """D to W, after Welcome and at each change: all traces there are."""

    traces: tuple[Traced, ...]


MESSAGES: tuple[type, ...] = (
    Hello,
    Welcome,
    Refused,
    Install,
    Installed,
    Admit,
    Admitted,
    Up,
    Down,
    End,
    Ended,
    Heartbeat,
    LinkInfo,
    Terminate,
    Terminated,
    Ends,
    PastCalls,
    Apply,
    Applied,
    Change,
    Changed,
    Failed,
    Banned,
    ListBans,
    BanList,
    Unban,
    Unbanned,
    Drain,
    Drained,
    Watch,
    Unwatch,
    Watched,
    Traces,
)
Message = (
    Hello
    | Welcome
    | Refused
    | Install
    | Installed
    | Admit
    | Admitted
    | Up
    | Down
    | End
    | Ended
    | Heartbeat
    | LinkInfo
    | Terminate
    | Terminated
    | Ends
    | PastCalls
    | Apply
    | Applied
    | Change
    | Changed
    | Failed
    | Banned
    | ListBans
    | BanList
    | Unban
    | Unbanned
    | Drain
    | Drained
    | Watch
    | Unwatch
    | Watched
    | Traces
)


class _Shape:
    """The wire shape of one message type."""

    tags: ClassVar[dict[type, int]] = {kind: tag for tag, kind in enumerate(MESSAGES)}
    hints: ClassVar[dict[type, tuple[Any, ...]]] = {}

    @classmethod
    def of(cls, kind: type) -> tuple[Any, ...]:
        found = cls.hints.get(kind)
        if found is None:
            hints = get_type_hints(kind)
            found = tuple(hints[f.name] for f in fields(kind))
            cls.hints[kind] = found
        return found


def _check(kind: Any, value: Any, where: str) -> Any:
    if get_origin(kind) is tuple:
        if not isinstance(value, list | tuple):
            raise MessageError(f"{where}: {type(value).__name__}, not a list")
        inner = get_args(kind)
        if len(inner) == 2 and inner[1] is Ellipsis:
            return tuple(_check(inner[0], item, where) for item in value)
        if len(inner) != len(value):
            raise MessageError(f"{where}: {len(value)} items, not {len(inner)}")
        return tuple(_check(k, item, where) for k, item in zip(inner, value, strict=True))
    if type(value) is not kind:
        raise MessageError(f"{where}: {type(value).__name__}, not {kind.__name__}")
    return value


def encode(message: Message) -> bytes:
    """One message as octets."""
    kind = type(message)
    values = [getattr(message, name) for name in kind.__slots__]  # the fields, in order
    # Names may hold octets that are no UTF-8: they travel as they came.
    packed: bytes = msgpack.packb([_Shape.tags[kind], *values], unicode_errors="surrogateescape")
    return packed


def decode(frame: bytes) -> Message:
    """The message in `frame`; MessageError says what is wrong with it.

    A Hello or Refused of another version decodes as far as its version, so that the
    receiver can name it: the error's text then holds both versions.
    """
    try:
        items = msgpack.unpackb(frame, unicode_errors="surrogateescape")
    except (ValueError, msgpack.exceptions.UnpackException) as e:
        raise MessageError(f"not msgpack: {e}") from None
    if not isinstance(items, list) or not items or type(items[0]) is not int:
        raise MessageError("not a tagged list")
    tag = items[0]
    if not 0 <= tag < len(MESSAGES):
        raise MessageError(f"unknown tag {tag}")
    kind = MESSAGES[tag]
    if kind in (Hello, Welcome, Refused) and (len(items) < 2 or items[1] != VERSION):
        other = items[1] if len(items) > 1 else "none"
        raise MessageError(f"{kind.__name__}: bus version {other}, this side speaks {VERSION}")
    shape = _Shape.of(kind)
    if len(items) - 1 != len(shape):
        raise MessageError(f"{kind.__name__}: {len(items) - 1} fields, not {len(shape)}")
    values = items[1:]
    for i, (hint, value) in enumerate(zip(shape, values, strict=True)):
        if type(value) is not hint:  # a list, or wrong
            values[i] = _check(hint, value, f"{kind.__name__}.{fields(kind)[i].name}")
    message: Message = kind(*values)
    return message
