"""Requests and answers of the API: what its handlers have in common."""

from __future__ import annotations

import json
import socket
import struct
from typing import Any, Final

from aiohttp import web

API_HEADERS: Final = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}


class BadRequest(Exception):  # noqa: N818 - an answer
    """Status 400 with this line."""


def line_answer(status: int, text: str, headers: dict[str, str] | None = None) -> web.Response:
    """One line of text."""
    return web.Response(status=status, text=text + "\n", headers=headers)


def json_answer(value: Any) -> web.Response:
    """A value as JSON."""
    body = json.dumps(value, separators=(",", ":")).encode()
    return web.Response(body=body, content_type="application/json", headers=API_HEADERS)


def query_of(request: web.Request, *known: str) -> dict[str, str]:
    """The query's parameters, each at most once and of `known`."""
    found: dict[str, str] = {}
    for key, value in request.query.items():
        if key not in known:
            names = ", ".join(known) or "none"
            raise BadRequest(f"unknown parameter {key[:40]!r}; known: {names}")
        if key in found:
            raise BadRequest(f"parameter {key!r} comes twice")
        found[key] = value
    return found


async def body_of(request: web.Request, *known: str) -> dict[str, Any]:
    """The JSON object sent, with no other members than these."""
    query_of(request)
    try:
        body = json.loads(await request.text())
    except (ValueError, RecursionError):
        raise BadRequest("the body is no JSON") from None
    if not isinstance(body, dict) or set(body) - set(known):
        shape = ", ".join(f'"{name}": ...' for name in known)
        raise BadRequest(f"the body must be {{{shape}}}")
    return body


def peer_uid(request: web.Request) -> int | None:
    """Who is at the other end of the control socket."""
    sock = request.transport.get_extra_info("socket") if request.transport else None
    if sock is None:
        return None
    _, uid, _ = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return int(uid)
