/* The sum of 32-bit words, for the Internet checksum: many at a time where the CPU can. */
#ifndef PPTPCON_SUM_H
#define PPTPCON_SUM_H
#include <stddef.h>
#include <stdint.h>
#include <string.h>

static inline uint64_t sum_portable(const uint8_t *p, size_t n)
{
    uint64_t a = 0, b = 0;
    for (; n; n -= 32, p += 32) {
        uint32_t w[8];
        memcpy(w, p, 32);
        a += (uint64_t)w[0] + w[1] + w[2] + w[3];
        b += (uint64_t)w[4] + w[5] + w[6] + w[7];
    }
    return a + b;
}

static inline uint64_t copy_sum_portable(uint8_t *to, const uint8_t *p, size_t n)
{
    memcpy(to, p, n);
    return sum_portable(p, n);
}

#if defined(__x86_64__)
#include <immintrin.h>

/* Lanes of 64 bits take the low and the high halves apart: no carry is ever lost. */
__attribute__((target("avx2"), noinline)) static uint64_t sum_avx2(const uint8_t *p, size_t n)
{
    const __m256i low = _mm256_set1_epi64x(0xFFFFFFFF);
    __m256i a = _mm256_setzero_si256(), b = a;
    uint64_t lanes[4];
    for (; n; n -= 32, p += 32) {
        __m256i v = _mm256_loadu_si256((const __m256i *)p);
        a = _mm256_add_epi64(a, _mm256_and_si256(v, low));
        b = _mm256_add_epi64(b, _mm256_srli_epi64(v, 32));
    }
    _mm256_storeu_si256((__m256i *)lanes, _mm256_add_epi64(a, b));
    return lanes[0] + lanes[1] + lanes[2] + lanes[3];
}

/* The same on the way of a copy: each octet is loaded once. */
__attribute__((target("avx2"), noinline)) static uint64_t
copy_sum_avx2(uint8_t *to, const uint8_t *p, size_t n)
{
    const __m256i low = _mm256_set1_epi64x(0xFFFFFFFF);
    __m256i a = _mm256_setzero_si256(), b = a;
    uint64_t lanes[4];
    for (; n; n -= 32, p += 32, to += 32) {
        __m256i v = _mm256_loadu_si256((const __m256i *)p);
        _mm256_storeu_si256((__m256i *)to, v);
        a = _mm256_add_epi64(a, _mm256_and_si256(v, low));
        b = _mm256_add_epi64(b, _mm256_srli_epi64(v, 32));
    }
    _mm256_storeu_si256((__m256i *)lanes, _mm256_add_epi64(a, b));
    return lanes[0] + lanes[1] + lanes[2] + lanes[3];
}

/* n octets, a multiple of 32. */
static inline uint64_t copy_sum_words(uint8_t *to, const uint8_t *p, size_t n)
{
    return __builtin_cpu_supports("avx2") ? copy_sum_avx2(to, p, n) : copy_sum_portable(to, p, n);
}

/* n octets, a multiple of 32. */
static inline uint64_t sum_words(const uint8_t *p, size_t n)
{
    return __builtin_cpu_supports("avx2") ? sum_avx2(p, n) : sum_portable(p, n);
}
#else
static inline uint64_t copy_sum_words(uint8_t *to, const uint8_t *p, size_t n)
{
    return copy_sum_portable(to, p, n);
}
static inline uint64_t sum_words(const uint8_t *p, size_t n) { return sum_portable(p, n); }
#endif

#endif
