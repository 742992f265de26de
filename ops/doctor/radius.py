"""RADIUS servers: one Status-Server (RFC 5997) to each of their ports, all at once."""

from __future__ import annotations

import os
import select
import socket
import time
from collections.abc import Iterator
from typing import Final

from ops.doctor.finding import Finding
from ops.doctor.host import Host
from workers.radius import configured
from workers.radius.lines import Address
from workers.radius.packets import Code, RemoteError, check_response, request

WAIT_S: Final = 2.0


def look(host: Host) -> Iterator[Finding]:
    """Who answers, and with our secret."""
    lines = configured.addresses(host.settings)
    asked: dict[socket.socket, tuple[Address, bytes]] = {}
    try:
        for at, line in enumerate(lines):
            family = socket.AF_INET6 if ":" in line.host else socket.AF_INET
            sock = socket.socket(family, socket.SOCK_DGRAM)
            sock.setblocking(False)
            octets = request(Code.STATUS_SERVER, at & 0xFF, (), line.secret, os.urandom(16))
            asked[sock] = line, octets
            try:
                sock.connect((line.host, line.port))
                sock.send(octets)
            except OSError as e:
                yield _silent(line, e.strerror or str(e))
                del asked[sock]
                sock.close()
        until = time.monotonic() + WAIT_S
        while asked and (left := until - time.monotonic()) > 0:
            ready, _, _ = select.select(list(asked), [], [], left)
            for sock in ready:
                line, octets = asked.pop(sock)
                yield from _heard(sock, line, octets)
                sock.close()
        for line, _octets in asked.values():
            yield _silent(line, "no answer")
    finally:
        for sock in asked:
            sock.close()


def _heard(sock: socket.socket, line: Address, octets: bytes) -> Iterator[Finding]:
    try:
        check_response(sock.recv(4096), octets, line.secret)
    except OSError as e:
        yield _silent(line, e.strerror or str(e))
    except RemoteError as e:
        mend = "have the same secret in [[radius.servers]] and at the server"
        yield Finding("error", _place(line), f"bad answer: {e}", mend)


def _silent(line: Address, why: str) -> Finding:
    """A server that does not know our secret, or Status-Server, says nothing either."""
    mend = "start it, allow this client and its secret there; does it answer Status-Server?"
    return Finding("warning", _place(line), why, mend)


def _place(line: Address) -> str:
    what = "logins" if line.kind == "auth" else "accounting"
    return f"RADIUS {line.server} ({what}, UDP {line.port})"
