# cython: language_level=3
"""What ends a session that is up: its time, idleness, volume."""

from fastpath.path cimport data_path
from fastpath.tables cimport session

cdef void bounds_look(data_path *path, session *s) noexcept nogil
