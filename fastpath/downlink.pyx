# cython: language_level=3
"""From the TUN to subscribers: see downlink.pxd."""

from libc.stdint cimport int32_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy

from fastpath.backlog cimport (
    LARGE_SIZE, TURN, backlog_buffer, backlog_clear, backlog_done, backlog_empty, backlog_head,
    backlog_next, backlog_put)
from fastpath.layout cimport (
    C_MSS_CLAMPED, C_TUN_RX_PACKETS, C_TUN_RX_READS, C_TX_QUEUED, DATA_UP, D_TX_MALFORMED,
    D_TX_NO_SESSION, D_TX_NOT_IP, D_TX_OVERLOAD, D_TX_SESSION_ENDED, D_TX_TOO_BIG)
from fastpath.limits cimport limits_down
from fastpath.output cimport output_data, output_flush, output_slot
from fastpath.path cimport ROLE_CLIENT, data_path, drop_many, observe
from fastpath.system cimport read
from fastpath.tables cimport session, tables_by_inner, tables_by_net, tables_by_six
from fastpath.too_big cimport too_big_tell
from fastpath.tun cimport (
    SEGMENTS_NOT_IP, SEGMENTS_OK, SEGMENTS_TOO_BIG, VNET_SIZE, clamp_mss, segmenter,
    segments_begin, segments_next)
from fastpath.wire cimport be16

cdef enum:
    SERVE = 64                 # segments of a round: what a new packet waits behind


cdef bint downlink_read(data_path *path) noexcept nogil:
    """Up to a batch of reads and of segments that waited; True when there may be more."""
    cdef uint32_t reads = 0, segments = 0
    cdef ssize_t n
    cdef uint8_t *data
    path.round += 1
    while reads < path.batch:
        data = backlog_buffer(&path.behind)
        n = read(path.tun_fd, data, LARGE_SIZE)
        if n <= 0:
            break
        reads += 1
        segments += _packet_out(path, data, <uint32_t>n)
    path.count[C_TUN_RX_READS] += reads
    if segments:
        observe(path, 2, segments)
    if not backlog_empty(&path.behind):
        # What was read last goes before what waits: its session has had no turn yet.
        if path.output.n:
            output_flush(path)
        _serve_turns(path)
    if path.output.n:
        output_flush(path)
    path.page.poison_sid = 0
    return reads == path.batch or not backlog_empty(&path.behind)


cdef uint32_t _packet_out(data_path *path, uint8_t *data, uint32_t n) noexcept nogil:
    """One read: sent, or left waiting for its session's turn, or dropped. The segments."""
    cdef segmenter g
    cdef session *s
    cdef uint8_t *ip = data + VNET_SIZE
    cdef int code
    if n < VNET_SIZE + 20:
        path.count[C_TUN_RX_PACKETS] += 1
        path.count[D_TX_MALFORMED] += 1
        return 0
    s = _session_of(path, ip, n - VNET_SIZE)
    if s != NULL:
        path.page.poison_sid = s.r.sid
    code = segments_begin(&g, data, n, s.mtu if s != NULL else 1500)
    path.count[C_TUN_RX_PACKETS] += g.count
    if code == SEGMENTS_NOT_IP:
        path.count[D_TX_NOT_IP] += g.count
    elif s == NULL:
        path.count[D_TX_NO_SESSION] += g.count
    elif code == SEGMENTS_TOO_BIG:
        drop_many(path, s, D_TX_TOO_BIG, g.count)
        too_big_tell(path, s, ip, n - VNET_SIZE)
    elif code != SEGMENTS_OK:
        drop_many(path, s, D_TX_MALFORMED, g.count)
    elif s.limited == NULL or not limits_down(path, s, &g):
        if s.round != path.round:
            s.round = path.round
            s.passed = 0
        if s.backlog_count == 0 and s.passed + g.size <= TURN:
            s.passed += g.size
            while _segment_out(path, s, &g):
                pass
        elif backlog_put(&path.behind, &path.t, s, &g, n):
            path.count[C_TX_QUEUED] += g.count
        else:
            drop_many(path, s, D_TX_OVERLOAD, g.count)
    return g.count


cdef session *_session_of(data_path *path, uint8_t *ip, uint32_t n) noexcept nogil:
    """By the inner destination; a client's by the source."""
    cdef uint32_t address
    cdef uint64_t iid
    cdef session *s
    if (ip[0] >> 4) == 4:
        memcpy(&address, ip + (12 if path.role == ROLE_CLIENT else 16), 4)
        s = tables_by_inner(&path.t, address)
        if s == NULL and path.t.nets.count:
            s = tables_by_net(&path.t, 4, ip + (12 if path.role == ROLE_CLIENT else 16))
            if s != NULL and s.state != DATA_UP:
                return NULL
        return s
    if (ip[0] >> 4) == 6 and n >= 40:
        ip += 8 if path.role == ROLE_CLIENT else 24
        if be16(ip) == 0xFE80:
            memcpy(&iid, ip + 8, 8)
            s = tables_by_six(&path.t, iid)
        else:
            s = tables_by_net(&path.t, 6, ip)
        if s != NULL and s.state == DATA_UP and s.six:
            return s
    return NULL


cdef uint32_t _segment_out(data_path *path, session *s, segmenter *g) noexcept nogil:
    """The next segment into an output buffer; its octets, 0 if there is none left."""
    cdef uint8_t *p = output_slot(path)
    cdef uint32_t size = segments_next(g, p)
    if size:
        if path.mss_clamp and clamp_mss(p, size, s.mtu):
            path.count[C_MSS_CLAMPED] += 1
        output_data(path, s, p, size)
    return size


cdef void _serve_turns(data_path *path) noexcept nogil:
    """Some of what waits, session by session in turns."""
    cdef uint32_t done = 0, size
    cdef session *s
    cdef segmenter *g
    while done < SERVE:
        s = backlog_next(&path.behind, &path.t)
        if s == NULL:
            break
        path.page.poison_sid = s.r.sid
        g = backlog_head(&path.behind, s)
        while done < SERVE and s.backlog_turn > 0:
            size = _segment_out(path, s, g)
            if size == 0:
                break
            s.backlog_turn -= <int32_t>size
            done += 1
            path.count[C_TX_QUEUED] -= 1
        if g.index >= g.count:
            backlog_done(&path.behind, &path.t, s)


cdef void downlink_forget(data_path *path, session *s) noexcept nogil:
    cdef uint32_t lost = backlog_clear(&path.behind, &path.t, s)
    path.count[D_TX_SESSION_ENDED] += lost
    path.count[C_TX_QUEUED] -= lost
