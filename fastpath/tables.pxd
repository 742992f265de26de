# cython: language_level=3
"""The data thread's private sessions and their indexes, rebuilt from the records.

Outer key: (call ID, peer address, our address), a chain for each call ID, since two
peers may only share one when all are taken. Inner keys: the subscriber's IPv4 address, the
interface identifier of its IPv6 link-local address, and the networks behind it (networks.pxd).
"""

from libc.stdint cimport int32_t, uint8_t, uint16_t, uint32_t, uint64_t

from fastpath.filter cimport filter
from fastpath.crowd cimport sender
from fastpath.layout cimport net_list, record
from fastpath.mppe cimport rc4_state
from fastpath.networks cimport networks, networks_find, prefix
from fastpath.shaper cimport shaper

cdef enum:
    NOBODY = -1

cdef struct limits:            # of a session that has any
    shaper *up
    shaper *down
    filter *rules
    uint32_t filter_number

cdef struct session:
    record *r
    uint32_t index
    uint32_t generation
    uint8_t state              # DataState
    uint8_t mppe_rx_bits
    uint8_t mppe_tx_bits
    uint8_t framing
    uint16_t call_id
    uint16_t peer_call_id
    uint32_t peer              # network order
    uint32_t here              # network order: our outer address
    uint32_t inner             # network order
    uint16_t mtu
    uint16_t echo_failures
    uint32_t magic
    # GRE
    uint32_t tx_seq
    uint32_t rx_next
    uint64_t rx_map            # bit i: rx_next - 1 - i has come
    bint rx_seen
    uint32_t tx_acked
    uint32_t stray_next        # resynchronisation: next expected outside the window
    uint32_t stray_count
    uint32_t ack_every
    uint32_t unacked           # packets since our last acknowledgement
    uint64_t ack_due
    int32_t ack_before, ack_after      # list of sessions owing an acknowledgement
    bint ack_listed
    # reorder queue
    int32_t *held              # by sequence % HELD: pool slot + 1
    uint32_t held_count
    uint64_t hold_due
    int32_t hold_before, hold_after
    bint hold_listed
    # MPPE
    uint16_t tx_count
    uint16_t rx_count
    uint8_t tx_key[16]
    uint8_t rx_key[16]
    rc4_state *rx_stream       # stateful MPPE only
    rc4_state *tx_stream
    bint discard               # stateful: a packet was lost, wait for one with A
    bint tx_flush              # stateful: change the key before the next packet, set A
    uint64_t reset_due         # when to repeat the Reset-Request
    uint8_t reset_id
    uint32_t desync            # packets in a row that decrypted to nothing known
    int32_t work               # key changes and control frames allowed until the next sweep
    int32_t frames
    uint32_t tx_chain          # of the batch at hand, if that chain's owner is this session
    uint32_t rx_chain
    bint tx_touched
    bint rx_touched
    uint8_t traced             # TRACE_CONTROL, TRACE_ALL; 0: nobody looks
    # the next hop on the way out; hop_ifindex 0: by the raw socket
    uint32_t hop_ifindex
    uint32_t hop_mtu
    uint8_t hop_mac[6]
    uint32_t hop_age           # seconds since the kernel saw a packet to this neighbour
    limits *limited            # rates and filter; NULL: none
    # what waits for its turn on the way out: see backlog.pxd
    int32_t backlog_first, backlog_last
    uint32_t backlog_count
    uint32_t backlog_large, backlog_small
    int32_t backlog_turn       # octets it may send yet
    int32_t backlog_after      # the next session of its list
    uint8_t backlog_list
    uint32_t round             # of reading, and what passed without waiting in it
    uint32_t passed
    sender sends
    # life
    uint64_t last_rx
    uint64_t data_seen         # inner packets when it was last looked after
    uint64_t echo_due
    uint64_t echo_interval
    uint32_t echo_missed
    uint8_t echo_id
    bint echo_lost
    bint six                   # IPv6CP is open
    uint64_t iid               # the subscriber's interface identifier, octets as they stand
    uint32_t n_nets            # networks behind it
    prefix *nets
    int32_t next_call
    int32_t next_inner
    int32_t next_six

cdef struct tables:
    session *all
    uint32_t capacity
    uint32_t inner_mask
    int32_t *by_inner
    int32_t *by_six            # by interface identifier
    int32_t by_call[65536]
    networks nets
    uint32_t top               # indexes in use lie below

cdef bint tables_open(tables *t, uint32_t capacity) noexcept nogil
cdef void tables_close(tables *t) noexcept nogil
cdef void tables_add(tables *t, session *s) noexcept nogil
cdef void tables_remove(tables *t, session *s) noexcept nogil
cdef void tables_add_inner(tables *t, session *s) noexcept nogil
cdef void tables_remove_inner(tables *t, session *s) noexcept nogil
cdef void tables_add_six(tables *t, session *s) noexcept nogil
cdef void tables_remove_six(tables *t, session *s) noexcept nogil
cdef bint tables_set_nets(tables *t, session *s, const net_list *found,
                          uint32_t n) noexcept nogil
cdef bint session_has(const session *s, uint8_t family, const uint8_t *address) noexcept nogil


cdef inline uint32_t _spread(tables *t, uint64_t address) noexcept nogil:
    return <uint32_t>((address * 0x9E3779B97F4A7C15ULL) >> 40) & t.inner_mask


cdef inline session *tables_by_inner(tables *t, uint32_t address) noexcept nogil:
    cdef int32_t i = t.by_inner[_spread(t, address)]
    while i != NOBODY:
        if t.all[i].inner == address:
            return &t.all[i]
        i = t.all[i].next_inner
    return NULL


cdef inline session *tables_by_six(tables *t, uint64_t iid) noexcept nogil:
    cdef int32_t i = t.by_six[_spread(t, iid)]
    while i != NOBODY:
        if t.all[i].iid == iid:
            return &t.all[i]
        i = t.all[i].next_six
    return NULL


cdef inline session *tables_by_net(tables *t, uint8_t family,
                                   const uint8_t *address) noexcept nogil:
    """Whose network an address (network order) lies in."""
    cdef int32_t i = networks_find(&t.nets, family, address)
    return &t.all[i] if i != NOBODY else NULL
