# cython: language_level=3
"""Acknowledgements that no data carries: see acks.pxd."""

from libc.stdint cimport uint32_t

from fastpath.output cimport output_ack
from fastpath.path cimport data_path
from fastpath.tables cimport NOBODY, session


cdef void acks_early(data_path *path) noexcept nogil:
    """A sender that honours our window must not wait: acknowledge before it is used up."""
    cdef uint32_t i
    cdef session *s
    for i in range(path.arrivals.n):
        s = path.arrivals.items[i].s
        if s.ack_listed and s.unacked >= s.ack_every:
            acks_unlist(path, s)
            s.unacked = 1
            output_ack(path, s)


cdef void acks_due(data_path *path) noexcept nogil:
    """Of those who have waited for data in vain."""
    cdef session *s
    while path.owed.first != NOBODY:
        s = &path.t.all[path.owed.first]
        if s.ack_due > path.now:
            break
        acks_unlist(path, s)
        s.unacked = 1
        output_ack(path, s)
