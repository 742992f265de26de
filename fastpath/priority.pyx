# cython: language_level=3
"""For tests: see priority.pyi. The data thread has all of it from priority.pxd."""

from libc.stdint cimport uint64_t

WORDS = ("", "give up", "take", "nap")     # by PRIORITY_KEEP and so on


cdef class Turns:
    """See priority.pyi."""

    cdef priority p

    def __cinit__(self, uint64_t now, *, bint used, bint returns):
        self.p.since = now
        self.p.slept = 0
        self.p.used = self.p.now = used
        self.p.returns = returns

    @property
    def ahead(self):
        return bool(self.p.now)

    def sleeps(self, uint64_t ns):
        self.p.slept += ns

    def turn(self, uint64_t now, *, bint refused=False):
        cdef int due = priority_judge(&self.p, now)
        if not refused and due != PRIORITY_NAP and due != PRIORITY_KEEP:
            self.p.now = due == PRIORITY_TAKE
        return WORDS[due]
