# cython: language_level=3
"""Indexes of the data thread's sessions: see tables.pxd."""

from libc.stdint cimport int32_t, uint8_t, uint32_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memset

from fastpath.layout cimport NETS_MAX, net_list
from fastpath.networks cimport (
    networks_add, networks_close, networks_open, networks_remove, prefix, prefix_holds, prefix_of)


cdef bint tables_open(tables *t, uint32_t capacity) noexcept nogil:
    """Room for `capacity` sessions; False when memory is short."""
    cdef uint32_t size = 1024
    while size < capacity:
        size *= 2
    t.capacity = capacity
    t.inner_mask = size - 1
    t.top = 0
    t.all = <session *>calloc(capacity, sizeof(session))
    t.by_inner = <int32_t *>malloc(size * sizeof(int32_t))
    t.by_six = <int32_t *>malloc(size * sizeof(int32_t))
    if t.all == NULL or t.by_inner == NULL or t.by_six == NULL:
        return False
    networks_open(&t.nets)
    memset(t.by_six, 0xFF, size * sizeof(int32_t))
    memset(t.by_inner, 0xFF, size * sizeof(int32_t))
    memset(t.by_call, 0xFF, sizeof(t.by_call))
    return True


cdef void tables_close(tables *t) noexcept nogil:
    cdef uint32_t i
    if t.all != NULL:
        for i in range(t.top):
            free(t.all[i].held)
            free(t.all[i].rx_stream)
            free(t.all[i].tx_stream)
            free(t.all[i].nets)
            if t.all[i].limited != NULL:
                free(t.all[i].limited.up)
                free(t.all[i].limited.down)
                free(t.all[i].limited)
    networks_close(&t.nets)
    free(t.all)
    free(t.by_inner)
    free(t.by_six)
    t.all = NULL
    t.by_inner = NULL
    t.by_six = NULL


cdef void tables_add(tables *t, session *s) noexcept nogil:
    """Into the chain of its call ID."""
    s.next_call = t.by_call[s.call_id]
    t.by_call[s.call_id] = <int32_t>s.index
    if s.index >= t.top:
        t.top = s.index + 1


cdef void tables_remove(tables *t, session *s) noexcept nogil:
    cdef int32_t *at = &t.by_call[s.call_id]
    while at[0] != NOBODY:
        if at[0] == <int32_t>s.index:
            at[0] = s.next_call
            return
        at = &t.all[at[0]].next_call


cdef void tables_add_inner(tables *t, session *s) noexcept nogil:
    cdef uint32_t at = _spread(t, s.inner)
    s.next_inner = t.by_inner[at]
    t.by_inner[at] = <int32_t>s.index


cdef void tables_remove_inner(tables *t, session *s) noexcept nogil:
    cdef int32_t *at = &t.by_inner[_spread(t, s.inner)]
    while at[0] != NOBODY:
        if at[0] == <int32_t>s.index:
            at[0] = s.next_inner
            return
        at = &t.all[at[0]].next_inner


cdef void tables_add_six(tables *t, session *s) noexcept nogil:
    cdef uint32_t at = _spread(t, s.iid)
    s.next_six = t.by_six[at]
    t.by_six[at] = <int32_t>s.index


cdef void tables_remove_six(tables *t, session *s) noexcept nogil:
    cdef int32_t *at = &t.by_six[_spread(t, s.iid)]
    while at[0] != NOBODY:
        if at[0] == <int32_t>s.index:
            at[0] = s.next_six
            return
        at = &t.all[at[0]].next_six


cdef bint tables_set_nets(tables *t, session *s, const net_list *found,
                          uint32_t n) noexcept nogil:
    """These networks instead of what the session had; `n` 0: none. False: memory is short, and
    some are left out."""
    cdef uint32_t i
    cdef prefix *kept
    for i in range(s.n_nets):
        networks_remove(&t.nets, &s.nets[i], <int32_t>s.index)
    s.n_nets = 0
    if n == 0:
        free(s.nets)
        s.nets = NULL
        return True
    if n > NETS_MAX:
        n = NETS_MAX
    if s.nets == NULL:
        s.nets = <prefix *>malloc(NETS_MAX * sizeof(prefix))
        if s.nets == NULL:
            return False
    for i in range(n):
        kept = &s.nets[s.n_nets]
        if found.all[i].length > (32 if found.all[i].family == 4 else 128):
            continue
        prefix_of(kept, found.all[i].family, found.all[i].prefix, found.all[i].length)
        if not networks_add(&t.nets, kept, <int32_t>s.index):
            return False
        s.n_nets += 1
    return True


cdef bint session_has(const session *s, uint8_t family, const uint8_t *address) noexcept nogil:
    """Whether an address lies in one of the session's networks."""
    cdef prefix whole
    cdef uint32_t i
    if s.n_nets == 0:
        return False
    prefix_of(&whole, family, address, 32 if family == 4 else 128)
    for i in range(s.n_nets):
        if prefix_holds(&s.nets[i], &whole):
            return True
    return False
