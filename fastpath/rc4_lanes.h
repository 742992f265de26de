/* RC4 over several independent streams in step, for x86-64.
 *
 * One stream waits for its own table: each octet's loads depend on the stores of the one
 * before. Six streams side by side fill those waits. The compiler's own choice of registers
 * costs half of the gain, so the step of one octet is given as instructions. Tables lie
 * 264 octets apart (sizeof(rc4_state) in mppe.pxd), which keeps the lanes out of each
 * other's way in the store buffer. `rc4_lanes_usable` says no on other processors. */
#ifndef PPTPCON_RC4_LANES_H
#define PPTPCON_RC4_LANES_H
#include <stdint.h>
#include <string.h>

#define RC4_TABLE 264
#define RC4_STREAM 2304 /* octets between the lanes' key streams */

#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))
static int rc4_lanes_usable(void) { return 1; }

/* eax: s[x]; ecx: s[y], then the index of the octet wanted */
#define RC4_STEP(table, y, stream)                    \
    "movzbl " #table "(%[s],%[x]), %%eax\n\t"         \
    "addb %%al, %b[" y "]\n\t"                        \
    "movzbl " #table "(%[s],%q[" y "]), %%ecx\n\t"    \
    "movb %%al, " #table "(%[s],%q[" y "])\n\t"       \
    "movb %%cl, " #table "(%[s],%[x])\n\t"            \
    "addb %%al, %%cl\n\t"                             \
    "movzbl " #table "(%[s],%%rcx), %%eax\n\t"        \
    "movb %%al, " #stream "(%[k])\n\t"

/* The first n octets of the key streams of six fresh tables, n > 0. */
static void rc4_six(void *tables, uint8_t *streams, uint64_t n)
{
    uint64_t x = 0, y0 = 0, y1 = 0, y2 = 0, y3 = 0, y4 = 0, y5 = 0;
    uint8_t *k = streams;
    const uint8_t *end = streams + n;
    __asm__ volatile(
        "1:\n\t"
        "incb %b[x]\n\t"
        RC4_STEP(0, "y0", 0)
        RC4_STEP(264, "y1", 2304)
        RC4_STEP(528, "y2", 4608)
        RC4_STEP(792, "y3", 6912)
        RC4_STEP(1056, "y4", 9216)
        RC4_STEP(1320, "y5", 11520)
        "incq %[k]\n\t"
        "cmpq %[end], %[k]\n\t"
        "jne 1b\n\t"
        : [x] "+&r"(x), [y0] "+&r"(y0), [y1] "+&r"(y1), [y2] "+&r"(y2), [y3] "+&r"(y3),
          [y4] "+&r"(y4), [y5] "+&r"(y5), [k] "+&r"(k)
        : [s] "r"(tables), [end] "r"(end)
        : "rax", "rcx", "memory", "cc");
    uint8_t *t = tables;
    const uint64_t y[6] = {y0, y1, y2, y3, y4, y5};
    for (int i = 0; i < 6; i++) {
        t[i * RC4_TABLE + 256] = (uint8_t)x;
        t[i * RC4_TABLE + 257] = (uint8_t)y[i];
    }
}

/* The same of four tables, for what is left of a batch. */
static void rc4_four(void *tables, uint8_t *streams, uint64_t n)
{
    uint64_t x = 0, y0 = 0, y1 = 0, y2 = 0, y3 = 0;
    uint8_t *k = streams;
    const uint8_t *end = streams + n;
    __asm__ volatile(
        "1:\n\t"
        "incb %b[x]\n\t"
        RC4_STEP(0, "y0", 0)
        RC4_STEP(264, "y1", 2304)
        RC4_STEP(528, "y2", 4608)
        RC4_STEP(792, "y3", 6912)
        "incq %[k]\n\t"
        "cmpq %[end], %[k]\n\t"
        "jne 1b\n\t"
        : [x] "+&r"(x), [y0] "+&r"(y0), [y1] "+&r"(y1), [y2] "+&r"(y2), [y3] "+&r"(y3),
          [k] "+&r"(k)
        : [s] "r"(tables), [end] "r"(end)
        : "rax", "rcx", "memory", "cc");
    uint8_t *t = tables;
    const uint64_t y[4] = {y0, y1, y2, y3};
    for (int i = 0; i < 4; i++) {
        t[i * RC4_TABLE + 256] = (uint8_t)x;
        t[i * RC4_TABLE + 257] = (uint8_t)y[i];
    }
}
#else
static int rc4_lanes_usable(void) { return 0; }
static void rc4_four(void *tables, uint8_t *streams, uint64_t n)
{
    (void)tables; (void)streams; (void)n;
}
static void rc4_six(void *tables, uint8_t *streams, uint64_t n)
{
    (void)tables; (void)streams; (void)n;
}
#endif

/* Three key schedules in step; a register apiece is left for each lane's table. */
static void rc4_key_three(void *tables, const uint8_t *k0, uint32_t m0, const uint8_t *k1,
                          uint32_t m1, const uint8_t *k2, uint32_t m2, const uint8_t *identity)
{
    uint8_t *a = tables, *b = a + RC4_TABLE, *c = b + RC4_TABLE;
    uint32_t ja = 0, jb = 0, jc = 0;
    memcpy(a, identity, 256);
    memcpy(b, identity, 256);
    memcpy(c, identity, 256);
    for (uint32_t i = 0; i < 256; i++) {
        uint32_t ta = a[i], tb = b[i], tc = c[i];
        ja = (uint8_t)(ja + ta + k0[i & m0]);
        jb = (uint8_t)(jb + tb + k1[i & m1]);
        jc = (uint8_t)(jc + tc + k2[i & m2]);
        a[i] = a[ja];
        a[ja] = (uint8_t)ta;
        b[i] = b[jb];
        b[jb] = (uint8_t)tb;
        c[i] = c[jc];
        c[jc] = (uint8_t)tc;
    }
    for (int i = 0; i < 3; i++)
        a[i * RC4_TABLE + 256] = a[i * RC4_TABLE + 257] = 0;
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

static void xor_stream(uint8_t *data, const uint8_t *stream, uint32_t n)
{
    uint32_t i = 0;
    for (; i + 8 <= n; i += 8) {
        uint64_t v, w;
        memcpy(&v, data + i, 8);
        memcpy(&w, stream + i, 8);
        v ^= w;
        memcpy(data + i, &v, 8);
    }
    for (; i < n; i++)
        data[i] ^= stream[i];
}
#endif
