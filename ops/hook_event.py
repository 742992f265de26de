"""What a hook is told: one event of a session, as pppd's arguments and environment. Leaf module.

Workers send events to the hooks process, msgpack `[seq, event]` a datagram, which answers
`[seq]` when it is done with one, and begins with `[0]`: then all that is not answered is
sent again. An event carries text from strangers (names), which a script may use carelessly:
octets outside WORD reach it as %XX, so that nothing is lost and nothing is taken for syntax.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from typing import Final

import msgpack

HOOKS: Final = ("auth_up", "ip_up", "ip_change", "ip_down", "auth_down")
RESULTS: Final = ("ok", "failed", "timeout", "not_started", "dropped")
DATAGRAM: Final = 1 << 16
PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
NAME: Final = re.compile(r"pptp[0-9a-f]{1,8}\.[0-9a-f]{8}")

_UNSAFE: Final = re.compile(rb"[^A-Za-z0-9._@\\/:=,+-]")


def session_name(sid: int) -> str:
    """A session's name where others have an interface's: never used again, and short where
    only its first twelve characters are shown."""
    return f"pptp{sid & 0xFFFFFFFF:x}.{sid >> 32:08x}"


def word(text: str) -> str:
    """Text of a stranger as one word of a shell."""
    octets = text.encode("utf-8", "surrogateescape")
    found = _UNSAFE.sub(lambda found: b"%%%02X" % found[0][0], octets).decode("ascii")
    # Nor for an option, where a script hands it on.
    return f"%2D{found[1:]}" if found.startswith("-") else found


@dataclass(frozen=True, slots=True)
class Event:
    """Addresses are text. Counters are those of a session that is over, -1 before."""

    hook: str
    sid: int
    user: str
    peer_name: str
    calling: str
    called: str
    local: str = ""
    remote: str = ""
    auth: str = ""
    speed: int = 0
    dns: tuple[str, ...] = ()
    wins: tuple[str, ...] = ()
    seconds: int = -1
    sent: int = -1
    received: int = -1
    packets_sent: int = -1
    packets_received: int = -1
    cause: str = ""
    more: tuple[tuple[str, str], ...] = ()  # environment beside all that
    attributes: tuple[tuple[str, str], ...] = ()  # for the radattr file

    @property
    def name(self) -> str:
        """$1."""
        return session_name(self.sid)


def pack(seq: int, event: Event) -> bytes:
    """A worker's datagram."""
    values = [getattr(event, f.name) for f in fields(event)]
    packed: bytes = msgpack.packb([seq, values], unicode_errors="surrogateescape")
    return packed


def unpack(data: bytes) -> tuple[int, Event]:
    """The inverse; ValueError if it is none."""
    try:
        seq, values = msgpack.unpackb(data, use_list=False, unicode_errors="surrogateescape")
        event = Event(*values)
    except (TypeError, ValueError, msgpack.exceptions.UnpackException) as e:
        raise ValueError(f"no event: {e}") from None
    if type(seq) is not int or event.hook not in HOOKS or type(event.sid) is not int:
        raise ValueError("no event of a hook")
    return seq, event


def pack_done(seq: int) -> bytes:
    """The answer to event `seq`; 0: a new process is here."""
    packed: bytes = msgpack.packb([seq])
    return packed


def unpack_done(data: bytes) -> int:
    """The inverse; ValueError if it is none."""
    try:
        (seq,) = msgpack.unpackb(data)
        return int(seq)
    except (TypeError, ValueError, msgpack.exceptions.UnpackException) as e:
        raise ValueError(f"no answer: {e}") from None


def arguments(event: Event, ipparam: str, user: str) -> list[str]:
    """pppd(8), "Scripts": interface, tty, speed, local, remote, ipparam; of the auth hooks
    interface, peer's name, our user, tty, speed. There is no tty: "none", as accel-ppp says."""
    if event.hook in ("auth_up", "auth_down"):
        return [event.name, word(event.user), user, "none", str(event.speed)]
    last = ipparam or event.calling
    return [event.name, "none", str(event.speed), event.local, event.remote, word(last)]


def environment(event: Event, radattr: str, user: str) -> dict[str, str]:
    """pppd's names, accel-ppp's beside them, and ours."""
    found = {
        "PATH": PATH,
        "IFNAME": event.name,
        "LINKNAME": event.name,
        "DEVICE": "none",
        "SPEED": str(event.speed),
        "PPPLOGNAME": user,
        "PEERNAME": word(event.user),
        "REMOTENUMBER": event.calling,
        "CALLING_SID": event.calling,
        "CALLED_SID": event.called,
        "IPLOCAL": event.local,
        "IPREMOTE": event.remote,
        "PPTPCON_HOOK": event.hook.replace("_", "-"),
        "PPTPCON_SID": f"{event.sid:016x}",
        "PPTPCON_AUTH": event.auth,
        "PPTPCON_PEERNAME": word(event.peer_name),
        "PPTPCON_CAUSE": event.cause,
    }
    for key, values in (("DNS", event.dns), ("WINS", event.wins)):
        for number, value in enumerate(values, 1):
            found[f"{key}{number}"] = value
    for key, count in (
        ("CONNECT_TIME", event.seconds),
        ("BYTES_SENT", event.sent),
        ("BYTES_RCVD", event.received),
        ("PACKETS_SENT", event.packets_sent),
        ("PACKETS_RCVD", event.packets_received),
    ):
        if count >= 0:
            found[key] = str(count)
    for key, text in event.more:
        found[key] = word(text)
    if radattr:
        found["RADATTR_FILE"] = f"{radattr}.{event.name}"
    return {key: value for key, value in found.items() if value}
