# cython: language_level=3
"""Filters, exempt destinations and flows of inner packets: see filter.pxd."""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcmp, memcpy, memset

from fastpath.wire cimport be16

cdef enum:
    HEAD = 16
    TCP = 6
    UDP = 17
    DCCP = 33
    SCTP = 132
    UDPLITE = 136
    HOP_BY_HOP = 0
    ROUTING = 43
    FRAGMENT = 44
    AUTHENTICATION = 51
    DESTINATION = 60

assert sizeof(rule) == 80 and sizeof(filter) == 16
assert sizeof(range_four) == 8 and sizeof(range_six) == 32


# -- the block


cdef bint book_open(rule_book *b, const uint8_t *data, size_t n) noexcept nogil:
    """Copy a block; False if memory is short or its sizes and order do not fit."""
    cdef uint32_t i
    cdef uint64_t need
    memset(b, 0, sizeof(rule_book))
    if n < HEAD:
        return False
    memcpy(&b.n_filters, data, 4)
    memcpy(&b.n_rules, data + 4, 4)
    memcpy(&b.n_four, data + 8, 4)
    memcpy(&b.n_six, data + 12, 4)
    need = HEAD + (<uint64_t>b.n_filters * sizeof(filter) + <uint64_t>b.n_rules * sizeof(rule)
                   + <uint64_t>b.n_four * sizeof(range_four)
                   + <uint64_t>b.n_six * sizeof(range_six))
    if need != n:
        return False
    b.block = <uint8_t *>malloc(n)
    if b.block == NULL:
        return False
    memcpy(b.block, data, n)
    b.filters = <filter *>(b.block + HEAD)
    b.rules = <rule *>(b.filters + b.n_filters)
    b.four = <range_four *>(b.rules + b.n_rules)
    b.six = <range_six *>(b.four + b.n_four)
    for i in range(b.n_filters):
        if (<uint64_t>b.filters[i].first + b.filters[i].rules > b.n_rules
                or b.filters[i].number == 0
                or (i and b.filters[i].number <= b.filters[i - 1].number)):
            book_close(b)
            return False
    return True


cdef void book_close(rule_book *b) noexcept nogil:
    free(b.block)
    memset(b, 0, sizeof(rule_book))


cdef filter *book_find(rule_book *b, uint32_t number) noexcept nogil:
    """The filter of that number, or NULL."""
    cdef uint32_t low = 0, high = b.n_filters, middle
    while low < high:
        middle = (low + high) // 2
        if b.filters[middle].number < number:
            low = middle + 1
        else:
            high = middle
    if low < b.n_filters and b.filters[low].number == number:
        return &b.filters[low]
    return NULL


cdef bint book_exempts(rule_book *b, const uint8_t *address, bint six) noexcept nogil:
    """Whether an address lies in one of the ranges."""
    cdef uint32_t size = 16 if six else 4
    cdef uint32_t step = 2 * size
    cdef const uint8_t *ranges = <const uint8_t *>b.six if six else <const uint8_t *>b.four
    cdef uint32_t low = 0, high = b.n_six if six else b.n_four, middle
    while low < high:
        middle = (low + high) // 2
        if memcmp(address, ranges + middle * step, size) < 0:
            high = middle
        else:
            low = middle + 1
    return low > 0 and memcmp(address, ranges + (low - 1) * step + size, size) <= 0


# -- the packet


cdef bint look_at(look *l, const uint8_t *ip, uint32_t n) noexcept nogil:
    """False if n octets are no IP packet. A later fragment has no ports; so has one that is
    too short for them."""
    cdef uint32_t at
    cdef uint8_t next_header
    cdef bint later = False
    l.ports = False
    l.source_port = l.target_port = 0
    l.six = n > 0 and (ip[0] >> 4) == 6
    if l.six:
        if n < 40:
            return False
        l.source = ip + 8
        l.target = ip + 24
        next_header = ip[6]
        at = 40
        # All of them: a rule must not be passed by with one header more than we look at.
        while at + 8 <= n and not later:
            if (next_header == HOP_BY_HOP or next_header == ROUTING
                    or next_header == DESTINATION):
                next_header = ip[at]
                at += (<uint32_t>ip[at + 1] + 1) * 8
            elif next_header == AUTHENTICATION:
                next_header = ip[at]
                at += (<uint32_t>ip[at + 1] + 2) * 4
            elif next_header == FRAGMENT:
                next_header = ip[at]
                later = (be16(ip + at + 2) & 0xFFF8) != 0
                at += 8
            else:
                break
        l.protocol = next_header
    else:
        if n < 20 or (ip[0] >> 4) != 4:
            return False
        l.source = ip + 12
        l.target = ip + 16
        l.protocol = ip[9]
        at = (ip[0] & 15) * 4
        if at < 20:
            return False
        later = (be16(ip + 6) & 0x1FFF) != 0
    if (l.protocol == TCP or l.protocol == UDP or l.protocol == SCTP or l.protocol == DCCP
            or l.protocol == UDPLITE) and not later and at + 4 <= n:
        l.source_port = be16(ip + at)
        l.target_port = be16(ip + at + 2)
        l.ports = True
    return True


cdef inline bint _lies_in(const uint8_t *address, const uint8_t *prefix, const uint8_t *mask,
                          bint six) noexcept nogil:
    cdef uint32_t a, p, m
    cdef uint64_t a8, p8, m8
    if not six:
        memcpy(&a, address, 4)
        memcpy(&p, prefix, 4)
        memcpy(&m, mask, 4)
        return (a & m) == p
    memcpy(&a8, address, 8)
    memcpy(&p8, prefix, 8)
    memcpy(&m8, mask, 8)
    if (a8 & m8) != p8:
        return False
    memcpy(&a8, address + 8, 8)
    memcpy(&p8, prefix + 8, 8)
    memcpy(&m8, mask + 8, 8)
    return (a8 & m8) == p8


cdef bint filter_permits(rule_book *b, filter *f, look *l, uint8_t way) noexcept nogil:
    """The first rule that fits decides; a rule with ports fits no packet without them."""
    cdef uint32_t i
    cdef rule *r
    for i in range(f.first, f.first + f.rules):
        r = &b.rules[i]
        if not r.ways & way or (r.family and r.family != (6 if l.six else 4)):
            continue
        if r.protocol != ANY_PROTOCOL and r.protocol != l.protocol:
            continue
        if r.ports:
            if not l.ports:
                continue
            if r.ports & 1 and not r.source_low <= l.source_port <= r.source_high:
                continue
            if r.ports & 2 and not r.target_low <= l.target_port <= r.target_high:
                continue
        if (r.family == 0 or (_lies_in(l.source, r.source, r.source_mask, l.six)
                              and _lies_in(l.target, r.target, r.target_mask, l.six))):
            return r.permit != 0
    return f.permits != 0


cdef uint32_t look_flow(look *l, uint64_t seed) noexcept nogil:
    """A number for the packet's flow; all fragments of a datagram but the first have one."""
    cdef uint64_t h = seed ^ l.protocol, word
    cdef uint32_t i, four
    if l.six:
        for i in range(4):
            memcpy(&word, l.source + 8 * i, 8)
            h = (h ^ word) * 0x9E3779B97F4A7C15ULL
            h ^= h >> 29
    else:
        memcpy(&word, l.source, 8)
        h = (h ^ word) * 0x9E3779B97F4A7C15ULL
        h ^= h >> 29
    if l.ports:
        four = (<uint32_t>l.source_port << 16) | l.target_port
        h ^= four
    h *= 0xBF58476D1CE4E5B9ULL
    return <uint32_t>(h >> 40)


# -- for tests


cdef class Book:
    """See filter.pyi."""

    cdef rule_book b

    def __cinit__(self, bytes block not None):
        if not book_open(&self.b, <const uint8_t *><const char *>block, len(block)):
            raise ValueError("no filters")

    def __dealloc__(self):
        book_close(&self.b)

    def permits(self, uint32_t number, bytes packet not None, bint up):
        cdef look l
        cdef filter *f = book_find(&self.b, number)
        if f == NULL:
            raise KeyError(number)
        if not look_at(&l, <const uint8_t *><const char *>packet, <uint32_t>len(packet)):
            raise ValueError("no IP packet")
        return bool(filter_permits(&self.b, f, &l, FILTER_UP if up else FILTER_DOWN))

    def exempts(self, bytes address not None):
        if len(address) not in (4, 16):
            raise ValueError(f"address of {len(address)} octets")
        return bool(book_exempts(&self.b, <const uint8_t *><const char *>address,
                                 len(address) == 16))


def flow(bytes packet not None, uint64_t seed=0):
    """The flow's number; ValueError if it is no IP packet."""
    cdef look l
    if not look_at(&l, <const uint8_t *><const char *>packet, <uint32_t>len(packet)):
        raise ValueError("no IP packet")
    return look_flow(&l, seed)
