"""Hears when the host's packet filter or its IPsec policies change, and asks what that means.

The automatic modes look at the rules when the service starts; rules are often loaded later.
nft and XFRM tell of changes by netlink, iptables-legacy tells nobody. The rules are read in a
process of its own (`dispatcher.firewall`), seldom enough that a ruleset which changes all the
time costs next to nothing.
"""

from __future__ import annotations

import socket
import subprocess
from typing import Final

from dispatcher import descriptors, firewall
from dispatcher.firewall import Passed

NETLINK_NETFILTER: Final = 12
NFT_GROUP: Final = 1 << 6  # NFNLGRP_NFTABLES is 7
POLICY_GROUP: Final = 1 << 3  # XFRMNLGRP_POLICY is 4
SETTLE_S: Final = 0.5  # a ruleset is loaded in many steps
REST_S: Final = 5.0  # from one look to the next, at least
READ: Final = 65536


class RuleWatch:
    """Sockets to poll, a time to act at, and what the rules mean now."""

    def __init__(self) -> None:
        self.sockets: list[socket.socket] = []
        for family, groups in (
            (NETLINK_NETFILTER, NFT_GROUP),
            (descriptors.NETLINK_XFRM, POLICY_GROUP),
        ):
            try:
                sock = socket.socket(
                    socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, family
                )
                sock.bind((0, groups))
            except OSError:
                continue  # a kernel without it has none of these rules
            self.sockets.append(sock)
        self.timer_at: float | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._not_before = 0.0
        self._again = False  # heard of a change while the rules were being read

    def heard(self, now: float) -> None:
        """Something is to be read: whatever it is, all is asked anew in a while."""
        for sock in self.sockets:
            try:
                while sock.recv(READ):
                    pass
            except BlockingIOError:
                pass
            except OSError:  # ENOBUFS: so much that some was lost
                pass
        if self._process is not None:
            self._again = True
        elif self.timer_at is None:
            self.timer_at = max(now + SETTLE_S, self._not_before)

    @property
    def answer_fd(self) -> int:
        """What to poll while the rules are being read; -1 otherwise."""
        process = self._process
        return process.stdout.fileno() if process is not None and process.stdout else -1

    def begin(self, now: float) -> None:
        """It is time: start reading."""
        self.timer_at = None
        self._not_before = now + REST_S
        try:
            self._process = firewall.start()
        except OSError:
            self._process = None

    def answer(self, now: float) -> tuple[Passed, bool] | None:
        """Rules that packet sockets pass by, and whether there is an IPsec policy; None if the
        rules could not be read."""
        process, self._process = self._process, None
        if process is None or process.stdout is None:
            return None
        with process.stdout as out:
            text = out.read()
        if self._again:
            self._again = False
            self.timer_at = max(now + SETTLE_S, self._not_before)
        if process.wait() != 0:
            return None
        try:
            return firewall.read_answer(text.decode()), descriptors.ipsec_policies()
        except (ValueError, LookupError, TypeError):
            return None

    def close(self) -> None:
        """Give all back."""
        for sock in self.sockets:
            sock.close()
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            if self._process.stdout is not None:
                self._process.stdout.close()
