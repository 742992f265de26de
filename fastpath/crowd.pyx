# cython: language_level=3
"""Thinning out who floods: see crowd.pxd. No clock and no I/O here."""

from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memset


cdef void crowd_turn(crowd *c, uint64_t now) noexcept nogil:
    """A new window, if the last is over."""
    if now < c.until:
        return
    if c.drained or c.packets == 0:
        if c.level:
            c.level -= 1
    elif c.level < LEVELS:
        c.level += 1
    c.most = c.packets * 3 // (2 * c.senders) + SPARE if c.senders else SPARE
    c.until = now + WINDOW
    c.window += 1
    c.packets = 0
    c.senders = 0
    c.drained = False


cdef class Crowd:
    """See crowd.pyi."""

    cdef crowd c
    cdef sender *all
    cdef uint32_t n

    def __cinit__(self, uint32_t sessions):
        memset(&self.c, 0, sizeof(crowd))
        self.n = sessions
        self.all = <sender *>calloc(sessions, sizeof(sender))
        if self.all == NULL:
            raise MemoryError

    def __dealloc__(self):
        free(self.all)

    @property
    def level(self):
        return self.c.level

    def turn(self, uint64_t now, bint drained):
        self.c.drained = self.c.drained or drained
        crowd_turn(&self.c, now)

    def passes(self, uint32_t session):
        if session >= self.n:
            raise IndexError(session)
        return crowd_passes(&self.c, &self.all[session])
