"""IPCP, RFC 1332, with the DNS and WINS options of RFC 1877."""

from __future__ import annotations

from typing import Any, ClassVar, Final

from workers.ppp.actions import Policy
from workers.ppp.control import ControlProtocol, Judgement
from workers.ppp.options import Option
from workers.ppp.packets import DEFAULT_MRU, IPCP

ADDRESS: Final = 3
DNS: Final = (129, 131)
WINS: Final = (130, 132)

SUGGESTIONS: Final = 2  # ours: how often option 3 is suggested to a peer that leaves it out


class Ipcp(ControlProtocol):
    """Addresses of one link. `address` is the subscriber's, `local` the concentrator's."""

    NUMBER: ClassVar[int] = IPCP
    NAME: ClassVar[str] = "IPCP"
    KEPT: ClassVar[tuple[str, ...]] = ("address", "local", "servers", "own", "asked", "suggested")

    def __init__(self, policy: Policy) -> None:
        super().__init__(policy)
        self.server = policy.role == "server"
        self.address = 0
        self.local = 0
        # Option numbers we ask for (client), and by number what the peer told us.
        self.asked: tuple[int, ...] = () if self.server else (ADDRESS, *DNS)
        self.servers: tuple[int, ...] = (0, 0)  # client: DNS
        self.own = True  # server: our address may be named
        self.suggested = 0

    def prepare(self, address: int, local: int) -> None:
        """Server, before `open`: what admission gave."""
        self.address, self.local = address, local

    @property
    def peer_mru(self) -> int:
        return DEFAULT_MRU

    # -- our wishes

    def wishes(self) -> list[Option]:
        if self.server:
            return [Option.number(ADDRESS, self.local, 4)] if self.own and self.local else []
        values = {ADDRESS: self.address, DNS[0]: self.servers[0], DNS[1]: self.servers[1]}
        return [Option.number(kind, values[kind], 4) for kind in self.asked]

    def naked(self, options: tuple[Option, ...]) -> str:
        for option in options:
            if self.server:
                if option.type == ADDRESS:
                    # It dislikes our address: no quarrel, it need not know it.
                    self.own = False
            elif option.type in self.asked and len(option.data) == 4:
                self._told(option.type, option.value)
        return ""

    def _told(self, kind: int, value: int) -> None:
        if kind == ADDRESS:
            self.address = value
        else:
            first, second = self.servers
            self.servers = (value, second) if kind == DNS[0] else (first, value)

    def rejected(self, options: tuple[Option, ...]) -> str:
        for option in options:
            if self.server:
                self.own = False
                continue
            if option.type == ADDRESS:
                return "the peer gives no address"
            self.asked = tuple(kind for kind in self.asked if kind != option.type)
            if option.type in DNS:
                self._told(option.type, 0)
        return ""

    # -- the peer's

    def judge(self, options: tuple[Option, ...]) -> Judgement:
        return self._judge_client(options) if self.server else self._judge_server(options)

    def _judge_client(self, options: tuple[Option, ...]) -> Judgement:
        """A subscriber asks: name the address and the name servers it shall use."""
        rejects, naks = [], []
        values = {ADDRESS: self.address}
        values.update(zip(DNS, self.policy.dns, strict=False))
        values.update(zip(WINS, self.policy.wins, strict=False))
        seen = set()
        for option in options:
            value = values.get(option.type)
            if value is None or len(option.data) != 4 or option.type in seen:
                # Not configured, VJ (2), the old addresses (1), malformed, or repeated.
                rejects.append(option)
            elif option.value != value:
                naks.append(Option.number(option.type, value, 4))
            seen.add(option.type)
        if ADDRESS not in seen and not rejects and self.suggested < SUGGESTIONS:
            # We know its address without its word, so after that it may stay silent.
            self.suggested += 1
            naks.append(Option.number(ADDRESS, self.address, 4))
        return self._insist(tuple(rejects), tuple(naks))

    def _insist(self, rejects: tuple[Option, ...], naks: tuple[Option, ...]) -> Judgement:
        stubborn = not rejects and self.failures >= self.policy.max_failure
        if stubborn and any(option.type == ADDRESS for option in naks):
            return Judgement(fatal="the peer insists on an address that is not its own")
        return Judgement(rejects, naks)

    def _judge_server(self, options: tuple[Option, ...]) -> Judgement:
        """A concentrator names itself: any address is fine."""
        rejects = []
        local = 0
        for option in options:
            if option.type == ADDRESS and len(option.data) == 4 and option.value and not local:
                local = option.value
            else:
                rejects.append(option)
        return Judgement(tuple(rejects), settings=local)

    def commit(self, settings: Any) -> None:
        if not self.server:
            self.local = settings or 0

    @property
    def dns(self) -> tuple[int, ...]:
        """Name servers of the subscriber."""
        if self.server:
            return self.policy.dns[:2]
        return tuple(server for server in self.servers if server)
