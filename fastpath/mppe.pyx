# cython: language_level=3
"""MPPE: RC4, SHA-1 and the key changes of RFC 3078 section 7, for batches of packets.

The packets of a batch are independent RC4 streams, and so are the key changes of different
sessions; six at a time keep the core busy while one alone waits for its own table. ns on a
Zen 4, and OpenSSL's assembler beside them:

    per stream             alone   in six   OpenSSL
    payload, 1400 octets    1370      745      1510
    key schedule             290      130       550
    SHA-1 of a change         70       35        55

The kernels are chosen at start by what the CPU has; those in C serve every other. Without SHA
extensions SHA-1 of the changes goes by the lanes of AVX2 or AVX-512. The slow, obvious twin is
workers/ppp/mppe_twin.py.
"""

from libc.stdint cimport int32_t, uint8_t, uint16_t, uint32_t
from libc.string cimport memcpy, memset

from fastpath.wire cimport put32

cdef extern from "sha1_ni.h" nogil:
    int sha1_ni_usable()
    void sha1_ni_blocks(uint32_t *state, const uint8_t *data, unsigned blocks)
    void sha1_ni_one(const uint8_t **starts, const uint8_t **keys, uint8_t *out)
    void sha1_ni_three(const uint8_t **starts, const uint8_t **keys, uint8_t *out)

cdef extern from "sha1_lanes.h" nogil:
    enum:
        SHA1_LANES
    int sha1_avx2_usable()
    int sha1_avx512_usable()
    void sha1_scalar_blocks(uint32_t *state, const uint8_t *data, unsigned blocks)
    void sha1_avx2_changes(const uint8_t **starts, const uint8_t **keys, uint32_t n, uint8_t *out)
    void sha1_avx512_changes(const uint8_t **starts, const uint8_t **keys, uint32_t n,
                             uint8_t *out)

ctypedef void (*lanes_function)(void *tables, uint8_t *streams, uint32_t blocks,
                                uint32_t x) noexcept nogil
ctypedef void (*keys_function)(void *tables, const uint8_t *keys,
                               const uint8_t *identity) noexcept nogil

cdef extern from "rc4_lanes.h" nogil:
    enum:
        RC4_STREAM
        RC4_BLOCKS
    int rc4_lanes_usable()
    lanes_function[7] rc4_lanes
    keys_function[7] rc4_keys
    void rc4_keys_portable(void *tables, const uint8_t *keys, const uint8_t *identity)
    void rc4_two(void *tables, uint8_t *p, uint8_t *q, uint32_t n)
    void xor_stream(uint8_t *data, const uint8_t *stream, uint32_t n)

ctypedef void (*sha1_function)(uint32_t *state, const uint8_t *data, unsigned blocks) noexcept nogil
ctypedef void (*changes_function)(const uint8_t **starts, const uint8_t **keys, uint32_t n,
                                  uint8_t *out) noexcept nogil

cdef sha1_function sha1_blocks = sha1_by_words
cdef changes_function sha1_changes = NULL      # of up to LANES keys in step; NULL: one by one
cdef bint by_lanes = False


cdef void sha1_by_words(uint32_t *state, const uint8_t *data, unsigned blocks) noexcept nogil:
    sha1_scalar_blocks(state, data, blocks)


cdef void sha1_by_instruction(uint32_t *state, const uint8_t *data,
                              unsigned blocks) noexcept nogil:
    sha1_ni_blocks(state, data, blocks)


cdef void changes_by_instruction(const uint8_t **starts, const uint8_t **keys, uint32_t n,
                                 uint8_t *out) noexcept nogil:
    """Three at a time; two are carried as three with one of them twice."""
    cdef uint8_t spare[48]
    cdef const uint8_t *start[3]
    cdef const uint8_t *key[3]
    cdef uint32_t i = 0
    while n - i >= 3:
        sha1_ni_three(starts + i, keys + i, out + 16 * i)
        i += 3
    if n - i == 1:
        sha1_ni_one(starts + i, keys + i, out + 16 * i)
    elif n - i == 2:
        start[0] = starts[i]
        start[1] = start[2] = starts[i + 1]
        key[0] = keys[i]
        key[1] = key[2] = keys[i + 1]
        sha1_ni_three(start, key, spare)
        memcpy(out + 16 * i, spare, 32)


cdef void changes_by_avx2(const uint8_t **starts, const uint8_t **keys, uint32_t n,
                          uint8_t *out) noexcept nogil:
    sha1_avx2_changes(starts, keys, n, out)


cdef void changes_by_avx512(const uint8_t **starts, const uint8_t **keys, uint32_t n,
                            uint8_t *out) noexcept nogil:
    sha1_avx512_changes(starts, keys, n, out)


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


cdef void wide_key(uint8_t *wide, const uint8_t *key, uint32_t size) noexcept nogil:
    """A key of 8 octets twice: RC4 repeats keys anyway, and the kernels know one length."""
    memcpy(wide, key, size)
    if size == 8:
        memcpy(wide + 8, key, 8)


cdef void sha_keys(key_chain **chains, uint32_t n, uint8_t *keys) noexcept nogil:
    """GetNewKeyFromSHA of n chains (at most LANES), 16 octets each."""
    cdef const uint8_t *starts[LANES]
    cdef const uint8_t *olds[LANES]
    cdef uint8_t fresh[16 * LANES]
    cdef uint32_t at[LANES]
    cdef uint32_t i, k, wide = 0
    for i in range(n):
        if chains[i].bits == 128 and sha1_changes != NULL:
            starts[wide] = chains[i].start
            olds[wide] = chains[i].key
            at[wide] = i
            wide += 1
            continue
        k = key_size(chains[i].bits)
        sha_key(chains[i].start, chains[i].key, k, fresh)
        wide_key(keys + 16 * i, fresh, k)
    if wide == 1 and sha1_blocks == sha1_by_words:
        # Eight lanes for one key would take longer than the key alone.
        sha_key(starts[0], olds[0], 16, keys + 16 * at[0])
    elif wide == n:
        sha1_changes(starts, olds, n, keys)
    elif wide:
        sha1_changes(starts, olds, wide, fresh)
        for k in range(wide):
            memcpy(keys + 16 * at[k], fresh + 16 * k, 16)


cdef void key_schedules(rc4_state *r, const uint8_t *keys, uint32_t n) noexcept nogil:
    """Key schedules of n tables (at most LANES) in step; keys of 16 octets."""
    cdef uint32_t i = 0
    if by_lanes:
        rc4_keys[n](r, keys, IDENTITY)
        return
    while i + 3 <= n:
        rc4_keys_portable(&r[i], keys + 16 * i, IDENTITY)
        i += 3
    while i < n:
        rc4_key(&r[i], keys + 16 * i, 16)
        i += 1


cdef void next_keys(key_chain **chains, uint32_t n) noexcept nogil:
    """One change (RFC 3078 section 7.3) of n chains (at most LANES): each SHA-1 key,
    encrypted by itself, takes the old key's place."""
    cdef uint8_t keys[LANES * 16]
    cdef uint8_t streams[LANES * RC4_STREAM]
    cdef rc4_state r[LANES]
    cdef uint8_t *key
    cdef uint32_t i
    sha_keys(chains, n, keys)
    key_schedules(r, keys, n)
    if by_lanes:
        rc4_lanes[n](r, streams, 1, 0)
    for i in range(n):
        key = keys + 16 * i
        if by_lanes:
            rc4_sixteen(&r[i], streams + i * RC4_STREAM + 1, key)
        else:
            rc4_run(&r[i], key, 16)
        salt(chains[i].bits, key)
        memcpy(chains[i].key, key, key_size(chains[i].bits))


cdef inline void rc4_sixteen(const rc4_state *r, uint8_t *stream, uint8_t *key) noexcept nogil:
    """Encrypt a key after a first block, which has its stream but for the last octet."""
    cdef uint8_t t = r.s[16]
    cdef uint8_t y = <uint8_t>(r.y + t)
    cdef uint8_t u = r.s[y]
    cdef uint8_t at = <uint8_t>(t + u)
    # The table is not needed again: the swap is made only in mind.
    stream[15] = u if at == 16 else t if at == y else r.s[at]
    xor_stream(key, stream, 16)


cdef void next_key(const uint8_t *start, uint32_t bits, uint8_t *key) noexcept nogil:
    """One change of one key, in place."""
    cdef key_chain chain
    cdef key_chain *chains[1]
    chain.start = start
    chain.key = key
    chain.bits = bits
    chains[0] = &chain
    next_keys(chains, 1)


cdef void chain_add(key_chain *c, crypt_job *jobs, int32_t job, uint32_t changes) noexcept nogil:
    """Append a job: its key is the chain's after so many changes more."""
    jobs[job].changes = changes
    jobs[job].next = -1
    if c.first < 0:
        c.first = job
        c.changes = 0
    else:
        jobs[c.last].next = job
    c.last = job
    c.changes += changes


cdef bint chain_step(key_chain *c, crypt_job *jobs) noexcept nogil:
    """A change was made: False when the chain has no job left that needs one."""
    cdef crypt_job *job = &jobs[c.first]
    job.changes -= 1
    if job.changes == 0:
        memcpy(job.key, c.key, 16)
        c.first = job.next
    return c.first >= 0


cdef void long_chains_first(key_chain *chains, uint32_t n) noexcept nogil:
    """The LANES longest to the front: a long chain begun last would run on alone."""
    cdef key_chain other
    cdef uint32_t i, k, longest
    for i in range(LANES):
        longest = i
        for k in range(i + 1, n):
            if chains[k].changes > chains[longest].changes:
                longest = k
        if longest != i:
            other = chains[i]
            chains[i] = chains[longest]
            chains[longest] = other


cdef void run_chains(key_chain *chains, uint32_t n, crypt_job *jobs) noexcept nogil:
    """Fill in the keys of all jobs: a chain is serial, but LANES chains go in step. The
    chains' order is lost."""
    cdef key_chain *lane[LANES]
    cdef uint32_t taken = 0, lanes = 0, i
    if n > LANES:
        long_chains_first(chains, n)
    while True:
        while lanes < LANES and taken < n:
            lane[lanes] = &chains[taken]
            lanes += 1
            taken += 1
        if lanes == 0:
            break
        next_keys(lane, lanes)
        i = 0
        while i < lanes:
            if chain_step(lane[i], jobs):
                i += 1
            else:
                lanes -= 1
                lane[i] = lane[lanes]


cdef uint8_t[256] IDENTITY
cdef int _i
for _i in range(256):
    IDENTITY[_i] = _i


cdef void rc4_key(rc4_state *r, const uint8_t *key, uint32_t size) noexcept nogil:
    """The key schedule of one stream."""
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
    cdef uint8_t streams[RC4_STREAM]
    cdef uint32_t lead, blocks
    if by_lanes and n >= 64:
        lead = 15 - r.x % 16             # to where a block begins
        rc4_steps(r, data, lead)
        data += lead
        n -= lead
        while n >= 16:
            blocks = n / 16
            if blocks > RC4_BLOCKS:
                blocks = RC4_BLOCKS
            rc4_lanes[1](r, streams, blocks, r.x)
            r.x = <uint8_t>(r.x + 16 * blocks)
            xor_stream(data, streams, 16 * blocks)
            data += 16 * blocks
            n -= 16 * blocks
    rc4_steps(r, data, n)


cdef void rc4_steps(rc4_state *r, uint8_t *data, uint32_t n) noexcept nogil:
    """The same, octet by octet."""
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
    cdef uint16_t order[ORDERED]
    cdef crypt_job *group[LANES]
    cdef uint32_t at = 0, some, lanes, i, done
    n = crypt_streams(jobs, n)
    while at < n:
        some = min_of(n - at, ORDERED)
        by_size(jobs + at, some, order)
        done = 0
        while done < some:
            lanes = min_of(some - done, LANES if by_lanes else 2)
            for i in range(lanes):
                group[i] = &jobs[at + order[done + i]]
            if by_lanes:
                crypt_lanes(group, lanes)
            else:
                crypt_pair(group, lanes)
            done += lanes
        at += some


cdef inline uint32_t min_of(uint32_t a, uint32_t b) noexcept nogil:
    return a if a < b else b


cdef void by_size(const crypt_job *jobs, uint32_t n, uint16_t *order) noexcept nogil:
    """Order of n jobs (at most ORDERED), long ones first: streams in step should end
    together. Sizes in one block of 16 octets, or beyond 4 KiB, count as equal."""
    cdef uint16_t place[256]
    cdef uint32_t i, bucket, sum = 0, count
    memset(place, 0, sizeof(place))
    for i in range(n):
        place[255 - min_of(jobs[i].size >> 4, 255)] += 1
    for bucket in range(256):
        count = place[bucket]
        place[bucket] = <uint16_t>sum
        sum += count
    for i in range(n):
        bucket = 255 - min_of(jobs[i].size >> 4, 255)
        order[place[bucket]] = <uint16_t>i
        place[bucket] += 1


cdef void crypt_lanes(crypt_job **jobs, uint32_t n) noexcept nogil:
    """At most LANES jobs in step, long ones first: where one ends the others go on, in fewer
    lanes. (A stream alone is twice as dear an octet as one of six, six are dearer than one:
    to carry an ended one along would never pay.)"""
    cdef rc4_state r[LANES]
    cdef uint8_t keys[LANES * 16]
    cdef uint8_t streams[LANES * RC4_STREAM]
    cdef crypt_job *job
    cdef uint32_t done = 0, blocks, made, first, i, k
    for i in range(n):
        job = jobs[i]
        k = i
        while k and jobs[k - 1].size < job.size:
            jobs[k] = jobs[k - 1]
            k -= 1
        jobs[k] = job
    for i in range(n):
        wide_key(keys + 16 * i, jobs[i].key, jobs[i].key_size)
    key_schedules(r, keys, n)
    while n:
        if jobs[n - 1].size <= done:
            n -= 1
            continue
        # Blocks end before the octets 15, 31 ...: the first lacks one.
        first = 0 if done else 1
        blocks = min_of((jobs[n - 1].size - done + first + 15) / 16, RC4_BLOCKS)
        rc4_lanes[n](r, streams, blocks, done & 0xFF)
        made = 16 * blocks - first
        for i in range(n):
            xor_stream(jobs[i].data + done, streams + i * RC4_STREAM + first,
                       min_of(made, jobs[i].size - done))
        done += made


cdef void crypt_pair(crypt_job **jobs, uint32_t n) noexcept nogil:
    """One job or two, by C alone."""
    cdef rc4_state r[2]
    cdef uint32_t least = 0, i
    for i in range(n):
        rc4_key(&r[i], jobs[i].key, jobs[i].key_size)
    if n == 2:
        least = min_of(jobs[0].size, jobs[1].size) & ~<uint32_t>7
        rc4_two(r, jobs[0].data, jobs[1].data, least)
    for i in range(n):
        rc4_run(&r[i], jobs[i].data + least, jobs[i].size - least)


# -- entries for the start, `show version`, tests and benchmarks


# What settings.mppe.kernel names: kernels of SHA-1 and RC4, and what the CPU must have.
KERNELS = {
    "portable": ("portable", "portable"),
    "sse4.1": ("portable", "sse4.1"),
    "avx2": ("avx2", "sse4.1"),
    "avx512": ("avx512", "sse4.1"),
    "sha-ni": ("sha-ni", "sse4.1"),
}
cdef str sha1_name = "portable"


def sha1_usable():
    """The SHA-1 kernels that this CPU can run."""
    return ["portable", *(name for name, usable in (("avx2", sha1_avx2_usable()),
                                                    ("avx512", sha1_avx512_usable()),
                                                    ("sha-ni", sha1_ni_usable())) if usable)]


def usable():
    """The names in KERNELS that this CPU can run, the fastest last."""
    return [name for name, (sha1, rc4) in KERNELS.items()
            if sha1 in sha1_usable() and (rc4 != "sse4.1" or rc4_lanes_usable())]


def kernels_of(str name):
    """The kernels that a name, or "auto", stands for on this CPU; the best for what it can't
    run, which the configuration's check has told."""
    can = usable()
    sha1, rc4 = KERNELS[name if name in can else can[len(can) - 1]]
    return {"sha1": sha1, "rc4": rc4}


def choose(str name):
    """Use these kernels from now on, and say their name. Before a data thread runs.

    "auto" tries all that can run, for about a millisecond: an emulated or virtual CPU may
    have the instructions and take longer for them than for plain C.
    """
    if name == "auto":
        name = fastest()
    use_kernels(**kernels_of(name))
    can = usable()
    return name if name in can else can[len(can) - 1]


def fastest():
    """The kernel of KERNELS that is quickest now; of like ones the one with more instructions."""
    cdef double best = 0.0
    found = ""
    before = kernels()
    for name in usable():
        use_kernels(**kernels_of(name))
        least = min(measure(1400, 8, 16, 8)[0], measure(1400, 8, 16, 8)[0])
        if not found or least < 1.1 * best:
            found, best = name, min(least, best) if found else least
    use_kernels(**before)
    return found


def kernels():
    """The kernels in use."""
    return {"sha1": sha1_name, "rc4": "sse4.1" if by_lanes else "portable"}


def use_kernels(*, str sha1, str rc4):
    """Any two kernels, for tests; ValueError if this CPU lacks one."""
    global sha1_blocks, sha1_changes, sha1_name, by_lanes
    if sha1 not in sha1_usable():
        raise ValueError(f"no SHA-1 kernel {sha1!r} on this CPU")
    if rc4 not in ("portable", "sse4.1") or (rc4 == "sse4.1" and not rc4_lanes_usable()):
        raise ValueError(f"no RC4 kernel {rc4!r} on this CPU")
    sha1_blocks = sha1_by_instruction if sha1 == "sha-ni" else sha1_by_words
    if sha1 == "sha-ni":
        sha1_changes = changes_by_instruction
    elif sha1 == "avx2":
        sha1_changes = changes_by_avx2
    elif sha1 == "avx512":
        sha1_changes = changes_by_avx512
    else:
        sha1_changes = NULL
    sha1_name = sha1
    by_lanes = rc4 == "sse4.1"


use_kernels(**kernels_of("auto"))


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


def crypt_stream(bytes key not None, list pieces not None):
    """Encrypt pieces one after the other with one stateful stream; for tests."""
    cdef rc4_state r
    cdef uint8_t[::1] view
    cdef uint32_t n
    if len(key) not in (8, 16):
        raise ValueError(f"key of {len(key)} octets")
    rc4_key(&r, <const uint8_t *><const char *>key, len(key))
    found = []
    for piece in pieces:
        buffer = bytearray(piece) + bytearray(1)
        view = buffer
        n = len(piece)
        rc4_run(&r, &view[0], n)
        found.append(bytes(buffer[:n]))
    return found


def chain_keys(list chains not None):
    """Keys of chains in step, for tests: of each (start key, bits, changes), the key after each
    so many changes more."""
    cdef crypt_job jobs[256]
    cdef key_chain made[64]
    cdef uint8_t keys[64][16]
    cdef uint8_t begin[64][16]
    cdef uint32_t i, n = len(chains), total = 0
    if n > 64 or sum(len(c[2]) for c in chains) > 256 or not all(all(c[2]) for c in chains):
        raise ValueError("at most 64 chains and 256 keys, each after one change or more")
    for i in range(n):
        start, bits, changes = chains[i]
        if bits not in (40, 56, 128) or len(start) != key_size(bits) or not changes:
            raise ValueError(f"{len(start)} octets are no start key of {bits} bits")
        memcpy(begin[i], <const uint8_t *><const char *><bytes>start, len(start))
        made[i].bits = bits
        made[i].start = begin[i]
        made[i].key = keys[i]
        made[i].first = -1
        first_key(begin[i], bits, keys[i])
        for count in changes:
            jobs[total].stream = NULL
            chain_add(&made[i], jobs, <int32_t>total, count)
            total += 1
    run_chains(made, n, jobs)
    found = []
    total = 0
    for start, _, changes in chains:
        found.append([])
        for _ in changes:
            found[len(found) - 1].append(<bytes>jobs[total].key[:len(start)])
            total += 1
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


def measure(uint32_t size, uint32_t sessions, uint32_t packets=60, uint32_t rounds=200,
            uint32_t spread=0):
    """CPU ns of whole stateless packets, 128 bits: (least, median) over `rounds` batches of
    `packets` packets of `size` octets, or up to `spread` fewer, mixed, over `sessions`
    sessions. For benchmarks."""
    cdef crypt_job jobs[256]
    cdef key_chain chains[256]
    cdef uint8_t keys[256][16]
    cdef uint8_t start[16]
    cdef uint32_t i, n
    cdef double began
    if not (1 <= packets <= 256 and 1 <= sessions <= packets and spread <= size <= 2048):
        raise ValueError("packets 1 to 256, sessions 1 to packets, size up to 2048, spread to size")
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
                jobs[i].size = size - i * 7919 % (spread + 1)
                jobs[i].key_size = 16
                jobs[i].stream = NULL
                chain_add(&chains[n], jobs, <int32_t>i, 1)
            run_chains(chains, sessions, jobs)
            crypt(jobs, packets)
        found.append((cpu_ns() - began) / packets)
    found.sort()
    return found[0], found[len(found) // 2]
