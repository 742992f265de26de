"""Domain names as DNS writes them, uncompressed: RFC 1035 section 3.1."""

from __future__ import annotations

from collections.abc import Iterable

from workers.ipv6.errors import RemoteError

LABEL = 63
NAME = 255


def encode_names(names: Iterable[str]) -> bytes:
    """One after the other, each with its zero octet. ValueError for what is no name."""
    return b"".join(_encode(name) for name in names)


def _encode(name: str) -> bytes:
    octets = b""
    for label in name.rstrip(".").split("."):
        found = label.encode("ascii")
        if not 1 <= len(found) <= LABEL:
            raise ValueError(f"{name[:60]!r} is no domain name")
        octets += bytes((len(found),)) + found
    if len(octets) >= NAME:
        raise ValueError(f"{name[:60]!r} is too long for a domain name")
    return octets + b"\0"


def decode_names(data: bytes) -> tuple[str, ...]:
    """The inverse; zero octets behind the last name are padding."""
    names: list[str] = []
    labels: list[str] = []
    at = 0
    while at < len(data):
        size = data[at]
        at += 1
        if not size:
            if labels:
                names.append(".".join(labels))
                labels = []
            continue
        if size > LABEL or at + size > len(data):
            raise RemoteError("domain name goes beyond its option")
        labels.append(data[at : at + size].decode("ascii", "replace"))
        at += size
    if labels:
        raise RemoteError("domain name without its end")
    return tuple(names)
