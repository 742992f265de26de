# cython: language_level=3
"""What goes to subscribers: frames in slots, then GRE headers, encryption and sendmmsg of all."""

from libc.stdint cimport uint8_t, uint32_t

from fastpath.path cimport (
    OUT_HEAD, OUT_MAX, PPP_COMP, PPP_IP, PPP_IPV6, data_path, out_item)
from fastpath.tables cimport session
from fastpath.wire cimport put16

cdef bint output_open(data_path *path) noexcept nogil
cdef void output_frames(data_path *path) noexcept nogil
cdef void output_close(data_path *path) noexcept nogil
cdef uint8_t *output_frame(data_path *path, session *s, uint32_t protocol,
                           uint32_t n) noexcept nogil
cdef void output_send(data_path *path, session *s, const uint8_t *frame, uint32_t n) noexcept nogil
cdef void output_packet(data_path *path, session *s, const uint8_t *packet,
                        uint32_t n) noexcept nogil
cdef void output_ack(data_path *path, session *s) noexcept nogil
cdef void output_flush(data_path *path) noexcept nogil


cdef inline uint8_t *output_slot(data_path *path) noexcept nogil:
    """The next output buffer; flushes when all are full."""
    if path.output.n == OUT_MAX:
        output_flush(path)
    return path.output.slots[path.output.n] + OUT_HEAD


cdef inline void output_data(data_path *path, session *s, uint8_t *p, uint32_t n) noexcept nogil:
    """PPP header before the inner packet that lies at p in the next slot."""
    cdef out_item *o = &path.output.items[path.output.n]
    cdef uint8_t *q = p
    cdef uint32_t protocol = PPP_IPV6 if (p[0] >> 4) == 6 else PPP_IP
    path.output.n += 1
    o.s = s
    o.inner = n
    o.ack_only = 0
    if s.mppe_tx_bits:
        put16(q - 2, protocol)
        o.secret = q - 2
        o.secret_size = n + 2
        q -= 4                     # room for the coherency count, set when flushed
        if s.framing & 2:
            q -= 1
            q[0] = PPP_COMP
        else:
            q -= 2
            put16(q, PPP_COMP)
    else:
        o.secret = NULL
        if s.framing & 2:
            q -= 1
            q[0] = <uint8_t>protocol
        else:
            q -= 2
            put16(q, protocol)
    if not s.framing & 1:
        q -= 2
        put16(q, 0xFF03)
    o.p = q
    o.n = <uint32_t>(p + n - q)
