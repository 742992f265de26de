# cython: language_level=3
"""Which sessions owe their peer an acknowledgement, and since when (RFC 2637 section 4.1).

All wait equally long, so a list in the order of entry is one in the order of time.
"""

from libc.stdint cimport int32_t

from fastpath.path cimport data_path
from fastpath.tables cimport NOBODY, session

cdef void acks_early(data_path *path) noexcept nogil
cdef void acks_due(data_path *path) noexcept nogil


cdef inline void acks_list(data_path *path, session *s) noexcept nogil:
    if s.ack_listed:
        return
    s.ack_listed = True
    s.ack_due = path.now + path.owed.delay_ns
    s.ack_before = path.owed.last
    s.ack_after = NOBODY
    if path.owed.last != NOBODY:
        path.t.all[path.owed.last].ack_after = <int32_t>s.index
    else:
        path.owed.first = <int32_t>s.index
    path.owed.last = <int32_t>s.index


cdef inline void acks_unlist(data_path *path, session *s) noexcept nogil:
    s.unacked = 0
    if not s.ack_listed:
        return
    s.ack_listed = False
    if s.ack_before != NOBODY:
        path.t.all[s.ack_before].ack_after = s.ack_after
    else:
        path.owed.first = s.ack_after
    if s.ack_after != NOBODY:
        path.t.all[s.ack_after].ack_before = s.ack_before
    else:
        path.owed.last = s.ack_before
