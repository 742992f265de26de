# cython: language_level=3
"""A ring of records between two threads: one pushes, one takes, no lock.

Positions only grow, by multiples of 16; the place is position & (size - 1). A record never
wraps: what is left at the end, room for an entry's head at least, is skipped by a record
of kind RING_SKIP. The reader that goes to sleep
sets `asleep`; the pusher that finds it set clears it and owes one wake-up, so a sleep
costs at most one write to an eventfd.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy

cdef extern from "atomics.h" nogil:
    uint64_t load_acquire(const uint64_t *p)
    void store_release(uint64_t *p, uint64_t v)
    uint64_t swap_all(uint64_t *p, uint64_t v)
    void fence_all()
    void fence_release()

cdef enum:
    RING_SKIP = 0xFFFFFFFF

cdef struct entry:
    uint32_t size              # octets of `data`
    uint32_t kind
    uint32_t index
    uint32_t generation

cdef struct ring:
    uint8_t *base
    uint64_t size
    uint64_t head              # reader's position
    uint8_t pad0[40]
    uint64_t tail              # pusher's position
    uint8_t pad1[56]
    uint64_t asleep

cdef bint ring_open(ring *r, uint64_t size) noexcept nogil
cdef void ring_close(ring *r) noexcept nogil


cdef inline uint64_t ring_room(uint64_t size) noexcept nogil:
    """Octets of the ring that a record with `size` octets of data takes."""
    return 16 + ((size + 15) & ~<uint64_t>15)


cdef inline uint64_t ring_used(ring *r) noexcept nogil:
    """Octets in it; the writer's view."""
    return r.tail - load_acquire(&r.head)


cdef inline bint ring_push(ring *r, uint32_t kind, uint32_t index, uint32_t generation,
                           const uint8_t *data, uint32_t size,
                           const uint8_t *more, uint32_t more_size) noexcept nogil:
    """False when there is no room. The record's octets are `data` and then `more`."""
    cdef uint64_t need = ring_room(<uint64_t>size + more_size)
    cdef uint64_t tail = r.tail
    cdef uint64_t at = tail & (r.size - 1)
    cdef uint64_t skip = 0
    cdef entry *e
    if at + need > r.size:
        skip = r.size - at
    if tail + skip + need - load_acquire(&r.head) > r.size:
        return False
    if skip:
        e = <entry *>(r.base + at)
        e.size = <uint32_t>(skip - 16)
        e.kind = RING_SKIP
        tail += skip
        at = 0
    e = <entry *>(r.base + at)
    e.size = size + more_size
    e.kind = kind
    e.index = index
    e.generation = generation
    if size:
        memcpy(r.base + at + 16, data, size)
    if more_size:
        memcpy(r.base + at + 16 + size, more, more_size)
    store_release(&r.tail, tail + need)
    return True


cdef inline entry *ring_peek(ring *r) noexcept nogil:
    """The oldest record, or NULL; its octets follow it. `ring_drop` gives it back."""
    cdef entry *e
    while True:
        if load_acquire(&r.tail) == r.head:
            return NULL
        e = <entry *>(r.base + (r.head & (r.size - 1)))
        if e.kind != RING_SKIP:
            return e
        ring_drop(r, e)


cdef inline void ring_drop(ring *r, entry *e) noexcept nogil:
    store_release(&r.head, r.head + ring_room(e.size))


cdef inline bint ring_wake_owed(ring *r) noexcept nogil:
    """After pushing: does the reader sleep? Then this pusher writes its eventfd."""
    fence_all()
    if load_acquire(&r.asleep) == 0:
        return False
    return swap_all(&r.asleep, 0) != 0


cdef inline bint ring_sleep(ring *r) noexcept nogil:
    """The reader is about to sleep; False if something has come meanwhile."""
    store_release(&r.asleep, 1)
    fence_all()
    if load_acquire(&r.tail) != r.head:
        store_release(&r.asleep, 0)
        return False
    return True
