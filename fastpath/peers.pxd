# cython: language_level=3
"""Who may send GRE: the ranges of `listen.allow` and `listen.deny`, as ops/peers.py flattens them.

A block of octets: whether the first range is allowed (uint32), then where each range begins
(uint32, host order, the first is 0). Ranges next to each other differ, so a range's number
says whether it is allowed. Asked before a packet's call is looked up.
"""

from libc.stdint cimport uint8_t, uint32_t

cdef struct peers:
    uint8_t *block             # owns all of it
    uint32_t *starts
    uint32_t n
    uint32_t odd               # 1: ranges of even number are allowed
    uint32_t within[257]       # the range that the first address with this first octet lies in

cdef bint peers_open(peers *p, const uint8_t *data, size_t n) noexcept nogil
cdef void peers_close(peers *p) noexcept nogil


cdef inline bint peers_allow(const peers *p, uint32_t address) noexcept nogil:
    """Whether an address (host order) may send us anything."""
    cdef uint32_t low = p.within[address >> 24]
    cdef uint32_t high = p.within[(address >> 24) + 1]
    cdef uint32_t middle
    while low < high:
        middle = (low + high + 1) // 2
        if p.starts[middle] <= address:
            low = middle
        else:
            high = middle - 1
    return (low + p.odd) & 1
