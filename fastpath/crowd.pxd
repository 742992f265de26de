# cython: language_level=3
"""Who sends how much, so that one who floods cannot hold up the others.

The kernel's socket buffer is first in, first out for all sessions of a worker. While it
is never empty for a whole window, packets of those who sent far more than the average
in the window before are thinned out before they cost keys and decryption: one of two
stays, then one of four, down to one of sixteen, until there is an empty moment again.
Alone, or among equals, nobody is thinned out.
"""

from libc.stdint cimport uint32_t, uint64_t

cdef enum:
    WINDOW = 2000000           # ns
    LEVELS = 4
    SPARE = 16                 # packets of a window that nobody is blamed for

cdef struct crowd:
    uint64_t until             # end of the window
    uint32_t window            # its number
    uint32_t packets
    uint32_t senders
    uint32_t most              # who sent more than this in the window before is thinned out
    uint32_t level             # one of 2 ** level stays
    bint drained               # the socket was empty once

cdef struct sender:            # of a session
    uint32_t window
    uint32_t packets
    uint32_t before            # in the window before
    uint32_t thinned

cdef void crowd_turn(crowd *c, uint64_t now) noexcept nogil


cdef inline bint crowd_passes(crowd *c, sender *s) noexcept nogil:
    """Count a packet; False if it is to be dropped."""
    if s.window != c.window:
        s.before = s.packets if s.window + 1 == c.window else 0
        s.packets = 0
        s.window = c.window
        c.senders += 1
    s.packets += 1
    c.packets += 1
    if c.level == 0 or s.before <= c.most:
        return True
    s.thinned += 1
    return (s.thinned & ((<uint32_t>1 << c.level) - 1)) == 0
