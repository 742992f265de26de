# cython: language_level=3
"""PPP frames from subscribers: see frames.pxd."""

from libc.stdint cimport uint8_t, uint32_t
from libc.string cimport memcpy

from fastpath.decryption cimport decryption_prepare, decryption_reset
from fastpath.layout cimport (
    C_LCP_ECHO_ANSWERED, C_MPPE_RESETS_RECEIVED, C_RX_CONTROL, DATA_NONE, DATA_UP, D_RX_MALFORMED,
    D_RX_MPPE_CLEAR, D_RX_NO_SESSION, D_RX_NOT_UP, D_RX_PROTOCOL, D_RX_RING_FULL)
from fastpath.mppe cimport crypt, crypt_job, run_chains
from fastpath.output cimport output_frame
from fastpath.path cimport (
    EV_FRAME, FRAME_END, PPP_CCP, PPP_COMP, PPP_IP, PPP_IPV6, PPP_LCP, data_path, drop, in_item,
    tell_of)
from fastpath.ring cimport ring_used
from fastpath.tables cimport session
from fastpath.trace cimport trace_frame
from fastpath.wire cimport be16, put16, put32


cdef void frames_open(data_path *path) noexcept nogil:
    """PPP headers; keys in the order of arrival; then decrypt all at once."""
    cdef uint32_t i, n_jobs = 0
    cdef in_item *item
    path.arrivals.n_chains = 0
    for i in range(path.arrivals.n):
        item = &path.arrivals.items[i]
        item.live = 0
        item.encrypted = 0
        path.page.poison_sid = item.s.r.sid
        if item.s.state == DATA_NONE:
            path.count[D_RX_NO_SESSION] += 1
            continue
        _open_frame(path, item, &path.arrivals.jobs[n_jobs])
        if item.encrypted:
            n_jobs += 1
    run_chains(path.arrivals.chains, path.arrivals.n_chains, path.arrivals.jobs)
    if n_jobs:
        crypt(path.arrivals.jobs, n_jobs)


cdef void _open_frame(data_path *path, in_item *item, crypt_job *job) noexcept nogil:
    cdef session *s = item.s
    cdef uint8_t *p = item.p
    cdef uint32_t n = item.n, protocol
    cdef uint8_t head[2]
    if n >= 2 and p[0] == 0xFF and p[1] == 0x03:
        p += 2
        n -= 2
    if n >= 1 and p[0] & 1:
        protocol = p[0]
        p += 1
        n -= 1
    elif n >= 2 and p[1] & 1:
        protocol = be16(p)
        p += 2
        n -= 2
    else:
        drop(path, s, D_RX_MALFORMED)
        return
    if s.traced and protocol >= 0x4000:
        trace_frame(path, s, protocol, p, n)
    if protocol == PPP_COMP:
        decryption_prepare(path, item, job, p, n)
    elif protocol == PPP_IP or (protocol == PPP_IPV6 and s.six):
        if s.state != DATA_UP:
            drop(path, s, D_RX_NOT_UP)
        elif s.mppe_rx_bits:
            drop(path, s, D_RX_MPPE_CLEAR)
        else:
            item.p = p
            item.n = n
            item.live = 1
    elif protocol < 0x4000 and s.state == DATA_UP:
        drop(path, s, D_RX_PROTOCOL)       # data of a network protocol nobody agreed on
    elif protocol == PPP_LCP and s.state == DATA_UP and n >= 8 and (p[0] == 9 or p[0] == 10):
        path.count[C_RX_CONTROL] += 1
        if p[0] == 9:
            _answer_echo(path, s, p, n)
    elif (protocol == PPP_CCP and s.state == DATA_UP and n >= 4 and s.mppe_tx_bits
            and (p[0] == 14 or p[0] == 15)):
        # The next packet has A set; a peer that asks again before it comes gets no second
        # change. RFC 3078 section 8 wants no Reset-Ack, but RFC 1962 does, and Linux
        # decrypts nothing until it has one.
        path.count[C_RX_CONTROL] += 1
        if p[0] == 14:
            path.count[C_MPPE_RESETS_RECEIVED] += 1
            s.tx_flush = s.tx_stream != NULL
            decryption_reset(path, s, 15, p[1])
    else:
        if s.frames <= 0 or ring_used(&path.events) >= FRAME_END:
            drop(path, s, D_RX_RING_FULL)
            return
        s.frames -= 1
        put16(head, protocol)
        if tell_of(path, EV_FRAME, s.index, s.generation, head, 2, p, n):
            path.count[C_RX_CONTROL] += 1
        else:
            drop(path, s, D_RX_RING_FULL)


cdef void _answer_echo(data_path *path, session *s, const uint8_t *p, uint32_t n) noexcept nogil:
    """LCP Echo-Reply (RFC 1661 section 5.8), cut to the peer's MRU."""
    cdef uint32_t size = be16(p + 2)
    cdef uint8_t *q
    if size < 8 or size > n:
        return
    if size > s.mtu:
        size = s.mtu
    q = output_frame(path, s, PPP_LCP, size)
    if q == NULL:
        return
    memcpy(q, p, size)
    q[0] = 10
    put16(q + 2, size)
    put32(q + 4, s.magic)
    path.count[C_LCP_ECHO_ANSWERED] += 1
