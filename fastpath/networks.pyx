# cython: language_level=3
"""Networks behind sessions: see networks.pxd."""

from libc.stdint cimport int32_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memset

from fastpath.wire cimport be32

cdef enum:
    NONE = -1
    FIRST_SIZE = 64


cdef void networks_open(networks *t) noexcept nogil:
    """Empty; memory is taken with the first network."""
    memset(t, 0, sizeof(networks))
    t.free = NONE


cdef void networks_close(networks *t) noexcept nogil:
    free(t.all)
    free(t.chains)
    networks_open(t)


cdef inline uint64_t _mask(uint32_t bits) noexcept nogil:
    """The highest `bits` of 64."""
    return ~<uint64_t>0 << (64 - bits) if bits else 0


cdef void prefix_of(prefix *into, uint8_t family, const uint8_t *octets,
                    uint8_t length) noexcept nogil:
    """Of 4 or 16 octets; what lies behind the length is cleared."""
    into.family = family
    into.length = length
    into.high = <uint64_t>be32(octets) << 32
    into.low = 0
    if family == 6:
        into.high |= be32(octets + 4)
        if length > 64:
            into.low = (<uint64_t>be32(octets + 8) << 32 | be32(octets + 12)) & _mask(length - 64)
    into.high &= _mask(length if length < 64 else 64)


cdef bint prefix_holds(const prefix *p, const prefix *address) noexcept nogil:
    """Whether an address (a prefix of its whole length) lies in it."""
    if p.family != address.family:
        return False
    if p.length <= 64:
        return ((p.high ^ address.high) & _mask(p.length)) == 0
    return p.high == address.high and ((p.low ^ address.low) & _mask(p.length - 64)) == 0


cdef inline uint32_t _place(const networks *t, const prefix *p) noexcept nogil:
    cdef uint64_t h = (p.high ^ (p.low * 0xC2B2AE3D27D4EB4FULL)) * 0x9E3779B97F4A7C15ULL
    h ^= h >> 29
    h = (h + p.length * 0x165667B19E3779F9ULL + p.family) * 0xBF58476D1CE4E5B9ULL
    return <uint32_t>(h >> 32) & (t.size - 1)


cdef inline bint _same(const prefix *a, const prefix *b) noexcept nogil:
    return (a.high == b.high and a.low == b.low and a.length == b.length
            and a.family == b.family)


cdef bint _grow(networks *t) noexcept nogil:
    """Twice as many places; False when memory is short, and nothing has changed."""
    cdef uint32_t size = t.size * 2 if t.size else FIRST_SIZE
    cdef int32_t *chains = <int32_t *>malloc(size * sizeof(int32_t))
    cdef network *all
    cdef uint32_t i, at
    if chains == NULL:
        return False
    all = <network *>realloc(t.all, size * sizeof(network))
    if all == NULL:
        free(chains)
        return False
    memset(chains, 0xFF, size * sizeof(int32_t))
    free(t.chains)
    t.all = all
    t.chains = chains
    # Only called when none is free: all of the old places are in chains.
    for i in range(t.size, size):
        all[i].next = <int32_t>i + 1 if i + 1 < size else NONE
    t.free = <int32_t>t.size
    at = t.size
    t.size = size
    for i in range(at):
        at = _place(t, &all[i].of)
        all[i].next = chains[at]
        chains[at] = <int32_t>i
    return True


cdef void _lengths(networks *t, uint8_t family) noexcept nogil:
    cdef int32_t i
    if family == 4:
        t.n4 = 0
        for i in range(32, -1, -1):
            if t.used4[i]:
                t.lengths4[t.n4] = <uint8_t>i
                t.n4 += 1
    else:
        t.n6 = 0
        for i in range(128, -1, -1):
            if t.used6[i]:
                t.lengths6[t.n6] = <uint8_t>i
                t.n6 += 1


cdef bint networks_add(networks *t, const prefix *of, int32_t owner) noexcept nogil:
    """Before any other one's of the same prefix; False when memory is short."""
    cdef uint32_t *used = &t.used4[of.length] if of.family == 4 else &t.used6[of.length]
    cdef uint32_t at
    cdef int32_t i
    if t.free == NONE and not _grow(t):
        return False
    i = t.free
    t.free = t.all[i].next
    t.count += 1
    at = _place(t, of)
    t.all[i].of = of[0]
    t.all[i].owner = owner
    t.all[i].next = t.chains[at]
    t.chains[at] = i
    used[0] += 1
    if used[0] == 1:
        _lengths(t, of.family)
    return True


cdef void networks_remove(networks *t, const prefix *of, int32_t owner) noexcept nogil:
    cdef uint32_t *used = &t.used4[of.length] if of.family == 4 else &t.used6[of.length]
    cdef int32_t *at
    cdef int32_t i
    if t.size == 0:
        return
    at = &t.chains[_place(t, of)]
    while at[0] != NONE:
        i = at[0]
        if t.all[i].owner == owner and _same(&t.all[i].of, of):
            at[0] = t.all[i].next
            t.all[i].next = t.free
            t.free = i
            t.count -= 1
            used[0] -= 1
            if used[0] == 0:
                _lengths(t, of.family)
            return
        at = &t.all[i].next


cdef int32_t networks_find(const networks *t, uint8_t family,
                           const uint8_t *address) noexcept nogil:
    """Whose longest prefix an address lies in; -1: nobody's."""
    cdef prefix whole, wanted
    cdef uint32_t i, n
    cdef int32_t at
    cdef uint8_t length
    if t.count == 0:
        return NONE
    prefix_of(&whole, family, address, 32 if family == 4 else 128)
    wanted.family = family
    n = t.n4 if family == 4 else t.n6
    for i in range(n):
        length = t.lengths4[i] if family == 4 else t.lengths6[i]
        wanted.length = length
        wanted.high = whole.high & _mask(length if length < 64 else 64)
        wanted.low = whole.low & _mask(length - 64) if length > 64 else 0
        at = t.chains[_place(t, &wanted)]
        while at != NONE:
            if _same(&t.all[at].of, &wanted):
                return t.all[at].owner
            at = t.all[at].next
    return NONE


cdef class Networks:
    """The table by itself, for tests."""

    cdef networks t

    def __cinit__(self):
        networks_open(&self.t)

    def __dealloc__(self):
        networks_close(&self.t)

    cdef prefix _prefix(self, bytes octets, uint8_t length):
        cdef prefix p
        prefix_of(&p, 4 if len(octets) == 4 else 6, <const uint8_t *><const char *>octets, length)
        return p

    def add(self, bytes octets not None, uint8_t length, int32_t owner):
        cdef prefix p = self._prefix(octets, length)
        return networks_add(&self.t, &p, owner)

    def remove(self, bytes octets not None, uint8_t length, int32_t owner):
        cdef prefix p = self._prefix(octets, length)
        networks_remove(&self.t, &p, owner)

    def find(self, bytes octets not None):
        return networks_find(&self.t, 4 if len(octets) == 4 else 6,
                             <const uint8_t *><const char *>octets)

    @property
    def sizes(self):
        return self.t.count, self.t.size, self.t.n4, self.t.n6
