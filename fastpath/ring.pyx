# cython: language_level=3
"""Memory of the rings; the moving parts are inline in ring.pxd."""

from libc.stdint cimport uint8_t, uint64_t
from libc.stdlib cimport calloc, free


cdef bint ring_open(ring *r, uint64_t size) noexcept nogil:
    """`size` is a power of two; False when memory is short."""
    r.base = <uint8_t *>calloc(1, size)
    r.size = size
    r.head = r.tail = 0
    r.asleep = 0
    return r.base != NULL


cdef void ring_close(ring *r) noexcept nogil:
    free(r.base)
    r.base = NULL


cdef class Ring:
    """One ring, for tests: push and take from Python."""

    cdef ring r

    def __cinit__(self, uint64_t size):
        if size < 64 or size & (size - 1):
            raise ValueError(f"ring of {size} octets: not a power of two")
        if not ring_open(&self.r, size):
            raise MemoryError

    def __dealloc__(self):
        ring_close(&self.r)

    def push(self, int kind, int index, int generation, bytes data not None):
        """False when there is no room."""
        return ring_push(&self.r, kind, index, generation,
                         <const uint8_t *><const char *>data, len(data), NULL, 0)

    def take(self):
        """(kind, index, generation, data), or None."""
        cdef entry *e = ring_peek(&self.r)
        if e == NULL:
            return None
        data = (<uint8_t *>e + 16)[:e.size]
        found = (e.kind, e.index, e.generation, <bytes>data)
        ring_drop(&self.r, e)
        return found

    def sleep(self):
        """The reader goes to sleep; False if there is something to take."""
        return ring_sleep(&self.r)

    def wake_owed(self):
        """Does the pusher owe a wake-up?"""
        return ring_wake_owed(&self.r)
