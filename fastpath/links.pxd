# cython: language_level=3
"""Sessions of the data thread come, go up and down, and go; and those a predecessor left."""

from libc.stdint cimport uint8_t, uint32_t

from fastpath.path cimport data_path
from fastpath.tables cimport session

cdef bint links_left(data_path *path, uint32_t index) noexcept nogil
cdef void links_resume(data_path *path, uint32_t index) noexcept nogil
cdef void links_account(data_path *path) noexcept nogil
cdef void links_install(data_path *path, uint32_t index, uint32_t generation) noexcept nogil
cdef void links_set_mppe(data_path *path, session *s, const uint8_t *data) noexcept nogil
cdef void links_up(data_path *path, session *s) noexcept nogil
cdef void links_set_nets(data_path *path, session *s) noexcept nogil
cdef void links_six_up(data_path *path, session *s) noexcept nogil
cdef void links_six_down(data_path *path, session *s) noexcept nogil
cdef void links_remove(data_path *path, session *s) noexcept nogil
cdef void links_down(data_path *path, session *s) noexcept nogil
