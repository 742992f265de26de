"""Calls that ended, as rows for JSON and tables."""

from __future__ import annotations

from typing import Any

from ops.messages import PastCall
from ops.ranges import format_address


def row(call: PastCall) -> dict[str, Any]:
    """One call; names as in `show sessions`."""
    unix_ms, sid, user, inner, outer, cause, reason, was_up, seconds, rx, tx = call
    return {
        "time": round(unix_ms / 1000, 3),
        "sid": f"{sid:016x}",
        "username": user.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
        or None,
        "ip": format_address(inner) if inner else None,
        "csid": format_address(outer),
        "cause": cause,
        "was-up": was_up,
        "seconds": seconds,
        "rx-bytes-raw": rx,
        "tx-bytes-raw": tx,
        "reason": reason,
    }
