# cython: language_level=3
"""Enhanced GRE for tests and tools; the packet loop uses the inline functions of gre.pxd."""

from libc.stdint cimport uint8_t


def parse(const uint8_t[::1] packet not None):
    """(call_id, seq or None, ack or None, offset, size) of a GRE packet; ValueError if none."""
    cdef gre_header h
    cdef int at = GRE_SHORT
    if packet.shape[0]:
        at = gre_parse(&packet[0], <uint32_t>packet.shape[0], &h)
    if at < 0:
        raise ValueError({GRE_SHORT: "short", GRE_NOT_PPTP: "not PPTP GRE",
                          GRE_LENGTH: "payload length beyond the packet"}[at])
    return (h.call_id, h.seq if h.has_seq else None, h.ack if h.has_ack else None, at, h.size)


def build(int call_id, payload, seq=None, ack=None):
    """A GRE packet: with `seq` and payload, or a pure acknowledgement."""
    cdef uint8_t head[GRE_HEADER_MAX]
    cdef uint32_t size = gre_build(head + GRE_HEADER_MAX, len(payload), call_id,
                                   seq is not None, seq or 0, ack is not None, ack or 0)
    return <bytes>head[GRE_HEADER_MAX - size:GRE_HEADER_MAX] + bytes(payload)
