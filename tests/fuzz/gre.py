"""The GRE header: any octets are a packet that says nothing untrue, or a ValueError."""

from __future__ import annotations

from fastpath import gre


def one(data: bytes) -> None:
    try:
        call_id, seq, ack, at, size = gre.parse(data)
    except ValueError:
        return
    assert at + size <= len(data)
    assert at == 8 + 4 * (seq is not None) + 4 * (ack is not None)
    assert size == 0 or seq is not None
    built = gre.build(call_id, data[at : at + size], seq, ack)
    assert gre.parse(built) == (call_id, seq, ack, at, size)
