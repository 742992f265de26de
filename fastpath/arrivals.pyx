# cython: language_level=3
"""GRE from subscribers: see arrivals.pxd."""

from libc.stdint cimport int32_t, uint8_t, uint32_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy

from fastpath.acks cimport acks_early
from fastpath.crowd cimport crowd_passes, crowd_turn
from fastpath.delivery cimport delivery_write
from fastpath.frames cimport frames_open
from fastpath.gre cimport gre_header, gre_parse
from fastpath.layout cimport (
    C_GRE_RX_BY_XDP, C_GRE_RX_BYTES, C_GRE_RX_PACKETS, C_RX_ACK_ONLY, D_RX_MALFORMED,
    D_RX_DENIED, D_RX_NO_SESSION, D_RX_OVERLOAD, D_RX_WRONG_PEER)
from fastpath.mmsg cimport mmsghdr, prepare_receive, receive_many, truncated
from fastpath.mppe cimport crypt_job, key_chain
from fastpath.output cimport output_flush
from fastpath.path cimport IN_SIZE, POOL_SIZE, commit_rx, data_path, drop, in_item, observe
from fastpath.peers cimport peers_allow, peers_close
from fastpath.reorder cimport reorder_give_up, reorder_take
from fastpath.tables cimport NOBODY, session
from fastpath.tun_queue cimport iovec
from fastpath.wire cimport be16, be32, checksum
from fastpath.xdp cimport xdp_give_back, xdp_take


cdef bint arrivals_open(data_path *path) noexcept nogil:
    cdef uint32_t i, most = path.batch + POOL_SIZE
    cdef uint8_t *octets = <uint8_t *>malloc(path.batch * IN_SIZE)
    path.arrivals.octets = octets
    path.arrivals.messages = <mmsghdr *>calloc(path.batch, sizeof(mmsghdr))
    path.arrivals.parts = <iovec *>calloc(path.batch, sizeof(iovec))
    path.arrivals.items = <in_item *>calloc(most, sizeof(in_item))
    path.arrivals.jobs = <crypt_job *>calloc(most, sizeof(crypt_job))
    path.arrivals.chains = <key_chain *>calloc(most, sizeof(key_chain))
    path.arrivals.touched = <session **>calloc(most, sizeof(session *))
    if (octets == NULL or path.arrivals.messages == NULL or path.arrivals.parts == NULL
            or path.arrivals.items == NULL or path.arrivals.jobs == NULL
            or path.arrivals.chains == NULL or path.arrivals.touched == NULL):
        return False
    for i in range(path.batch):
        prepare_receive(&path.arrivals.messages[i], &path.arrivals.parts[i], octets + i * IN_SIZE,
                        IN_SIZE)
    return True


cdef void arrivals_close(data_path *path) noexcept nogil:
    if path.arrivals.allowed != NULL:
        peers_close(path.arrivals.allowed)
        free(path.arrivals.allowed)
    free(path.arrivals.octets)
    free(path.arrivals.messages)
    free(path.arrivals.parts)
    free(path.arrivals.items)
    free(path.arrivals.jobs)
    free(path.arrivals.chains)
    free(path.arrivals.touched)


cdef bint arrivals_rings(data_path *path) noexcept nogil:
    """One batch of the AF_XDP rings; True when they may hold more."""
    cdef uint32_t i, n = xdp_take(&path.xdp, path.batch)
    if n < path.batch:
        path.arrivals.senders.drained = True
    crowd_turn(&path.arrivals.senders, path.now)
    if n == 0:
        return False
    _begin(path, n)
    path.count[C_GRE_RX_BY_XDP] += n
    for i in range(n):
        path.count[C_GRE_RX_PACKETS] += 1
        path.count[C_GRE_RX_BYTES] += path.xdp.size_of[i]
        _packet_in(path, path.xdp.at[i], path.xdp.size_of[i])
    _pass_on(path)
    xdp_give_back(&path.xdp)
    return n == path.batch


cdef void _begin(data_path *path, uint32_t n) noexcept nogil:
    observe(path, 0, n)
    path.arrivals.n = 0
    path.reorder.n_done = 0
    path.arrivals.n_touched = 0


cdef bint arrivals_read(data_path *path) noexcept nogil:
    """One batch; True when the socket may hold more."""
    cdef int n = receive_many(path.gre_fd, path.arrivals.messages, path.batch)
    cdef int i
    if not path.xdp.receives:      # else it has but what the rings can't take
        if n < <int>path.batch:
            path.arrivals.senders.drained = True
        crowd_turn(&path.arrivals.senders, path.now)
    if n <= 0:
        return False
    _begin(path, <uint32_t>n)
    for i in range(n):
        path.count[C_GRE_RX_PACKETS] += 1
        path.count[C_GRE_RX_BYTES] += path.arrivals.messages[i].msg_len
        if truncated(&path.arrivals.messages[i]):
            path.count[D_RX_MALFORMED] += 1
            continue
        _packet_in(path, path.arrivals.octets + i * IN_SIZE, path.arrivals.messages[i].msg_len)
    _pass_on(path)
    return n == <int>path.batch


cdef void arrivals_late(data_path *path) noexcept nogil:
    """Give up the gaps that have been waited for long enough."""
    cdef session *s
    path.arrivals.n = 0
    path.reorder.n_done = 0
    path.arrivals.n_touched = 0
    while path.reorder.first != NOBODY and path.arrivals.n < 1024:
        s = &path.t.all[path.reorder.first]
        if s.hold_due > path.now:
            break
        reorder_give_up(path, s)
    _pass_on(path)


cdef void _pass_on(data_path *path) noexcept nogil:
    """Steps 2 to 4 for all that is listed, then the buffers are free again."""
    cdef uint32_t i
    frames_open(path)
    for i in range(path.arrivals.n_touched):
        path.arrivals.touched[i].rx_touched = False
        commit_rx(path.arrivals.touched[i])
    path.arrivals.n_touched = 0
    delivery_write(path)
    acks_early(path)
    for i in range(path.reorder.n_done):
        path.reorder.free[path.reorder.n_free] = path.reorder.done[i]
        path.reorder.n_free += 1
    path.reorder.n_done = 0
    path.arrivals.n = 0
    path.page.poison_sid = 0
    if path.output.n:
        output_flush(path)


cdef void _packet_in(data_path *path, uint8_t *p, uint32_t n) noexcept nogil:
    """An outer IPv4 packet (packet and raw sockets both give the IP header)."""
    cdef gre_header h
    cdef uint32_t ip_size, total, source, here
    cdef int32_t i
    cdef int at
    cdef session *s = NULL
    if n < 28 or (p[0] >> 4) != 4:
        path.count[D_RX_MALFORMED] += 1
        return
    if path.arrivals.allowed != NULL and not peers_allow(path.arrivals.allowed, be32(p + 12)):
        path.count[D_RX_DENIED] += 1
        return
    ip_size = (p[0] & 15) * 4
    total = be16(p + 2)
    if (ip_size < 20 or total > n or total < ip_size + 8
            or (path.arrivals.unproven and checksum(p, ip_size, 0) != 0)):
        path.count[D_RX_MALFORMED] += 1
        return
    at = gre_parse(p + ip_size, total - ip_size, &h)
    if at < 0:
        path.count[D_RX_MALFORMED] += 1
        return
    i = path.t.by_call[h.call_id]
    if i == NOBODY:
        path.count[D_RX_NO_SESSION] += 1
        return
    memcpy(&source, p + 12, 4)
    memcpy(&here, p + 16, 4)
    while i != NOBODY:
        if path.t.all[i].peer == source and path.t.all[i].here == here:
            s = &path.t.all[i]
            break
        i = path.t.all[i].next_call
    if s == NULL:
        path.count[D_RX_WRONG_PEER] += 1
        return
    path.page.poison_sid = s.r.sid
    s.r.gre_rx_packets += 1
    if not crowd_passes(&path.arrivals.senders, &s.sends):
        drop(path, s, D_RX_OVERLOAD)
        return
    if h.has_ack and <int32_t>(h.ack - s.tx_seq) < 0 and <int32_t>(h.ack - s.tx_acked) > 0:
        s.tx_acked = h.ack
    if not h.has_seq or h.size == 0:
        # A sequence number without payload says nothing (RFC 2637 4.1): not counted in.
        path.count[C_RX_ACK_ONLY] += 1
        return
    reorder_take(path, s, &h, p + ip_size + at)
