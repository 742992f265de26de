# cython: language_level=3
"""Rates and filters of sessions: see limits.pxd."""

from libc.stdint cimport int32_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy

from fastpath.filter cimport (
    FILTER_DOWN, FILTER_UP, book_close, book_exempts, book_find, filter_permits, look, look_at,
    look_flow, rule_book)
from fastpath.layout cimport (
    C_MSS_CLAMPED, C_QUEUED, C_TX_QUEUED, D_RX_FILTERED, D_RX_SESSION_ENDED, D_RX_SHAPED,
    D_TX_FILTERED, D_TX_SESSION_ENDED, D_TX_SHAPED, record)
from fastpath.output cimport output_data, output_slot
from fastpath.path cimport data_path, drop, drop_many, writing_begin, writing_end
from fastpath.shaper cimport (
    SHAPER_NOTHING, packets_at, packets_close, packets_give, packets_open, shaper, shaper_clear,
    shaper_next, shaper_passes, shaper_put, shaper_set, waiting_close, waiting_open, waiting_put,
    waiting_remove)
from fastpath.tables cimport limits, session
from fastpath.tun cimport clamp_mss, segmenter, segments_next, writer, writer_end, writer_put

cdef enum:
    WAIT_SIZE = 16384          # packets that wait for their rate, all sessions together
    WRITE_OUT = 256            # of them written to the TUN together

cdef uint64_t GRAIN = 200000           # rates are looked at no more often: bursts, not wake-ups


cdef bint limits_open(data_path *path) noexcept nogil:
    path.shaping.places = <int32_t *>calloc(WRITE_OUT, sizeof(int32_t))
    return (path.shaping.places != NULL and packets_open(&path.shaping.room, WAIT_SIZE)
            and waiting_open(&path.shaping.due, 2 * path.t.capacity))


cdef void limits_close(data_path *path) noexcept nogil:
    free(path.shaping.places)
    packets_close(&path.shaping.room)
    waiting_close(&path.shaping.due)
    book_close(&path.shaping.book)


cdef void limits_set(data_path *path, session *s) noexcept nogil:
    """What the control thread wrote to the record."""
    cdef record *r = s.r
    cdef limits *own = s.limited
    if own == NULL:
        if not (r.rate_up or r.rate_down or r.filter):
            return
        own = s.limited = <limits *>calloc(1, sizeof(limits))
        if own == NULL:
            return
    own.filter_number = r.filter
    own.rules = book_find(&path.shaping.book, r.filter) if r.filter else NULL
    own.up = _set_rate(path, s, own.up, r.rate_up, r.burst_up, True)
    own.down = _set_rate(path, s, own.down, r.rate_down, r.burst_down, False)
    if own.up == NULL and own.down == NULL and own.filter_number == 0:
        free(own)
        s.limited = NULL


cdef shaper *_set_rate(data_path *path, session *s, shaper *q, uint64_t rate, uint64_t burst,
                       bint up) noexcept nogil:
    if rate == 0:
        if q != NULL:
            # What waits for the old rate goes now, in its order.
            shaper_set(q, <uint64_t>1 << 50, 0)
            q.ready = 0
            waiting_put(&path.shaping.due, q, 0)
            limits_serve_due(path)
            free(q)
        return NULL
    if q == NULL:
        q = <shaper *>calloc(1, sizeof(shaper))
        if q == NULL:
            return NULL
        q.session = s.index
        q.up = up
    shaper_set(q, rate, burst)
    if q.packets:
        waiting_put(&path.shaping.due, q, path.now)
    return q


cdef void limits_set_filters(data_path *path, const uint8_t *data) noexcept nogil:
    """A new book for all; the sessions' filters are looked up in it by their numbers."""
    cdef rule_book old = path.shaping.book
    cdef rule_book *fresh
    cdef limits *own
    cdef uint32_t i
    memcpy(&fresh, data, sizeof(fresh))
    path.shaping.book = fresh[0]
    free(fresh)
    for i in range(path.t.top):
        own = path.t.all[i].limited
        if own != NULL and own.filter_number:
            own.rules = book_find(&path.shaping.book, own.filter_number)
    book_close(&old)


cdef void limits_empty(data_path *path, session *s) noexcept nogil:
    """Nothing waits for a session's rates any more."""
    cdef limits *own = s.limited
    cdef uint32_t n
    if own == NULL:
        return
    if own.up != NULL:
        waiting_remove(&path.shaping.due, own.up)
        n = shaper_clear(own.up, &path.shaping.room)
        path.count[D_RX_SESSION_ENDED] += n
        path.count[C_QUEUED] -= n
    if own.down != NULL:
        waiting_remove(&path.shaping.due, own.down)
        n = shaper_clear(own.down, &path.shaping.room)
        path.count[D_TX_SESSION_ENDED] += n
        path.count[C_TX_QUEUED] -= n


cdef void limits_remove(data_path *path, session *s) noexcept nogil:
    if s.limited != NULL:
        limits_empty(path, s)
        free(s.limited.up)
        free(s.limited.down)
        free(s.limited)
        s.limited = NULL


cdef bint limits_up(data_path *path, session *s, const uint8_t *p, uint32_t n) noexcept nogil:
    """Whether an inner packet from the subscriber may go on at once."""
    cdef limits *own = s.limited
    cdef look seen
    if not look_at(&seen, p, n):
        return True
    if own.rules != NULL and not filter_permits(&path.shaping.book, own.rules, &seen, FILTER_UP):
        drop(path, s, D_RX_FILTERED)
        return False
    if own.up == NULL or book_exempts(&path.shaping.book, seen.target, seen.six):
        return True
    if shaper_passes(own.up, n, path.now):
        return True
    _wait(path, s, own.up, look_flow(&seen, path.shaping.seed), p, n)
    return False


cdef bint limits_down(data_path *path, session *s, segmenter *g) noexcept nogil:
    """Filter and rate of a session; False if the packet is left to the caller."""
    cdef look seen
    cdef shaper *q = s.limited.down
    cdef uint32_t flow, size
    cdef uint8_t *p
    if not look_at(&seen, g.packet, g.size):
        return False
    # One look for all segments of a super-packet: they are one flow.
    if s.limited.rules != NULL and not filter_permits(
            &path.shaping.book, s.limited.rules, &seen, FILTER_DOWN):
        drop_many(path, s, D_TX_FILTERED, g.count)
        return True
    if q == NULL or book_exempts(&path.shaping.book, seen.source, seen.six):
        return False
    flow = look_flow(&seen, path.shaping.seed)
    while True:
        p = output_slot(path)
        size = segments_next(g, p)
        if size == 0:
            return True
        if path.mss_clamp and clamp_mss(p, size, s.mtu):
            path.count[C_MSS_CLAMPED] += 1
        if shaper_passes(q, size, path.now):
            output_data(path, s, p, size)
        else:
            _wait(path, s, q, flow, p, size)


cdef void _wait(data_path *path, session *s, shaper *q, uint32_t flow, const uint8_t *p,
                uint32_t n) noexcept nogil:
    cdef uint32_t dropped = shaper_put(q, &path.shaping.room, flow, p, n, path.now)
    path.count[C_QUEUED if q.up else C_TX_QUEUED] += 1
    if dropped:
        _shaped_off(path, s, q, dropped)
    if q.packets and q.place == 0:
        _await(path, q)


cdef void _shaped_off(data_path *path, session *s, shaper *q, uint32_t n) noexcept nogil:
    path.count[C_QUEUED if q.up else C_TX_QUEUED] -= n
    drop_many(path, s, D_RX_SHAPED if q.up else D_TX_SHAPED, n)


cdef void _await(data_path *path, shaper *q) noexcept nogil:
    cdef uint64_t due = path.now + GRAIN
    waiting_put(&path.shaping.due, q, due if q.ready < due else q.ready)


cdef void limits_serve_due(data_path *path) noexcept nogil:
    """Send what may go by now of all rates whose time has come."""
    cdef writer *w = &path.writing
    cdef shaper *q
    writing_begin(path)
    path.shaping.n_places = 0
    while path.shaping.due.n and path.shaping.due.at[0].due <= path.now:
        q = path.shaping.due.at[0]
        path.page.poison_sid = path.t.all[q.session].r.sid
        _serve(path, q, w)
    writing_end(path)
    _free_places(path)
    path.page.poison_sid = 0


cdef void _serve(data_path *path, shaper *q, writer *w) noexcept nogil:
    cdef session *s = &path.t.all[q.session]
    cdef uint32_t dropped = 0, size
    cdef int32_t place
    cdef uint8_t *data
    cdef uint8_t *p
    while True:
        place = shaper_next(q, &path.shaping.room, path.now, &dropped)
        if place == SHAPER_NOTHING:
            break
        data = packets_at(&path.shaping.room, place)
        size = path.shaping.room.size[place]
        if q.up:
            if path.shaping.n_places == WRITE_OUT:
                writer_end(w)
                _free_places(path)
            path.shaping.places[path.shaping.n_places] = place
            path.shaping.n_places += 1
            writer_put(w, s.r, data, size)
            path.count[C_QUEUED] -= 1
        else:
            p = output_slot(path)
            memcpy(p, data, size)
            packets_give(&path.shaping.room, place)
            output_data(path, s, p, size)
            path.count[C_TX_QUEUED] -= 1
    if dropped:
        _shaped_off(path, s, q, dropped)
    if q.packets:
        _await(path, q)
    else:
        waiting_remove(&path.shaping.due, q)


cdef void _free_places(data_path *path) noexcept nogil:
    cdef uint32_t i
    for i in range(path.shaping.n_places):
        packets_give(&path.shaping.room, path.shaping.places[i])
    path.shaping.n_places = 0
