# cython: language_level=3
"""Which session has a prefix: the longest one that an address lies in.

One hash table for both families, keyed by (family, length, prefix); a look-up tries the lengths
that are in use, the longest first. Most boxes use two or three (/64, a delegated one), and
sessions' own IPv4 addresses are not in here: `tables_by_inner` finds those before.
"""

from libc.stdint cimport int32_t, uint8_t, uint32_t, uint64_t

cdef struct prefix:
    uint64_t high, low         # host order; IPv4: the upper half of `high`
    uint8_t family, length

cdef struct network:
    prefix of
    int32_t owner              # a session's index
    int32_t next               # of its chain, or of the free ones

cdef struct networks:
    network *all
    int32_t *chains
    uint32_t size              # of both, a power of two
    uint32_t count
    int32_t free
    uint32_t used4[33]         # networks of each length
    uint32_t used6[129]
    uint8_t lengths4[33]       # those in use, the longest first
    uint8_t lengths6[129]
    uint32_t n4, n6

cdef void networks_open(networks *t) noexcept nogil
cdef void networks_close(networks *t) noexcept nogil
cdef bint networks_add(networks *t, const prefix *of, int32_t owner) noexcept nogil
cdef void networks_remove(networks *t, const prefix *of, int32_t owner) noexcept nogil
cdef int32_t networks_find(const networks *t, uint8_t family,
                           const uint8_t *address) noexcept nogil
cdef void prefix_of(prefix *into, uint8_t family, const uint8_t *octets,
                    uint8_t length) noexcept nogil
cdef bint prefix_holds(const prefix *p, const prefix *address) noexcept nogil
