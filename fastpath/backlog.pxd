# cython: language_level=3
"""What was read from the TUN and is not yet sent: a queue for each session, served in turns.

The device's own queue is first in, first out: behind a download's super-packets a ping would
wait for all of them. So it is emptied at once, and what exceeds a session's turn waits
here: deficit round robin by octets, sessions that have just begun to wait first (the scheme
of RFC 8290 with sessions for flows). A session may hold a third of the places at most,
less when others hold some too.
"""

from libc.stdint cimport int32_t, uint8_t, uint32_t

from fastpath.tables cimport session, tables
from fastpath.tun cimport segmenter

cdef enum:
    LARGE = 256                # places for super-packets
    SMALL = 2048               # and for others
    LARGE_SIZE = 65552 + 64
    SMALL_SIZE = 2048
    TURN = 24576               # octets of a session's turn
    NOTHING = -1

cdef struct parcel:
    uint8_t *data              # virtio header first
    segmenter g                # how far it is sent
    int32_t next               # in its session's queue, or in the list of free places

cdef struct backlog:
    uint8_t *octets
    parcel *parcels            # LARGE of them, then SMALL
    int32_t free_large, free_small
    uint32_t n_large, n_small  # free
    int32_t reading            # the place that is read into
    uint32_t waiting           # packets, all sessions together
    int32_t first[3]           # lists of sessions, by session.backlog_list
    int32_t last[3]

cdef bint backlog_open(backlog *b) noexcept nogil
cdef void backlog_close(backlog *b) noexcept nogil
cdef uint8_t *backlog_buffer(backlog *b) noexcept nogil
cdef bint backlog_put(backlog *b, tables *t, session *s, segmenter *g, uint32_t n) noexcept nogil
cdef session *backlog_next(backlog *b, tables *t) noexcept nogil
cdef void backlog_done(backlog *b, tables *t, session *s) noexcept nogil
cdef uint32_t backlog_clear(backlog *b, tables *t, session *s) noexcept nogil


cdef inline bint backlog_empty(backlog *b) noexcept nogil:
    return b.waiting == 0


cdef inline segmenter *backlog_head(backlog *b, session *s) noexcept nogil:
    """The packet that a session goes on with."""
    return &b.parcels[s.backlog_first].g
