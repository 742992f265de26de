# cython: language_level=3
"""Rates and filters of sessions that have any: see shaper.pxd and filter.pxd for what they are."""

from libc.stdint cimport uint8_t, uint32_t

from fastpath.path cimport data_path
from fastpath.tables cimport session
from fastpath.tun cimport segmenter

cdef bint limits_open(data_path *path) noexcept nogil
cdef void limits_close(data_path *path) noexcept nogil
cdef void limits_set(data_path *path, session *s) noexcept nogil
cdef void limits_set_filters(data_path *path, const uint8_t *data) noexcept nogil
cdef void limits_empty(data_path *path, session *s) noexcept nogil
cdef void limits_remove(data_path *path, session *s) noexcept nogil
cdef bint limits_up(data_path *path, session *s, const uint8_t *p, uint32_t n) noexcept nogil
cdef bint limits_down(data_path *path, session *s, segmenter *g) noexcept nogil
cdef void limits_serve_due(data_path *path) noexcept nogil
