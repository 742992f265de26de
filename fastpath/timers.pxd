# cython: language_level=3
"""What is done because its time has come."""

from fastpath.path cimport data_path

cdef void timers_run(data_path *path) noexcept nogil
