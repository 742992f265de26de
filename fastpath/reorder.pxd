# cython: language_level=3
"""The order of a session's packets (RFC 2637 section 4.3): what is early is kept for a while.

A session has HELD places, by sequence number; the packets lie in a pool of all sessions.
"""

from libc.stdint cimport uint8_t

from fastpath.gre cimport gre_header
from fastpath.path cimport data_path
from fastpath.tables cimport session

cdef enum:
    HELD = 64                  # places of a session: divides 2 ** 32

cdef bint reorder_open(data_path *path) noexcept nogil
cdef void reorder_close(data_path *path) noexcept nogil
cdef void reorder_take(data_path *path, session *s, gre_header *h, uint8_t *p) noexcept nogil
cdef void reorder_give_up(data_path *path, session *s) noexcept nogil
cdef void reorder_forget(data_path *path, session *s) noexcept nogil
