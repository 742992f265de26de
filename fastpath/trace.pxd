# cython: language_level=3
"""Frames of sessions that somebody traces, told to the control thread."""

from libc.stdint cimport uint8_t, uint32_t

from fastpath.path cimport data_path, out_item
from fastpath.tables cimport session

cdef void trace_frame(data_path *path, session *s, uint32_t protocol, const uint8_t *p,
                      uint32_t n) noexcept nogil
cdef void trace_packet(data_path *path, session *s, const uint8_t *p, uint32_t n,
                       bint encrypted) noexcept nogil
cdef void trace_sent(data_path *path, out_item *o) noexcept nogil
