/* The plain loop: a concentrator's data path with one system call for each packet.
 *
 * It is the yardstick for ours: recv on a raw socket, OpenSSL's low-level RC4 and SHA-1, write
 * to the TUN; and read, OpenSSL, sendto the other way. It checks what a server must (call,
 * peer, sequence, inner source) and acknowledges every 16th packet, as ours does. The file
 * also makes the bursts that both are fed with and measures single system calls. Built and
 * called by plain.py; every function here runs without the interpreter's lock. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <linux/if_packet.h>
#include <netinet/in.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

/* The deprecated part of libcrypto, which needs no provider: openssl/rc4.h, openssl/sha.h. */
typedef struct { unsigned x, y, data[256]; } rc4_key;
typedef struct { unsigned h[5], nl, nh, data[16], num; } sha_context;
extern void RC4_set_key(rc4_key *, int, const unsigned char *);
extern void RC4(rc4_key *, size_t, const unsigned char *, unsigned char *);
extern int SHA1_Init(sha_context *), SHA1_Update(sha_context *, const void *, size_t);
extern int SHA1_Final(unsigned char *, sha_context *);

#define STRIDE 2048        /* octets between packets of a burst */
#define SUPER 66000        /* octets between super-packets */
#define ETHERNET 14
#define VNET 10
#define SEGMENT 1360       /* TCP payload of an inner packet of 1400 octets */
#define INNER 1400
#define BATCH 64
#define ACK_EVERY 16

struct direction {
    uint8_t start[16], key[16];
    uint32_t seq, count;
};

/* One call, as one of its two ends sees it. Addresses in network order. */
struct session {
    struct direction up, down;
    uint32_t inner, lan, peer, here;
    uint32_t call_id, peer_call_id;
    uint32_t tcp_seq, unacked;
};

struct counts {
    uint64_t packets, octets, calls, bad;
    double cpu_ns;
};

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

double plain_cpu_ns(void) { return now(); }
uint32_t plain_session_size(void) { return sizeof(struct session); }

static void put16(uint8_t *p, uint32_t v) { p[0] = (uint8_t)(v >> 8); p[1] = (uint8_t)v; }
static void put32(uint8_t *p, uint32_t v) { put16(p, v >> 16); put16(p + 2, v & 0xffff); }
static uint32_t be16(const uint8_t *p) { return (uint32_t)p[0] << 8 | p[1]; }
static uint32_t be32(const uint8_t *p) { return be16(p) << 16 | be16(p + 2); }

static uint32_t sum(const uint8_t *p, uint32_t n, uint32_t s)
{
    for (; n > 1; n -= 2, p += 2)
        s += be16(p);
    if (n)
        s += (uint32_t)p[0] << 8;
    while (s >> 16)
        s = (s & 0xffff) + (s >> 16);
    return s;
}

/* The next packet's key and stream (RFC 3078 section 7.3): new interim key, new table. */
static void next_stream(struct direction *d, rc4_key *stream)
{
    static const uint8_t zeros[40];
    static const uint8_t twos[40] = {
        0xf2, 0xf2, 0xf2, 0xf2, 0xf2, 0xf2, 0xf2, 0xf2, 0xf2, 0xf2, 0xf2, 0xf2, 0xf2, 0xf2,
        0xf2, 0xf2, 0xf2, 0xf2, 0xf2, 0xf2, 0xf2, 0xf2, 0xf2, 0xf2, 0xf2, 0xf2, 0xf2, 0xf2,
        0xf2, 0xf2, 0xf2, 0xf2, 0xf2, 0xf2, 0xf2, 0xf2, 0xf2, 0xf2, 0xf2, 0xf2};
    sha_context sha;
    uint8_t fresh[20];
    SHA1_Init(&sha);
    SHA1_Update(&sha, d->start, 16);
    SHA1_Update(&sha, zeros, 40);
    SHA1_Update(&sha, d->key, 16);
    SHA1_Update(&sha, twos, 40);
    SHA1_Final(fresh, &sha);
    RC4_set_key(stream, 16, fresh);
    RC4(stream, 16, fresh, d->key);
    RC4_set_key(stream, 16, d->key);
}

/* -- bursts */

static void inner_head(uint8_t *p, uint32_t from, uint32_t to, uint32_t size, uint32_t seq)
{
    memset(p, 0, 40);
    p[0] = 0x45;
    put16(p + 2, size);
    p[6] = 0x40;
    p[8] = 64;
    p[9] = IPPROTO_TCP;
    memcpy(p + 12, &from, 4);
    memcpy(p + 16, &to, 4);
    put16(p + 10, ~sum(p, 20, 0) & 0xffff);
    put16(p + 20, 5001);
    put16(p + 22, 5002);
    put32(p + 24, seq);
    put32(p + 28, 1);
    p[32] = 0x50;
    p[33] = 0x10;
    put16(p + 34, 500);
}

/* Enhanced GRE, PPP, MPPE if wanted, before an inner packet of n octets; the size of all. */
static uint32_t wrap(struct direction *d, uint32_t call_id, int mppe, uint8_t *inner, uint32_t n)
{
    rc4_key stream;
    uint8_t *p = inner;
    if (mppe) {
        p -= 2;
        put16(p, 0x0021);
        next_stream(d, &stream);
        RC4(&stream, n + 2, p, p);
        p -= 2;
        put16(p, 0x9000 | (d->count++ & 0x0fff));
        p -= 2;
        put16(p, 0x00fd);
    } else {
        p -= 2;
        put16(p, 0x0021);
    }
    p -= 2;
    put16(p, 0xff03);
    n += (uint32_t)(inner - p);
    p -= 12;
    put16(p, 0x3001);
    put16(p + 2, 0x880b);
    put16(p + 4, n);
    put16(p + 6, call_id);
    put32(p + 8, d->seq++);
    return n + 12;
}

#define FRONT (ETHERNET + 20 + 12 + 8)     /* where the inner packet of a burst begins, at most */

/* A client's outer packet around an inner one of n octets: its size, from before `inner` on. */
static uint32_t outer(struct session *s, uint8_t *inner, uint32_t n, int mppe)
{
    uint32_t size = wrap(&s->up, s->call_id, mppe, inner, n);
    uint8_t *p = inner + n - size - 20;
    memset(p, 0, 20);
    p[0] = 0x45;
    put16(p + 2, size + 20);
    p[8] = 64;
    p[9] = 47;
    memcpy(p + 12, &s->peer, 4);
    memcpy(p + 16, &s->here, 4);
    put16(p + 10, ~sum(p, 20, 0) & 0xffff);
    return size + 20;
}

/* Frames from the clients, sessions by turns, `run` packets of each; offset and size of each. */
void plain_make_up(struct session *sessions, uint32_t n, uint32_t packets, uint32_t run, int mppe,
                   const uint8_t *ethernet, uint8_t *out, uint32_t *at, uint32_t *sizes)
{
    for (uint32_t i = 0; i < packets; i++) {
        struct session *s = &sessions[i / run % n];
        uint8_t *inner = out + i * STRIDE + FRONT, *p;
        uint32_t size;
        inner_head(inner, s->inner, s->lan, INNER, s->tcp_seq);
        for (uint32_t k = 40; k < INNER; k++)
            inner[k] = (uint8_t)(k * 7 + i);
        put16(inner + 36, ~sum(inner + 20, INNER - 20, sum(inner + 12, 8, 6 + INNER - 20)));
        s->tcp_seq += SEGMENT;
        size = outer(s, inner, INNER, mppe);
        p = inner + INNER - size - ETHERNET;
        memcpy(p, ethernet, ETHERNET);
        at[i] = (uint32_t)(p - out);
        sizes[i] = size + ETHERNET;
    }
}

/* Frames from the LAN: super-packets of `segments` each (virtio header before), by turns. */
void plain_make_down(struct session *sessions, uint32_t n, uint32_t supers, uint32_t segments,
                     const uint8_t *ethernet, uint8_t *out, uint32_t *at, uint32_t *sizes)
{
    for (uint32_t i = 0; i < supers; i++) {
        struct session *s = &sessions[i % n];
        uint8_t *p = out + (size_t)i * SUPER, *inner = p + VNET + ETHERNET;
        uint32_t size = 40 + SEGMENT * segments;
        memset(p, 0, VNET);
        memcpy(p + VNET, ethernet, ETHERNET);
        inner_head(inner, s->lan, s->inner, size, s->tcp_seq);
        memset(inner + 40, (int)i, size - 40);
        put16(inner + 36, sum(inner + 12, 8, 6 + size - 20));
        p[0] = 1;                                  /* the kernel's part of the checksum */
        if (segments > 1) {
            p[1] = 1;                              /* TCP over IPv4 */
            *(uint16_t *)(p + 2) = ETHERNET + 40;
            *(uint16_t *)(p + 4) = SEGMENT;
        }
        *(uint16_t *)(p + 6) = ETHERNET + 20;
        *(uint16_t *)(p + 8) = 16;
        s->tcp_seq += SEGMENT * segments;
        at[i] = (uint32_t)(p - out);
        sizes[i] = size + VNET + ETHERNET;
    }
}

/* Inner packets of the simple IMIX, 7 : 4 : 1. Every second of the small ones is TCP, the others
 * are UDP without a checksum. */
static const uint32_t mix[12] = {64, 576, 64, 64, 576, 64, 1400, 64, 576, 64, 576, 64};

static uint32_t mixed(uint8_t *inner, uint32_t from, uint32_t to, uint32_t i, uint32_t seq)
{
    uint32_t size = mix[i % 12];
    inner_head(inner, from, to, size, seq);
    memset(inner + 40, (int)i, size - 40);
    if (size == 64 && (i & 1)) {
        put16(inner + 36, ~sum(inner + 20, size - 20, sum(inner + 12, 8, 6 + size - 20)));
        return size;
    }
    memset(inner + 20, 0, 20);
    inner[9] = IPPROTO_UDP;
    put16(inner + 10, 0);
    put16(inner + 10, ~sum(inner, 20, 0) & 0xffff);
    put16(inner + 20, 5001);
    put16(inner + 22, 5002);
    put16(inner + 24, size - 20);
    return size;
}

/* Frames of that mix, a packet of each session from the first on: of the clients (`up`), or of
 * the LAN with a virtio header that asks for nothing. The octets of the inner packets. */
uint32_t plain_make_mix(struct session *sessions, uint32_t n, uint32_t first, uint32_t packets,
                        int up, int mppe, const uint8_t *ethernet, uint8_t *out, uint32_t *at,
                        uint32_t *sizes)
{
    uint32_t octets = 0;
    for (uint32_t i = 0; i < packets; i++) {
        struct session *s = &sessions[(first + i) % n];
        uint8_t *inner = out + i * STRIDE + FRONT, *p;
        uint32_t size = mixed(inner, up ? s->inner : s->lan, up ? s->lan : s->inner, i, s->tcp_seq);
        octets += size;
        s->tcp_seq += size - 40;
        if (up) {
            size = outer(s, inner, size, mppe);
            p = inner + mix[i % 12] - size - ETHERNET;
            memcpy(p, ethernet, ETHERNET);
            size += ETHERNET;
        } else {
            p = inner - ETHERNET - VNET;
            memset(p, 0, VNET);
            memcpy(p + VNET, ethernet, ETHERNET);
            size += ETHERNET + VNET;
        }
        at[i] = (uint32_t)(p - out);
        sizes[i] = size;
    }
    return octets;
}

static int put_in(int fd, uint8_t *data, const uint32_t *at, const uint32_t *sizes, uint32_t n,
                  struct counts *c)
{
    struct mmsghdr m[BATCH];
    struct iovec v[BATCH];
    double begin;
    volatile uint8_t touched = 0;
    /* Whoever worked before, the frames come out of the same cache. */
    for (uint32_t i = 0; i < n; i++)
        for (uint32_t k = 0; k < sizes[i]; k += 64)
            touched = (uint8_t)(touched + data[at[i] + k]);
    memset(m, 0, sizeof m);
    begin = now();
    for (uint32_t done = 0; done < n;) {
        uint32_t some = n - done < BATCH ? n - done : BATCH;
        int sent;
        for (uint32_t i = 0; i < some; i++) {
            v[i].iov_base = data + at[done + i];
            v[i].iov_len = sizes[done + i];
            m[i].msg_hdr.msg_iov = &v[i];
            m[i].msg_hdr.msg_iovlen = 1;
        }
        sent = sendmmsg(fd, m, some, 0);
        c->calls++;
        if (sent <= 0)
            return errno ? errno : EIO;
        done += (uint32_t)sent;
        c->packets += (uint32_t)sent;
    }
    c->cpu_ns += now() - begin;
    return 0;
}

/* Send frames by a bound packet socket: 0, or errno. The `first` of them go ahead and are not
 * counted: `nap_ns` later the receiver is awake and at work, so that the others come to a
 * thread that does not sleep, as under load. */
int plain_inject(int fd, uint8_t *data, const uint32_t *at, const uint32_t *sizes, uint32_t n,
                 uint32_t first, uint32_t nap_ns, struct counts *c)
{
    struct timespec t = {0, (long)nap_ns};
    struct counts ahead = {0};
    if (first) {
        int code = put_in(fd, data, at, sizes, first, &ahead);
        if (code)
            return code;
        if (nap_ns)
            clock_nanosleep(CLOCK_MONOTONIC, 0, &t, NULL);
    }
    return put_in(fd, data, at + first, sizes + first, n - first, c);
}

/* -- the loop */

static int send_raw(int fd, const struct session *s, const uint8_t *p, size_t n)
{
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_addr.s_addr = s->peer};
    return sendto(fd, p, n, 0, (struct sockaddr *)&to, sizeof to) == (ssize_t)n;
}

/* All that waits in the raw socket, decrypted into the TUN. `by_call`: call ID to session. */
void plain_up(int gre_fd, int tun_fd, struct session *const *by_call, int mppe, struct counts *c)
{
    uint8_t data[STRIDE], ack[12];
    double begin = now();
    for (;;) {
        ssize_t n = recv(gre_fd, data, sizeof data, MSG_DONTWAIT);
        uint8_t *p = data;
        struct session *s;
        uint32_t size, from, head;
        if (n < 0)
            break;
        c->calls++;
        head = (uint32_t)(data[0] & 15) * 4;
        p += head;
        if (n < 32 || be16(p) != 0x3001 || be16(p + 2) != 0x880b || be16(p + 4) + 12 + head > n) {
            c->bad++;
            continue;
        }
        s = by_call[be16(p + 6)];
        memcpy(&from, data + 12, 4);
        size = be16(p + 4);
        if (s == NULL || from != s->peer || be32(p + 8) != s->up.seq) {
            c->bad++;
            continue;
        }
        s->up.seq++;
        p += 12;
        if (be16(p) == 0xff03) {
            p += 2;
            size -= 2;
        }
        if (mppe) {
            rc4_key stream;
            if (be16(p) != 0x00fd || (be16(p + 2) & 0x0fff) != (s->up.count & 0x0fff)) {
                c->bad++;
                continue;
            }
            s->up.count++;
            next_stream(&s->up, &stream);
            p += 4;
            size -= 4;
            RC4(&stream, size, p, p);
        }
        memcpy(&from, p + 2 + 12, 4);
        if (be16(p) != 0x0021 || from != s->inner) {
            c->bad++;
            continue;
        }
        if (write(tun_fd, p + 2, size - 2) != (ssize_t)size - 2) {
            c->bad++;
            continue;
        }
        c->calls++;
        c->packets++;
        c->octets += size - 2;
        if (++s->unacked == ACK_EVERY) {
            s->unacked = 0;
            put16(ack, 0x2081);
            put16(ack + 2, 0x880b);
            put16(ack + 4, 0);
            put16(ack + 6, s->peer_call_id);
            put32(ack + 8, s->up.seq - 1);
            c->calls++;
            send_raw(gre_fd, s, ack, 12);
        }
    }
    c->cpu_ns += now() - begin;
}

/* All that waits in the TUN, encrypted out of the raw socket. Sessions by the last 12 bits. */
void plain_down(int tun_fd, int gre_fd, struct session *const *by_inner, int mppe,
                struct counts *c)
{
    uint8_t data[STRIDE];
    double begin = now();
    for (;;) {
        uint8_t *inner = data + FRONT;
        ssize_t n = read(tun_fd, inner, sizeof data - FRONT);
        struct session *s;
        uint32_t size, to;
        if (n < 0)
            break;
        c->calls += 2;
        memcpy(&to, inner + 16, 4);
        s = n < 20 ? NULL : by_inner[be16(inner + 18) & 0x0fff];
        if (s == NULL || s->inner != to) {
            c->bad++;
            continue;
        }
        size = wrap(&s->down, s->peer_call_id, mppe, inner, (uint32_t)n);
        if (!send_raw(gre_fd, s, inner + n - size, size)) {
            c->bad++;
            continue;
        }
        c->packets++;
        c->octets += (uint64_t)n;
    }
    c->cpu_ns += now() - begin;
}

/* -- single stages */

void plain_recv_each(int fd, struct counts *c)
{
    uint8_t data[STRIDE];
    double begin = now();
    for (ssize_t n; (n = recv(fd, data, sizeof data, MSG_DONTWAIT)) >= 0;) {
        c->packets++;
        c->octets += (uint64_t)n;
    }
    c->cpu_ns += now() - begin;
}

void plain_recv_many(int fd, struct counts *c)
{
    static uint8_t data[BATCH][STRIDE];
    struct mmsghdr m[BATCH];
    struct iovec v[BATCH];
    double begin = now();
    int n;
    memset(m, 0, sizeof m);
    for (int i = 0; i < BATCH; i++) {
        v[i].iov_base = data[i];
        v[i].iov_len = STRIDE;
        m[i].msg_hdr.msg_iov = &v[i];
        m[i].msg_hdr.msg_iovlen = 1;
    }
    while ((n = recvmmsg(fd, m, BATCH, MSG_DONTWAIT, NULL)) > 0)
        for (int i = 0; i < n; i++) {
            c->packets++;
            c->octets += m[i].msg_len;
        }
    c->cpu_ns += now() - begin;
}

/* Enhanced GRE of `size` octets to one peer, by raw sendto. */
void plain_send_each(int fd, struct session *s, uint32_t size, uint32_t packets, struct counts *c)
{
    uint8_t data[STRIDE];
    double begin = now();
    memset(data, 0, sizeof data);
    put16(data, 0x3001);
    put16(data + 2, 0x880b);
    for (uint32_t i = 0; i < packets; i++) {
        put32(data + 8, s->down.seq++);
        if (send_raw(fd, s, data, size)) {
            c->packets++;
            c->octets += size;
        } else {
            c->bad++;
        }
    }
    c->cpu_ns += now() - begin;
}

/* The same by sendmmsg of 64: by a packet socket to a next hop, or with `ifindex` 0 raw. */
void plain_send_many(int fd, struct session *s, uint32_t size, uint32_t packets, int ifindex,
                     const uint8_t *mac, struct counts *c)
{
    static uint8_t data[BATCH][STRIDE];
    struct mmsghdr m[BATCH];
    struct iovec v[BATCH];
    struct sockaddr_in raw = {.sin_family = AF_INET, .sin_addr.s_addr = s->peer};
    struct sockaddr_ll hop = {.sll_family = AF_PACKET, .sll_protocol = htons(0x0800),
                              .sll_ifindex = ifindex, .sll_halen = 6};
    double begin = now();
    memcpy(hop.sll_addr, mac, 6);
    memset(m, 0, sizeof m);
    for (int i = 0; i < BATCH; i++) {
        uint8_t *p = data[i];
        memset(p, 0, STRIDE);
        if (ifindex) {
            p[0] = 0x45;
            put16(p + 2, size + 20);
            p[8] = 64;
            p[9] = 47;
            memcpy(p + 12, &s->here, 4);
            memcpy(p + 16, &s->peer, 4);
            put16(p + 10, ~sum(p, 20, 0) & 0xffff);
            m[i].msg_hdr.msg_name = &hop;
            m[i].msg_hdr.msg_namelen = sizeof hop;
        } else {
            m[i].msg_hdr.msg_name = &raw;
            m[i].msg_hdr.msg_namelen = sizeof raw;
        }
        put16(p + (ifindex ? 20 : 0), 0x3001);
        put16(p + (ifindex ? 22 : 2), 0x880b);
        v[i].iov_base = p;
        v[i].iov_len = ifindex ? size + 20 : size;
        m[i].msg_hdr.msg_iov = &v[i];
        m[i].msg_hdr.msg_iovlen = 1;
    }
    for (uint32_t done = 0; done < packets;) {
        uint32_t some = packets - done < BATCH ? packets - done : BATCH;
        int sent = sendmmsg(fd, m, some, 0);
        if (sent <= 0) {
            c->bad += some;
            done += some;
            continue;
        }
        done += (uint32_t)sent;
        c->packets += (uint32_t)sent;
        c->octets += (uint64_t)sent * size;
    }
    c->cpu_ns += now() - begin;
}

void plain_read_each(int fd, struct counts *c)
{
    uint8_t data[STRIDE];
    double begin = now();
    for (ssize_t n; (n = read(fd, data, sizeof data)) >= 0;) {
        c->packets++;
        c->octets += (uint64_t)n;
    }
    c->cpu_ns += now() - begin;
}

void plain_write_each(int fd, const uint8_t *data, const uint32_t *at, const uint32_t *sizes,
                      uint32_t n, struct counts *c)
{
    double begin = now();
    for (uint32_t i = 0; i < n; i++) {
        if (write(fd, data + at[i], sizes[i]) == (ssize_t)sizes[i]) {
            c->packets++;
            c->octets += sizes[i];
        } else {
            c->bad++;
        }
    }
    c->cpu_ns += now() - begin;
}

/* RC4 over the same octets again and again: how much one CPU does, alone or beside another. */
void plain_rc4(uint32_t rounds, struct counts *c)
{
    static const uint8_t key[16] = "a key of no use";
    uint8_t data[INNER];
    rc4_key stream;
    double begin = now();
    memset(data, 0, sizeof data);
    RC4_set_key(&stream, 16, key);
    for (uint32_t i = 0; i < rounds; i++)
        RC4(&stream, sizeof data, data, data);
    c->packets += rounds;
    c->cpu_ns += now() - begin;
}

/* The core's clock in GHz, by a chain of dependent 32-bit multiplications: three cycles each on
   every Intel core since Nehalem and AMD core since Zen. Additions would not do: Golden Cove and
   later add immediates at rename, several a cycle, however they depend on each other. */
double plain_clock(void)
{
    uint32_t x = 3;
    double begin = now();
    for (uint32_t i = 0; i < 10000000; i++)
        __asm__ volatile("imul %0, %0\n\timul %0, %0\n\timul %0, %0\n\timul %0, %0" : "+r"(x));
    return 3 * 40000000.0 / (now() - begin);
}
