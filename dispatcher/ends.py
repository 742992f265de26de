"""Why calls ended: one cause each, a sentence, and the newest of them remembered.

No clock here: the owner brings the time. What is remembered dies with the dispatcher;
the log has it all.
"""

from __future__ import annotations

from collections import deque
from typing import Final

from ops.messages import PastCall
from ops.ranges import format_address

REMEMBERED: Final = 1024
TEXT_MAX: Final = 300  # of a reason, and of a name: some are the peer's words

# The peer went without saying why. What its link knew by then is the better answer.
LEFT: Final = frozenset({"user_request", "lost_carrier", "lost_service"})
# We waited for it in vain.
WAITED: Final = frozenset({"negotiation_timeout", "lcp_failed"})


def explained(
    cause: str, reason: str, *, gre: bool, waited: float, patience: float, shared: int | None
) -> tuple[str, str]:
    """Cause and reason of a call that never was up, with what its GRE tells about them.

    `gre`: any came from the client; `shared`: a call ID that another client at the same
    address has told us, too. A client that leaves at once had no time to send GRE.
    """
    if cause not in WAITED and not (cause in LEFT and waited >= patience):
        return cause, reason
    if not gre:
        return "no_gre", (
            f"control connection up, but no GRE (IP protocol 47) came in {waited:.0f} s: "
            f"a firewall on the way blocks it, or a NAT without PPTP helper; then {reason}"
        )
    if shared is not None:
        return cause, (
            f"{reason}; another client at this address has call ID {shared} too: the NAT "
            "there has no PPTP helper, and our GRE goes to the other one"
        )
    return cause, reason


def sentence(text: str) -> str:
    """One line of bounded length."""
    line = " ".join(text.split())
    return line if len(line) <= TEXT_MAX else line[: TEXT_MAX - 3] + "..."


class History:
    """The newest ends."""

    def __init__(self, size: int = REMEMBERED) -> None:
        self._calls: deque[PastCall] = deque(maxlen=size)

    def add(self, call: PastCall) -> None:
        """One more; the oldest is forgotten when there is no room."""
        self._calls.append(call)

    def newest(self, value: str, limit: int) -> tuple[PastCall, ...]:
        """Newest first: those with this sid, user, inner or outer address; "": any."""
        found: list[PastCall] = []
        for call in reversed(self._calls):
            if limit and len(found) == limit:
                break
            if not value or value in _names(call):
                found.append(call)
        return tuple(found)


def _names(call: PastCall) -> tuple[str, ...]:
    _, sid, user, inner, outer, *_ = call
    names = f"{sid:016x}", user, format_address(outer)
    return (*names, format_address(inner)) if inner else names
