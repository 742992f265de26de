# cython: language_level=3
"""What goes to subscribers: see output.pxd."""

from libc.errno cimport EAGAIN, EINTR, ENOBUFS, errno
from libc.stdint cimport int32_t, uint8_t, uint32_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy

from fastpath.acks cimport acks_unlist
from fastpath.gre cimport gre_build
from fastpath.layout cimport (
    C_GRE_TX_BY_HOP, C_GRE_TX_BY_XDP, C_GRE_TX_BYTES, C_GRE_TX_PACKETS, C_TX_ACK_ONLY,
    C_TX_CONTROL, C_TX_DATA, C_TX_DATA_BYTES, DATA_UP, D_TX_SEND_FAILED)
from fastpath.mmsg cimport (
    address_hop, address_message, hop_message, mmsghdr, out_message, prepare_hop, prepare_message,
    send_many)
from fastpath.mppe cimport (
    MPPE_A, MPPE_COUNT, MPPE_D, chain_add, chain_begin, crypt, crypt_job, key_chain, key_size,
    next_key, run_chains)
from fastpath.path cimport (
    EV_HOP_LOST, OUT_HEAD, OUT_MAX, OUT_SIZE, WAY_HOP, WAY_RAW, WAY_XDP, commit_tx, data_path,
    drop, observe, out_item, tell)
from fastpath.system cimport wait_writable
from fastpath.tables cimport session
from fastpath.trace cimport trace_sent
from fastpath.wire cimport be16, checksum, put16
from fastpath.xdp cimport (
    xdp_ethernet, xdp_frame, xdp_owns, xdp_put, xdp_room, xdp_send, xdp_unsent, xsk)

cdef enum:
    HOP_PROOF = 15             # seconds between packets that let the kernel prove a neighbour


cdef bint output_open(data_path *path) noexcept nogil:
    cdef uint32_t i
    path.output.octets = <uint8_t *>malloc(OUT_MAX * OUT_SIZE)
    path.output.items = <out_item *>calloc(OUT_MAX, sizeof(out_item))
    path.output.jobs = <crypt_job *>calloc(OUT_MAX, sizeof(crypt_job))
    path.output.chains = <key_chain *>calloc(OUT_MAX, sizeof(key_chain))
    path.output.touched = <session **>calloc(OUT_MAX, sizeof(session *))
    path.output.messages = <mmsghdr *>calloc(OUT_MAX, sizeof(mmsghdr))
    path.output.targets = <out_message *>calloc(OUT_MAX, sizeof(out_message))
    path.output.hop_messages = <mmsghdr *>calloc(OUT_MAX, sizeof(mmsghdr))
    path.output.hop_targets = <hop_message *>calloc(OUT_MAX, sizeof(hop_message))
    if (path.output.octets == NULL or path.output.items == NULL or path.output.jobs == NULL
            or path.output.chains == NULL or path.output.touched == NULL
            or path.output.messages == NULL or path.output.targets == NULL
            or path.output.hop_messages == NULL or path.output.hop_targets == NULL):
        return False
    for i in range(OUT_MAX):
        prepare_message(&path.output.messages[i], &path.output.targets[i])
        prepare_hop(&path.output.hop_messages[i], &path.output.hop_targets[i])
        path.output.slots[i] = path.output.octets + i * OUT_SIZE
    return True


cdef void output_frames(data_path *path) noexcept nogil:
    """From now on packets are built where the AF_XDP socket sends them from."""
    cdef uint32_t i
    cdef uint8_t *frame
    for i in range(OUT_MAX):
        frame = xdp_frame(&path.xdp)
        if frame == NULL:
            return
        path.output.slots[i] = frame


cdef void output_close(data_path *path) noexcept nogil:
    free(path.output.octets)
    free(path.output.items)
    free(path.output.jobs)
    free(path.output.chains)
    free(path.output.touched)
    free(path.output.messages)
    free(path.output.targets)
    free(path.output.hop_messages)
    free(path.output.hop_targets)


cdef uint8_t *output_frame(data_path *path, session *s, uint32_t protocol,
                           uint32_t n) noexcept nogil:
    """Room for a clear frame of n octets after the protocol; always ff03, 2 octets."""
    cdef uint8_t *p = output_slot(path)
    cdef out_item *o = &path.output.items[path.output.n]
    if n > OUT_SIZE - OUT_HEAD:
        return NULL
    path.output.n += 1
    put16(p - 4, 0xFF03)
    put16(p - 2, protocol)
    o.s = s
    o.p = p - 4
    o.n = n + 4
    o.inner = 0
    o.secret = NULL
    o.ack_only = 0
    return p


cdef void output_send(data_path *path, session *s, const uint8_t *frame, uint32_t n) noexcept nogil:
    cdef uint8_t *p
    if n < 2:
        return
    p = output_frame(path, s, be16(frame), n - 2)
    if p != NULL:
        memcpy(p, frame + 2, n - 2)
        path.count[C_TX_CONTROL] += 1


cdef void output_packet(data_path *path, session *s, const uint8_t *packet,
                        uint32_t n) noexcept nogil:
    """An inner packet of the control thread's: encrypted as data is, and nobody's traffic."""
    cdef uint8_t *p
    cdef out_item *o
    if s.state != DATA_UP or n < 20 or n > s.mtu or ((packet[0] >> 4) == 6 and not s.six):
        return
    p = output_slot(path)
    memcpy(p, packet, n)
    o = &path.output.items[path.output.n]
    output_data(path, s, p, n)
    o.inner = 0
    path.count[C_TX_CONTROL] += 1


cdef void output_ack(data_path *path, session *s) noexcept nogil:
    """A pure acknowledgement."""
    cdef uint8_t *p = output_slot(path)
    cdef out_item *o = &path.output.items[path.output.n]
    path.output.n += 1
    o.s = s
    o.p = p
    o.n = 0
    o.inner = 0
    o.secret = NULL
    o.ack_only = 1
    path.count[C_TX_ACK_ONLY] += 1


cdef void output_flush(data_path *path) noexcept nogil:
    """Keys, encryption, commit, send: all output buffers are free afterwards."""
    cdef uint32_t i, n = path.output.n, n_jobs = 0, n_touched = 0, size
    cdef out_item *o
    cdef session *s
    cdef session **touched = path.output.touched
    cdef crypt_job *jobs = path.output.jobs
    cdef crypt_job *job
    cdef key_chain *chains = path.output.chains
    cdef uint32_t n_chains = 0
    cdef bint ack
    cdef uint32_t at = 0, end, room = xdp_room(&path.xdp)
    cdef int sent, tries = 0, waits = 8    # ms for all of the queue, at most
    if n == 0:
        return
    for i in range(n):
        o = &path.output.items[i]
        s = o.s
        if s.traced:
            trace_sent(path, o)
        if o.secret != NULL:
            job = &jobs[n_jobs]
            n_jobs += 1
            job.data = o.secret
            job.size = o.secret_size
            job.stream = s.tx_stream
            if s.tx_stream == NULL:
                put16(o.secret - 2, MPPE_A | MPPE_D | s.tx_count)
                job.key_size = key_size(s.mppe_tx_bits)
                if s.tx_chain >= n_chains or chains[s.tx_chain].owner != s:
                    s.tx_chain = n_chains
                    chain_begin(&chains[n_chains], s, s.r.tx_start, s.tx_key,
                                s.mppe_tx_bits)
                    n_chains += 1
                chain_add(&chains[s.tx_chain], jobs, <int32_t>n_jobs - 1, 1)
            elif s.tx_flush or (s.tx_count & 0xFF) == 0xFF:
                next_key(s.r.tx_start, s.mppe_tx_bits, s.tx_key)
                put16(o.secret - 2, MPPE_A | MPPE_D | s.tx_count)
                job.key_size = key_size(s.mppe_tx_bits)
                memcpy(job.key, s.tx_key, 16)
                s.tx_flush = False
            else:
                put16(o.secret - 2, MPPE_D | s.tx_count)
                job.key_size = 0
            s.tx_count = (s.tx_count + 1) & MPPE_COUNT
        ack = s.rx_seen and (o.ack_only or s.unacked != 0)
        size = gre_build(o.p, o.n, s.peer_call_id, not o.ack_only, s.tx_seq, ack,
                         s.rx_next - 1)
        if not o.ack_only:
            s.tx_seq += 1
            if not s.tx_touched:
                s.tx_touched = True
                touched[n_touched] = s
                n_touched += 1
        if ack:
            acks_unlist(path, s)
        o.start = o.p - size
        o.total = o.n + size
        _choose(path, s, o, &room)
        if o.way == WAY_RAW:
            address_message(&path.output.messages[i], &path.output.targets[i], s.peer, s.here,
                            o.start, o.total)
            continue
        _ip_header(path, s, o)
        if o.way == WAY_XDP:
            xdp_ethernet(&path.xdp, o.start - 34, s.hop_mac)
        else:
            address_hop(&path.output.hop_targets[i], s.hop_ifindex, s.hop_mac, o.start - 20,
                        o.total + 20)
    run_chains(chains, n_chains, jobs)
    if n_jobs:
        crypt(jobs, n_jobs)
    for i in range(n_touched):
        touched[i].tx_touched = False
        commit_tx(touched[i])
    while at < n:
        end = at + 1
        while end < n and path.output.items[end].way == path.output.items[at].way:
            end += 1
        if path.output.items[at].way == WAY_XDP:
            at += _by_ring(path, at, end)
            continue
        if path.output.items[at].way == WAY_HOP:
            sent = send_many(path.output.hop_fd, path.output.hop_messages + at, end - at)
        else:
            sent = send_many(path.output.raw_fd, path.output.messages + at, end - at)
        if sent > 0:
            observe(path, 1, <uint32_t>sent)
            for i in range(at, at + <uint32_t>sent):
                _sent(path, &path.output.items[i])
            at += <uint32_t>sent
            tries = 0
            continue
        if errno == EINTR:
            continue
        if (errno == EAGAIN or errno == ENOBUFS) and tries < 3 and waits > 0:
            tries += 1
            waits -= 1
            if path.output.items[at].way == WAY_HOP:
                wait_writable(path.output.hop_fd)
            else:
                wait_writable(path.output.raw_fd)
            continue
        o = &path.output.items[at]
        s = o.s
        if o.way == WAY_HOP and errno != EAGAIN and errno != ENOBUFS:
            _hop_lost(path, at)
            continue
        if o.inner:
            drop(path, s, D_TX_SEND_FAILED)
        at += 1
        tries = 0
    path.output.n = 0


cdef void _choose(data_path *path, session *s, out_item *o, uint32_t *room) noexcept nogil:
    cdef xsk *ring = path.xdp.sender
    if s.hop_ifindex == 0 or o.total + 20 > s.hop_mtu:
        o.way = WAY_RAW
        return
    if s.hop_age >= HOP_PROOF:
        s.hop_age = 0
        o.way = WAY_RAW
        return
    o.way = WAY_HOP
    if room[0] and ring.ifindex == s.hop_ifindex and xdp_owns(ring, o.start):
        room[0] -= 1
        o.way = WAY_XDP


cdef void _hop_lost(data_path *path, uint32_t at) noexcept nogil:
    """The device has gone or changed: the routed way at once, and tell."""
    cdef out_item *o = &path.output.items[at]
    cdef session *s = o.s
    if s.hop_ifindex:
        s.hop_ifindex = 0
        tell(path, EV_HOP_LOST, s, NULL, 0)
    o.way = WAY_RAW
    address_message(&path.output.messages[at], &path.output.targets[at], s.peer, s.here, o.start,
                    o.total)


cdef uint32_t _by_ring(data_path *path, uint32_t at, uint32_t end) noexcept nogil:
    """Hand over these frames, and take others for their slots; how many are done with."""
    cdef uint32_t i, sent = end - at
    for i in range(at, end):
        xdp_put(&path.xdp, i - at, path.output.items[i].start - 34, path.output.items[i].total + 34)
    if not xdp_send(&path.xdp, sent):
        i = xdp_unsent(&path.xdp)
        sent -= i if i < sent else sent
        for i in range(at + sent, end):
            _hop_lost(path, i)
    if sent:
        observe(path, 1, sent)
    for i in range(at, at + sent):
        _sent(path, &path.output.items[i])
        path.output.slots[i] = xdp_frame(&path.xdp)
    return sent


cdef void _ip_header(data_path *path, session *s, out_item *o) noexcept nogil:
    """The outer header (RFC 791) for the packet socket; DF clear, as by the raw socket."""
    cdef uint8_t *p = o.start - 20
    p[0] = 0x45
    p[1] = 0
    put16(p + 2, o.total + 20)
    # One count for all: sessions behind one address share its reassembly.
    path.output.ip_id += 1
    put16(p + 4, path.output.ip_id)
    put16(p + 6, 0)
    p[8] = 64
    p[9] = 47
    put16(p + 10, 0)
    memcpy(p + 12, &s.here, 4)
    memcpy(p + 16, &s.peer, 4)
    put16(p + 10, checksum(p, 20, 0))


cdef void _sent(data_path *path, out_item *o) noexcept nogil:
    path.count[C_GRE_TX_PACKETS] += 1
    path.count[C_GRE_TX_BYTES] += o.total
    if o.way == WAY_HOP:
        path.count[C_GRE_TX_BY_HOP] += 1
    elif o.way == WAY_XDP:
        path.count[C_GRE_TX_BY_XDP] += 1
    if o.inner:
        path.count[C_TX_DATA] += 1
        path.count[C_TX_DATA_BYTES] += o.inner
        o.s.r.tx_packets += 1
        o.s.r.tx_bytes += o.inner
