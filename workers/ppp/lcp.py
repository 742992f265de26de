"""LCP: RFC 1661 section 6 and RFC 1570, as PPTP peers use it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, ClassVar, Final

from workers.ppp.actions import Note, Policy
from workers.ppp.automaton import Do, Event
from workers.ppp.control import ControlProtocol, Judgement
from workers.ppp.options import Option
from workers.ppp.packets import (
    DEFAULT_MRU,
    HEADER,
    LCP,
    Code,
    Packet,
    printable,
)

MIN_MRU: Final = 128  # ours: below it not even our own negotiation fits
MAX_REJECTED: Final = 16  # ours: protocols we remember to have rejected

AUTH_DATA: Final[dict[str, bytes]] = {
    "pap": b"\xc0\x23",
    "chap-md5": b"\xc2\x23\x05",
    "mschap": b"\xc2\x23\x80",
    "mschapv2": b"\xc2\x23\x81",
    "eap": b"\xc2\x27",
}
AUTH_NAMES: Final[dict[bytes, str]] = {data: name for name, data in AUTH_DATA.items()}


class Kind(IntEnum):
    """Options, RFC 1661 section 6 and others."""

    MRU = 1
    ACCM = 2
    AUTH = 3
    MAGIC = 5
    PFC = 7
    ACFC = 8
    ENDPOINT = 19  # RFC 1990


@dataclass(frozen=True, slots=True)
class PeerWishes:
    """What we acknowledged of the peer's request."""

    mru: int = DEFAULT_MRU
    magic: int = 0
    pfc: bool = False
    acfc: bool = False
    auth: str = ""  # how it wants us to authenticate


class Lcp(ControlProtocol):
    """The link control protocol of one link."""

    NUMBER: ClassVar[int] = LCP
    NAME: ClassVar[str] = "LCP"
    KEPT: ClassVar[tuple[str, ...]] = (
        "mru",
        "auth",
        "magic",
        "pfc",
        "acfc",
        "refused_auth",
        "magics",
        "rejected_protocols",
        "_peer_mru",
        "peer_magic",
        "peer_pfc",
        "peer_acfc",
        "peer_auth",
    )

    def __init__(self, policy: Policy, *, magic: int, seed: bytes) -> None:
        super().__init__(policy)
        self.notes: list[Note] = []
        self._seed = seed
        self.magics = 0  # magic numbers made since the first
        # Our wishes; what is refused is taken back.
        self.mru = policy.mru
        self.auth = policy.auth[0] if policy.role == "server" and policy.auth else ""
        self.magic = magic & 0xFFFFFFFF
        self.pfc = True
        self.acfc = True
        self.refused_auth: tuple[str, ...] = ()
        # The peer's.
        self._peer_mru = DEFAULT_MRU
        self.peer_magic = 0
        self.peer_pfc = False
        self.peer_acfc = False
        self.peer_auth = ""
        self.rejected_protocols: tuple[int, ...] = ()
        self._rejected = 0
        self.auth_refused = False  # `fatal` is about authentication

    @property
    def peer_mru(self) -> int:
        return self._peer_mru

    # -- our wishes

    def wishes(self) -> list[Option]:
        options = []
        if self.mru != DEFAULT_MRU:
            options.append(Option.number(Kind.MRU, self.mru, 2))
        if self.auth:
            options.append(Option(Kind.AUTH, AUTH_DATA[self.auth]))
        if self.magic:
            options.append(Option.number(Kind.MAGIC, self.magic, 4))
        if self.pfc:
            options.append(Option(Kind.PFC))
        if self.acfc:
            options.append(Option(Kind.ACFC))
        return options

    def naked(self, options: tuple[Option, ...]) -> str:
        for option in options:
            match option.type:
                case Kind.MRU if len(option.data) == 2:
                    # We can receive any size up to 1500.
                    self.mru = min(max(option.value, MIN_MRU), DEFAULT_MRU)
                case Kind.AUTH if self.auth:
                    if why := self._next_auth(option.data):
                        return why
                case Kind.MAGIC:
                    self.magic = self._other_magic()
                case Kind.PFC:
                    self.pfc = False
                case Kind.ACFC:
                    self.acfc = False
                case _:
                    pass  # something we did not ask for and do not want
        return ""

    def _next_auth(self, wanted: bytes) -> str:
        """Walk down the allowed list, to what the peer names if that is still in it."""
        self.refused_auth = (*self.refused_auth, self.auth)
        left = [m for m in self.policy.auth if m not in self.refused_auth]
        if not left:
            self.auth_refused = True
            asked = ", ".join(self.policy.auth)
            return f"the peer agrees to none of the allowed authentication methods ({asked})"
        named = AUTH_NAMES.get(wanted, "")
        self.auth = named if named in left else left[0]
        return ""

    def _other_magic(self) -> int:
        """A new magic number, from the entropy the link was given."""
        self.magics += 1
        digest = hashlib.sha256(b"magic %d" % self.magics + self._seed).digest()
        return int.from_bytes(digest[:4], "big") or 1

    def rejected(self, options: tuple[Option, ...]) -> str:
        for option in options:
            match option.type:
                case Kind.MRU:
                    self.mru = DEFAULT_MRU
                case Kind.AUTH if self.auth:
                    self.auth_refused = True
                    return "the peer refuses to authenticate"
                case Kind.MAGIC:
                    self.magic = 0
                case Kind.PFC:
                    self.pfc = False
                case Kind.ACFC:
                    self.acfc = False
                case _:
                    pass
        return ""

    # -- the peer's

    def judge(self, options: tuple[Option, ...]) -> Judgement:
        rejects, naks = [], []
        mru, magic, pfc, acfc, auth = DEFAULT_MRU, 0, False, False, ""
        seen = set()
        for option in options:
            length = len(option.data)
            repeated = option.type in seen
            seen.add(option.type)
            match option.type:
                case _ if repeated:
                    rejects.append(option)
                case Kind.MRU if length == 2:
                    mru = option.value
                    if mru < MIN_MRU:
                        naks.append(Option.number(Kind.MRU, MIN_MRU, 2))
                case Kind.ACCM if length == 4:
                    pass  # nothing is ever escaped in GRE, so any map will do
                case Kind.AUTH if self.policy.role == "client" and self.policy.auth:
                    auth = AUTH_NAMES.get(option.data, "")
                    if auth not in self.policy.auth:
                        naks.append(Option(Kind.AUTH, AUTH_DATA[self.policy.auth[0]]))
                case Kind.MAGIC if length == 4:
                    magic = option.value
                    if magic in (0, self.magic):
                        # RFC 1661 section 6.4: zero is illegal; ours means a looped line.
                        naks.append(Option.number(Kind.MAGIC, self._other_magic(), 4))
                case Kind.PFC if length == 0:
                    pfc = True
                case Kind.ACFC if length == 0:
                    acfc = True
                case Kind.ENDPOINT:
                    pass  # an endpoint's name without multilink binds nobody to anything
                case _:
                    # Callback and multilink are rejected, never Naked: a Nak would make
                    # Windows negotiate them.
                    rejects.append(option)
        settings = PeerWishes(mru, magic, pfc, acfc, auth)
        return Judgement(tuple(rejects), tuple(naks), settings)

    def commit(self, settings: Any) -> None:
        wishes: PeerWishes = settings
        self._peer_mru = max(wishes.mru, MIN_MRU)
        self.peer_magic = wishes.magic
        self.peer_pfc, self.peer_acfc = wishes.pfc, wishes.acfc
        self.peer_auth = wishes.auth

    # -- beyond negotiation

    def receive_other(self, packet: Packet, now: float) -> bool:
        match packet.code:
            case Code.PROTOCOL_REJECT:
                if len(packet.data) >= 2:
                    self._rejected = int.from_bytes(packet.data[:2], "big")
            case Code.ECHO_REQUEST | Code.ECHO_REPLY | Code.DISCARD_REQUEST:
                if packet.code == Code.ECHO_REQUEST and len(packet.data) >= 4:
                    self.step(Event.ECHO, now)
            case Code.IDENTIFICATION | Code.TIME_REMAINING:
                # Windows says MSRASV5.20 and its host's name here, even during CHAP.
                kind = "identification" if packet.code == Code.IDENTIFICATION else "time-remaining"
                self.notes.append(Note(kind, (("text", printable(packet.data[4:])),)))
            case _:
                return False
        return True

    def take_rejected(self) -> int:
        """The protocol that a Protocol-Reject just named; 0: none."""
        rejected, self._rejected = self._rejected, 0
        return rejected if self.opened else 0

    def _carry_out(self, action: Do) -> None:
        if action is not Do.SEND_ECHO_REPLY:
            super()._carry_out(action)
            return
        # The reply holds our magic number and must fit the peer's MRU.
        text = self._received.data[4 : self.peer_mru - HEADER]
        data = self.magic.to_bytes(4, "big") + text
        self.send(Packet(Code.ECHO_REPLY, self._received.identifier, data))

    def reject_protocol(self, protocol: int, payload: bytes) -> bool:
        """Protocol-Reject, once for each protocol: a repetition says nothing new."""
        known = self.rejected_protocols
        if not self.opened or protocol in known or len(known) >= MAX_REJECTED:
            return False
        self.rejected_protocols = (*known, protocol)
        data = protocol.to_bytes(2, "big") + payload
        data = data[: self.peer_mru - HEADER]
        self.send(Packet(Code.PROTOCOL_REJECT, self.next_identifier(), data))
        return True
