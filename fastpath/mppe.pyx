# cython: language_level=3
"""MPPE: RC4, SHA-1 and the key changes of RFC 3078 section 7, for batches of packets.

The packets of a batch are independent RC4 streams; six at a time keep the core's load and
store units busy while one stream alone waits for its own table. (2 cores of Zen 4, 1400
octets: one stream 1900 ns, two in C 1400, six 950; OpenSSL's assembler 1500.) The slow, obvious
twin is workers/ppp/mppe_twin.py.
"""

from libc.stdint cimport int32_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

from fastpath.wire cimport be32, put32

cdef extern from "sha1_ni.h" nogil:
    int sha1_ni_usable()
    void sha1_ni_blocks(uint32_t *state, const uint8_t *data, unsigned blocks)

cdef extern from "rc4_lanes.h" nogil:
    enum:
        RC4_STREAM
    int rc4_lanes_usable()
    void rc4_six(void *tables, uint8_t *streams, uint64_t n)
    void rc4_four(void *tables, uint8_t *streams, uint64_t n)
    void rc4_two(void *tables, uint8_t *p, uint8_t *q, uint32_t n)
    void rc4_key_three(void *tables, const uint8_t *k0, uint32_t m0, const uint8_t *k1,
                       uint32_t m1, const uint8_t *k2, uint32_t m2, const uint8_t *identity)
    void xor_stream(uint8_t *data, const uint8_t *stream, uint32_t n)

ctypedef void (*sha1_function)(uint32_t *state, const uint8_t *data, unsigned blocks) noexcept nogil

cdef sha1_function sha1_blocks = sha1_portable
cdef bint six_lanes = rc4_lanes_usable()


cdef inline uint32_t rol(uint32_t v, int n) noexcept nogil:
    return (v << n) | (v >> (32 - n))


cdef void sha1_portable(uint32_t *state, const uint8_t *data, unsigned blocks) noexcept nogil:
    """FIPS 180-4 section 6.1.2, word for word."""
    cdef uint32_t w[80]
    cdef uint32_t a, b, c, d, e, t
    cdef int i
    while blocks:
        for i in range(16):
            w[i] = be32(data + 4 * i)
        for i in range(16, 80):
            w[i] = rol(w[i - 3] ^ w[i - 8] ^ w[i - 14] ^ w[i - 16], 1)
        a = state[0]
        b = state[1]
        c = state[2]
        d = state[3]
        e = state[4]
        for i in range(80):
            if i < 20:
                t = ((b & c) | (~b & d)) + 0x5A827999U
            elif i < 40:
                t = (b ^ c ^ d) + 0x6ED9EBA1U
            elif i < 60:
                t = ((b & c) | (b & d) | (c & d)) + 0x8F1BBCDCU
            else:
                t = (b ^ c ^ d) + 0xCA62C1D6U
            t = t + rol(a, 5) + e + w[i]
            e = d
            d = c
            c = rol(b, 30)
            b = a
            a = t
        state[0] += a
        state[1] += b
        state[2] += c
        state[3] += d
        state[4] += e
        data += 64
        blocks -= 1


cdef void sha1_by_instruction(uint32_t *state, const uint8_t *data,
                              unsigned blocks) noexcept nogil:
    sha1_ni_blocks(state, data, blocks)


cdef uint32_t key_size(uint32_t bits) noexcept nogil:
    return 16 if bits == 128 else 8


cdef void sha_key(const uint8_t *start, const uint8_t *key, uint32_t size,
                  uint8_t *out) noexcept nogil:
    """GetNewKeyFromSHA, RFC 3079 section 3: SHA(start, 40 zeros, key, 40 times f2)."""
    cdef uint8_t block[128]
    cdef uint32_t state[5]
    cdef uint8_t digest[20]
    cdef int i
    memcpy(block, start, size)
    memset(block + size, 0, 40)
    memcpy(block + size + 40, key, size)
    memset(block + 2 * size + 40, 0xF2, 40)
    memset(block + 2 * size + 80, 0, 128 - 2 * size - 80)
    block[2 * size + 80] = 0x80
    put32(block + 124, (2 * size + 80) * 8)
    state[0] = 0x67452301U
    state[1] = 0xEFCDAB89U
    state[2] = 0x98BADCFEU
    state[3] = 0x10325476U
    state[4] = 0xC3D2E1F0U
    sha1_blocks(state, block, 2)
    for i in range(5):
        put32(digest + 4 * i, state[i])
    memcpy(out, digest, size)


cdef inline void salt(uint32_t bits, uint8_t *key) noexcept nogil:
    """RFC 3079 sections 2.1 and 2.2: weaker keys begin with known octets."""
    if bits == 40:
        key[0] = 0xD1
        key[1] = 0x26
        key[2] = 0x9E
    elif bits == 56:
        key[0] = 0xD1


cdef void first_key(const uint8_t *start, uint32_t bits, uint8_t *key) noexcept nogil:
    """The session key that the first change starts from (RFC 3078 section 7.2)."""
    cdef uint32_t size = key_size(bits)
    cdef uint8_t fresh[16]
    sha_key(start, start, size, fresh)
    salt(bits, fresh)
    memset(key, 0, 16)
    memcpy(key, fresh, size)


cdef void next_key(const uint8_t *start, uint32_t bits, uint8_t *key) noexcept nogil:
    """One change (RFC 3078 section 7.3): the SHA-1 key encrypted by itself, in place."""
    cdef uint32_t size = key_size(bits)
    cdef uint8_t fresh[16]
    cdef rc4_state r
    sha_key(start, key, size, fresh)
    rc4_key(&r, fresh, size)
    rc4_run(&r, fresh, size)
    salt(bits, fresh)
    memcpy(key, fresh, size)


cdef void next_keys_three(key_chain *a, key_chain *b, key_chain *c) noexcept nogil:
    """One change of each of three chains, their key schedules in step."""
    cdef key_chain *chains[3]
    cdef uint8_t fresh[3][16]
    cdef rc4_state r[3]
    cdef uint32_t size[3]
    cdef int i
    chains[0] = a
    chains[1] = b
    chains[2] = c
    for i in range(3):
        size[i] = key_size(chains[i].bits)
        sha_key(chains[i].start, chains[i].key, size[i], fresh[i])
    rc4_key_three(r, fresh[0], size[0] - 1, fresh[1], size[1] - 1, fresh[2], size[2] - 1, IDENTITY)
    for i in range(3):
        rc4_run(&r[i], fresh[i], size[i])
        salt(chains[i].bits, fresh[i])
        memcpy(chains[i].key, fresh[i], size[i])


cdef void chain_add(key_chain *c, crypt_job *jobs, int32_t job, uint32_t changes) noexcept nogil:
    """Append a job: its key is the chain's after so many changes more."""
    jobs[job].changes = changes
    jobs[job].next = -1
    if c.first < 0:
        c.first = job
    else:
        jobs[c.last].next = job
    c.last = job


cdef bint chain_step(key_chain *c, crypt_job *jobs) noexcept nogil:
    """A change was made: False when the chain has no job left that needs one."""
    cdef crypt_job *job = &jobs[c.first]
    job.changes -= 1
    if job.changes == 0:
        memcpy(job.key, c.key, 16)
        c.first = job.next
    return c.first >= 0


cdef void run_chains(key_chain *chains, uint32_t n, crypt_job *jobs) noexcept nogil:
    """Fill in the keys of all jobs: a chain is serial, but three chains go in step."""
    cdef key_chain *lane[3]
    cdef uint32_t taken = 0, lanes = 0, i
    while True:
        while lanes < 3 and taken < n:
            lane[lanes] = &chains[taken]
            lanes += 1
            taken += 1
        if lanes < 3:
            break
        next_keys_three(lane[0], lane[1], lane[2])
        i = 0
        while i < lanes:
            if chain_step(lane[i], jobs):
                i += 1
            else:
                lanes -= 1
                lane[i] = lane[lanes]
    for i in range(lanes):
        while True:
            next_key(lane[i].start, lane[i].bits, lane[i].key)
            if not chain_step(lane[i], jobs):
                break


cdef uint8_t[256] IDENTITY
cdef int _i
for _i in range(256):
    IDENTITY[_i] = _i


cdef void rc4_key(rc4_state *r, const uint8_t *key, uint32_t size) noexcept nogil:
    cdef uint8_t *s = r.s
    cdef uint32_t i
    cdef uint32_t mask = size - 1          # sizes are powers of two
    cdef uint8_t j = 0, t
    memcpy(s, IDENTITY, 256)
    for i in range(256):
        t = s[i]
        j = <uint8_t>(j + t + key[i & mask])
        s[i] = s[j]
        s[j] = t
    r.x = 0
    r.y = 0


cdef void rc4_run(rc4_state *r, uint8_t *data, uint32_t n) noexcept nogil:
    """Encrypt or decrypt in place."""
    cdef uint8_t *s = r.s
    cdef uint8_t x = r.x, y = r.y, t, u
    cdef uint32_t i
    for i in range(n):
        x = <uint8_t>(x + 1)
        t = s[x]
        y = <uint8_t>(y + t)
        u = s[y]
        s[x] = u
        s[y] = t
        data[i] ^= s[<uint8_t>(t + u)]
    r.x = x
    r.y = y


cdef uint32_t crypt_streams(crypt_job *jobs, uint32_t n) noexcept nogil:
    """Do the stateful jobs, in order; move the others together and return their number."""
    cdef uint32_t i, left = 0
    for i in range(n):
        if jobs[i].stream == NULL:
            if left != i:
                jobs[left] = jobs[i]
            left += 1
            continue
        if jobs[i].key_size:
            rc4_key(jobs[i].stream, jobs[i].key, jobs[i].key_size)
        rc4_run(jobs[i].stream, jobs[i].data, jobs[i].size)
    return left


cdef void crypt(crypt_job *jobs, uint32_t n) noexcept nogil:
    """Encrypt or decrypt n packets in place: stateless ones each with a key of its own,
    stateful ones each with its session's stream. The array's order is lost."""
    cdef rc4_state r[LANES]
    cdef uint8_t streams[LANES * RC4_STREAM]
    cdef uint32_t at = 0, lanes, least, i
    n = crypt_streams(jobs, n)
    while six_lanes and n - at >= 3:
        # Three left over go as four: the fourth stream is thrown away.
        lanes = 6 if n - at >= 6 else 4
        rc4_key_three(&r[0], jobs[at].key, jobs[at].key_size - 1,
                      jobs[at + 1].key, jobs[at + 1].key_size - 1,
                      jobs[at + 2].key, jobs[at + 2].key_size - 1, IDENTITY)
        if lanes == 6:
            rc4_key_three(&r[3], jobs[at + 3].key, jobs[at + 3].key_size - 1,
                          jobs[at + 4].key, jobs[at + 4].key_size - 1,
                          jobs[at + 5].key, jobs[at + 5].key_size - 1, IDENTITY)
        elif n - at > 3:
            rc4_key(&r[3], jobs[at + 3].key, jobs[at + 3].key_size)
        else:
            memcpy(&r[3], &r[2], sizeof(rc4_state))
        if lanes > n - at:
            lanes = n - at
        least = least_size(jobs + at, lanes)
        if least > RC4_STREAM:
            least = RC4_STREAM
        if least and lanes == 6:
            rc4_six(r, streams, least)
        elif least:
            rc4_four(r, streams, least)
        for i in range(lanes):
            xor_stream(jobs[at + i].data, streams + i * RC4_STREAM, least)
            rc4_run(&r[i], jobs[at + i].data + least, jobs[at + i].size - least)
        at += lanes
    while at + 2 <= n:
        rc4_key(&r[0], jobs[at].key, jobs[at].key_size)
        rc4_key(&r[1], jobs[at + 1].key, jobs[at + 1].key_size)
        least = least_size(jobs + at, 2) & ~<uint32_t>7
        rc4_two(r, jobs[at].data, jobs[at + 1].data, least)
        for i in range(2):
            rc4_run(&r[i], jobs[at + i].data + least, jobs[at + i].size - least)
        at += 2
    if at < n:
        rc4_key(&r[0], jobs[at].key, jobs[at].key_size)
        rc4_run(&r[0], jobs[at].data, jobs[at].size)


cdef uint32_t least_size(const crypt_job *jobs, uint32_t n) noexcept nogil:
    cdef uint32_t least = jobs[0].size, i
    for i in range(1, n):
        if jobs[i].size < least:
            least = jobs[i].size
    return least


if sha1_ni_usable():
    sha1_blocks = sha1_by_instruction


# -- entries for tests, benchmarks and `show version`


def kernels():
    """The kernels in use: SHA-1 "sha-ni" or "portable", RC4 "six" or "two" streams in step."""
    return {"sha1": "sha-ni" if sha1_blocks == sha1_by_instruction else "portable",
            "rc4": "six" if six_lanes else "two"}


def use_kernels(*, str sha1, str rc4):
    """Force kernels, for tests; ValueError if this CPU lacks one."""
    global sha1_blocks, six_lanes
    if sha1 not in ("portable", "sha-ni") or (sha1 == "sha-ni" and not sha1_ni_usable()):
        raise ValueError(f"no SHA-1 kernel {sha1!r} on this CPU")
    if rc4 not in ("two", "six") or (rc4 == "six" and not rc4_lanes_usable()):
        raise ValueError(f"no RC4 kernel {rc4!r} on this CPU")
    sha1_blocks = sha1_by_instruction if sha1 == "sha-ni" else sha1_portable
    six_lanes = rc4 == "six"


def initial_key(bytes start not None, uint32_t bits):
    """The first session key for a start key (16 octets for 128 bits, else 8)."""
    cdef uint8_t key[16]
    if bits not in (40, 56, 128) or len(start) != key_size(bits):
        raise ValueError(f"{len(start)} octets are no start key of {bits} bits")
    first_key(<const uint8_t *><const char *>start, bits, key)
    return <bytes>key[:key_size(bits)]


def changed_key(bytes start not None, bytes key not None, uint32_t bits):
    """The key after one change."""
    cdef uint8_t work[16]
    if (bits not in (40, 56, 128) or len(start) != key_size(bits)
            or len(key) != key_size(bits)):
        raise ValueError("sizes of keys and bits do not agree")
    memcpy(work, <const uint8_t *><const char *>key, len(key))
    next_key(<const uint8_t *><const char *>start, bits, work)
    return <bytes>work[:key_size(bits)]


def crypt_batch(list packets not None, list keys not None):
    """Encrypt or decrypt packets (up to 256) with their session keys; returns new ones."""
    cdef crypt_job jobs[256]
    cdef uint32_t i, n = len(packets)
    if n > 256 or len(keys) != n:
        raise ValueError("at most 256 packets, each with a key")
    buffers = [bytearray(p) + bytearray(1) for p in packets]
    cdef uint8_t[::1] view
    for i in range(n):
        key = keys[i]
        if len(key) not in (8, 16):
            raise ValueError(f"key of {len(key)} octets")
        view = buffers[i]
        jobs[i].data = &view[0]
        jobs[i].size = len(packets[i])
        jobs[i].key_size = len(key)
        jobs[i].stream = NULL
        memcpy(jobs[i].key, <const uint8_t *><const char *><bytes>key, len(key))
    with nogil:
        crypt(jobs, n)
    return [bytes(b[: len(p)]) for b, p in zip(buffers, packets, strict=True)]


def chain_keys(list starts not None, list counts not None):
    """Keys of chains in step, for tests: after each of counts[i] changes, from starts[i]."""
    cdef crypt_job jobs[256]
    cdef key_chain chains[64]
    cdef uint8_t keys[64][16]
    cdef uint8_t begin[64][16]
    cdef uint32_t i, k, n = len(starts), total = 0
    if n > 64 or len(counts) != n or sum(counts) > 256 or any(c < 1 for c in counts):
        raise ValueError("at most 64 chains and 256 keys, each chain with one or more")
    for i in range(n):
        start = starts[i]
        if len(start) not in (8, 16):
            raise ValueError(f"start key of {len(start)} octets")
        memcpy(begin[i], <const uint8_t *><const char *><bytes>start, len(start))
        chains[i].bits = 128 if len(start) == 16 else 40
        chains[i].start = begin[i]
        chains[i].key = keys[i]
        chains[i].first = -1
        first_key(begin[i], chains[i].bits, keys[i])
        for _ in range(<uint32_t>counts[i]):
            jobs[total].stream = NULL
            chain_add(&chains[i], jobs, <int32_t>total, 1)
            total += 1
    run_chains(chains, n, jobs)
    found = []
    total = 0
    for i in range(n):
        size = len(starts[i])
        found.append([<bytes>jobs[total + k].key[:size] for k in range(<uint32_t>counts[i])])
        total += counts[i]
    return found


def sha1_digest(bytes data not None):
    """SHA-1 of any octets by the kernel in use; for tests."""
    cdef uint32_t state[5]
    state[0] = 0x67452301U
    state[1] = 0xEFCDAB89U
    state[2] = 0x98BADCFEU
    state[3] = 0x10325476U
    state[4] = 0xC3D2E1F0U
    filler = bytes((119 - len(data) % 64) % 64)
    padded = data + b"\x80" + filler + (8 * len(data)).to_bytes(8, "big")
    sha1_blocks(state, <const uint8_t *><const char *>padded, len(padded) // 64)
    return b"".join(state[i].to_bytes(4, "big") for i in range(5))


cdef extern from "<time.h>" nogil:
    enum:
        CLOCK_THREAD_CPUTIME_ID
    cdef struct timespec:
        long tv_sec
        long tv_nsec
    int clock_gettime(int clock, timespec *t)


cdef double cpu_ns() noexcept nogil:
    cdef timespec t
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t)
    return t.tv_sec * 1e9 + t.tv_nsec


def measure(uint32_t size, uint32_t sessions, uint32_t packets=60, uint32_t rounds=200):
    """CPU ns of whole stateless packets, 128 bits: (least, median) over `rounds` batches of
    `packets` packets of `size` octets, spread over `sessions` sessions. For benchmarks."""
    cdef crypt_job jobs[256]
    cdef key_chain chains[256]
    cdef uint8_t keys[256][16]
    cdef uint8_t start[16]
    cdef uint32_t i, n
    cdef double began
    if not (1 <= packets <= 256 and 1 <= sessions <= packets and size <= 2048):
        raise ValueError("packets 1 to 256, sessions 1 to packets, size up to 2048")
    data = bytearray(256 * 2304)
    cdef uint8_t[::1] view = data
    memset(keys, 1, sizeof(keys))
    memset(start, 2, 16)
    found = []
    for _ in range(rounds):
        began = cpu_ns()
        with nogil:
            for i in range(sessions):
                chains[i].start = start
                chains[i].key = keys[i]
                chains[i].bits = 128
                chains[i].first = -1
            for i in range(packets):
                n = i % sessions
                jobs[i].data = &view[i * 2304]
                jobs[i].size = size
                jobs[i].key_size = 16
                jobs[i].stream = NULL
                chain_add(&chains[n], jobs, <int32_t>i, 1)
            run_chains(chains, sessions, jobs)
            crypt(jobs, packets)
        found.append((cpu_ns() - began) / packets)
    found.sort()
    return found[0], found[len(found) // 2]
