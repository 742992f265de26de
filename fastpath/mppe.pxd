# cython: language_level=3
"""MPPE (RFC 3078): key changes and RC4 over batches. The caller owns all buffers."""

from libc.stdint cimport int32_t, uint8_t, uint32_t

cdef enum:
    MPPE_A = 0x8000            # flushed: the key was changed before this packet
    MPPE_B = 0x4000
    MPPE_C = 0x2000            # MPPC compressed
    MPPE_D = 0x1000            # encrypted
    MPPE_COUNT = 0x0FFF
    LANES = 6                  # streams, or chains, in step
    ORDERED = 256              # jobs put in order of size at a time

cdef struct rc4_state:
    uint8_t s[256]
    uint8_t x
    uint8_t y
    uint8_t pad[6]             # 264 octets apart: other lanes' tables fall into other sets

cdef struct crypt_job:
    uint8_t *data
    uint32_t size
    uint32_t key_size          # 8 or 16; 0: the stream goes on with its old key
    uint8_t key[16]
    rc4_state *stream          # stateful: the session's stream; NULL: a stream of its own
    uint32_t changes           # of the chain's key before this packet
    int32_t next               # job of the same chain, or -1

cdef struct key_chain:
    void *owner                # a session's direction
    const uint8_t *start
    uint8_t *key               # changed in place
    uint32_t bits
    int32_t first, last        # jobs in order
    uint32_t changes           # that the jobs need, together

cdef uint32_t key_size(uint32_t bits) noexcept nogil
cdef void first_key(const uint8_t *start, uint32_t bits, uint8_t *key) noexcept nogil
cdef void next_key(const uint8_t *start, uint32_t bits, uint8_t *key) noexcept nogil
cdef void chain_add(key_chain *c, crypt_job *jobs, int32_t job, uint32_t changes) noexcept nogil
cdef void run_chains(key_chain *chains, uint32_t n, crypt_job *jobs) noexcept nogil
cdef void crypt(crypt_job *jobs, uint32_t n) noexcept nogil
cdef void rc4_key(rc4_state *r, const uint8_t *key, uint32_t size) noexcept nogil


cdef inline void chain_begin(key_chain *c, void *owner, const uint8_t *start, uint8_t *key,
                             uint32_t bits) noexcept nogil:
    c.owner = owner
    c.start = start
    c.key = key
    c.bits = bits
    c.first = -1
