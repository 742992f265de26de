"""Two families of errors: the peer's and ours."""

from __future__ import annotations


class RemoteError(Exception):
    """The peer's octets are no packet of the protocol: note it, drop it, go on."""


class LocalError(Exception):
    """Our code did what the protocol's table does not allow: a bug, end that link."""
