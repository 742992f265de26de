# cython: language_level=3
"""From the TUN to subscribers: whose a packet is, its segments, its session's turn."""

from fastpath.path cimport data_path
from fastpath.tables cimport session

cdef bint downlink_read(data_path *path) noexcept nogil
cdef void downlink_forget(data_path *path, session *s) noexcept nogil
