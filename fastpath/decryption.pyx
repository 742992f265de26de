# cython: language_level=3
"""MPPE from subscribers: see decryption.pxd."""

from libc.stdint cimport int32_t, uint8_t, uint16_t, uint32_t
from libc.string cimport memcpy

from fastpath.layout cimport (
    C_MPPE_REKEYS, C_MPPE_RESETS_SENT, DATA_UP, D_RX_MALFORMED, D_RX_MPPE_COHERENCY, D_RX_NOT_UP)
from fastpath.mppe cimport (
    MPPE_A, MPPE_C, MPPE_COUNT, MPPE_D, chain_add, chain_begin, crypt_job, key_size, next_key)
from fastpath.output cimport output_frame
from fastpath.path cimport MS, PPP_CCP, data_path, drop, garbled, in_item
from fastpath.tables cimport session
from fastpath.wire cimport be16, put16


cdef void decryption_prepare(data_path *path, in_item *item, crypt_job *job, uint8_t *p,
                             uint32_t n) noexcept nogil:
    """The coherency count of a stateless packet (RFC 3078 section 3.1, trap 4.17)."""
    cdef session *s = item.s
    cdef uint32_t bits, steps
    if s.state != DATA_UP:
        drop(path, s, D_RX_NOT_UP)
        return
    if n < 3:
        drop(path, s, D_RX_MALFORMED)
        return
    bits = be16(p)
    if not s.mppe_rx_bits or (bits & (MPPE_C | MPPE_D)) != MPPE_D:
        drop(path, s, D_RX_MPPE_COHERENCY)
        return
    if s.rx_stream != NULL:
        if not _stateful_key(path, s, bits, job):
            drop(path, s, D_RX_MPPE_COHERENCY)
            return
    else:
        if not bits & MPPE_A:
            drop(path, s, D_RX_MPPE_COHERENCY)
            # Some agree to stateless MPPE and send it stateful: never to be read.
            garbled(path, s, b"stateful", 8)
            return
        steps = (bits - s.rx_count) & MPPE_COUNT
        if steps >= 0x800 or (steps and (s.work < <int32_t>steps
                                         or path.key_work < <int32_t>steps)):
            drop(path, s, D_RX_MPPE_COHERENCY)     # late: never re-key for it
            return
        if steps:
            s.work -= <int32_t>steps
            path.key_work -= <int32_t>steps
            path.count[C_MPPE_REKEYS] += steps
        job.stream = NULL
        job.key_size = key_size(s.mppe_rx_bits)
        if s.rx_chain >= path.arrivals.n_chains or path.arrivals.chains[s.rx_chain].owner != s:
            s.rx_chain = path.arrivals.n_chains
            chain_begin(&path.arrivals.chains[path.arrivals.n_chains], s, s.r.rx_start, s.rx_key,
                        s.mppe_rx_bits)
            path.arrivals.n_chains += 1
        chain_add(&path.arrivals.chains[s.rx_chain], path.arrivals.jobs,
                  <int32_t>(job - path.arrivals.jobs), steps + 1)
    s.rx_count = <uint16_t>((bits + 1) & MPPE_COUNT)
    item.p = p + 2
    item.n = n - 2
    item.live = 1
    item.encrypted = 1
    job.data = item.p
    job.size = item.n
    if job.stream != NULL:
        memcpy(job.key, s.rx_key, 16)


cdef bint _stateful_key(data_path *path, session *s, uint32_t bits, crypt_job *job) noexcept nogil:
    """RFC 3078 sections 7.1 and 8: the key changes where A is set, which every 256th
    packet has. After a loss all is discarded until A comes; the changes missed with
    lost ones of those packets are caught up."""
    cdef uint32_t last = (s.rx_count - 1) & MPPE_COUNT
    cdef uint32_t count = bits & MPPE_COUNT
    if (count - s.rx_count) & MPPE_COUNT >= 0x800:
        return False               # late
    if not s.discard and count != s.rx_count:
        s.discard = True
        s.reset_due = 0
    if s.discard:
        if not bits & MPPE_A:
            _request_reset(path, s)
            return False
        while (count ^ last) & 0xF00:
            next_key(s.r.rx_start, s.mppe_rx_bits, s.rx_key)
            path.count[C_MPPE_REKEYS] += 1
            last = (last + 256) & MPPE_COUNT
        s.discard = False
    elif (count & 0xFF) == 0xFF and not bits & MPPE_A:
        return False
    job.stream = s.rx_stream
    job.key_size = 0
    if bits & MPPE_A:
        next_key(s.r.rx_start, s.mppe_rx_bits, s.rx_key)
        job.key_size = key_size(s.mppe_rx_bits)
    return True


cdef void _request_reset(data_path *path, session *s) noexcept nogil:
    """CCP Reset-Request (RFC 1962 section 4.2), at most one in 250 ms."""
    if path.now < s.reset_due:
        return
    s.reset_due = path.now + 250 * MS
    s.reset_id += 1
    decryption_reset(path, s, 14, s.reset_id)
    path.count[C_MPPE_RESETS_SENT] += 1


cdef void decryption_reset(data_path *path, session *s, uint8_t code,
                           uint8_t number) noexcept nogil:
    """Reset-Request (14) or Reset-Ack (15), without data as MPPE has it."""
    cdef uint8_t *p = output_frame(path, s, PPP_CCP, 4)
    p[0] = code
    p[1] = number
    put16(p + 2, 4)
