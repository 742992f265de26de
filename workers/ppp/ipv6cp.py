"""IPv6CP, RFC 5072: interface identifiers, of which the link-local addresses are made.

As in IPCP, the concentrator names the subscriber's where it has to: one that is missing,
zero, our own, or not allowed is Naked to one made of the IPv4 address or of entropy.
"""

from __future__ import annotations

import hashlib
from typing import Any, ClassVar, Final

from workers.ppp.actions import Policy
from workers.ppp.control import ControlProtocol, Judgement
from workers.ppp.options import Option
from workers.ppp.packets import DEFAULT_MRU, IPV6CP

INTERFACE_ID: Final = 1
SIZE: Final = 8
NONE: Final = bytes(SIZE)
UNIVERSAL: Final = 0x02  # of the first octet: zero says that the identifier is only ours

SUGGESTIONS: Final = 2  # ours: how often one is suggested to a peer that leaves it out


def random_id(entropy: bytes) -> bytes:
    """RFC 5072 section 4.1: from a source of uniqueness, with the "u" bit cleared."""
    digest = hashlib.sha256(b"interface identifier" + entropy).digest()
    return bytes([digest[0] & ~UNIVERSAL]) + digest[1:SIZE]


class Ipv6cp(ControlProtocol):
    """Identifiers of one link. `iid` is the subscriber's, `our_iid` the concentrator's."""

    NUMBER: ClassVar[int] = IPV6CP
    NAME: ClassVar[str] = "IPv6CP"
    KEPT: ClassVar[tuple[str, ...]] = ("iid", "our_iid", "suggestion", "choice", "suggested")

    def __init__(self, policy: Policy, seed: bytes) -> None:
        super().__init__(policy)
        self.server = policy.role == "server"
        self._seed = seed
        self.our_iid = (policy.interface_id or random_id(b"ours" + seed)) if self.server else NONE
        self.iid = NONE if self.server else random_id(seed)
        self.suggestion = NONE  # server: for a peer that has none of its own
        self.choice = policy.subscriber_may_choose
        self.suggested = 0

    def prepare(self, address: int, fixed: bytes) -> None:
        """Server, before `open`: the IPv4 address, and the account's identifier or b""."""
        if fixed:
            self.suggestion, self.choice = fixed, False
        elif self.policy.subscriber_id == "random":
            self.suggestion = random_id(self._seed)
        else:
            self.suggestion = bytes(4) + address.to_bytes(4, "big")
        if self.suggestion in (NONE, self.our_iid):
            self.suggestion = random_id(self._seed)

    @property
    def peer_mru(self) -> int:
        return DEFAULT_MRU

    # -- our wishes

    def wishes(self) -> list[Option]:
        return [Option(INTERFACE_ID, self.our_iid if self.server else self.iid)]

    def naked(self, options: tuple[Option, ...]) -> str:
        for option in options:
            if option.type != INTERFACE_ID or len(option.data) != SIZE:
                continue
            if not self.server and option.data != NONE:
                self.iid = option.data
        # The server's stands on its device: it is asked for again, and not for ever.
        tired = self.server and self.refusals > self.policy.max_failure // 2
        return "the peer dislikes our interface identifier" if tired else ""

    def rejected(self, options: tuple[Option, ...]) -> str:
        return "the peer rejects interface identifiers"

    # -- the peer's

    def judge(self, options: tuple[Option, ...]) -> Judgement:
        rejects = []
        found: Option | None = None
        for option in options:
            if option.type != INTERFACE_ID or len(option.data) != SIZE or found:
                rejects.append(option)  # header compression (2), malformed, or repeated
            else:
                found = option
        if rejects:
            return Judgement(tuple(rejects))
        if found is not None and self._fits(found.data):
            return Judgement(settings=found.data)
        if found is None:
            self.suggested += 1
        if self.failures >= self.policy.max_failure or self.suggested > SUGGESTIONS:
            # There is no default, RFC 5072 section 4.1.
            return Judgement(fatal="the peer takes no interface identifier of ours")
        return Judgement(naks=(Option(INTERFACE_ID, self._better()),))

    def _fits(self, iid: bytes) -> bool:
        if not self.server:
            return iid not in (NONE, self.iid)
        return iid == self.suggestion or (self.choice and iid not in (NONE, self.our_iid))

    def _better(self) -> bytes:
        return self.suggestion if self.server else random_id(b"other" + self._seed)

    def commit(self, settings: Any) -> None:
        if self.server:
            self.iid = settings
        else:
            self.our_iid = settings
