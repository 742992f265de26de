# cython: language_level=3
"""What an inner packet is, seen from its headers, and what filters and exemptions say of it.

`workers/filters.py` compiles both from the configuration into one block of octets, which
all sessions of a worker share: a head, the filters by rising number, their rules, then the
exempt ranges of addresses, disjoint and rising. All values in host order but addresses,
which are octets as they stand in a packet.
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

cdef enum:
    FILTER_UP = 1              # from the subscriber
    FILTER_DOWN = 2
    ANY_PROTOCOL = 256

cdef struct look:
    const uint8_t *source
    const uint8_t *target
    uint16_t protocol
    uint16_t source_port
    uint16_t target_port
    bint six
    bint ports                 # the packet has them: no later fragment, not cut short

cdef struct rule:              # 80 octets
    uint8_t permit
    uint8_t ways               # FILTER_UP, FILTER_DOWN
    uint8_t family             # 0: both, 4, 6
    uint8_t ports              # 1: the rule names source ports, 2: target ports
    uint16_t protocol
    uint16_t source_low, source_high
    uint16_t target_low, target_high
    uint16_t pad
    uint8_t source[16]
    uint8_t target[16]
    uint8_t source_mask[16]
    uint8_t target_mask[16]

cdef struct filter:            # 16 octets
    uint32_t number
    uint32_t first             # of its rules
    uint32_t rules
    uint32_t permits           # what no rule says

cdef struct range_four:        # 8 octets
    uint8_t low[4]
    uint8_t high[4]

cdef struct range_six:         # 32 octets
    uint8_t low[16]
    uint8_t high[16]

cdef struct rule_book:
    uint8_t *block             # owns all of it
    uint32_t n_filters, n_rules, n_four, n_six
    filter *filters
    rule *rules
    range_four *four
    range_six *six

cdef bint book_open(rule_book *b, const uint8_t *data, size_t n) noexcept nogil
cdef void book_close(rule_book *b) noexcept nogil
cdef filter *book_find(rule_book *b, uint32_t number) noexcept nogil
cdef bint book_exempts(rule_book *b, const uint8_t *address, bint six) noexcept nogil
cdef bint look_at(look *l, const uint8_t *ip, uint32_t n) noexcept nogil
cdef bint filter_permits(rule_book *b, filter *f, look *l, uint8_t way) noexcept nogil
cdef uint32_t look_flow(look *l, uint64_t seed) noexcept nogil
