# cython: language_level=3
"""The order of a session's packets: see reorder.pxd."""

from libc.stdint cimport int32_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy

from fastpath.acks cimport acks_list
from fastpath.gre cimport gre_header
from fastpath.layout cimport (
    C_GRE_LOST, C_QUEUED, C_REORDERED, D_RX_DUPLICATE, D_RX_LATE, D_RX_OUT_OF_WINDOW,
    D_RX_SESSION_ENDED)
from fastpath.path cimport (
    HOLD_HEAD, HOLD_SIZE, IN_SIZE, POOL_SIZE, data_path, drop, in_item)
from fastpath.tables cimport NOBODY, session

cdef enum:
    HOLD_STEPS = 64
    JUMP_MAX = 512             # a sequence this far ahead is a lost burst, beyond it a stray
    STRAYS = 4                 # strays in a row that make a new sequence


cdef bint reorder_open(data_path *path) noexcept nogil:
    cdef uint32_t i
    path.reorder.octets = <uint8_t *>malloc(POOL_SIZE * HOLD_SIZE)
    path.reorder.size = <uint32_t *>calloc(POOL_SIZE, sizeof(uint32_t))
    path.reorder.seq = <uint32_t *>calloc(POOL_SIZE, sizeof(uint32_t))
    path.reorder.since = <uint64_t *>calloc(POOL_SIZE, sizeof(uint64_t))
    path.reorder.free = <int32_t *>calloc(POOL_SIZE, sizeof(int32_t))
    path.reorder.done = <int32_t *>calloc(POOL_SIZE, sizeof(int32_t))
    path.reorder.first = path.reorder.last = NOBODY
    if (path.reorder.octets == NULL or path.reorder.size == NULL or path.reorder.seq == NULL
            or path.reorder.since == NULL or path.reorder.free == NULL
            or path.reorder.done == NULL):
        return False
    for i in range(POOL_SIZE):
        path.reorder.free[i] = <int32_t>i
    path.reorder.n_free = POOL_SIZE
    return True


cdef void reorder_close(data_path *path) noexcept nogil:
    free(path.reorder.octets)
    free(path.reorder.size)
    free(path.reorder.seq)
    free(path.reorder.since)
    free(path.reorder.free)
    free(path.reorder.done)


cdef void reorder_take(data_path *path, session *s, gre_header *h, uint8_t *p) noexcept nogil:
    """A packet with payload, which is at p: list it, keep it or drop it."""
    cdef int32_t ahead
    if not s.rx_seen:
        s.rx_seen = True
        if h.seq <= 1:
            s.rx_next = h.seq      # both conventions of the first number (trap 4.19)
    ahead = <int32_t>(h.seq - s.rx_next)
    if ahead == 0:
        _accept(path, s, p, h.size, -1)
        if s.held_count:
            _drain(path, s)
    elif ahead < -JUMP_MAX:
        _stray(path, s, h, p)
    elif ahead < 0:
        ahead = -ahead
        if ahead <= 64 and not (s.rx_map >> (ahead - 1)) & 1:
            s.rx_map |= <uint64_t>1 << (ahead - 1)
            drop(path, s, D_RX_LATE)
        else:
            drop(path, s, D_RX_DUPLICATE)
    elif ahead < <int32_t>path.reorder.depth:
        _hold(path, s, h.seq, p, h.size)
    elif ahead < JUMP_MAX:
        # Give up no more gaps than make room: what fills the others may be on its way.
        while s.held_count and ahead >= <int32_t>path.reorder.depth:
            reorder_give_up(path, s)
            ahead = <int32_t>(h.seq - s.rx_next)
        if 0 < ahead < <int32_t>path.reorder.depth:
            _hold(path, s, h.seq, p, h.size)
        else:
            if ahead:
                _skip_to(path, s, h.seq)
            _accept(path, s, p, h.size, -1)
    else:
        _stray(path, s, h, p)


cdef void _stray(data_path *path, session *s, gre_header *h, uint8_t *p) noexcept nogil:
    """Far outside the window. One forged packet must not move it, but a peer that went
    on while the way was cut must get through: some in a row make the new sequence."""
    if s.stray_count and h.seq == s.stray_next:
        s.stray_count += 1
    else:
        s.stray_count = 1
    s.stray_next = h.seq + 1
    if s.stray_count < STRAYS:
        drop(path, s, D_RX_OUT_OF_WINDOW)
        return
    s.stray_count = 0
    while s.held_count:
        reorder_give_up(path, s)
    s.rx_next = h.seq
    s.rx_map = 0
    _accept(path, s, p, h.size, -1)


cdef void _accept(data_path *path, session *s, uint8_t *p, uint32_t n, int32_t slot) noexcept nogil:
    """In order: list it for the next step."""
    cdef in_item *item
    s.rx_next += 1
    s.rx_map = (s.rx_map << 1) | 1
    s.last_rx = path.now
    s.stray_count = 0
    s.unacked += 1
    if not s.ack_listed:
        acks_list(path, s)
    if not s.rx_touched:
        s.rx_touched = True
        path.arrivals.touched[path.arrivals.n_touched] = s
        path.arrivals.n_touched += 1
    if slot >= 0:
        path.reorder.done[path.reorder.n_done] = slot
        path.reorder.n_done += 1
    item = &path.arrivals.items[path.arrivals.n]
    path.arrivals.n += 1
    item.s = s
    item.p = p
    item.n = n
    item.slot = slot


cdef void _hold(data_path *path, session *s, uint32_t seq, uint8_t *p, uint32_t n) noexcept nogil:
    """Early: keep a copy until the gap closes or is given up."""
    cdef int32_t slot
    cdef uint32_t at = seq % HELD
    if s.held == NULL:
        s.held = <int32_t *>calloc(HELD, sizeof(int32_t))
        if s.held == NULL:
            drop(path, s, D_RX_OUT_OF_WINDOW)
            return
    if s.held[at]:
        drop(path, s, D_RX_DUPLICATE)
        return
    if path.reorder.n_free == 0 or n > IN_SIZE:
        drop(path, s, D_RX_OUT_OF_WINDOW)
        return
    path.reorder.n_free -= 1
    slot = path.reorder.free[path.reorder.n_free]
    memcpy(path.reorder.octets + slot * HOLD_SIZE + HOLD_HEAD, p, n)
    path.reorder.size[slot] = n
    path.reorder.seq[slot] = seq
    path.reorder.since[slot] = path.now
    s.held[at] = slot + 1
    s.held_count += 1
    path.count[C_QUEUED] += 1
    path.count[C_REORDERED] += 1
    _hold_list(path, s, path.now + path.reorder.hold_ns)


cdef void _drain(data_path *path, session *s) noexcept nogil:
    """Deliver what is held and in order now."""
    cdef int32_t slot
    cdef uint32_t at
    cdef uint64_t since = path.now
    while s.held_count:
        at = s.rx_next % HELD
        slot = s.held[at] - 1
        if slot < 0 or path.reorder.seq[slot] != s.rx_next:
            break
        s.held[at] = 0
        s.held_count -= 1
        path.count[C_QUEUED] -= 1
        _accept(path, s, path.reorder.octets + slot * HOLD_SIZE + HOLD_HEAD,
                path.reorder.size[slot], slot)
    _hold_unlist(path, s)
    if s.held_count:
        # The next gap's time runs since the first packet behind it came, not from now:
        # else nobody would know how long the last of several gaps stops its packets.
        for at in range(HELD):
            if s.held[at] and path.reorder.since[s.held[at] - 1] < since:
                since = path.reorder.since[s.held[at] - 1]
        _hold_list(path, s, since + path.reorder.hold_ns)


cdef void _skip_to(data_path *path, session *s, uint32_t seq) noexcept nogil:
    cdef uint32_t lost = seq - s.rx_next
    path.count[C_GRE_LOST] += lost
    s.r.gre_lost += lost
    s.rx_map = s.rx_map << lost if lost < 64 else 0
    s.rx_next = seq


cdef void reorder_give_up(data_path *path, session *s) noexcept nogil:
    """Do not wait any longer for the oldest gap: go on with the first that is held."""
    cdef uint32_t i
    cdef int32_t slot
    if not s.held_count:
        _hold_unlist(path, s)
        return
    for i in range(1, path.reorder.depth):
        slot = s.held[(s.rx_next + i) % HELD] - 1
        if slot >= 0:
            _skip_to(path, s, path.reorder.seq[slot])
            break
    _drain(path, s)


cdef void reorder_forget(data_path *path, session *s) noexcept nogil:
    """The session ends: nothing waits for its gaps any more."""
    cdef uint32_t i
    _hold_unlist(path, s)
    if s.held_count:
        for i in range(HELD):
            if s.held[i]:
                path.reorder.free[path.reorder.n_free] = s.held[i] - 1
                path.reorder.n_free += 1
                s.held[i] = 0
                path.count[D_RX_SESSION_ENDED] += 1
                path.count[C_QUEUED] -= 1
        s.held_count = 0


cdef void _hold_list(data_path *path, session *s, uint64_t due) noexcept nogil:
    """In the order of `due`; where too many are due later, a little late."""
    cdef int32_t before = path.reorder.last
    cdef uint32_t steps = 0
    if s.hold_listed:
        return
    while before != NOBODY and path.t.all[before].hold_due > due:
        if steps == HOLD_STEPS:
            due = path.t.all[before].hold_due
            break
        steps += 1
        before = path.t.all[before].hold_before
    s.hold_listed = True
    s.hold_due = due
    s.hold_before = before
    if before != NOBODY:
        s.hold_after = path.t.all[before].hold_after
        path.t.all[before].hold_after = <int32_t>s.index
    else:
        s.hold_after = path.reorder.first
        path.reorder.first = <int32_t>s.index
    if s.hold_after != NOBODY:
        path.t.all[s.hold_after].hold_before = <int32_t>s.index
    else:
        path.reorder.last = <int32_t>s.index


cdef void _hold_unlist(data_path *path, session *s) noexcept nogil:
    if not s.hold_listed:
        return
    s.hold_listed = False
    if s.hold_before != NOBODY:
        path.t.all[s.hold_before].hold_after = s.hold_after
    else:
        path.reorder.first = s.hold_after
    if s.hold_after != NOBODY:
        path.t.all[s.hold_after].hold_before = s.hold_before
    else:
        path.reorder.last = s.hold_before
