# cython: language_level=3
"""Token bucket, fair queue and CoDel: see shaper.pxd. No clock and no I/O here."""

from libc.math cimport sqrt
from libc.stdint cimport int32_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset

cdef enum:
    NEW = 1
    OLD = 2
    LEAST_OCTETS = 49152       # may wait at any rate: a peer's first window and some more
    MOST_OCTETS = 1073741824
    LEAST_BURST = 3200         # octets: two packets
    MOST_BURST_S = 60          # at the rate
    MTU = 1500

cdef uint64_t SECOND = 1000000000
cdef uint64_t MS = 1000000
cdef uint64_t TARGET = 5000000
cdef uint64_t INTERVAL = 100000000


# -- the pool


cdef bint packets_open(packet_pool *pool, uint32_t n) noexcept nogil:
    """Room for n packets; False when memory is short. Untouched places cost nothing."""
    cdef uint32_t i
    memset(pool, 0, sizeof(packet_pool))
    pool.data = <uint8_t *>malloc(<size_t>n * (PACKET_HEAD + PACKET_SIZE))
    pool.next = <int32_t *>malloc(n * sizeof(int32_t))
    pool.size = <uint16_t *>malloc(n * sizeof(uint16_t))
    pool.since = <uint64_t *>malloc(n * sizeof(uint64_t))
    if pool.data == NULL or pool.next == NULL or pool.size == NULL or pool.since == NULL:
        return False
    pool.n = pool.n_free = n
    for i in range(n):
        pool.next[i] = <int32_t>i + 1
    pool.next[n - 1] = SHAPER_NOTHING
    pool.first_free = 0
    return True


cdef void packets_close(packet_pool *pool) noexcept nogil:
    free(pool.data)
    free(pool.next)
    free(pool.size)
    free(pool.since)
    memset(pool, 0, sizeof(packet_pool))


# -- the rate


cdef void shaper_set(shaper *q, uint64_t rate, uint64_t burst) noexcept nogil:
    """A rate in bit/s, more than 0, and a burst in octets, 0: from the rate. Of zeroed memory,
    or of one in use: what waits stays."""
    cdef uint32_t i
    cdef uint64_t packet
    if q.rate == 0:
        for i in range(SHAPER_FLOWS):
            q.flows[i].first = q.flows[i].last = SHAPER_NOTHING
        memset(q.first, NO_FLOW, 3)
        memset(q.last, NO_FLOW, 3)
    q.rate = rate
    q.cost = (8 * SECOND << 16) // rate
    # A timer that fires late is made up for from the burst: some ms, however fast.
    if burst == 0:
        burst = rate // 800                    # 10 ms
    elif burst < rate // 4000:
        burst = rate // 4000                   # 2 ms
    elif burst > rate // 8 * MOST_BURST_S:
        burst = rate // 8 * MOST_BURST_S
    if burst < LEAST_BURST:
        burst = LEAST_BURST
    q.burst_ns = burst * q.cost >> 16
    # At low rates one packet takes longer than CoDel's usual target: no less than one and a
    # half may stand, and the interval grows with it (RFC 8289 section 4.4).
    packet = (MTU * q.cost >> 16) * 3 // 2
    q.target = TARGET
    q.interval = INTERVAL
    if packet > TARGET:
        q.target = packet
        q.interval = INTERVAL - TARGET + packet
        if q.interval < 2 * packet:
            q.interval = 2 * packet
    packet = rate // 8 * 3 // 10               # 300 ms
    q.most = LEAST_OCTETS
    if packet > MOST_OCTETS:
        q.most = MOST_OCTETS
    elif packet > LEAST_OCTETS:
        q.most = <uint32_t>packet


# -- lists of flows: numbers, since there are few


cdef void _append(shaper *q, uint8_t which, uint8_t flow) noexcept nogil:
    q.flows[flow].list = which
    q.flows[flow].next = NO_FLOW
    if q.last[which] == NO_FLOW:
        q.first[which] = flow
    else:
        q.flows[q.last[which]].next = flow
    q.last[which] = flow


cdef uint8_t _shift(shaper *q, uint8_t which) noexcept nogil:
    cdef uint8_t flow = q.first[which]
    q.first[which] = q.flows[flow].next
    if q.first[which] == NO_FLOW:
        q.last[which] = NO_FLOW
    q.flows[flow].list = 0
    return flow


cdef uint8_t _queue_of(shaper *q, uint32_t flow) noexcept nogil:
    """The flow's own queue; else an idle one, which becomes its own; else one by its hash."""
    cdef uint32_t i, at
    cdef uint8_t idle = NO_FLOW
    cdef flow_queue *f
    for i in range(SHAPER_FLOWS):
        at = (flow + i) & (SHAPER_FLOWS - 1)
        f = &q.flows[at]
        if q.tags[at] == flow:
            return <uint8_t>at
        if f.packets == 0 and (idle == NO_FLOW or (f.list == 0 and q.flows[idle].list)):
            idle = <uint8_t>at
    if idle == NO_FLOW:
        return <uint8_t>(flow & (SHAPER_FLOWS - 1))
    f = &q.flows[idle]
    q.tags[idle] = flow
    f.dropping = False
    f.count = f.last_count = 0
    f.first_above = f.drop_next = 0
    return idle


# -- packets


cdef int32_t _take(shaper *q, packet_pool *pool, flow_queue *f) noexcept nogil:
    """The flow's oldest packet, out of the queue but still in its place."""
    cdef int32_t place = f.first
    f.first = pool.next[place]
    if f.first == SHAPER_NOTHING:
        f.last = SHAPER_NOTHING
    f.packets -= 1
    f.octets -= pool.size[place]
    q.packets -= 1
    q.octets -= pool.size[place]
    return place


cdef void _drop_fattest(shaper *q, packet_pool *pool) noexcept nogil:
    """Of the flow that holds most, its oldest: its sender learns soonest of it."""
    cdef uint32_t i, fattest = 0
    for i in range(1, SHAPER_FLOWS):
        if q.flows[i].octets > q.flows[fattest].octets:
            fattest = i
    packets_give(pool, _take(q, pool, &q.flows[fattest]))


cdef uint32_t shaper_put(shaper *q, packet_pool *pool, uint32_t flow, const uint8_t *p, uint32_t n,
                         uint64_t now) noexcept nogil:
    """Let a packet wait; returns how many were dropped for it, itself perhaps."""
    cdef uint8_t number
    cdef flow_queue *f
    cdef int32_t place
    cdef uint32_t dropped = 0
    if n == 0 or n > PACKET_SIZE:
        return 1
    while q.packets and (q.octets + n > q.most or q.packets >= pool.n_free):
        _drop_fattest(q, pool)
        dropped += 1
    if pool.n_free == 0:
        return dropped + 1
    number = _queue_of(q, flow)
    f = &q.flows[number]
    place = pool.first_free
    pool.first_free = pool.next[place]
    pool.n_free -= 1
    memcpy(packets_at(pool, place), p, n)
    pool.size[place] = <uint16_t>n
    pool.since[place] = now
    pool.next[place] = SHAPER_NOTHING
    if f.first == SHAPER_NOTHING:
        f.first = place
    else:
        pool.next[f.last] = place
    f.last = place
    f.packets += 1
    f.octets += n
    q.packets += 1
    q.octets += n
    if f.list == 0:
        f.deficit = QUANTUM
        _append(q, NEW, number)
    return dropped


cdef bint _too_old(shaper *q, packet_pool *pool, flow_queue *f, int32_t place,
                   uint64_t now) noexcept nogil:
    """RFC 8289 section 5.6, `ok_to_drop`, for a packet just taken; True only if the flow has
    more."""
    if now - pool.since[place] < q.target or f.octets <= MTU:
        f.first_above = 0
        return False
    if f.first_above == 0:
        f.first_above = now + q.interval
        return False
    return now >= f.first_above


cdef inline uint64_t _next_drop(shaper *q, uint64_t since, uint32_t count) noexcept nogil:
    return since + <uint64_t>(<double>q.interval / sqrt(<double>count))


cdef int32_t _codel(shaper *q, packet_pool *pool, flow_queue *f, uint64_t now,
                    uint32_t *dropped) noexcept nogil:
    """RFC 8289 section 5.5: the next packet of a flow that is to be sent."""
    cdef int32_t place
    cdef uint32_t since
    cdef bint old
    if f.packets == 0:
        f.first_above = 0
        f.dropping = False
        return SHAPER_NOTHING
    place = _take(q, pool, f)
    old = _too_old(q, pool, f, place, now)
    if f.dropping:
        if not old:
            f.dropping = False
        while f.dropping and now >= f.drop_next:
            packets_give(pool, place)
            dropped[0] += 1
            f.count += 1
            place = _take(q, pool, f)
            if _too_old(q, pool, f, place, now):
                f.drop_next = _next_drop(q, f.drop_next, f.count)
            else:
                f.dropping = False
    elif old:
        packets_give(pool, place)
        dropped[0] += 1
        f.dropping = True
        since = f.count - f.last_count
        f.count = since if since > 1 and now - f.drop_next < 16 * q.interval else 1
        f.last_count = f.count
        f.drop_next = _next_drop(q, now, f.count)
        place = _take(q, pool, f)
        _too_old(q, pool, f, place, now)
    return place


cdef int32_t shaper_next(shaper *q, packet_pool *pool, uint64_t now,
                         uint32_t *dropped) noexcept nogil:
    """The place of the packet to send now, paid for; SHAPER_NOTHING if none may go yet. The
    caller gives the place back. `dropped` grows by what CoDel dropped."""
    cdef uint8_t which, number
    cdef flow_queue *f
    cdef int32_t place
    while q.packets and q.ready <= now:
        which = NEW if q.first[NEW] != NO_FLOW else OLD
        number = q.first[which]
        f = &q.flows[number]
        if f.deficit <= 0:
            f.deficit += QUANTUM
            _append(q, OLD, _shift(q, which))
            continue
        place = _codel(q, pool, f, now, dropped)
        if place == SHAPER_NOTHING:
            # A new flow that has run dry must wait once behind the old ones, else it could
            # come back as new at once and starve them (RFC 8290 section 4.2).
            _shift(q, which)
            if which == NEW and q.first[OLD] != NO_FLOW:
                _append(q, OLD, number)
            continue
        f.deficit -= pool.size[place]
        shaper_pay(q, pool.size[place], now)
        return place
    return SHAPER_NOTHING


cdef uint32_t shaper_clear(shaper *q, packet_pool *pool) noexcept nogil:
    """Drop all that waits; returns how many."""
    cdef uint32_t i, n = q.packets
    for i in range(SHAPER_FLOWS):
        while q.flows[i].packets:
            packets_give(pool, _take(q, pool, &q.flows[i]))
    return n


# -- who waits


cdef bint waiting_open(waiting *w, uint32_t room) noexcept nogil:
    w.n = 0
    w.room = room
    w.at = <shaper **>malloc(room * sizeof(void *))
    return w.at != NULL


cdef void waiting_close(waiting *w) noexcept nogil:
    free(w.at)
    w.at = NULL
    w.n = 0


cdef void _settle(waiting *w, uint32_t i) noexcept nogil:
    """Move the entry at i up or down to where it belongs."""
    cdef shaper *q = w.at[i]
    cdef uint32_t child
    while i and w.at[(i - 1) // 2].due > q.due:
        w.at[i] = w.at[(i - 1) // 2]
        w.at[i].place = i + 1
        i = (i - 1) // 2
    while True:
        child = 2 * i + 1
        if child >= w.n:
            break
        if child + 1 < w.n and w.at[child + 1].due < w.at[child].due:
            child += 1
        if w.at[child].due >= q.due:
            break
        w.at[i] = w.at[child]
        w.at[i].place = i + 1
        i = child
    w.at[i] = q
    q.place = i + 1


cdef void waiting_put(waiting *w, shaper *q, uint64_t due) noexcept nogil:
    """Wake this one at `due`; it may be there with another time already."""
    q.due = due
    if q.place == 0:
        w.at[w.n] = q
        w.n += 1
        q.place = w.n
    _settle(w, q.place - 1)


cdef void waiting_remove(waiting *w, shaper *q) noexcept nogil:
    cdef uint32_t i
    if q.place == 0:
        return
    i = q.place - 1
    q.place = 0
    w.n -= 1
    if i < w.n:
        w.at[i] = w.at[w.n]
        w.at[i].place = i + 1
        _settle(w, i)


# -- for tests


cdef class Shaper:
    """See shaper.pyi."""

    cdef packet_pool pool
    cdef shaper q

    def __cinit__(self, uint64_t rate, uint64_t burst=0, uint32_t places=1024):
        if rate == 0 or places == 0:
            raise ValueError("a shaper has a rate and places")
        if not packets_open(&self.pool, places):
            raise MemoryError
        shaper_set(&self.q, rate, burst)

    def __dealloc__(self):
        packets_close(&self.pool)

    def set(self, uint64_t rate, uint64_t burst=0):
        if rate == 0:
            raise ValueError("a shaper has a rate")
        shaper_set(&self.q, rate, burst)

    def passes(self, uint32_t n, uint64_t now):
        return bool(shaper_passes(&self.q, n, now))

    def put(self, uint32_t flow, bytes packet not None, uint64_t now):
        return shaper_put(&self.q, &self.pool, flow, <const uint8_t *><const char *>packet,
                          <uint32_t>len(packet), now)

    def next(self, uint64_t now):
        cdef uint32_t dropped = 0
        cdef int32_t place = shaper_next(&self.q, &self.pool, now, &dropped)
        if place == SHAPER_NOTHING:
            return None, dropped
        packet = <bytes>packets_at(&self.pool, place)[:self.pool.size[place]]
        packets_give(&self.pool, place)
        return packet, dropped

    def clear(self):
        return shaper_clear(&self.q, &self.pool)

    @property
    def state(self):
        """(packets, octets, ready, target, interval, free places)."""
        return (self.q.packets, self.q.octets, self.q.ready, self.q.target, self.q.interval,
                self.pool.n_free)


cdef class Waiting:
    """See shaper.pyi."""

    cdef waiting w
    cdef shaper *all
    cdef uint32_t n

    def __cinit__(self, uint32_t n):
        cdef uint32_t i
        self.n = n
        self.all = <shaper *>malloc(n * sizeof(shaper))
        if self.all == NULL or not waiting_open(&self.w, n):
            raise MemoryError
        memset(self.all, 0, n * sizeof(shaper))
        for i in range(n):
            self.all[i].session = i

    def __dealloc__(self):
        free(self.all)
        waiting_close(&self.w)

    def put(self, uint32_t i, uint64_t due):
        if i >= self.n:
            raise IndexError(i)
        waiting_put(&self.w, &self.all[i], due)

    def remove(self, uint32_t i):
        if i >= self.n:
            raise IndexError(i)
        waiting_remove(&self.w, &self.all[i])

    def first(self):
        return (self.w.at[0].session, self.w.at[0].due) if self.w.n else None
