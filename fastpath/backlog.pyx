# cython: language_level=3
"""Packets that wait for their session's turn: see backlog.pxd. No clock and no I/O here."""

from libc.stdint cimport int32_t, uint8_t, uint32_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy, memset

from fastpath.tables cimport session, tables
from fastpath.tun cimport segmenter

cdef enum:
    UNLISTED = 0
    NEW = 1
    OLD = 2


cdef bint backlog_open(backlog *b) noexcept nogil:
    """Room for all places; what is never used costs no memory."""
    cdef size_t at
    cdef int32_t i
    memset(b, 0, sizeof(backlog))
    b.octets = <uint8_t *>malloc(<size_t>LARGE * LARGE_SIZE + <size_t>SMALL * SMALL_SIZE)
    b.parcels = <parcel *>calloc(LARGE + SMALL, sizeof(parcel))
    if b.octets == NULL or b.parcels == NULL:
        return False
    for i in range(LARGE + SMALL):
        at = <size_t>(i if i < LARGE else LARGE) * LARGE_SIZE
        if i > LARGE:
            at += <size_t>(i - LARGE) * SMALL_SIZE
        b.parcels[i].data = b.octets + at
        b.parcels[i].next = i + 1
    b.parcels[LARGE - 1].next = NOTHING
    b.parcels[LARGE + SMALL - 1].next = NOTHING
    b.free_small = LARGE
    b.n_large = LARGE
    b.n_small = SMALL
    b.reading = NOTHING
    for i in range(3):
        b.first[i] = b.last[i] = NOTHING
    return True


cdef void backlog_close(backlog *b) noexcept nogil:
    free(b.octets)
    free(b.parcels)
    memset(b, 0, sizeof(backlog))


cdef uint8_t *backlog_buffer(backlog *b) noexcept nogil:
    """Where the next packet is read to: the place freed last, which the cache still knows.

    There is always one: no session can take the last.
    """
    if b.reading == NOTHING:
        b.reading = b.free_large
        b.free_large = b.parcels[b.reading].next
        b.n_large -= 1
    return b.parcels[b.reading].data


cdef void _give(backlog *b, int32_t place) noexcept nogil:
    if place < LARGE:
        b.parcels[place].next = b.free_large
        b.free_large = place
        b.n_large += 1
    else:
        b.parcels[place].next = b.free_small
        b.free_small = place
        b.n_small += 1


cdef void _list(backlog *b, tables *t, session *s, uint32_t which) noexcept nogil:
    s.backlog_list = <uint8_t>which
    s.backlog_after = NOTHING
    if b.last[which] == NOTHING:
        b.first[which] = <int32_t>s.index
    else:
        t.all[b.last[which]].backlog_after = <int32_t>s.index
    b.last[which] = <int32_t>s.index


cdef void _unlist_first(backlog *b, session *s, uint32_t which) noexcept nogil:
    b.first[which] = s.backlog_after
    if b.first[which] == NOTHING:
        b.last[which] = NOTHING
    s.backlog_list = UNLISTED


cdef bint backlog_put(backlog *b, tables *t, session *s, segmenter *g, uint32_t n) noexcept nogil:
    """The packet of n octets that was read into `backlog_buffer`, and its segmenter; False,
    and nothing kept, if the session holds its share already."""
    cdef int32_t place = b.reading
    cdef uint8_t *from_data = b.parcels[place].data
    if n <= SMALL_SIZE:
        if 2 * s.backlog_small >= b.n_small:
            return False
        place = b.free_small
        b.free_small = b.parcels[place].next
        b.n_small -= 1
        memcpy(b.parcels[place].data, from_data, n)
        s.backlog_small += 1
    else:
        if 2 * s.backlog_large >= b.n_large:
            return False
        b.reading = NOTHING
        s.backlog_large += 1
    b.parcels[place].g = g[0]
    b.parcels[place].g.packet = b.parcels[place].data + (g.packet - from_data)
    b.parcels[place].next = NOTHING
    if s.backlog_count == 0:
        s.backlog_first = place
        if s.backlog_list == UNLISTED:
            s.backlog_turn = TURN
            _list(b, t, s, NEW)
    else:
        b.parcels[s.backlog_last].next = place
    s.backlog_last = place
    s.backlog_count += 1
    b.waiting += 1
    return True


cdef session *backlog_next(backlog *b, tables *t) noexcept nogil:
    """Whose turn it is; NULL if nobody waits. What is sent is taken from `backlog_turn`."""
    cdef session *s
    cdef uint32_t which
    while not backlog_empty(b):
        which = NEW if b.first[NEW] != NOTHING else OLD
        s = &t.all[b.first[which]]
        if s.backlog_count and s.backlog_turn > 0:
            return s
        _unlist_first(b, s, which)
        if s.backlog_count == 0:
            continue
        s.backlog_turn += TURN
        _list(b, t, s, OLD)
    return NULL


cdef void backlog_done(backlog *b, tables *t, session *s) noexcept nogil:
    """The packet at the head of the session whose turn it is has been sent."""
    cdef int32_t place = s.backlog_first
    cdef uint32_t which
    s.backlog_first = b.parcels[place].next
    s.backlog_count -= 1
    b.waiting -= 1
    if place < LARGE:
        s.backlog_large -= 1
    else:
        s.backlog_small -= 1
    _give(b, place)
    if s.backlog_count == 0:
        # Who has been served as new stands in line once more: else short bursts of many
        # would keep the old ones waiting for ever (RFC 8290 section 4.2).
        which = s.backlog_list
        _unlist_first(b, s, which)
        if which == NEW and b.first[OLD] != NOTHING:
            _list(b, t, s, OLD)


cdef uint32_t backlog_clear(backlog *b, tables *t, session *s) noexcept nogil:
    """Forget what waits for a session; returns the segments it would have been."""
    cdef uint32_t lost = 0, which = s.backlog_list
    cdef int32_t place, before = NOTHING, at
    while s.backlog_count:
        place = s.backlog_first
        s.backlog_first = b.parcels[place].next
        s.backlog_count -= 1
        b.waiting -= 1
        lost += b.parcels[place].g.count - b.parcels[place].g.index
        _give(b, place)
    s.backlog_large = s.backlog_small = 0
    if which == UNLISTED:
        return lost
    at = b.first[which]
    while at != <int32_t>s.index:
        before = at
        at = t.all[at].backlog_after
    if before == NOTHING:
        b.first[which] = s.backlog_after
    else:
        t.all[before].backlog_after = s.backlog_after
    if b.last[which] == <int32_t>s.index:
        b.last[which] = before
    s.backlog_list = UNLISTED
    return lost
