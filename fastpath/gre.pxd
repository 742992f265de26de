# cython: language_level=3
"""Enhanced GRE (RFC 2637 section 4.1): header in and out, inline."""

from libc.stdint cimport uint8_t, uint16_t, uint32_t

from fastpath.wire cimport be16, be32, put16, put32

cdef enum:
    GRE_SHORT = -1
    GRE_NOT_PPTP = -2
    GRE_LENGTH = -3            # payload length says more than there is
    GRE_HEADER_MAX = 16

cdef struct gre_header:
    uint32_t seq
    uint32_t ack
    uint16_t call_id
    uint16_t size              # of the payload
    bint has_seq
    bint has_ack


cdef inline int gre_parse(const uint8_t *p, uint32_t n, gre_header *h) noexcept nogil:
    """Offset of the payload, or a negative GRE_* code. The GRE length is trusted when it
    fits: small packets carry Ethernet padding behind (trap 4.18)."""
    cdef uint32_t at = 8
    if n < 8:
        return GRE_SHORT
    # C, R, s and Recur zero, K one, S free; A free, flags zero, version 1.
    if (p[0] & 0xEF) != 0x20 or (p[1] & 0x7F) != 0x01 or be16(p + 2) != 0x880B:
        return GRE_NOT_PPTP
    h.size = be16(p + 4)
    h.call_id = be16(p + 6)
    h.has_seq = (p[0] & 0x10) != 0
    h.has_ack = (p[1] & 0x80) != 0
    h.seq = 0
    h.ack = 0
    if h.has_seq:
        if n < at + 4:
            return GRE_SHORT
        h.seq = be32(p + at)
        at += 4
    if h.has_ack:
        if n < at + 4:
            return GRE_SHORT
        h.ack = be32(p + at)
        at += 4
    if not h.has_seq:
        h.size = 0             # without S there is no payload
    elif h.size > n - at:
        return GRE_LENGTH
    return <int>at


cdef inline uint32_t gre_build(uint8_t *end, uint32_t payload, uint16_t call_id, bint has_seq,
                               uint32_t seq, bint has_ack, uint32_t ack) noexcept nogil:
    """Write the header so that it ends at `end`, where the payload begins; its size."""
    cdef uint32_t size = 8 + (4 if has_seq else 0) + (4 if has_ack else 0)
    cdef uint8_t *p = end - size
    p[0] = 0x30 if has_seq else 0x20
    p[1] = 0x81 if has_ack else 0x01
    put16(p + 2, 0x880B)
    put16(p + 4, payload)
    put16(p + 6, call_id)
    if has_seq:
        put32(p + 8, seq)
    if has_ack:
        put32(end - 4, ack)
    return size
