"""CCP, RFC 1962, and its one option we ever agree to: MPPE, RFC 3078 section 2.

An option in a Configure-Request says what its sender is ready to *receive*: our request
settles the keys we decrypt with, the peer's those we encrypt with. So each side also asks
for state (H not set) in the direction it receives, and the directions may differ.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Final

from workers.ppp.actions import Policy
from workers.ppp.control import ControlProtocol, Judgement
from workers.ppp.options import Option
from workers.ppp.packets import (
    CCP,
    DEFAULT_MRU,
    Code,
    Packet,
)

MPPE: Final = 18
STATELESS: Final = 0x01000000  # H
# S, M and L; D (obsolete) and C (MPPC) are Naked away.
BITS: Final[dict[int, int]] = {128: 0x40, 56: 0x80, 40: 0x20}

SUGGESTIONS: Final = 3  # ours: how often MPPE is asked for of a peer that leaves it out


@dataclass(frozen=True, slots=True)
class Sending:
    """What the peer is ready to receive; 0 bits: nothing encrypted."""

    bits: int = 0
    stateful: bool = False


class Ccp(ControlProtocol):
    """Compression control of one link. Without `strengths` it agrees to nothing."""

    NUMBER: ClassVar[int] = CCP
    NAME: ClassVar[str] = "CCP"
    KEPT: ClassVar[tuple[str, ...]] = (
        "strengths",
        "required",
        "wish",
        "wish_stateful",
        "rx_bits",
        "rx_stateful",
        "tx_bits",
        "tx_stateful",
        "suggested",
    )

    def __init__(self, policy: Policy) -> None:
        super().__init__(policy)
        self.strengths: tuple[int, ...] = ()
        self.required = False
        self.wish: tuple[int, ...] = ()  # strengths in our next request
        self.wish_stateful = False
        self.rx_bits = 0
        self.rx_stateful = False
        self.tx_bits = 0
        self.tx_stateful = False
        self.suggested = 0

    def prepare(self, strengths: tuple[int, ...], required: bool) -> None:
        """Before `open`: the strengths there are keys for, best first."""
        self.strengths = strengths
        self.required = required
        # RFC 3078 section 2: the first request names all, the peer's Nak picks one. Asked
        # for one it does not have, pppd rejects MPPE and hangs up.
        self.wish = strengths
        self.wish_stateful = self.policy.mppe_ask_stateful
        self.suggested = 0

    @property
    def peer_mru(self) -> int:
        return DEFAULT_MRU

    def _option(self, *strengths: int, stateful: bool = False) -> Option:
        value = 0 if stateful else STATELESS
        for bits in strengths:
            value |= BITS[bits]
        return Option.number(MPPE, value, 4)

    # -- our wishes

    def wishes(self) -> list[Option]:
        return [self._option(*self.wish, stateful=self.wish_stateful)] if self.wish else []

    def agreed(self) -> None:
        # Whoever acknowledges several strengths at once means the best.
        self.rx_bits = self.wish[0] if self.wish else 0
        self.rx_stateful = self.wish_stateful

    def naked(self, options: tuple[Option, ...]) -> str:
        for option in options:
            if option.type != MPPE or len(option.data) != 4 or not self.wish:
                continue
            offered = [b for b in self.strengths if option.value & BITS[b]]
            if not offered:
                return self._without(f"the peer wants MPPE {option.value:08x}")
            self.wish = (offered[0],)
            stateful = not option.value & STATELESS
            if stateful and not self.policy.mppe_stateful:
                return self._without("the peer insists on stateful MPPE")
            self.wish_stateful = stateful
        return ""

    def rejected(self, options: tuple[Option, ...]) -> str:
        if any(option.type == MPPE for option in options):
            return self._without("the peer rejects MPPE")
        return ""

    def _without(self, why: str) -> str:
        """Give MPPE up if we may; else the reason why the link must end."""
        self.wish = ()
        return f"MPPE required: {why}" if self.required else ""

    # -- the peer's

    def judge(self, options: tuple[Option, ...]) -> Judgement:
        rejects, wanted = [], []
        for option in options:
            mppe = option.type == MPPE and len(option.data) == 4
            # Without keys, no bits at all is the one thing to agree to: some TP-Link
            # routers repeat that every few seconds until it is acknowledged.
            if mppe and (self.strengths or not option.value):
                wanted.append(option)
            else:
                rejects.append(option)
        if rejects:
            # MPPE is not named in the same answer: it is fine, or to be Naked next time.
            return Judgement(tuple(rejects))
        return self._judge_mppe(wanted) if wanted else self._judge_none()

    def _judge_none(self) -> Judgement:
        if not self.required:
            return Judgement(settings=Sending())
        self.suggested += 1
        if self.suggested > SUGGESTIONS:
            return Judgement(fatal="MPPE required: the peer does not offer it")
        return Judgement(naks=(self._option(self.strengths[0]),))

    def _judge_mppe(self, wanted: list[Option]) -> Judgement:
        value = wanted[0].value
        if value == 0 and len(wanted) == 1 and not self.required:
            return Judgement(settings=Sending())
        offered = [bits for bits in self.strengths if value & BITS[bits]]
        bits = offered[0] if offered else (self.strengths or (128,))[0]
        stateful = bool(offered) and not value & STATELESS and self.policy.mppe_stateful
        good = self._option(bits, stateful=stateful)
        # It may appear once only; of several, one is suggested.
        if len(wanted) == 1 and offered and wanted[0] == good:
            return Judgement(settings=Sending(bits, stateful))
        if self.required and self.failures >= self.policy.max_failure:
            insists = "stateful MPPE" if not value & STATELESS else f"MPPE {value:08x}"
            return Judgement(fatal=f"MPPE required: the peer insists on {insists}")
        return Judgement(naks=(good,))

    def commit(self, settings: Any) -> None:
        sending: Sending = settings
        self.tx_bits, self.tx_stateful = sending.bits, sending.stateful

    # -- beyond negotiation

    def receive_other(self, packet: Packet, now: float) -> bool:
        if packet.code == Code.RESET_REQUEST:
            # Stateless packets need no reset. RFC 3078 section 8 wants no Reset-Ack,
            # RFC 1962 does, and Linux's pppd repeats its request until it gets one.
            if self.opened:
                self.send(Packet(Code.RESET_ACK, packet.identifier, b""))
            return True
        return packet.code == Code.RESET_ACK
