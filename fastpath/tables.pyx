# cython: language_level=3
"""Indexes of the data thread's sessions: see tables.pxd."""

from libc.stdint cimport int32_t, uint32_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memset


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
            if t.all[i].limited != NULL:
                free(t.all[i].limited.up)
                free(t.all[i].limited.down)
                free(t.all[i].limited)
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
