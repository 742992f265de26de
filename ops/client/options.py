"""What the client is asked to do: plain frozen values."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field

from ops.settings import AuthMethod, MppePolicy, StatefulPolicy
from workers.ppp.actions import Policy


@dataclass(frozen=True, slots=True)
class Options:
    """One run of the client; times in seconds."""

    server: str
    user: str  # may hold {i}, the session's number from 1
    password: str = field(repr=False)
    port: int = 1723
    count: int = 1
    sources: tuple[str, ...] = ()  # outer addresses by turns; (): the kernel's choice
    mppe: MppePolicy = "require"
    auth: tuple[AuthMethod, ...] = ("mschapv2",)
    strengths: tuple[int, ...] = (128,)
    stateful: StatefulPolicy = "refuse"
    routes: tuple[ipaddress.IPv4Network, ...] = ()
    tun: str = "pptpc%d"
    mtu: int = 1400
    rate: float = 0.0  # logins a second; 0: as fast as `starting` allows
    starting: int = 128  # sessions that may be on their way at once
    hold: float | None = None  # close so long after the last came up; None: until a signal
    connect_timeout: float = 10.0
    call_id: int | None = None  # of session 1, its successors count on; None: free ones
    reorder_ms: int = 50  # a packet behind a gap waits so long
    cpu: int = -1  # of the data thread; -1: any

    def user_of(self, number: int) -> str:
        """The account of session `number`."""
        return self.user.replace("{i}", str(number))

    def source_of(self, number: int) -> str | None:
        """The outer address of session `number`."""
        return self.sources[(number - 1) % len(self.sources)] if self.sources else None

    def policy(self, number: int) -> Policy:
        """What the link of session `number` is told to be."""
        return Policy(
            role="client",
            name=self.user_of(number),
            password=self.password,
            mtu=self.mtu,
            mru=self.mtu,
            auth=self.auth,
            mppe=self.mppe,
            mppe_strengths=self.strengths,
            mppe_stateful=self.stateful != "refuse",
            mppe_ask_stateful=self.stateful == "ask",
        )
