/* RC4 over several independent streams in step, for x86-64 with SSE4.1.
 *
 * One stream waits for its own table: each octet's loads depend on the stores of the one
 * before. Streams side by side fill those waits, until the core's one store a cycle is what
 * limits: two stores an octet are RC4's own (the swap), and the octet won must not be a
 * third. So sixteen octets of a stream gather in a vector register (pinsrb) and are stored
 * at once. The compiler's own choice of registers costs much of the gain, so the steps are
 * given as instructions.
 *
 * A *block* is the steps of sixteen indexes x, from a multiple of 16: the offset from x is
 * then a constant. RC4 begins with index 1, so the first block of a stream lacks its first
 * step, and its octets begin at 1. All lanes have the same x.
 *
 * Tables (rc4_state in mppe.pxd) lie RC4_TABLE octets apart, which keeps the lanes out of
 * each other's way in the store buffer. `rc4_lanes_usable` says no on other processors. */
#ifndef PPTPCON_RC4_LANES_H
#define PPTPCON_RC4_LANES_H
#include <stdint.h>
#include <string.h>

#define RC4_TABLE 264
#define RC4_STREAM 1552 /* octets between the lanes' key streams */
#define RC4_BLOCKS 96   /* at most, of one call: they and the first block's gap fit */

typedef void (*rc4_lanes_function)(void *tables, uint8_t *streams, uint32_t blocks, uint32_t x);
typedef void (*rc4_keys_function)(void *tables, const uint8_t *keys, const uint8_t *identity);

#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))
#include <cpuid.h>

static int rc4_lanes_usable(void)
{
    unsigned a, b, c, d;
    return __get_cpuid(1, &a, &b, &c, &d) && (c >> 19) & 1;
}

#define SIXTEEN(STEP) STEP(0) FIFTEEN(STEP)
#define FIFTEEN(STEP)                                                                   \
    STEP(1) STEP(2) STEP(3) STEP(4) STEP(5) STEP(6) STEP(7) STEP(8) STEP(9) STEP(10)    \
    STEP(11) STEP(12) STEP(13) STEP(14) STEP(15)
#define LANES_1(DO, m) DO(0, m)
#define LANES_2(DO, m) LANES_1(DO, m) DO(1, m)
#define LANES_3(DO, m) LANES_2(DO, m) DO(2, m)
#define LANES_4(DO, m) LANES_3(DO, m) DO(3, m)
#define LANES_5(DO, m) LANES_4(DO, m) DO(4, m)
#define LANES_6(DO, m) LANES_5(DO, m) DO(5, m)

/* Lane l, index x + m. eax: s[x]; ecx: s[y], then the place of the octet wanted. */
#define STREAM_STEP(l, m)                                           \
    "movzbl 264*" #l "+" #m "(%[s],%[x]), %%eax\n\t"                \
    "addb %%al, %b[y" #l "]\n\t"                                    \
    "movzbl 264*" #l "(%[s],%q[y" #l "]), %%ecx\n\t"                \
    "movb %%al, 264*" #l "(%[s],%q[y" #l "])\n\t"                   \
    "movb %%cl, 264*" #l "+" #m "(%[s],%[x])\n\t"                   \
    "addb %%al, %%cl\n\t"                                           \
    "pinsrb $" #m ", 264*" #l "(%[s],%%rcx), %%xmm" #l "\n\t"
#define STREAM_LOAD(l, m) "movzbl 264*" #l "+257(%[s]), %k[y" #l "]\n\t"
#define STREAM_KEEP(l, m) "movb %b[y" #l "], 264*" #l "+257(%[s])\n\t"
#define STREAM_STORE(l, m) "movups %%xmm" #l ", 1552*" #l "(%[k])\n\t"
#define STREAM_CLEAR(l, m) "pxor %%xmm" #l ", %%xmm" #l "\n\t"

/* Lane l, index x + m of a key schedule; the lanes' keys are 16 octets apart. */
#define KEY_STEP(l, m)                                              \
    "movzbl 264*" #l "+" #m "(%[s],%[x]), %%eax\n\t"                \
    "addb %%al, %b[y" #l "]\n\t"                                    \
    "addb 16*" #l "+" #m "(%[k]), %b[y" #l "]\n\t"                  \
    "movzbl 264*" #l "(%[s],%q[y" #l "]), %%ecx\n\t"                \
    "movb %%al, 264*" #l "(%[s],%q[y" #l "])\n\t"                   \
    "movb %%cl, 264*" #l "+" #m "(%[s],%[x])\n\t"

/* The same for one lane or two, which wait for themselves: s[x + 1] is loaded before this
 * step's stores, because the core would keep that load back until it knows their addresses.
 * One time in 256 the swap touches it, and then it is loaded again. */
#define AHEAD_STEP(l, m)                                            \
    "addb %b[t" #l "], %b[y" #l "]\n\t"                             \
    "addb 16*" #l "+" #m "(%[k]), %b[y" #l "]\n\t"                  \
    "movzbl 264*" #l "+" #m "+1(%[s],%[x]), %%ecx\n\t"              \
    "movzbl 264*" #l "(%[s],%q[y" #l "]), %%eax\n\t"                \
    "movb %b[t" #l "], 264*" #l "(%[s],%q[y" #l "])\n\t"            \
    "movb %%al, 264*" #l "+" #m "(%[s],%[x])\n\t"                   \
    "leal " #m "+1(%k[x]), %%eax\n\t"                               \
    "cmpb %%al, %b[y" #l "]\n\t"                                    \
    "je .Lagain%=_" #l "_" #m "\n\t"                                \
    ".Lgoes_on%=_" #l "_" #m ":\n\t"                                \
    "movl %%ecx, %k[t" #l "]\n\t"
#define AHEAD_AGAIN(l, m)                                           \
    ".Lagain%=_" #l "_" #m ":\n\t"                                  \
    "movzbl 264*" #l "+" #m "+1(%[s],%[x]), %%ecx\n\t"              \
    "jmp .Lgoes_on%=_" #l "_" #m "\n\t"
#define AHEAD_LOAD(l, m) "movzbl 264*" #l "(%[s]), %k[t" #l "]\n\t"

#define Y_1 [y0] "=&r"(y[0])
#define Y_2 Y_1, [y1] "=&r"(y[1])
#define Y_3 Y_2, [y2] "=&r"(y[2])
#define Y_4 Y_3, [y3] "=&r"(y[3])
#define Y_5 Y_4, [y4] "=&r"(y[4])
#define Y_6 Y_5, [y5] "=&r"(y[5])
#define KEY_ZERO(l, m) "xorl %k[y" #l "], %k[y" #l "]\n\t"
#define VECTORS "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5"

/* rc4_lanes_K: blocks of K streams that have the index x before them, 0 or 15 modulo 16.
 * After 0 a first block's octets begin at 1. Leaves y in the tables; x is the caller's. */
#define STREAMS(K, STEP)                                                                       \
    static void rc4_lanes_##K(void *tables, uint8_t *streams, uint32_t blocks, uint32_t x)     \
    {                                                                                          \
        uint64_t base = (uint8_t)(x + 1) & 0xf0, y[K];                                         \
        const uint8_t *end = streams + 16 * (uint64_t)blocks;                                  \
        __asm__ volatile(LANES_##K(STREAM_LOAD, 0) LANES_##K(STREAM_CLEAR, 0)                  \
                         "testb $15, %[was]\n\t"                                               \
                         "je 2f\n\t"                                                           \
                         "1:\n\t" STEP(0) "2:\n\t" FIFTEEN(STEP)                               \
                         LANES_##K(STREAM_STORE, 0)                                            \
                         "addb $16, %b[x]\n\t"                                                 \
                         "addq $16, %[k]\n\t"                                                  \
                         "cmpq %[end], %[k]\n\t"                                               \
                         "jb 1b\n\t" LANES_##K(STREAM_KEEP, 0)                                 \
                         : [x] "+&q"(base), [k] "+&r"(streams), Y_##K                          \
                         : [s] "r"(tables), [end] "rm"(end), [was] "m"(x)                      \
                         : "rax", "rcx", "memory", "cc", VECTORS);                             \
    }
#define STREAM_1(m) LANES_1(STREAM_STEP, m)
#define STREAM_2(m) LANES_2(STREAM_STEP, m)
#define STREAM_3(m) LANES_3(STREAM_STEP, m)
#define STREAM_4(m) LANES_4(STREAM_STEP, m)
#define STREAM_5(m) LANES_5(STREAM_STEP, m)
#define STREAM_6(m) LANES_6(STREAM_STEP, m)
STREAMS(1, STREAM_1)
STREAMS(2, STREAM_2)
STREAMS(3, STREAM_3)
STREAMS(4, STREAM_4)
STREAMS(5, STREAM_5)
STREAMS(6, STREAM_6)

static void rc4_begin(uint8_t *tables, int lanes, const uint8_t *identity)
{
    for (int i = 0; i < lanes; i++, tables += RC4_TABLE) {
        memcpy(tables, identity, 256);
        memset(tables + 256, 0, 2);
    }
}

/* rc4_keys_K: the key schedules of K tables. */
#define SCHEDULES(K, STEP, BEFORE, AFTER, ...)                                                 \
    static void rc4_keys_##K(void *tables, const uint8_t *keys, const uint8_t *identity)       \
    {                                                                                          \
        uint64_t x = 0, y[K], t0, t1;                                                          \
        (void)t0, (void)t1;                                                                    \
        rc4_begin(tables, K, identity);                                                        \
        __asm__ volatile(LANES_##K(KEY_ZERO, 0) BEFORE                                         \
                         "1:\n\t" SIXTEEN(STEP)                                                \
                         "addl $16, %k[x]\n\t"                                                 \
                         "cmpl $256, %k[x]\n\t"                                                \
                         "jne 1b\n\t" AFTER                                                    \
                         : [x] "+&r"(x), Y_##K __VA_ARGS__                                     \
                         : [s] "r"(tables), [k] "r"(keys)                                      \
                         : "rax", "rcx", "memory", "cc");                                      \
    }
#define AHEAD_1(m) LANES_1(AHEAD_STEP, m)
#define AHEAD_2(m) LANES_2(AHEAD_STEP, m)
#define AGAIN_1(m) LANES_1(AHEAD_AGAIN, m)
#define AGAIN_2(m) LANES_2(AHEAD_AGAIN, m)
#define KEY_3(m) LANES_3(KEY_STEP, m)
#define KEY_4(m) LANES_4(KEY_STEP, m)
#define KEY_5(m) LANES_5(KEY_STEP, m)
#define KEY_6(m) LANES_6(KEY_STEP, m)
#define AHEAD(K, ...) \
    SCHEDULES(K, AHEAD_##K, LANES_##K(AHEAD_LOAD, 0), "jmp 2f\n\t" SIXTEEN(AGAIN_##K) "2:\n\t", \
              , __VA_ARGS__)
AHEAD(1, [t0] "=&q"(t0))
AHEAD(2, [t0] "=&q"(t0), [t1] "=&q"(t1))
SCHEDULES(3, KEY_3, "", "")
SCHEDULES(4, KEY_4, "", "")
SCHEDULES(5, KEY_5, "", "")
SCHEDULES(6, KEY_6, "", "")

/* By number of lanes. */
static const rc4_lanes_function rc4_lanes[7] = {
    0, rc4_lanes_1, rc4_lanes_2, rc4_lanes_3, rc4_lanes_4, rc4_lanes_5, rc4_lanes_6};
static const rc4_keys_function rc4_keys[7] = {
    0, rc4_keys_1, rc4_keys_2, rc4_keys_3, rc4_keys_4, rc4_keys_5, rc4_keys_6};
#else
static int rc4_lanes_usable(void) { return 0; }
static const rc4_lanes_function rc4_lanes[7];
static const rc4_keys_function rc4_keys[7];
#endif

/* Three key schedules in step; a register apiece is left for each lane's table. */
static void rc4_keys_portable(void *tables, const uint8_t *keys, const uint8_t *identity)
{
    uint8_t *a = tables, *b = a + RC4_TABLE, *c = b + RC4_TABLE;
    uint32_t ja = 0, jb = 0, jc = 0;
    memcpy(a, identity, 256);
    memcpy(b, identity, 256);
    memcpy(c, identity, 256);
    for (uint32_t i = 0; i < 256; i++) {
        uint32_t ta = a[i], tb = b[i], tc = c[i];
        const uint8_t *k = keys + (i & 15);
        ja = (uint8_t)(ja + ta + k[0]);
        jb = (uint8_t)(jb + tb + k[16]);
        jc = (uint8_t)(jc + tc + k[32]);
        a[i] = a[ja];
        a[ja] = (uint8_t)ta;
        b[i] = b[jb];
        b[jb] = (uint8_t)tb;
        c[i] = c[jc];
        c[jc] = (uint8_t)tc;
    }
    for (int i = 0; i < 3; i++)
        memset(a + i * RC4_TABLE + 256, 0, 2);
}

/* Two streams in step, in place, from fresh tables: what any compiler does well. */
static void rc4_two(void *tables, uint8_t *p, uint8_t *q, uint32_t n)
{
    uint8_t *a = tables, *b = a + RC4_TABLE;
    uint32_t x = 0, ya = 0, yb = 0, i = 0;
    for (; i + 8 <= n; i += 8) {
        uint64_t wa = 0, wb = 0, v;
        for (int k = 0; k < 8; k++) {
            uint32_t ta, tb, ua, ub;
            x = (uint8_t)(x + 1);
            ta = a[x];
            ya = (uint8_t)(ya + ta);
            ua = a[ya];
            a[x] = (uint8_t)ua;
            a[ya] = (uint8_t)ta;
            tb = b[x];
            yb = (uint8_t)(yb + tb);
            ub = b[yb];
            b[x] = (uint8_t)ub;
            b[yb] = (uint8_t)tb;
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
            wa = (wa >> 8) | ((uint64_t)a[(uint8_t)(ta + ua)] << 56);
            wb = (wb >> 8) | ((uint64_t)b[(uint8_t)(tb + ub)] << 56);
#else
            wa = (wa << 8) | a[(uint8_t)(ta + ua)];
            wb = (wb << 8) | b[(uint8_t)(tb + ub)];
#endif
        }
        memcpy(&v, p + i, 8);
        v ^= wa;
        memcpy(p + i, &v, 8);
        memcpy(&v, q + i, 8);
        v ^= wb;
        memcpy(q + i, &v, 8);
    }
    a[256] = b[256] = (uint8_t)x;
    a[257] = (uint8_t)ya;
    b[257] = (uint8_t)yb;
}

typedef uint64_t rc4_pair __attribute__((vector_size(16)));

static void xor_stream(uint8_t *data, const uint8_t *stream, uint32_t n)
{
    uint32_t i = 0;
    for (; i + 16 <= n; i += 16) {
        rc4_pair v, w;
        memcpy(&v, data + i, 16);
        memcpy(&w, stream + i, 16);
        v ^= w;
        memcpy(data + i, &v, 16);
    }
    for (; i < n; i++)
        data[i] ^= stream[i];
}
#endif
