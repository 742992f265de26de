# cython: language_level=3
"""Allowed and denied addresses: see peers.pxd."""

from libc.stdint cimport uint8_t, uint32_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset


cdef bint peers_open(peers *p, const uint8_t *data, size_t n) noexcept nogil:
    """Copy a block and index it; False, and nothing held, if it is none or memory is short."""
    cdef uint32_t i, octet
    cdef uint32_t first
    memset(p, 0, sizeof(peers))
    if n < 8 or n % 4 or n > 1 << 28:
        return False
    p.block = <uint8_t *>malloc(n)
    if p.block == NULL:
        return False
    memcpy(p.block, data, n)
    memcpy(&first, p.block, 4)
    p.odd = 1 if first else 0
    p.starts = <uint32_t *>(p.block + 4)
    p.n = <uint32_t>(n // 4 - 1)
    if p.starts[0] != 0:
        peers_close(p)
        return False
    for i in range(1, p.n):
        if p.starts[i] <= p.starts[i - 1]:
            peers_close(p)
            return False
    i = 0
    for octet in range(256):
        while i + 1 < p.n and p.starts[i + 1] <= octet << 24:
            i += 1
        p.within[octet] = i
    p.within[256] = p.n - 1
    return True


cdef void peers_close(peers *p) noexcept nogil:
    free(p.block)
    memset(p, 0, sizeof(peers))


cdef class Peers:
    """The table by itself, for tests: see peers.pyi."""

    cdef peers p

    def __cinit__(self, bytes block not None):
        if not peers_open(&self.p, <const uint8_t *><const char *>block, len(block)):
            raise ValueError("no ranges of addresses")

    def __dealloc__(self):
        peers_close(&self.p)

    def allowed(self, uint32_t address):
        return bool(peers_allow(&self.p, address))
