# cython: language_level=3
"""GRE from subscribers: a batch of packets from the socket, each to its session."""

from libc.stdint cimport uint32_t

from fastpath.path cimport data_path

cdef bint arrivals_open(data_path *path) noexcept nogil
cdef void arrivals_close(data_path *path) noexcept nogil
cdef bint arrivals_rings(data_path *path) noexcept nogil
cdef bint arrivals_read(data_path *path) noexcept nogil
cdef void arrivals_late(data_path *path) noexcept nogil
