# cython: language_level=3
"""Frames of sessions that somebody traces: see trace.pxd.

An event's octets: direction (0: from the subscriber), a zero, PPP protocol (2, network order),
number of frames that were left out before it (4, host order), then what follows the protocol,
decrypted. Traces may fill a quarter of the ring and so many packets a tick: looking on slows
nobody down.
"""

from libc.stdint cimport uint8_t, uint32_t
from libc.string cimport memcpy

from fastpath.path cimport (
    EV_TRACED, PPP_IP, PPP_IPV6, TRACE_ALL, data_path, out_item, tell_of)
from fastpath.ring cimport ring_used
from fastpath.tables cimport session
from fastpath.wire cimport be16, put16

cdef enum:
    TRACE_QUEUE = 1048576      # octets in the ring of events


cdef void _tell(data_path *path, session *s, uint8_t direction, uint32_t protocol,
                const uint8_t *p, uint32_t n) noexcept nogil:
    cdef uint8_t head[8]
    if protocol < 0x4000:
        if s.traced != TRACE_ALL:
            return
        if path.trace_left == 0:
            path.trace_lost += 1
            return
        path.trace_left -= 1
    head[0] = direction
    head[1] = 0
    put16(head + 2, protocol)
    memcpy(head + 4, &path.trace_lost, 4)
    if ring_used(&path.events) < TRACE_QUEUE and tell_of(
            path, EV_TRACED, s.index, s.generation, head, 8, p, n):
        path.trace_lost = 0
    else:
        path.trace_lost += 1


cdef void trace_frame(data_path *path, session *s, uint32_t protocol, const uint8_t *p,
                      uint32_t n) noexcept nogil:
    """A control frame of the subscriber."""
    _tell(path, s, 0, protocol, p, n)


cdef void trace_packet(data_path *path, session *s, const uint8_t *p, uint32_t n,
                       bint encrypted) noexcept nogil:
    """A packet of the subscriber; its protocol stands before it if it came encrypted."""
    if not encrypted:
        if n:
            _tell(path, s, 0, PPP_IPV6 if (p[0] >> 4) == 6 else PPP_IP, p, n)
    elif n >= 1 and p[0] & 1:
        _tell(path, s, 0, p[0], p + 1, n - 1)
    elif n >= 2:
        _tell(path, s, 0, be16(p), p + 2, n - 2)


cdef void trace_sent(data_path *path, out_item *o) noexcept nogil:
    """What leaves, before it is encrypted."""
    cdef uint8_t *p = o.p
    cdef uint32_t n = o.n
    if o.ack_only:
        return
    if o.secret != NULL:
        p = o.secret
        n = o.secret_size
    elif n >= 2 and p[0] == 0xFF and p[1] == 0x03:
        p += 2
        n -= 2
    if n >= 1 and p[0] & 1:
        _tell(path, o.s, 1, p[0], p + 1, n - 1)
    elif n >= 2:
        _tell(path, o.s, 1, be16(p), p + 2, n - 2)
