# cython: language_level=3
"""Inner packets of a batch: whether they are the subscriber's to send, then to the TUN."""

from fastpath.path cimport data_path

cdef void delivery_write(data_path *path) noexcept nogil
