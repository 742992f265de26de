# cython: language_level=3
"""All that a data thread has: what its files pass from one to the next.

Each part is written by the file of its name: `arrivals` (GRE in), `reorder`, `owed` (acks),
`output` (GRE out), `writing` (TUN out), `behind` (backlog), `shaping` (limits). The inline
functions are those that all of them need: counters, events, commits.
"""

from libc.stdint cimport int32_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy

from fastpath.backlog cimport backlog
from fastpath.crowd cimport crowd
from fastpath.filter cimport rule_book
from fastpath.layout cimport (
    BUCKETS, C_RX_DATA, C_RX_DATA_BYTES, C_TUN_TX_WRITES, D_RX_MALFORMED, D_RX_TUN_FULL,
    RECORD_SIZE, RX_SEEN, copy_rx, copy_tx, net_list, record, worker_page)
from fastpath.mmsg cimport hop_message, mmsghdr, out_message
from fastpath.mppe cimport crypt_job, key_chain
from fastpath.peers cimport peers
from fastpath.ring cimport fence_release, ring, ring_push, ring_wake_owed
from fastpath.shaper cimport packet_pool, waiting
from fastpath.system cimport raise_event
from fastpath.tables cimport session, tables
from fastpath.tun cimport writer, writer_begin, writer_end
from fastpath.tun_queue cimport iovec
from fastpath.xdp cimport xdp_way

cdef enum:
    ROLE_SERVER = 0
    ROLE_CLIENT = 1
    EV_FRAME = 1
    EV_INSTALLED = 2
    EV_REMOVED = 3
    EV_ECHO_LOST = 4
    EV_DESYNC = 5
    EV_RESUMED = 6
    EV_HOP_LOST = 7
    EV_BOUND = 8
    EV_PACKET = 9
    EV_TRACED = 10
    # our choices
    IN_SIZE = 2304             # an inner packet of 1500 with all headers, and some
    OUT_SIZE = 2048            # as a frame of an AF_XDP ring
    OUT_HEAD = 64              # room for GRE, PPP and MPPE headers before the inner packet
    OUT_MAX = 128              # packets of one sendmmsg
    HOLD_SIZE = 2320           # of a place of the pool: a packet, and before it room for a
    HOLD_HEAD = 16             # virtio header where the frame has none to spare
    POOL_SIZE = 2048           # packets held for reordering, all sessions together
    WAY_RAW = 0                # by the routing table
    WAY_HOP = 1                # to the next hop, by packet socket
    WAY_XDP = 2                # to the next hop, by the AF_XDP ring of its device
    DESYNCS = 16
    MS = 1000000               # ns
    KEY_WORK = 8192            # key changes for gaps, a session and second,
    KEY_WORK_ALL = 32768       # and of all sessions in a tick: an eighth of the time
    # Frames for the control thread, which is Python: a login needs a dozen. What it has not
    # come to yet waits in the ring in order, so the ring's length is what a login waits.
    FRAME_BURST = 64           # of a session at once,
    FRAME_RATE = 16            # and a second after that,
    FRAME_LEAST = 2            # or only so many
    FRAME_QUEUE = 65536        # while so many octets wait, and none at all
    FRAME_END = 2097152        # while so many do: the rest is for other events
    # protocols (RFC 1661 section 2 and the assigned numbers)
    PPP_IP = 0x0021
    PPP_IPV6 = 0x0057
    PPP_COMP = 0x00FD
    PPP_CCP = 0x80FD
    PPP_LCP = 0xC021
    # how much of a session is told while somebody traces it
    TRACE_CONTROL = 1
    TRACE_ALL = 2

cdef struct in_item:
    session *s
    uint8_t *p                 # PPP frame, later the inner packet
    uint32_t n
    int32_t slot               # of the reorder pool, or -1
    uint8_t encrypted
    uint8_t live               # still on its way to the TUN

cdef struct arrived:           # a batch from subscribers
    uint8_t *octets
    mmsghdr *messages
    iovec *parts
    in_item *items             # in order, of sessions
    uint32_t n
    crypt_job *jobs
    key_chain *chains
    uint32_t n_chains
    session **touched
    uint32_t n_touched
    crowd senders
    peers *allowed             # NULL: from anybody
    uint32_t rounds            # of reading, rings first
    bint unproven              # IP headers come past the kernel's own look at them

cdef struct reorder_queue:     # of all sessions: places by number, `free` is a stack of them
    uint8_t *octets
    uint32_t *size
    uint32_t *seq
    uint64_t *since
    int32_t *free
    uint32_t n_free
    int32_t *done              # delivered with the batch at hand, free afterwards
    uint32_t n_done
    uint32_t depth
    uint64_t hold_ns
    int32_t first, last        # sessions that wait for a gap, by time

cdef struct owed_acks:         # sessions that owe an acknowledgement, by time
    int32_t first, last
    uint32_t every
    uint64_t delay_ns

cdef struct out_item:
    session *s
    uint8_t *p                 # PPP frame from its address octet; GRE header goes before
    uint32_t n
    uint32_t inner             # octets of the inner packet, 0: a control frame or ack
    uint8_t *secret            # where encryption begins, NULL: clear
    uint32_t secret_size
    uint8_t ack_only
    uint8_t way                # WAY_RAW, ...
    uint8_t *start             # GRE header, for the raw socket
    uint32_t total             # octets from there

cdef struct output_queue:      # to subscribers
    int raw_fd, hop_fd
    uint8_t *octets
    uint8_t *slots[OUT_MAX]    # of octets, or frames of the AF_XDP socket that sends
    out_item *items
    uint32_t n
    crypt_job *jobs
    key_chain *chains
    session **touched
    mmsghdr *messages
    out_message *targets
    mmsghdr *hop_messages
    hop_message *hop_targets
    uint16_t ip_id

cdef struct rates:             # of all sessions with limits
    packet_pool room
    waiting due
    rule_book book
    uint64_t seed
    int32_t *places            # written, not free before writer_end
    uint32_t n_places

cdef struct data_path:
    worker_page *page
    uint64_t *count
    record *records            # `path_record` gives one
    net_list *nets             # of each record
    uint32_t worker
    int role, gre_fd, tun_fd, wake_fd, event_fd, cpu, writes
    uint32_t batch
    bint mss_clamp
    bint stopping
    uint64_t now
    ring operations, events
    tables t
    arrived arrivals
    reorder_queue reorder
    owed_acks owed
    output_queue output
    xdp_way xdp
    writer writing
    backlog behind
    rates shaping
    uint32_t round             # of reading the TUN
    int32_t key_work
    int32_t icmp_left
    uint64_t nap_ns            # the longest, as wished; then at most NAP_MAX polls
    uint64_t poll_ns
    uint64_t next_tick
    uint32_t sweep_at, ticks
    uint32_t trace_left        # packets that may be told yet of this tick
    uint32_t trace_lost


cdef inline record *path_record(data_path *path, uint32_t index) noexcept nogil:
    return <record *>(<uint8_t *>path.records + <uint64_t>index * RECORD_SIZE)


cdef inline void drop_many(data_path *path, session *s, uint32_t reason,
                           uint32_t n) noexcept nogil:
    path.count[reason] += n
    s.r.drops += n
    s.r.drops_by[reason - D_RX_MALFORMED] += n


cdef inline void drop(data_path *path, session *s, uint32_t reason) noexcept nogil:
    drop_many(path, s, reason, 1)


cdef inline void observe(data_path *path, uint32_t which, uint32_t n) noexcept nogil:
    cdef uint32_t b = 0, bound = 1
    while b < BUCKETS - 1 and n > bound:
        bound *= 2
        b += 1
    path.page.buckets[which][b] += 1
    path.page.sums[which] += n


cdef inline bint tell_of(data_path *path, uint32_t kind, uint32_t index, uint32_t generation,
                         const uint8_t *data, uint32_t size, const uint8_t *more,
                         uint32_t more_size) noexcept nogil:
    if not ring_push(&path.events, kind, index, generation, data, size, more, more_size):
        return False
    if ring_wake_owed(&path.events):
        raise_event(path.event_fd)
    return True


cdef inline bint tell(data_path *path, uint32_t kind, session *s, const uint8_t *data,
                      uint32_t size) noexcept nogil:
    return tell_of(path, kind, s.index, s.generation, data, size, NULL, 0)


cdef inline void garbled(data_path *path, session *s, const uint8_t *why,
                         uint32_t n) noexcept nogil:
    s.desync += 1
    if s.desync == DESYNCS and not tell(path, EV_DESYNC, s, why, n):
        s.desync -= 1              # no room: told with the next one


cdef inline void commit_tx(session *s) noexcept nogil:
    cdef record *r = s.r
    cdef copy_tx *c = &r.tx[(r.tx_turn + 1) & 1]
    c.seq = s.tx_seq
    c.count = s.tx_count
    c.flags = 0
    memcpy(c.key, s.tx_key, 16)
    fence_release()
    r.tx_turn += 1


cdef inline void commit_rx(session *s) noexcept nogil:
    cdef record *r = s.r
    cdef copy_rx *c = &r.rx[(r.rx_turn + 1) & 1]
    c.seq = s.rx_next
    c.count = s.rx_count
    c.flags = RX_SEEN if s.rx_seen else 0
    memcpy(c.key, s.rx_key, 16)
    c.acked = s.tx_acked
    fence_release()
    r.rx_turn += 1


cdef inline void writing_begin(data_path *path) noexcept nogil:
    cdef writer *w = &path.writing
    writer_begin(w)


cdef inline void writing_end(data_path *path) noexcept nogil:
    cdef writer *w = &path.writing
    writer_end(w)
    path.count[C_RX_DATA] += w.queue.packets
    path.count[C_RX_DATA_BYTES] += w.queue.octets
    path.count[D_RX_TUN_FULL] += w.queue.failed
    path.count[C_TUN_TX_WRITES] += w.queue.done
    if w.batch:
        observe(path, 3, w.batch)
