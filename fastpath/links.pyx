# cython: language_level=3
"""Sessions of the data thread: see links.pxd."""

from libc.stdint cimport int32_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset

from fastpath.acks cimport acks_unlist
from fastpath.downlink cimport downlink_forget
from fastpath.layout cimport *
from fastpath.limits cimport limits_empty, limits_remove, limits_set
from fastpath.mmsg cimport htonl
from fastpath.mppe cimport first_key, key_size, rc4_key, rc4_state
from fastpath.output cimport output_flush
from fastpath.path cimport (
    EV_INSTALLED, EV_REMOVED, EV_RESUMED, FRAME_BURST, KEY_WORK, MS, commit_rx, commit_tx,
    data_path, path_record, tell, tell_of)
from fastpath.reorder cimport reorder_forget
from fastpath.ring cimport fence_all, load_acquire
from fastpath.tables cimport (
    NOBODY, session, tables_add, tables_add_inner, tables_add_six, tables_remove,
    tables_remove_inner, tables_remove_six, tables_set_nets)
from fastpath.xdp cimport xdp_enter, xdp_leave


cdef bint links_left(data_path *path, uint32_t index) noexcept nogil:
    """Whether a predecessor left this session up."""
    cdef record *r = path_record(path, index)
    return (r.allot != ALLOT_FREE and r.worker == path.worker and r.c_generation == r.generation
            and r.t_generation == r.generation and r.data_state == DATA_UP
            and r.state == LINK_ACTIVE)


cdef void links_resume(data_path *path, uint32_t index) noexcept nogil:
    """Go on with it."""
    cdef record *r = path_record(path, index)
    cdef session *s
    cdef copy_tx *tx
    cdef copy_rx *rx
    s = _fill(path, index, r)
    tx = &r.tx[r.tx_turn & 1]
    rx = &r.rx[r.rx_turn & 1]
    s.tx_seq = tx.seq
    s.tx_count = tx.count
    memcpy(s.tx_key, tx.key, 16)
    s.rx_next = rx.seq
    s.rx_seen = (rx.flags & RX_SEEN) != 0
    s.rx_count = rx.count
    s.tx_acked = rx.acked
    memcpy(s.rx_key, rx.key, 16)
    s.mppe_rx_bits = r.mppe_rx_bits
    s.mppe_tx_bits = r.mppe_tx_bits
    # A stream's state is not in the record: both directions begin it anew.
    _streams(path, s, r.stateful)
    s.discard = s.rx_stream != NULL
    s.tx_flush = s.tx_stream != NULL
    links_up(path, s)
    links_six_up(path, s)
    links_set_nets(path, s)
    limits_set(path, s)
    tell(path, EV_RESUMED, s, NULL, 0)


cdef void links_account(data_path *path) noexcept nogil:
    """Packets that a predecessor had in hand when it died, so that the sums stay right."""
    cdef uint64_t *c = path.count
    cdef uint64_t ended = c[C_RX_ACK_ONLY] + c[C_RX_CONTROL] + c[C_RX_DATA]
    cdef int i
    for i in range(D_RX_MALFORMED, D_RX_SESSION_ENDED + 1):
        ended += c[i]
    if c[C_GRE_RX_PACKETS] > ended:
        c[D_RX_SESSION_ENDED] += c[C_GRE_RX_PACKETS] - ended
    c[C_QUEUED] = c[C_TX_QUEUED] = 0
    ended = c[C_TX_DATA]
    for i in range(D_TX_NO_SESSION, D_TX_SESSION_ENDED + 1):
        ended += c[i]
    if c[C_TUN_RX_PACKETS] > ended:
        c[D_TX_SEND_FAILED] += c[C_TUN_RX_PACKETS] - ended


cdef session *_fill(data_path *path, uint32_t index, record *r) noexcept nogil:
    """A private session for a record, with what the dispatcher wrote."""
    cdef session *s = &path.t.all[index]
    cdef int32_t *held = s.held
    tables_set_nets(&path.t, s, NULL, 0)
    free(s.rx_stream)
    free(s.tx_stream)
    memset(s, 0, sizeof(session))
    s.held = held
    s.r = r
    s.index = index
    s.generation = r.generation
    s.state = DATA_INSTALLED
    s.call_id = r.call_id
    s.peer_call_id = r.peer_call_id
    s.peer = htonl(r.peer_address)
    s.here = htonl(r.local_address)
    s.ack_every = path.owed.every
    if r.peer_window and r.peer_window < 2 * s.ack_every:
        s.ack_every = r.peer_window // 2 if r.peer_window > 1 else 1
    s.ack_before = s.ack_after = s.hold_before = s.hold_after = NOBODY
    s.next_call = s.next_inner = NOBODY
    s.last_rx = path.now
    s.data_seen = r.rx_packets + (0 if r.idle_by else r.tx_packets)
    s.work = KEY_WORK
    s.frames = FRAME_BURST
    s.mtu = 1500
    tables_add(&path.t, s)
    xdp_enter(&path.xdp, s.call_id, s.peer, s.here)
    return s


cdef void links_install(data_path *path, uint32_t index, uint32_t generation) noexcept nogil:
    cdef record *r = path_record(path, index)
    cdef session *s = &path.t.all[index]
    if s.state != DATA_NONE:
        if s.generation == generation:
            tell_of(path, EV_INSTALLED, index, generation, NULL, 0, NULL, 0)
            return
        output_flush(path)
        links_remove(path, s)
    if r.allot == ALLOT_FREE or r.generation != generation:
        tell_of(path, EV_REMOVED, index, generation, NULL, 0, NULL, 0)
        return
    r.t_generation = 0
    r.data_state = DATA_INSTALLED
    r.rx_packets = r.rx_bytes = r.tx_packets = r.tx_bytes = r.drops = 0
    r.gre_rx_packets = r.gre_lost = 0
    memset(r.drops_by, 0, sizeof(r.drops_by))
    r.last_rx_ns = r.last_data_ns = 0
    r.tx_turn = r.rx_turn = 0
    memset(r.tx, 0, sizeof(r.tx))
    memset(r.rx, 0, sizeof(r.rx))
    memset(r.tx_start, 0, 16)
    memset(r.rx_start, 0, 16)
    r.t_generation = generation
    s = _fill(path, index, r)
    tell(path, EV_INSTALLED, s, NULL, 0)


cdef void links_set_mppe(data_path *path, session *s, const uint8_t *data) noexcept nogil:
    """New start keys: both directions begin anew at count 0 (RFC 3078 section 7.2)."""
    s.mppe_rx_bits = data[0]
    s.mppe_tx_bits = data[1]
    memcpy(s.r.rx_start, data + 8, 16)
    memcpy(s.r.tx_start, data + 24, 16)
    if s.mppe_rx_bits:
        first_key(s.r.rx_start, s.mppe_rx_bits, s.rx_key)
    if s.mppe_tx_bits:
        first_key(s.r.tx_start, s.mppe_tx_bits, s.tx_key)
    s.rx_count = s.tx_count = 0
    s.desync = 0
    s.discard = s.tx_flush = False
    _streams(path, s, data[2])
    if s.rx_stream != NULL:
        rc4_key(s.rx_stream, s.rx_key, key_size(s.mppe_rx_bits))
    if s.tx_stream != NULL:
        rc4_key(s.tx_stream, s.tx_key, key_size(s.mppe_tx_bits))
    commit_tx(s)
    commit_rx(s)


cdef void _streams(data_path *path, session *s, uint32_t stateful) noexcept nogil:
    """RC4 streams that live from packet to packet, for the stateful directions."""
    free(s.rx_stream)
    free(s.tx_stream)
    s.rx_stream = s.tx_stream = NULL
    if stateful & 1:
        s.rx_stream = <rc4_state *>calloc(1, sizeof(rc4_state))
    if stateful & 2:
        s.tx_stream = <rc4_state *>calloc(1, sizeof(rc4_state))


cdef void links_up(data_path *path, session *s) noexcept nogil:
    cdef record *r = s.r
    if s.state == DATA_UP:
        tables_remove_inner(&path.t, s)
    s.inner = htonl(r.address)
    s.mtu = r.mtu if 68 <= r.mtu <= 1600 else 1400
    s.framing = r.framing
    s.magic = r.magic
    s.echo_interval = <uint64_t>r.echo_interval_s * 1000 * MS
    s.echo_failures = r.echo_failures
    s.echo_missed = 0
    s.echo_lost = False
    s.last_rx = path.now
    tables_add_inner(&path.t, s)
    s.state = DATA_UP
    if r.last_data_ns == 0:
        r.last_data_ns = path.now
    commit_tx(s)
    commit_rx(s)
    r.data_state = DATA_UP


cdef void links_down(data_path *path, session *s) noexcept nogil:
    """Data stops, control frames go on."""
    if s.state == DATA_UP:
        tables_remove_inner(&path.t, s)
        limits_empty(path, s)
        downlink_forget(path, s)
        s.state = DATA_INSTALLED
        s.r.data_state = DATA_INSTALLED


cdef void links_set_nets(data_path *path, session *s) noexcept nogil:
    """What the control thread wrote; while it is still writing, another order follows."""
    cdef net_list *found = &path.nets[s.index]
    cdef net_list copy
    cdef uint32_t n = s.r.nets
    cdef uint64_t turn
    if n == 0 and s.n_nets == 0:
        return
    turn = load_acquire(&found.turn)
    memcpy(&copy, found, sizeof(net_list))
    n = s.r.nets
    fence_all()
    if turn & 1 or turn != load_acquire(&found.turn):
        return
    tables_set_nets(&path.t, s, &copy, n)


cdef void links_six_up(data_path *path, session *s) noexcept nogil:
    """IPv6 flows too; the link must be up for IPv4 or come up later all the same."""
    if s.r.six:
        memcpy(&s.iid, s.r.iid, 8)
        s.six = True
        tables_add_six(&path.t, s)


cdef void links_six_down(data_path *path, session *s) noexcept nogil:
    if s.six:
        tables_remove_six(&path.t, s)
        s.six = False


cdef void links_remove(data_path *path, session *s) noexcept nogil:
    links_six_down(path, s)
    tables_set_nets(&path.t, s, NULL, 0)
    if s.state == DATA_UP:
        tables_remove_inner(&path.t, s)
    xdp_leave(&path.xdp, s.call_id)
    tables_remove(&path.t, s)
    limits_remove(path, s)
    downlink_forget(path, s)
    acks_unlist(path, s)
    reorder_forget(path, s)
    s.state = DATA_NONE
    s.r.data_state = DATA_NONE
