# cython: language_level=3
"""PPP frames from subscribers: protocol, what is data, what is answered here or above."""

from fastpath.path cimport data_path

cdef void frames_open(data_path *path) noexcept nogil
