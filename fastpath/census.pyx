# cython: language_level=3
"""The sums of all records in one pass: what a scrape needs, without an object a session.

Reads only; no lock, and nothing that the data threads wait for.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcmp, memcpy, memset

from fastpath.layout cimport (
    ALLOT_ENDING,
    ALLOT_FREE,
    LINK_ACTIVE,
    LINK_FINISHING,
    MAX_WORKERS,
    Table,
    record,
)

STATES = ("starting", "active", "finishing")

cdef struct span:
    uint32_t first
    uint32_t last

cdef struct net6:              # prefixes of `given` bits are handed out of it
    uint8_t octets[16]
    uint8_t length
    uint8_t given
    uint32_t pool

cdef struct mark:              # of a record, when its octets were last compared
    uint32_t generation
    uint32_t pad
    uint64_t octets
    uint64_t grown             # between the last two looks

cdef struct place:
    uint64_t grown
    uint32_t index


cdef int _state(record *r) noexcept nogil:
    """A place in STATES. A record counts from allotment until it is free again."""
    cdef uint8_t state = r.state if r.c_generation == r.generation else 0
    if r.allot == ALLOT_ENDING or state == LINK_FINISHING:
        return 2
    return 1 if state == LINK_ACTIVE else 0


cdef bint _within(net6 *net, uint8_t *prefix) noexcept nogil:
    cdef int whole = net.length // 8
    cdef int rest = net.length % 8
    if memcmp(net.octets, prefix, whole) != 0:
        return False
    return rest == 0 or (net.octets[whole] ^ prefix[whole]) >> (8 - rest) == 0


cdef class Census:
    """Counts of one table. `pools`: for each the (first, last) addresses of its ranges, which
    must not overlap in one pool. `pools6`: for each the length of the prefixes it gives, and
    the (16 octets, length) of the networks they come from."""

    cdef Table _table
    cdef span *_spans
    cdef uint32_t *_ends       # of each pool's spans
    cdef readonly int pools
    cdef net6 *_nets
    cdef uint32_t _nets_count
    cdef readonly int pools6
    cdef mark *_marks
    cdef uint64_t _in[64][3]   # MAX_WORKERS

    def __cinit__(self, Table table not None, list pools not None, list pools6=None):
        cdef uint32_t at = 0
        cdef int i
        self._table = table
        self.pools = len(pools)
        spans = [sorted(ranges) for ranges in pools]
        self._spans = <span *>malloc(max(1, sum(map(len, spans))) * sizeof(span))
        self._ends = <uint32_t *>malloc((self.pools + 1) * sizeof(uint32_t))
        self._marks = NULL
        pools6 = pools6 or []
        self.pools6 = len(pools6)
        self._nets_count = sum(len(nets) for _, nets in pools6)
        self._nets = <net6 *>calloc(max(1, self._nets_count), sizeof(net6))
        if self._spans is NULL or self._ends is NULL or self._nets is NULL:
            raise MemoryError
        for i in range(self.pools):
            for first, last in spans[i]:
                self._spans[at].first = first
                self._spans[at].last = last
                at += 1
            self._ends[i] = at
        at = 0
        for i, (given, nets) in enumerate(pools6):
            for octets, length in nets:
                memcpy(self._nets[at].octets, <const uint8_t *><const char *>octets, 16)
                self._nets[at].length = length
                self._nets[at].given = given
                self._nets[at].pool = i
                at += 1

    def __dealloc__(self):
        free(self._spans)
        free(self._ends)
        free(self._nets)
        free(self._marks)

    cdef bint _holds(self, int pool, uint32_t address) noexcept nogil:
        cdef uint32_t low = self._ends[pool - 1] if pool else 0
        cdef uint32_t begin = low
        cdef uint32_t high = self._ends[pool]
        cdef uint32_t middle
        while low < high:
            middle = (low + high) // 2
            if self._spans[middle].first <= address:
                low = middle + 1
            else:
                high = middle
        return low > begin and address <= self._spans[low - 1].last

    def take(self):
        """(sessions by worker and place in STATES, addresses used by pool, addresses given out
        that are in no pool, prefixes used by pool of IPv6)."""
        cdef Table table = self._table
        cdef int places = self.pools + 1 + self.pools6
        cdef uint64_t *used = <uint64_t *>calloc(places, sizeof(uint64_t))
        cdef uint32_t at
        cdef record *r
        cdef uint32_t i, address, worker
        cdef int pool, which
        cdef bint found
        if used is NULL:
            raise MemoryError
        memset(self._in, 0, sizeof(self._in))
        with nogil:
            for i in range(table.head.capacity):
                r = table.record_at(i)
                if r.allot == ALLOT_FREE:
                    continue
                if r.worker < MAX_WORKERS:
                    self._in[r.worker][_state(r)] += 1
                for at in range(self._nets_count):
                    for which in range(3):
                        if (r.granted_lengths[which] != 0
                                and r.granted_lengths[which] == self._nets[at].given
                                and _within(&self._nets[at], r.granted6[which])):
                            used[self.pools + 1 + self._nets[at].pool] += 1
                address = r.granted_address
                if address == 0:
                    continue
                found = False
                for pool in range(self.pools):
                    if self._holds(pool, address):
                        used[pool] += 1
                        found = True
                if not found:
                    used[self.pools] += 1
        try:
            return (
                [[self._in[worker][i] for i in range(3)] for worker in range(table.head.workers)],
                [used[pool] for pool in range(self.pools)],
                used[self.pools],
                [used[self.pools + 1 + pool] for pool in range(self.pools6)],
            )
        finally:
            free(used)

    def look(self):
        """Compare every session's octets with those of the last look: for `busiest`."""
        cdef Table table = self._table
        cdef record *r
        cdef mark *m
        cdef uint32_t i
        cdef uint64_t octets
        if self._marks is NULL:
            self._marks = <mark *>calloc(max(1, table.head.capacity), sizeof(mark))
            if self._marks is NULL:
                raise MemoryError
        with nogil:
            for i in range(table.head.capacity):
                r = table.record_at(i)
                if r.allot == ALLOT_FREE or r.t_generation != r.generation:
                    continue
                m = &self._marks[i]
                octets = r.rx_bytes + r.tx_bytes
                if m.generation != r.generation or octets < m.octets:
                    m.generation = r.generation
                    m.octets = 0
                m.grown = octets - m.octets
                m.octets = octets

    def busiest(self, uint32_t most):
        """Indexes of the at most `most` active sessions that grew most between the last two
        looks, the busiest first; those that did not grow stand behind, in any order."""
        cdef Table table = self._table
        cdef place *heap
        cdef record *r
        cdef uint32_t i, at, child, held = 0
        cdef place new
        if self._marks is NULL or most == 0:
            return []
        heap = <place *>malloc(most * sizeof(place))
        if heap is NULL:
            raise MemoryError
        with nogil:
            for i in range(table.head.capacity):
                r = table.record_at(i)
                if r.allot == ALLOT_FREE or _state(r) != 1:
                    continue
                if self._marks[i].generation != r.generation:
                    continue
                new.grown = self._marks[i].grown
                new.index = i
                if held < most:  # a heap with the least busy at its root
                    at = held
                    held += 1
                    while at and heap[(at - 1) // 2].grown > new.grown:
                        heap[at] = heap[(at - 1) // 2]
                        at = (at - 1) // 2
                    heap[at] = new
                elif new.grown > heap[0].grown:
                    at = 0
                    while True:
                        child = 2 * at + 1
                        if child >= held:
                            break
                        if child + 1 < held and heap[child + 1].grown < heap[child].grown:
                            child += 1
                        if heap[child].grown >= new.grown:
                            break
                        heap[at] = heap[child]
                        at = child
                    heap[at] = new
        try:
            found = [(heap[i].grown, heap[i].index) for i in range(held)]
        finally:
            free(heap)
        return [index for _, index in sorted(found, key=_busier)]


def _busier(pair):
    return -pair[0], pair[1]
