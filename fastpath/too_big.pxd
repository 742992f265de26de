# cython: language_level=3
"""ICMP and ICMPv6 about packets over a session's MTU."""

from libc.stdint cimport uint8_t, uint32_t

from fastpath.path cimport data_path
from fastpath.tables cimport session

cdef void too_big_tell(data_path *path, session *s, const uint8_t *ip, uint32_t n) noexcept nogil
