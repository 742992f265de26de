# cython: language_level=3
"""A rate for one session and direction: token bucket, fair queue, CoDel.

The bucket is kept as a time: `ready` is when all that was sent will have been paid for, and
may lie at most `burst_ns` in the past. A packet may go when `ready` is not in the future.
What may not go waits in the queue of its flow, one of SHAPER_FLOWS; two flows share one only
when all have packets. They are served in turns by octets (deficit round robin), flows that
have just begun first, and each has a CoDel of its own (RFC 8289; RFC 8290 for
the two together). Packets lie in a pool that all sessions of a worker share: a session may
hold no more of it than is still free, so that one can never take it all.
"""

from libc.stdint cimport int32_t, uint8_t, uint16_t, uint32_t, uint64_t

cdef enum:
    SHAPER_FLOWS = 32
    SHAPER_NOTHING = -1
    PACKET_SIZE = 1664         # of a packet in the pool: the largest MTU is 1600
    PACKET_HEAD = 16           # before each: room for a virtio header
    QUANTUM = 1600             # octets of a turn: at least a packet
    NO_FLOW = 255

cdef struct packet_pool:         # the pool
    uint8_t *data
    int32_t *next              # in its queue, or in the list of free places
    uint16_t *size
    uint64_t *since
    int32_t first_free
    uint32_t n_free
    uint32_t n

cdef struct flow_queue:
    int32_t first, last
    uint32_t packets
    uint32_t octets
    int32_t deficit
    uint8_t list               # 0: none, 1: new flows, 2: old flows
    uint8_t next
    bint dropping              # CoDel, RFC 8289 section 5
    uint32_t count
    uint32_t last_count
    uint64_t first_above
    uint64_t drop_next

cdef struct shaper:
    uint64_t rate              # bit/s
    uint64_t cost              # of an octet, in ns / 65536
    uint64_t burst_ns
    uint64_t ready
    uint32_t part              # of a ns, in 1 / 65536
    uint64_t target            # CoDel's, from the rate
    uint64_t interval
    uint32_t most              # octets that may wait
    uint32_t packets
    uint32_t octets
    uint32_t tags[SHAPER_FLOWS]        # whose each queue is
    flow_queue flows[SHAPER_FLOWS]
    uint8_t first[3]           # of the lists of flows, by flow_queue.list
    uint8_t last[3]
    # the list of those that wait for their time
    uint32_t place             # in the heap + 1; 0: not there
    uint64_t due
    uint32_t session           # whose it is
    bint up                    # from the subscriber

cdef struct waiting:           # a heap by due
    shaper **at
    uint32_t n
    uint32_t room

cdef bint packets_open(packet_pool *pool, uint32_t n) noexcept nogil
cdef void packets_close(packet_pool *pool) noexcept nogil

cdef void shaper_set(shaper *q, uint64_t rate, uint64_t burst) noexcept nogil
cdef uint32_t shaper_put(shaper *q, packet_pool *pool, uint32_t flow, const uint8_t *p, uint32_t n,
                         uint64_t now) noexcept nogil
cdef int32_t shaper_next(shaper *q, packet_pool *pool, uint64_t now,
                         uint32_t *dropped) noexcept nogil
cdef uint32_t shaper_clear(shaper *q, packet_pool *pool) noexcept nogil

cdef bint waiting_open(waiting *w, uint32_t room) noexcept nogil
cdef void waiting_close(waiting *w) noexcept nogil
cdef void waiting_put(waiting *w, shaper *q, uint64_t due) noexcept nogil
cdef void waiting_remove(waiting *w, shaper *q) noexcept nogil


cdef inline void shaper_pay(shaper *q, uint32_t n, uint64_t now) noexcept nogil:
    """Charge n octets that are sent now."""
    cdef uint64_t price = n * q.cost + q.part
    if q.ready + q.burst_ns < now:
        q.ready = now - q.burst_ns
    q.ready += price >> 16
    q.part = price & 0xFFFF


cdef inline bint shaper_passes(shaper *q, uint32_t n, uint64_t now) noexcept nogil:
    """True if the packet may go at once, and is paid for; else it must be put."""
    if q.packets or q.ready > now:
        return False
    shaper_pay(q, n, now)
    return True


cdef inline uint8_t *packets_at(packet_pool *pool, int32_t place) noexcept nogil:
    return pool.data + <size_t>place * (PACKET_HEAD + PACKET_SIZE) + PACKET_HEAD


cdef inline void packets_give(packet_pool *pool, int32_t place) noexcept nogil:
    """A place is free again."""
    pool.next[place] = pool.first_free
    pool.first_free = place
    pool.n_free += 1
