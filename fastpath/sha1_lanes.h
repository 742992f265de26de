/* SHA-1 for CPUs without the SHA extensions: of one message, unrolled, and of up to eight key changes
 * of MPPE in the lanes of a vector register. Both are one body, for words and for vectors of
 * them (FIPS 180-4 section 6.1.2); what differs between AVX2 and AVX-512 (whose 256-bit forms
 * are used: rotations and three-operand logic) is left to the compiler. */
#ifndef PPTPCON_SHA1_LANES_H
#define PPTPCON_SHA1_LANES_H
#include <stdint.h>
#include <string.h>

#define SHA1_LANES 8

#define SHA1_ROL(v, n) (((v) << (n)) | ((v) >> (32 - (n))))

/* Rounds i of one kind: the five words change places by their index, which the compiler
 * unrolls away; message words in a ring of sixteen. */
#define SHA1_ROUNDS(from, to, f, constant)                                              \
    _Pragma("GCC unroll 20") for (int i = (from); i < (to); i++) {                      \
        const int a = (80 - i) % 5, b = (81 - i) % 5, c = (82 - i) % 5,                 \
                  d = (83 - i) % 5, e = (84 - i) % 5;                                   \
        if (i >= 16) {                                                                  \
            w[i & 15] ^= w[(i + 13) & 15] ^ w[(i + 8) & 15] ^ w[(i + 2) & 15];          \
            w[i & 15] = SHA1_ROL(w[i & 15], 1);                                         \
        }                                                                               \
        s[e] += SHA1_ROL(s[a], 5) + (f) + w[i & 15] + (uint32_t)(constant);             \
        s[b] = SHA1_ROL(s[b], 30);                                                      \
    }

/* One block of T (a word, or a vector of them) into `state`; destroys w. */
#define SHA1_BLOCK(T, state, w)                                                         \
    do {                                                                                \
        T s[5] = {(state)[0], (state)[1], (state)[2], (state)[3], (state)[4]};          \
        SHA1_ROUNDS(0, 20, s[d] ^ (s[b] & (s[c] ^ s[d])), 0x5A827999)                   \
        SHA1_ROUNDS(20, 40, s[b] ^ s[c] ^ s[d], 0x6ED9EBA1)                             \
        SHA1_ROUNDS(40, 60, (s[b] & s[c]) | (s[d] & (s[b] | s[c])), 0x8F1BBCDC)         \
        SHA1_ROUNDS(60, 80, s[b] ^ s[c] ^ s[d], 0xCA62C1D6)                             \
        for (int i_ = 0; i_ < 5; i_++)                                                  \
            (state)[i_] += s[i_];                                                       \
    } while (0)

static inline uint32_t sha1_word(const uint8_t *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static void sha1_scalar_blocks(uint32_t *state, const uint8_t *data, unsigned blocks)
{
    uint32_t w[16];
    while (blocks--) {
        for (int i = 0; i < 16; i++)
            w[i] = sha1_word(data + 4 * i);
        SHA1_BLOCK(uint32_t, state, w);
        data += 64;
    }
}

#if defined(__x86_64__) && defined(__GNUC__)
typedef uint32_t sha1_vector __attribute__((vector_size(4 * SHA1_LANES)));

static int sha1_avx2_usable(void)
{
    __builtin_cpu_init();
    return __builtin_cpu_supports("avx2") != 0;
}

static int sha1_avx512_usable(void)
{
    __builtin_cpu_init();
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl");
}

/* The first 16 octets of SHA-1(start, 40 zeros, key, 40 times f2), with start and key of 16
 * octets, of n sessions (at most SHA1_LANES): RFC 3079 section 3. */
#define SHA1_CHANGES                                                                    \
    {                                                                                   \
        uint32_t in[8][SHA1_LANES] __attribute__((aligned(32)));                        \
        uint32_t end[4][SHA1_LANES] __attribute__((aligned(32)));                       \
        sha1_vector w[16], state[5], zero = {0};                                        \
        for (uint32_t l = 0; l < SHA1_LANES; l++) {                                     \
            uint32_t of = l < n ? l : 0;                                                \
            for (int i = 0; i < 4; i++) {                                               \
                in[i][l] = sha1_word(starts[of] + 4 * i);                               \
                in[4 + i][l] = sha1_word(keys[of] + 4 * i);                             \
            }                                                                           \
        }                                                                               \
        memcpy(w, in, sizeof(in[0]) * 4);                                               \
        for (int i = 4; i < 14; i++)                                                    \
            w[i] = zero;                                                                \
        memcpy(w + 14, in[4], sizeof(in[0]) * 2);                                       \
        state[0] = zero + 0x67452301U;                                                  \
        state[1] = zero + 0xEFCDAB89U;                                                  \
        state[2] = zero + 0x98BADCFEU;                                                  \
        state[3] = zero + 0x10325476U;                                                  \
        state[4] = zero + 0xC3D2E1F0U;                                                  \
        SHA1_BLOCK(sha1_vector, state, w);                                              \
        memcpy(w, in[6], sizeof(in[0]) * 2);                                            \
        for (int i = 2; i < 12; i++)                                                    \
            w[i] = zero + 0xF2F2F2F2U;                                                  \
        w[12] = zero + 0x80000000U;                                                     \
        w[13] = w[14] = zero;                                                           \
        w[15] = zero + 8U * (16 + 40 + 16 + 40);                                        \
        SHA1_BLOCK(sha1_vector, state, w);                                              \
        memcpy(end, state, sizeof(end));                                                \
        for (uint32_t l = 0; l < n; l++)                                                \
            for (int i = 0; i < 4; i++) {                                               \
                uint32_t word = __builtin_bswap32(end[i][l]);                           \
                memcpy(out + 16 * l + 4 * i, &word, 4);                                 \
            }                                                                           \
    }

__attribute__((target("avx2")))
static void sha1_avx2_changes(const uint8_t *const *starts, const uint8_t *const *keys,
                              uint32_t n, uint8_t *out) SHA1_CHANGES

__attribute__((target("avx512f,avx512vl,avx2")))
static void sha1_avx512_changes(const uint8_t *const *starts, const uint8_t *const *keys,
                                uint32_t n, uint8_t *out) SHA1_CHANGES
#else
static int sha1_avx2_usable(void) { return 0; }
static int sha1_avx512_usable(void) { return 0; }
static void sha1_avx2_changes(const uint8_t *const *starts, const uint8_t *const *keys,
                              uint32_t n, uint8_t *out)
{
    (void)starts; (void)keys; (void)n; (void)out;
}
static void sha1_avx512_changes(const uint8_t *const *starts, const uint8_t *const *keys,
                                uint32_t n, uint8_t *out)
{
    (void)starts; (void)keys; (void)n; (void)out;
}
#endif
#endif
