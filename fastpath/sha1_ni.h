/* SHA-1 by the SHA extensions of x86: the compression function, the key changes of MPPE, and
 * the question whether the CPU has them. Elsewhere `sha1_ni_usable` says no and the portable one is used. */
#ifndef PPTPCON_SHA1_NI_H
#define PPTPCON_SHA1_NI_H
#include <stdint.h>

#if defined(__x86_64__)
#include <cpuid.h>
#include <immintrin.h>

static int sha1_ni_usable(void)
{
    unsigned a, b, c, d;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & (1u << 19)) || !(c & (1u << 9)))
        return 0; /* SSE4.1, SSSE3 */
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d))
        return 0;
    return (b >> 29) & 1;
}

/* Four rounds: the working words in `abcd`, the next e in `e`, message words in `w`. */
#define SHA1_QUAD(abcd, e_in, e_out, w, f)                 \
    do {                                                   \
        __m128i e_ = _mm_sha1nexte_epu32(e_in, w);         \
        e_out = abcd;                                      \
        abcd = _mm_sha1rnds4_epu32(abcd, e_, f);           \
    } while (0)

/* The next four message words from the last sixteen; w0 is replaced by them. */
#define SHA1_SCHEDULE(w0, w1, w2, w3)                                                  \
    (w0 = _mm_sha1msg2_epu32(_mm_xor_si128(_mm_sha1msg1_epu32(w0, w1), w2), w3))

__attribute__((target("sha,sse4.1,ssse3")))
static void sha1_ni_blocks(uint32_t state[5], const uint8_t *data, unsigned blocks)
{
    const __m128i swap = _mm_set_epi64x(0x0001020304050607ULL, 0x08090a0b0c0d0e0fULL);
    __m128i abcd = _mm_shuffle_epi32(_mm_loadu_si128((const __m128i *)state), 0x1b);
    __m128i e = _mm_set_epi32((int)state[4], 0, 0, 0);

    while (blocks--) {
        const __m128i abcd_was = abcd, e_was = e;
        __m128i w[4], last;
        for (int i = 0; i < 4; i++)
            w[i] = _mm_shuffle_epi8(_mm_loadu_si128((const __m128i *)(data + 16 * i)), swap);

        /* rounds 0 to 3 add e plainly: there is no earlier a to rotate */
        e = _mm_add_epi32(e, w[0]);
        last = abcd;
        abcd = _mm_sha1rnds4_epu32(abcd, e, 0);
        SHA1_QUAD(abcd, last, last, w[1], 0);
        SHA1_QUAD(abcd, last, last, w[2], 0);
        SHA1_QUAD(abcd, last, last, w[3], 0);
#define STEP(i, f)                                                          \
        SHA1_SCHEDULE(w[(i) & 3], w[((i) + 1) & 3], w[((i) + 2) & 3], w[((i) + 3) & 3]); \
        SHA1_QUAD(abcd, last, last, w[(i) & 3], f)
        STEP(0, 0);
        STEP(1, 1); STEP(2, 1); STEP(3, 1); STEP(0, 1); STEP(1, 1);
        STEP(2, 2); STEP(3, 2); STEP(0, 2); STEP(1, 2); STEP(2, 2);
        STEP(3, 3); STEP(0, 3); STEP(1, 3); STEP(2, 3); STEP(3, 3);
#undef STEP
        e = _mm_sha1nexte_epu32(last, e_was);
        abcd = _mm_add_epi32(abcd, abcd_was);
        data += 64;
    }
    _mm_storeu_si128((__m128i *)state, _mm_shuffle_epi32(abcd, 0x1b));
    state[4] = (uint32_t)_mm_extract_epi32(e, 3);
}

/* The first 16 octets of SHA-1(start, 40 zeros, key, 40 times f2), with start and key of 16
 * octets, for several of them in step: RFC 3079 section 3 in two blocks that never are in
 * memory. One digest alone leaves the unit idle for half of each instruction's latency. */
__attribute__((target("sha,sse4.1,ssse3"), always_inline))
static inline void sha1_ni_changes(int lanes, const uint8_t *const *starts,
                                   const uint8_t *const *keys, uint8_t *out)
{
    const __m128i swap = _mm_set_epi64x(0x0001020304050607ULL, 0x08090a0b0c0d0e0fULL);
    const __m128i first = _mm_set_epi32(0x67452301, (int)0xefcdab89, (int)0x98badcfe, 0x10325476);
    const __m128i first_e = _mm_set_epi32((int)0xc3d2e1f0, 0, 0, 0);
    const __m128i f2 = _mm_set1_epi8((char)0xf2);
    __m128i abcd[3], abcd_was[3], e[3], last[3], key[3], w[3][4];

#define EACH _Pragma("GCC unroll 3") for (int l = 0; l < lanes; l++)
#define QUAD(i, f) EACH SHA1_QUAD(abcd[l], last[l], last[l], w[l][(i) & 3], f);
#define STEP(i, f)                                                                         \
    EACH SHA1_SCHEDULE(w[l][(i) & 3], w[l][((i) + 1) & 3], w[l][((i) + 2) & 3],            \
                       w[l][((i) + 3) & 3]);                                               \
    QUAD(i, f)
#define ROUNDS                                                                             \
    EACH {                                                                                 \
        last[l] = abcd[l];                                                                 \
        abcd[l] = _mm_sha1rnds4_epu32(abcd[l], _mm_add_epi32(e[l], w[l][0]), 0);           \
    }                                                                                      \
    QUAD(1, 0) QUAD(2, 0) QUAD(3, 0) STEP(0, 0)                                            \
    STEP(1, 1) STEP(2, 1) STEP(3, 1) STEP(0, 1) STEP(1, 1)                                 \
    STEP(2, 2) STEP(3, 2) STEP(0, 2) STEP(1, 2) STEP(2, 2)                                 \
    STEP(3, 3) STEP(0, 3) STEP(1, 3) STEP(2, 3) STEP(3, 3)

    EACH {
        key[l] = _mm_shuffle_epi8(_mm_loadu_si128((const __m128i *)keys[l]), swap);
        w[l][0] = _mm_shuffle_epi8(_mm_loadu_si128((const __m128i *)starts[l]), swap);
        w[l][1] = w[l][2] = _mm_setzero_si128();
        w[l][3] = _mm_srli_si128(key[l], 8);
        abcd[l] = first;
        e[l] = first_e;
    }
    ROUNDS
    EACH {
        abcd_was[l] = abcd[l] = _mm_add_epi32(abcd[l], first);
        e[l] = _mm_sha1nexte_epu32(last[l], first_e);
        w[l][0] = _mm_unpacklo_epi64(f2, key[l]);
        w[l][1] = w[l][2] = f2;
        w[l][3] = _mm_set_epi32((int)0x80000000, 0, 0, 8 * (16 + 40 + 16 + 40));
    }
    ROUNDS
    EACH _mm_storeu_si128((__m128i *)(out + 16 * l),
                          _mm_shuffle_epi8(_mm_add_epi32(abcd[l], abcd_was[l]), swap));
#undef EACH
#undef QUAD
#undef STEP
#undef ROUNDS
}

__attribute__((target("sha,sse4.1,ssse3")))
static void sha1_ni_one(const uint8_t *const *starts, const uint8_t *const *keys, uint8_t *out)
{
    sha1_ni_changes(1, starts, keys, out);
}

__attribute__((target("sha,sse4.1,ssse3")))
static void sha1_ni_three(const uint8_t *const *starts, const uint8_t *const *keys, uint8_t *out)
{
    sha1_ni_changes(3, starts, keys, out);
}
#else
static int sha1_ni_usable(void) { return 0; }
static void sha1_ni_one(const uint8_t *const *starts, const uint8_t *const *keys, uint8_t *out)
{
    (void)starts; (void)keys; (void)out;
}
static void sha1_ni_three(const uint8_t *const *starts, const uint8_t *const *keys, uint8_t *out)
{
    (void)starts; (void)keys; (void)out;
}
static void sha1_ni_blocks(uint32_t state[5], const uint8_t *data, unsigned blocks)
{
    (void)state; (void)data; (void)blocks;
}
#endif
#endif
