# cython: language_level=3
"""The data thread's loop: who is looked at, and when it sleeps."""

from fastpath.path cimport data_path

cdef void loop_run(data_path *path) noexcept nogil
