# cython: language_level=3
"""Octets in network order and the Internet checksum (RFC 1071), inline for all modules."""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy

cdef extern from "sum.h" nogil:
    uint64_t sum_words(const uint8_t *p, size_t n)
    uint64_t copy_sum_words(uint8_t *to, const uint8_t *p, size_t n)


cdef inline uint16_t be16(const uint8_t *p) noexcept nogil:
    return <uint16_t>((p[0] << 8) | p[1])


cdef inline uint32_t be32(const uint8_t *p) noexcept nogil:
    return (<uint32_t>p[0] << 24) | (<uint32_t>p[1] << 16) | (<uint32_t>p[2] << 8) | p[3]


cdef inline void put16(uint8_t *p, uint32_t v) noexcept nogil:
    p[0] = <uint8_t>(v >> 8)
    p[1] = <uint8_t>v


cdef inline void put32(uint8_t *p, uint32_t v) noexcept nogil:
    p[0] = <uint8_t>(v >> 24)
    p[1] = <uint8_t>(v >> 16)
    p[2] = <uint8_t>(v >> 8)
    p[3] = <uint8_t>v


cdef inline uint32_t fold(uint64_t total) noexcept nogil:
    """A sum of 16- or 32-bit words down to 16 bits."""
    total = (total & 0xFFFFFFFFULL) + (total >> 32)
    total = (total & 0xFFFFFFFFULL) + (total >> 32)
    total = (total & 0xFFFF) + (total >> 16)
    total = (total & 0xFFFF) + (total >> 16)
    return <uint32_t>total


cdef inline uint32_t sum16(const uint8_t *p, size_t n) noexcept nogil:
    """Sum of big-endian 16-bit words, not inverted; an odd last octet is the high one.

    Adds native 32-bit words and swaps once at the end: the sum does not care (RFC 1071 2B).
    """
    cdef uint64_t a = 0, b = 0
    cdef uint32_t w0, w1, folded
    cdef uint16_t half
    cdef size_t large = n & ~<size_t>31
    if n >= 128:
        a = sum_words(p, large)
        p += large
        n -= large
    while n >= 8:
        memcpy(&w0, p, 4)
        memcpy(&w1, p + 4, 4)
        a += w0
        b += w1
        p += 8
        n -= 8
    while n >= 2:
        memcpy(&half, p, 2)
        a += half
        p += 2
        n -= 2
    if n:
        a += p[0]
    folded = fold(a + b)
    return ((folded & 0xFF) << 8) | (folded >> 8)


cdef inline uint32_t copy_sum16(uint8_t *to, const uint8_t *p, size_t n) noexcept nogil:
    """`sum16` of n octets, which are copied by the way."""
    cdef size_t large = n & ~<size_t>31
    cdef uint32_t folded = fold(copy_sum_words(to, p, large))
    memcpy(to + large, p + large, n - large)
    return (((folded & 0xFF) << 8) | (folded >> 8)) + sum16(p + large, n - large)


cdef inline uint16_t checksum(const uint8_t *p, size_t n, uint32_t start) noexcept nogil:
    """The Internet checksum of n octets on top of `start` (a sum16)."""
    return <uint16_t>~fold(<uint64_t>sum16(p, n) + start)


cdef inline uint32_t pseudo(const uint8_t *ip, uint32_t protocol, uint32_t size) noexcept nogil:
    """Sum of the pseudo header of TCP and UDP (RFC 793 section 3.1, RFC 8200 8.1)."""
    if (ip[0] >> 4) == 6:
        return sum16(ip + 8, 32) + protocol + size
    return sum16(ip + 12, 8) + protocol + size
