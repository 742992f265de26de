# cython: language_level=3
"""The data thread of a worker: GRE in, PPP, MPPE, TUN out, and back.

One thread runs `run` without the GIL from start to end. It owns all of this object but
the control thread's ends of the two rings. The way of a batch from a subscriber:

  1. recvmmsg; GRE header, session, sequence: what is in order is listed
  2. PPP header; the key of each encrypted packet, then all are decrypted together
  3. commit: sequence, count and key of every session touched go to its record
  4. source check, MSS, coalescing, TUN write

and to a subscriber: TUN read, session, segments straight into the output buffers, then
`_flush`: keys, encryption together, commit, sendmmsg. A process that dies after a commit
loses at most that batch; it never repeats a sequence or a (key, count).
"""

import os

from libc.errno cimport EAGAIN, EINTR, ENOBUFS, errno
from libc.stdint cimport int32_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy, memset

from fastpath.backlog cimport (
    LARGE_SIZE, TURN, backlog, backlog_buffer, backlog_clear, backlog_close, backlog_done,
    backlog_empty, backlog_head, backlog_next, backlog_open, backlog_put)
from fastpath.crowd cimport crowd, crowd_passes, crowd_turn
from fastpath.filter cimport (
    FILTER_DOWN, FILTER_UP, book_close, book_exempts, book_find, book_open, filter_permits, look,
    look_at, look_flow, rule_book)
from fastpath.gre cimport gre_build, gre_header, gre_parse
from fastpath.layout cimport *
from fastpath.mppe cimport (
    MPPE_A, MPPE_C, MPPE_COUNT, MPPE_D, chain_add, crypt, crypt_job, first_key, key_chain,
    key_size, next_key, rc4_key, rc4_state, run_chains)
from fastpath.ring cimport (
    entry, fence_release, ring, ring_close, ring_drop, ring_open, ring_peek,
    ring_push, ring_sleep, ring_used, ring_wake_owed, store_release)
from fastpath.shaper cimport (
    PACKET_SIZE, SHAPER_NOTHING, packet_pool, packets_close, packets_give, packets_open, shaper,
    shaper_clear, shaper_next, shaper_passes, shaper_put, shaper_set, waiting, waiting_close,
    waiting_open, waiting_put, waiting_remove)
from fastpath.tables cimport (
    NOBODY, limits, session, tables, tables_add, tables_add_inner, tables_add_six, tables_by_inner,
    tables_by_six, tables_close, tables_open, tables_remove, tables_remove_inner,
    tables_remove_six)
from fastpath.tun cimport (
    SEGMENTS_NOT_IP, SEGMENTS_OK, SEGMENTS_TOO_BIG, VNET_SIZE, clamp_mss, iovec, segmenter,
    segments_begin, segments_next, writer, writer_begin, writer_end, writer_put)
from fastpath.wire cimport be16, checksum, sum16, put16, put32

cdef extern from *:
    """
    #ifndef _GNU_SOURCE
    #define _GNU_SOURCE
    #endif
    #include <arpa/inet.h>
    #include <linux/if_packet.h>
    #include <netinet/in.h>
    #include <poll.h>
    #include <sched.h>
    #include <sys/prctl.h>
    #include <sys/socket.h>
    #include <sys/syscall.h>
    #include <time.h>
    #include <unistd.h>

    static inline uint64_t now_ns(void)
    {
        struct timespec t;
        clock_gettime(CLOCK_MONOTONIC, &t);
        return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
    }
    static inline int pin_to(int cpu)
    {
        cpu_set_t set;
        CPU_ZERO(&set);
        CPU_SET(cpu, &set);
        return sched_setaffinity(0, sizeof set, &set) == 0;
    }
    static inline void exact_timers(void) { prctl(PR_SET_TIMERSLACK, 1000UL, 0, 0, 0); }
    static inline void nap(uint64_t ns)
    {
        struct timespec t = {(time_t)(ns / 1000000000u), (long)(ns % 1000000000u)};
        clock_nanosleep(CLOCK_MONOTONIC, 0, &t, NULL);
    }
    static inline uint32_t thread_id(void) { return (uint32_t)syscall(SYS_gettid); }

    /* One message out: destination, and our source address by IP_PKTINFO. */
    struct out_message {
        struct sockaddr_in to;
        struct iovec part;
        union {
            char octets[CMSG_SPACE(sizeof(struct in_pktinfo))];
            struct cmsghdr align;
        } control;
    };
    static inline void prepare_message(struct mmsghdr *m, struct out_message *o)
    {
        struct cmsghdr *c;
        memset(m, 0, sizeof *m);
        memset(o, 0, sizeof *o);
        o->to.sin_family = AF_INET;
        m->msg_hdr.msg_name = &o->to;
        m->msg_hdr.msg_namelen = sizeof o->to;
        m->msg_hdr.msg_iov = &o->part;
        m->msg_hdr.msg_iovlen = 1;
        m->msg_hdr.msg_control = o->control.octets;
        m->msg_hdr.msg_controllen = sizeof o->control.octets;
        c = CMSG_FIRSTHDR(&m->msg_hdr);
        c->cmsg_level = IPPROTO_IP;
        c->cmsg_type = IP_PKTINFO;
        c->cmsg_len = CMSG_LEN(sizeof(struct in_pktinfo));
    }
    static inline void address_message(struct mmsghdr *m, struct out_message *o, uint32_t to,
                                       uint32_t from, void *data, size_t size)
    {
        struct in_pktinfo *info = (struct in_pktinfo *)CMSG_DATA(CMSG_FIRSTHDR(&m->msg_hdr));
        o->to.sin_addr.s_addr = to;
        info->ipi_spec_dst.s_addr = from;
        o->part.iov_base = data;
        o->part.iov_len = size;
    }
    /* The same by a packet socket: the IP header is ours, the next hop is given. */
    struct hop_message {
        struct sockaddr_ll to;
        struct iovec part;
    };
    static inline void prepare_hop(struct mmsghdr *m, struct hop_message *o)
    {
        memset(m, 0, sizeof *m);
        memset(o, 0, sizeof *o);
        o->to.sll_family = AF_PACKET;
        o->to.sll_protocol = htons(0x0800);
        o->to.sll_halen = 6;
        m->msg_hdr.msg_name = &o->to;
        m->msg_hdr.msg_namelen = sizeof o->to;
        m->msg_hdr.msg_iov = &o->part;
        m->msg_hdr.msg_iovlen = 1;
    }
    static inline void address_hop(struct hop_message *o, uint32_t ifindex, const uint8_t *mac,
                                   void *data, size_t size)
    {
        o->to.sll_ifindex = (int)ifindex;
        memcpy(o->to.sll_addr, mac, 6);
        o->part.iov_base = data;
        o->part.iov_len = size;
    }
    static inline void prepare_receive(struct mmsghdr *m, struct iovec *part, void *data, size_t n)
    {
        memset(m, 0, sizeof *m);
        part->iov_base = data;
        part->iov_len = n;
        m->msg_hdr.msg_iov = part;
        m->msg_hdr.msg_iovlen = 1;
    }
    static inline int receive_many(int fd, struct mmsghdr *m, unsigned n)
    {
        return recvmmsg(fd, m, n, MSG_DONTWAIT, NULL);
    }
    static inline int send_many(int fd, struct mmsghdr *m, unsigned n)
    {
        return sendmmsg(fd, m, n, MSG_DONTWAIT);
    }
    static inline int truncated(struct mmsghdr *m) { return m->msg_hdr.msg_flags & MSG_TRUNC; }
    static inline int wait_for(int a, int b, int c, uint64_t ns, int *ready)
    {
        struct pollfd p[3] = {{a, POLLIN, 0}, {b, POLLIN, 0}, {c, POLLIN, 0}};
        struct timespec t = {(time_t)(ns / 1000000000u), (long)(ns % 1000000000u)};
        int n = ppoll(p, 3, &t, NULL);
        *ready = 0;
        for (int i = 0; n > 0 && i < 3; i++)
            if (p[i].revents)
                *ready |= 1 << i;
        return n;
    }
    static inline void wait_writable(int fd)
    {
        struct pollfd p = {fd, POLLOUT, 0};
        poll(&p, 1, 1);
    }
    static inline void raise_event(int fd)
    {
        uint64_t one = 1;
        if (write(fd, &one, 8) < 0) { /* it is raised already */ }
    }
    static inline void clear_event(int fd)
    {
        uint64_t n;
        if (read(fd, &n, 8) < 0) { /* it was not raised */ }
    }
    """
    uint64_t now_ns() nogil
    bint pin_to(int cpu) nogil
    void exact_timers() nogil
    void nap(uint64_t ns) nogil
    uint32_t thread_id() nogil
    uint32_t htonl(uint32_t) nogil
    cdef struct mmsghdr:
        unsigned msg_len
    cdef struct out_message:
        pass
    void prepare_message(mmsghdr *m, out_message *o) nogil
    void address_message(mmsghdr *m, out_message *o, uint32_t to, uint32_t src, void *data,
                         size_t size) nogil
    cdef struct hop_message:
        pass
    void prepare_hop(mmsghdr *m, hop_message *o) nogil
    void address_hop(hop_message *o, uint32_t ifindex, const uint8_t *mac, void *data,
                     size_t size) nogil
    void prepare_receive(mmsghdr *m, iovec *part, void *data, size_t n) nogil
    int receive_many(int fd, mmsghdr *m, unsigned n) nogil
    int send_many(int fd, mmsghdr *m, unsigned n) nogil
    int truncated(mmsghdr *m) nogil
    int wait_for(int a, int b, int c, uint64_t ns, int *ready) nogil
    void wait_writable(int fd) nogil
    void raise_event(int fd) nogil
    void clear_event(int fd) nogil
    ssize_t read(int fd, void *data, size_t n) nogil
    ssize_t write(int fd, const void *data, size_t n) nogil

cdef enum:
    ROLE_SERVER = 0
    ROLE_CLIENT = 1
    OP_INSTALL = 1
    OP_SEND = 2
    OP_MPPE = 3
    OP_UP = 4
    OP_DOWN = 5
    OP_REMOVE = 6
    OP_UP6 = 7
    OP_DOWN6 = 8
    OP_HOP = 9
    OP_RATES = 10
    OP_FILTERS = 11
    EV_FRAME = 1
    EV_INSTALLED = 2
    EV_REMOVED = 3
    EV_ECHO_LOST = 4
    EV_DESYNC = 5
    EV_RESUMED = 6
    EV_HOP_LOST = 7
    # our choices
    RING_SIZE = 4194304
    IN_SIZE = 2304             # an inner packet of 1500 with all headers, and some
    OUT_SIZE = 2304
    OUT_HEAD = 64              # room for GRE, PPP and MPPE headers before the inner packet
    OUT_MAX = 128              # packets of one sendmmsg
    POOL_SIZE = 2048           # packets held for reordering, all sessions together
    HELD = 64                  # and places for them in a session: divides 2 ** 32
    HOLD_STEPS = 64
    SERVE = 64                 # segments of a round: what a new packet waits behind
    JUMP_MAX = 512             # a sequence this far ahead is a lost burst, beyond it a stray
    STRAYS = 4                 # strays in a row that make a new sequence
    DESYNCS = 16
    KEY_WORK = 8192            # key changes for gaps, a session and second,
    KEY_WORK_ALL = 32768       # and of all sessions in a tick: an eighth of the time
    # Frames for the control thread, which is Python: a login needs a dozen. What it has not
    # come to yet waits in the ring in order, so the ring's length is what a login waits.
    FRAME_BURST = 64           # of a session at once,
    FRAME_RATE = 16            # and a second after that,
    FRAME_LEAST = 2            # or only so many
    FRAME_QUEUE = 65536        # while so many octets wait, and none at all
    FRAME_END = 2097152        # while so many do: the rest is for other events
    HOP_PROOF = 15             # seconds between packets that let the kernel prove a neighbour
    # Between few packets that come fast the thread naps, as a network card holds its
    # interrupt back: a wake-up costs as much as several packets. How much depends on the
    # machine, a virtual one's system calls being dear: times are in empty polls.
    NAP_LEAST = 2              # packets of a wake-up: a lone ping waits for nobody
    NAP_MOST = 64              # a batch that is worth its wake-up
    NAP_APART = 50             # polls between packets, at most
    NAP_MAX = 120
    POLL_LEAST = 400           # ns of a poll, whatever was measured
    POLL_MOST = 5000
    WAIT_SIZE = 16384          # packets that wait for their rate, all sessions together
    WRITE_OUT = 256            # of them written to the TUN together
    TICKS = 10                 # a sweep of all sessions takes so many ticks
    READY_GRE = 1
    READY_TUN = 2
    # protocols (RFC 1661 section 2 and the assigned numbers)
    PPP_IP = 0x0021
    PPP_IPV6 = 0x0057
    PPP_COMP = 0x00FD
    PPP_CCP = 0x80FD
    PPP_LCP = 0xC021

cdef uint64_t MS = 1000000
cdef uint64_t TICK = 100000000
cdef uint64_t GRAIN = 200000           # rates are looked at no more often: bursts, not wake-ups

SERVER = ROLE_SERVER
CLIENT = ROLE_CLIENT
EVENT_FRAME = EV_FRAME
EVENT_INSTALLED = EV_INSTALLED
EVENT_REMOVED = EV_REMOVED
EVENT_ECHO_LOST = EV_ECHO_LOST
EVENT_DESYNC = EV_DESYNC
EVENT_RESUMED = EV_RESUMED
EVENT_HOP_LOST = EV_HOP_LOST

cdef struct in_item:
    session *s
    uint8_t *p                 # PPP frame, later the inner packet
    uint32_t n
    int32_t slot               # of the reorder pool, or -1
    uint8_t encrypted
    uint8_t live               # still on its way to the TUN

cdef struct out_item:
    session *s
    uint8_t *p                 # PPP frame from its address octet; GRE header goes before
    uint32_t n
    uint32_t inner             # octets of the inner packet, 0: a control frame or ack
    uint8_t *secret            # where encryption begins, NULL: clear
    uint32_t secret_size
    uint8_t ack_only
    uint8_t by_hop             # by the packet socket
    uint8_t *start             # GRE header, for the raw socket
    uint32_t total             # octets from there


class EngineError(Exception):
    """The engine could not be made."""


cdef class Engine:
    """See engine.pyi."""

    cdef Table table
    cdef worker_page *page
    cdef uint64_t *count
    cdef int role, gre_fd, raw_fd, hop_fd, tun_fd, wake_fd, cpu
    cdef readonly int event_fd
    cdef uint32_t worker
    cdef uint32_t batch, depth, ack_every
    cdef uint64_t hold_ns, ack_ns
    cdef bint mss_clamp
    cdef bint unproven         # IP headers come past the kernel's own look at them
    cdef bint stopping
    cdef ring ops, events_ring
    cdef tables t
    cdef uint64_t now
    # in
    cdef uint8_t *in_data
    cdef mmsghdr *in_messages
    cdef iovec *in_parts
    cdef in_item *items
    cdef uint32_t n_items
    cdef crypt_job *jobs
    cdef key_chain *chains
    cdef uint32_t n_chains
    cdef uint8_t *pool
    cdef uint32_t *pool_size_of
    cdef uint32_t *pool_seq
    cdef uint64_t *pool_since
    cdef int32_t *pool_free
    cdef uint32_t n_free
    cdef int32_t *done_slots
    cdef uint32_t n_done
    cdef writer out_tun
    cdef session **touched
    cdef uint32_t n_touched
    # out
    cdef uint8_t *out_data
    cdef out_item *out
    cdef uint32_t n_out
    cdef mmsghdr *out_messages
    cdef out_message *out_targets
    cdef mmsghdr *hop_messages
    cdef hop_message *hop_targets
    cdef backlog behind
    cdef crowd senders
    cdef int32_t key_work
    cdef uint64_t poll_ns
    cdef uint32_t round
    cdef uint16_t ip_id
    # timers
    cdef int32_t ack_first, ack_last, hold_first, hold_last
    cdef uint64_t next_tick
    cdef uint32_t sweep_at, ticks
    cdef int32_t icmp_left
    # rates and filters
    cdef packet_pool room
    cdef waiting shaped
    cdef rule_book book
    cdef uint64_t seed
    cdef int32_t *places               # written, not free before writer_end
    cdef uint32_t n_places
    cdef object _skip

    def __cinit__(self, Table table, uint32_t worker, *, int role, int gre_fd, int raw_fd,
                  int tun_fd, bint packet_mode, int cpu=-1, uint32_t batch=64,
                  uint32_t reorder_depth=32, uint32_t reorder_timeout_ms=50,
                  uint32_t ack_delay_ms=100, bint mss_clamp=True,
                  skip_sids=(), int hop_fd=-1, uint32_t window=64):
        if worker >= table.head.workers:
            raise EngineError(f"worker {worker} of {table.head.workers}")
        if not 1 <= batch <= 1024 or reorder_depth > HELD:
            raise EngineError("batch is 1 to 1024, reorder_depth 0 to 64")
        if role not in (ROLE_SERVER, ROLE_CLIENT):
            raise EngineError(f"role {role}")
        self.table = table
        self.worker = worker
        self.page = table.page(worker)
        self.count = self.page.data
        self.role = role
        self.gre_fd = gre_fd
        self.raw_fd = raw_fd
        self.hop_fd = hop_fd
        self.tun_fd = tun_fd
        self.cpu = cpu
        self.batch = batch
        self.depth = reorder_depth
        # A peer that honours our window must never stand at its end.
        self.ack_every = min(16, window // 2 if window > 1 else 1)
        self.hold_ns = reorder_timeout_ms * MS
        self.ack_ns = ack_delay_ms * MS
        self.mss_clamp = mss_clamp
        self.unproven = packet_mode
        self._skip = frozenset(skip_sids)
        self.wake_fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self.event_fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self.ack_first = self.ack_last = self.hold_first = self.hold_last = NOBODY
        self.in_data = <uint8_t *>malloc(batch * IN_SIZE)
        self.in_messages = <mmsghdr *>calloc(batch, sizeof(mmsghdr))
        self.in_parts = <iovec *>calloc(batch, sizeof(iovec))
        self.items = <in_item *>calloc(batch + POOL_SIZE, sizeof(in_item))
        self.jobs = <crypt_job *>calloc(batch + POOL_SIZE + OUT_MAX, sizeof(crypt_job))
        self.chains = <key_chain *>calloc(batch + POOL_SIZE + OUT_MAX, sizeof(key_chain))
        self.pool = <uint8_t *>malloc(POOL_SIZE * IN_SIZE)
        self.pool_size_of = <uint32_t *>calloc(POOL_SIZE, sizeof(uint32_t))
        self.pool_seq = <uint32_t *>calloc(POOL_SIZE, sizeof(uint32_t))
        self.pool_since = <uint64_t *>calloc(POOL_SIZE, sizeof(uint64_t))
        self.pool_free = <int32_t *>calloc(POOL_SIZE, sizeof(int32_t))
        self.done_slots = <int32_t *>calloc(POOL_SIZE, sizeof(int32_t))
        self.touched = <session **>calloc(batch + POOL_SIZE + OUT_MAX, sizeof(session *))
        self.out_data = <uint8_t *>malloc(OUT_MAX * OUT_SIZE)
        self.out = <out_item *>calloc(OUT_MAX, sizeof(out_item))
        self.out_messages = <mmsghdr *>calloc(OUT_MAX, sizeof(mmsghdr))
        self.out_targets = <out_message *>calloc(OUT_MAX, sizeof(out_message))
        self.hop_messages = <mmsghdr *>calloc(OUT_MAX, sizeof(mmsghdr))
        self.hop_targets = <hop_message *>calloc(OUT_MAX, sizeof(hop_message))
        self.places = <int32_t *>calloc(WRITE_OUT, sizeof(int32_t))
        self.seed = <uint64_t>int.from_bytes(os.urandom(8), "little")
        if (not ring_open(&self.ops, RING_SIZE) or not ring_open(&self.events_ring, RING_SIZE)
                or not tables_open(&self.t, table.head.capacity)
                or self.in_data == NULL or self.in_messages == NULL or self.in_parts == NULL
                or self.items == NULL or self.jobs == NULL or self.pool == NULL
                or self.chains == NULL
                or self.pool_size_of == NULL or self.pool_seq == NULL or self.pool_since == NULL
                or self.pool_free == NULL
                or self.done_slots == NULL or self.touched == NULL or self.out_data == NULL
                or self.out == NULL or self.out_messages == NULL or self.out_targets == NULL
                or self.hop_messages == NULL or self.hop_targets == NULL
                or not backlog_open(&self.behind) or self.places == NULL
                or not packets_open(&self.room, WAIT_SIZE)
                or not waiting_open(&self.shaped, 2 * table.head.capacity)):
            raise MemoryError
        self.events_ring.asleep = 1
        cdef uint32_t i
        for i in range(batch):
            prepare_receive(&self.in_messages[i], &self.in_parts[i],
                            self.in_data + i * IN_SIZE, IN_SIZE)
        for i in range(OUT_MAX):
            prepare_message(&self.out_messages[i], &self.out_targets[i])
            prepare_hop(&self.hop_messages[i], &self.hop_targets[i])
        for i in range(POOL_SIZE):
            self.pool_free[i] = <int32_t>i
        self.n_free = POOL_SIZE
        self.key_work = KEY_WORK_ALL
        self.out_tun.fd = tun_fd
        self.now = now_ns()
        self._resume()

    def __dealloc__(self):
        for fd in (self.wake_fd, self.event_fd):
            if fd > 0:
                os.close(fd)
        self._forget_books()
        ring_close(&self.ops)
        ring_close(&self.events_ring)
        tables_close(&self.t)
        free(self.in_data)
        free(self.in_messages)
        free(self.in_parts)
        free(self.items)
        free(self.jobs)
        free(self.chains)
        free(self.pool)
        free(self.pool_size_of)
        free(self.pool_seq)
        free(self.pool_since)
        free(self.pool_free)
        free(self.done_slots)
        free(self.touched)
        free(self.out_data)
        free(self.out)
        free(self.out_messages)
        free(self.out_targets)
        free(self.hop_messages)
        free(self.hop_targets)
        free(self.places)
        packets_close(&self.room)
        waiting_close(&self.shaped)
        book_close(&self.book)
        backlog_close(&self.behind)

    cdef void _forget_books(self) noexcept:
        """Filters that were sent and never taken."""
        cdef entry *e
        cdef rule_book *book
        if self.ops.base == NULL:
            return
        e = ring_peek(&self.ops)
        while e != NULL:
            if e.kind == OP_FILTERS:
                memcpy(&book, <uint8_t *>e + 16, sizeof(book))
                book_close(book)
                free(book)
            ring_drop(&self.ops, e)
            e = ring_peek(&self.ops)

    # -- the control thread's side

    cdef bint _push(self, uint32_t kind, uint32_t index, uint32_t generation,
                    const uint8_t *data, uint32_t size):
        if index >= self.t.capacity:
            raise IndexError(f"session index {index} of {self.t.capacity}")
        if not ring_push(&self.ops, kind, index, generation, data, size, NULL, 0):
            return False
        if ring_wake_owed(&self.ops):
            raise_event(self.wake_fd)
        return True

    def install(self, uint32_t index, uint32_t generation):
        return self._push(OP_INSTALL, index, generation, NULL, 0)

    def send(self, uint32_t index, uint32_t generation, bytes frame not None):
        if not 2 <= len(frame) <= OUT_SIZE - OUT_HEAD:
            raise ValueError(f"PPP frame of {len(frame)} octets")
        return self._push(OP_SEND, index, generation, <const uint8_t *><const char *>frame,
                          <uint32_t>len(frame))

    def set_mppe(self, uint32_t index, uint32_t generation, uint32_t rx_bits, bytes rx_key not None,
                 bint rx_stateful, uint32_t tx_bits, bytes tx_key not None, bint tx_stateful):
        cdef uint8_t data[40]
        for bits, key in ((rx_bits, rx_key), (tx_bits, tx_key)):
            if bits not in (0, 40, 56, 128) or len(key) != (key_size(bits) if bits else 0):
                raise ValueError(f"MPPE start key of {len(key)} octets for {bits} bits")
        memset(data, 0, 40)
        data[0] = rx_bits
        data[1] = tx_bits
        data[2] = (1 if rx_stateful and rx_bits else 0) | (2 if tx_stateful and tx_bits else 0)
        memcpy(data + 8, <const uint8_t *><const char *>rx_key, len(rx_key))
        memcpy(data + 24, <const uint8_t *><const char *>tx_key, len(tx_key))
        return self._push(OP_MPPE, index, generation, data, 40)

    def up(self, uint32_t index, uint32_t generation):
        return self._push(OP_UP, index, generation, NULL, 0)

    def down(self, uint32_t index, uint32_t generation):
        return self._push(OP_DOWN, index, generation, NULL, 0)

    def up6(self, uint32_t index, uint32_t generation):
        return self._push(OP_UP6, index, generation, NULL, 0)

    def down6(self, uint32_t index, uint32_t generation):
        return self._push(OP_DOWN6, index, generation, NULL, 0)

    def set_hop(self, uint32_t index, uint32_t generation, uint32_t ifindex, bytes mac not None,
                uint32_t mtu):
        cdef uint8_t data[16]
        if len(mac) != (6 if ifindex else 0):
            raise ValueError(f"hardware address of {len(mac)} octets")
        memset(data, 0, 16)
        memcpy(data, &ifindex, 4)
        memcpy(data + 4, &mtu, 4)
        memcpy(data + 8, <const uint8_t *><const char *>mac, len(mac))
        return self._push(OP_HOP, index, generation, data, 16)

    def set_rates(self, uint32_t index, uint32_t generation):
        return self._push(OP_RATES, index, generation, NULL, 0)

    def set_filters(self, bytes block not None):
        cdef rule_book *book = <rule_book *>malloc(sizeof(rule_book))
        if book == NULL:
            raise MemoryError
        if not book_open(book, <const uint8_t *><const char *>block, len(block)):
            free(book)
            raise ValueError("no filters")
        if not self._push(OP_FILTERS, 0, 0, <const uint8_t *>&book, sizeof(book)):
            book_close(book)
            free(book)
            return False
        return True

    def remove(self, uint32_t index, uint32_t generation):
        return self._push(OP_REMOVE, index, generation, NULL, 0)

    def stop(self):
        self.stopping = True
        raise_event(self.wake_fd)

    def events(self, uint32_t limit=256):
        found = []
        cdef entry *e
        clear_event(self.event_fd)
        while True:
            e = ring_peek(&self.events_ring)
            if e == NULL:
                if ring_sleep(&self.events_ring):
                    return found
                continue
            if <uint32_t>len(found) >= limit:
                raise_event(self.event_fd)
                return found
            found.append((e.kind, e.index, e.generation, <bytes>(<uint8_t *>e + 16)[:e.size]))
            ring_drop(&self.events_ring, e)

    def run(self):
        """Body of the data thread."""
        with nogil:
            self._loop()

    # -- start: what a predecessor left

    cdef void _resume(self):
        cdef uint32_t i
        cdef record *r
        cdef session *s
        cdef copy_tx *tx
        cdef copy_rx *rx
        for i in range(self.t.capacity):
            r = self.table.record_at(i)
            if (r.allot == ALLOT_FREE or r.worker != self.worker or r.c_generation != r.generation
                    or r.t_generation != r.generation or r.data_state != DATA_UP
                    or r.state != LINK_ACTIVE or r.sid in self._skip):
                continue
            s = self._fill(i, r)
            tx = &r.tx[r.tx_turn & 1]
            rx = &r.rx[r.rx_turn & 1]
            s.tx_seq = tx.seq
            s.tx_count = tx.count
            memcpy(s.tx_key, tx.key, 16)
            s.rx_next = rx.seq
            s.rx_seen = (rx.flags & RX_SEEN) != 0
            s.rx_count = rx.count
            s.tx_acked = rx.acked
            memcpy(s.rx_key, rx.key, 16)
            s.mppe_rx_bits = r.mppe_rx_bits
            s.mppe_tx_bits = r.mppe_tx_bits
            # A stream's state is not in the record: both directions begin it anew.
            self._streams(s, r.stateful)
            s.discard = s.rx_stream != NULL
            s.tx_flush = s.tx_stream != NULL
            self._link_up(s)
            self._six_up(s)
            self._set_rates(s)
            self._event(EV_RESUMED, s, NULL, 0)
        self._account()

    cdef void _account(self) noexcept nogil:
        """Packets that a predecessor had in hand when it died, so that the sums stay right."""
        cdef uint64_t *c = self.count
        cdef uint64_t ended = c[C_RX_ACK_ONLY] + c[C_RX_CONTROL] + c[C_RX_DATA]
        cdef int i
        for i in range(D_RX_MALFORMED, D_RX_SESSION_ENDED + 1):
            ended += c[i]
        if c[C_GRE_RX_PACKETS] > ended:
            c[D_RX_SESSION_ENDED] += c[C_GRE_RX_PACKETS] - ended
        c[C_QUEUED] = c[C_TX_QUEUED] = 0
        ended = c[C_TX_DATA]
        for i in range(D_TX_NO_SESSION, D_TX_SESSION_ENDED + 1):
            ended += c[i]
        if c[C_TUN_RX_PACKETS] > ended:
            c[D_TX_SEND_FAILED] += c[C_TUN_RX_PACKETS] - ended

    cdef session *_fill(self, uint32_t index, record *r) noexcept nogil:
        """A private session for a record, with what the dispatcher wrote."""
        cdef session *s = &self.t.all[index]
        cdef int32_t *held = s.held
        free(s.rx_stream)
        free(s.tx_stream)
        memset(s, 0, sizeof(session))
        s.held = held
        s.r = r
        s.index = index
        s.generation = r.generation
        s.state = DATA_INSTALLED
        s.call_id = r.call_id
        s.peer_call_id = r.peer_call_id
        s.peer = htonl(r.peer_address)
        s.here = htonl(r.local_address)
        s.ack_every = self.ack_every
        if r.peer_window and r.peer_window < 2 * s.ack_every:
            s.ack_every = r.peer_window // 2 if r.peer_window > 1 else 1
        s.ack_before = s.ack_after = s.hold_before = s.hold_after = NOBODY
        s.next_call = s.next_inner = NOBODY
        s.last_rx = self.now
        s.work = KEY_WORK
        s.frames = FRAME_BURST
        s.mtu = 1500
        tables_add(&self.t, s)
        return s

    # -- operations of the control thread

    cdef session *_known(self, entry *e) noexcept nogil:
        cdef session *s = &self.t.all[e.index]
        if s.state == DATA_NONE or s.generation != e.generation:
            return NULL
        return s

    cdef void _operations(self) noexcept nogil:
        cdef entry *e
        cdef session *s
        cdef uint8_t *data
        cdef uint32_t done = 0
        while done < 1024:
            e = ring_peek(&self.ops)
            if e == NULL:
                break
            done += 1
            data = <uint8_t *>e + 16
            s = self._known(e)
            if e.kind == OP_INSTALL:
                self._install(e.index, e.generation)
            elif e.kind == OP_SEND:
                if s != NULL:
                    self._send_frame(s, data, e.size)
            elif e.kind == OP_MPPE:
                if s != NULL:
                    self._set_mppe(s, data)
            elif e.kind == OP_UP:
                if s != NULL and s.r.c_generation == s.generation:
                    if s.state == DATA_UP:
                        tables_remove_inner(&self.t, s)
                    self._link_up(s)
            elif e.kind == OP_DOWN:
                if s != NULL and s.state == DATA_UP:
                    tables_remove_inner(&self.t, s)
                    self._empty(s)
                    self._forget_waiting(s)
                    s.state = DATA_INSTALLED
                    s.r.data_state = DATA_INSTALLED
            elif e.kind == OP_HOP:
                if s != NULL and self.hop_fd >= 0:
                    memcpy(&s.hop_ifindex, data, 4)
                    memcpy(&s.hop_mtu, data + 4, 4)
                    memcpy(s.hop_mac, data + 8, 6)
                    s.hop_age = 0
            elif e.kind == OP_UP6:
                if s != NULL and s.r.c_generation == s.generation:
                    self._six_down(s)
                    self._six_up(s)
            elif e.kind == OP_RATES:
                if s != NULL and s.r.c_generation == s.generation:
                    self._set_rates(s)
            elif e.kind == OP_FILTERS:
                self._set_filters(data)
            elif e.kind == OP_DOWN6:
                if s != NULL:
                    self._six_down(s)
            elif e.kind == OP_REMOVE:
                self._flush()
                if s != NULL:
                    self._remove(s)
                self._event_of(EV_REMOVED, e.index, e.generation, NULL, 0, NULL, 0)
            ring_drop(&self.ops, e)
        if self.n_out:
            self._flush()

    cdef void _install(self, uint32_t index, uint32_t generation) noexcept nogil:
        cdef record *r = self.table.record_at(index)
        cdef session *s = &self.t.all[index]
        if s.state != DATA_NONE:
            if s.generation == generation:
                self._event_of(EV_INSTALLED, index, generation, NULL, 0, NULL, 0)
                return
            self._flush()
            self._remove(s)
        if r.allot == ALLOT_FREE or r.generation != generation:
            self._event_of(EV_REMOVED, index, generation, NULL, 0, NULL, 0)
            return
        r.t_generation = 0
        r.data_state = DATA_INSTALLED
        r.rx_packets = r.rx_bytes = r.tx_packets = r.tx_bytes = r.drops = 0
        r.gre_rx_packets = 0
        r.last_rx_ns = 0
        r.tx_turn = r.rx_turn = 0
        memset(r.tx, 0, sizeof(r.tx))
        memset(r.rx, 0, sizeof(r.rx))
        memset(r.tx_start, 0, 16)
        memset(r.rx_start, 0, 16)
        r.t_generation = generation
        s = self._fill(index, r)
        self._event(EV_INSTALLED, s, NULL, 0)

    cdef void _set_mppe(self, session *s, const uint8_t *data) noexcept nogil:
        """New start keys: both directions begin anew at count 0 (RFC 3078 section 7.2)."""
        s.mppe_rx_bits = data[0]
        s.mppe_tx_bits = data[1]
        memcpy(s.r.rx_start, data + 8, 16)
        memcpy(s.r.tx_start, data + 24, 16)
        if s.mppe_rx_bits:
            first_key(s.r.rx_start, s.mppe_rx_bits, s.rx_key)
        if s.mppe_tx_bits:
            first_key(s.r.tx_start, s.mppe_tx_bits, s.tx_key)
        s.rx_count = s.tx_count = 0
        s.desync = 0
        s.discard = s.tx_flush = False
        self._streams(s, data[2])
        if s.rx_stream != NULL:
            rc4_key(s.rx_stream, s.rx_key, key_size(s.mppe_rx_bits))
        if s.tx_stream != NULL:
            rc4_key(s.tx_stream, s.tx_key, key_size(s.mppe_tx_bits))
        self._commit_tx(s)
        self._commit_rx(s)

    cdef void _streams(self, session *s, uint32_t stateful) noexcept nogil:
        """RC4 streams that live from packet to packet, for the stateful directions."""
        free(s.rx_stream)
        free(s.tx_stream)
        s.rx_stream = s.tx_stream = NULL
        if stateful & 1:
            s.rx_stream = <rc4_state *>calloc(1, sizeof(rc4_state))
        if stateful & 2:
            s.tx_stream = <rc4_state *>calloc(1, sizeof(rc4_state))

    cdef void _link_up(self, session *s) noexcept nogil:
        cdef record *r = s.r
        s.inner = htonl(r.address)
        s.mtu = r.mtu if 68 <= r.mtu <= 1600 else 1400
        s.framing = r.framing
        s.magic = r.magic
        s.echo_interval = <uint64_t>r.echo_interval_s * 1000 * MS
        s.echo_failures = r.echo_failures
        s.echo_missed = 0
        s.echo_lost = False
        s.last_rx = self.now
        tables_add_inner(&self.t, s)
        s.state = DATA_UP
        self._commit_tx(s)
        self._commit_rx(s)
        r.data_state = DATA_UP

    cdef void _six_up(self, session *s) noexcept nogil:
        """IPv6 flows too; the link must be up for IPv4 or come up later all the same."""
        if s.r.six:
            memcpy(&s.iid, s.r.iid, 8)
            s.six = True
            tables_add_six(&self.t, s)

    cdef void _six_down(self, session *s) noexcept nogil:
        if s.six:
            tables_remove_six(&self.t, s)
            s.six = False

    cdef void _remove(self, session *s) noexcept nogil:
        cdef uint32_t i
        self._six_down(s)
        if s.state == DATA_UP:
            tables_remove_inner(&self.t, s)
        tables_remove(&self.t, s)
        self._no_limits(s)
        self._forget_waiting(s)
        self._ack_unlist(s)
        self._hold_unlist(s)
        if s.held_count:
            for i in range(HELD):
                if s.held[i]:
                    self.pool_free[self.n_free] = s.held[i] - 1
                    self.n_free += 1
                    s.held[i] = 0
                    self.count[D_RX_SESSION_ENDED] += 1
                    self.count[C_QUEUED] -= 1
            s.held_count = 0
        s.state = DATA_NONE
        s.r.data_state = DATA_NONE

    # -- rates and filters

    cdef void _set_rates(self, session *s) noexcept nogil:
        """What the control thread wrote to the record."""
        cdef record *r = s.r
        cdef limits *own = s.limited
        if own == NULL:
            if not (r.rate_up or r.rate_down or r.filter):
                return
            own = s.limited = <limits *>calloc(1, sizeof(limits))
            if own == NULL:
                return
        own.filter_number = r.filter
        own.rules = book_find(&self.book, r.filter) if r.filter else NULL
        own.up = self._set_rate(s, own.up, r.rate_up, r.burst_up, True)
        own.down = self._set_rate(s, own.down, r.rate_down, r.burst_down, False)
        if own.up == NULL and own.down == NULL and own.filter_number == 0:
            free(own)
            s.limited = NULL

    cdef shaper *_set_rate(self, session *s, shaper *q, uint64_t rate, uint64_t burst,
                           bint up) noexcept nogil:
        if rate == 0:
            if q != NULL:
                # What waits for the old rate goes now, in its order.
                shaper_set(q, <uint64_t>1 << 50, 0)
                q.ready = 0
                waiting_put(&self.shaped, q, 0)
                self._serve_due()
                free(q)
            return NULL
        if q == NULL:
            q = <shaper *>calloc(1, sizeof(shaper))
            if q == NULL:
                return NULL
            q.session = s.index
            q.up = up
        shaper_set(q, rate, burst)
        if q.packets:
            waiting_put(&self.shaped, q, self.now)
        return q

    cdef void _set_filters(self, const uint8_t *data) noexcept nogil:
        """A new book for all; the sessions' filters are looked up in it by their numbers."""
        cdef rule_book old = self.book
        cdef rule_book *fresh
        cdef limits *own
        cdef uint32_t i
        memcpy(&fresh, data, sizeof(fresh))
        self.book = fresh[0]
        free(fresh)
        for i in range(self.t.top):
            own = self.t.all[i].limited
            if own != NULL and own.filter_number:
                own.rules = book_find(&self.book, own.filter_number)
        book_close(&old)

    cdef void _empty(self, session *s) noexcept nogil:
        """Nothing waits for a session's rates any more."""
        cdef limits *own = s.limited
        cdef uint32_t n
        if own == NULL:
            return
        if own.up != NULL:
            waiting_remove(&self.shaped, own.up)
            n = shaper_clear(own.up, &self.room)
            self.count[D_RX_SESSION_ENDED] += n
            self.count[C_QUEUED] -= n
        if own.down != NULL:
            waiting_remove(&self.shaped, own.down)
            n = shaper_clear(own.down, &self.room)
            self.count[D_TX_SESSION_ENDED] += n
            self.count[C_TX_QUEUED] -= n

    cdef void _no_limits(self, session *s) noexcept nogil:
        if s.limited != NULL:
            self._empty(s)
            free(s.limited.up)
            free(s.limited.down)
            free(s.limited)
            s.limited = NULL

    cdef bint _limit_up(self, session *s, const uint8_t *p, uint32_t n) noexcept nogil:
        """Whether an inner packet from the subscriber may go on at once."""
        cdef limits *own = s.limited
        cdef look seen
        if not look_at(&seen, p, n):
            return True
        if own.rules != NULL and not filter_permits(&self.book, own.rules, &seen, FILTER_UP):
            self._drop(s, D_RX_FILTERED)
            return False
        if own.up == NULL or book_exempts(&self.book, seen.target, seen.six):
            return True
        if shaper_passes(own.up, n, self.now):
            return True
        self._wait(s, own.up, look_flow(&seen, self.seed), p, n)
        return False

    cdef void _wait(self, session *s, shaper *q, uint32_t flow, const uint8_t *p,
                    uint32_t n) noexcept nogil:
        cdef uint32_t dropped = shaper_put(q, &self.room, flow, p, n, self.now)
        self.count[C_QUEUED if q.up else C_TX_QUEUED] += 1
        if dropped:
            self._shaped_off(s, q, dropped)
        if q.packets and q.place == 0:
            self._await(q)

    cdef void _shaped_off(self, session *s, shaper *q, uint32_t n) noexcept nogil:
        self.count[C_QUEUED if q.up else C_TX_QUEUED] -= n
        self.count[D_RX_SHAPED if q.up else D_TX_SHAPED] += n
        s.r.drops += n

    cdef void _await(self, shaper *q) noexcept nogil:
        cdef uint64_t due = self.now + GRAIN
        waiting_put(&self.shaped, q, due if q.ready < due else q.ready)

    cdef void _serve_due(self) noexcept nogil:
        """Send what may go by now of all rates whose time has come."""
        cdef writer *w = &self.out_tun
        cdef shaper *q
        self._begin_writing()
        self.n_places = 0
        while self.shaped.n and self.shaped.at[0].due <= self.now:
            q = self.shaped.at[0]
            self.page.poison_sid = self.t.all[q.session].r.sid
            self._serve(q, w)
        self._end_writing()
        self._free_places()
        self.page.poison_sid = 0

    cdef void _serve(self, shaper *q, writer *w) noexcept nogil:
        cdef session *s = &self.t.all[q.session]
        cdef uint32_t dropped = 0, size
        cdef int32_t place
        cdef uint8_t *data
        cdef uint8_t *p
        while True:
            place = shaper_next(q, &self.room, self.now, &dropped)
            if place == SHAPER_NOTHING:
                break
            data = self.room.data + <size_t>place * PACKET_SIZE
            size = self.room.size[place]
            if q.up:
                if self.n_places == WRITE_OUT:
                    writer_end(w)
                    self._free_places()
                self.places[self.n_places] = place
                self.n_places += 1
                writer_put(w, s.r, data, size)
                self.count[C_QUEUED] -= 1
            else:
                p = self._slot()
                memcpy(p, data, size)
                packets_give(&self.room, place)
                self._data_out(s, p, size)
                self.count[C_TX_QUEUED] -= 1
        if dropped:
            self._shaped_off(s, q, dropped)
        if q.packets:
            self._await(q)
        else:
            waiting_remove(&self.shaped, q)

    cdef void _free_places(self) noexcept nogil:
        cdef uint32_t i
        for i in range(self.n_places):
            packets_give(&self.room, self.places[i])
        self.n_places = 0

    cdef void _forget_waiting(self, session *s) noexcept nogil:
        cdef uint32_t lost = backlog_clear(&self.behind, &self.t, s)
        self.count[D_TX_SESSION_ENDED] += lost
        self.count[C_TX_QUEUED] -= lost

    # -- events for the control thread

    cdef bint _event_of(self, uint32_t kind, uint32_t index, uint32_t generation,
                        const uint8_t *data, uint32_t size,
                        const uint8_t *more, uint32_t more_size) noexcept nogil:
        if not ring_push(&self.events_ring, kind, index, generation, data, size, more, more_size):
            return False
        if ring_wake_owed(&self.events_ring):
            raise_event(self.event_fd)
        return True

    cdef bint _event(self, uint32_t kind, session *s, const uint8_t *data,
                     uint32_t size) noexcept nogil:
        return self._event_of(kind, s.index, s.generation, data, size, NULL, 0)

    # -- commits

    cdef void _commit_tx(self, session *s) noexcept nogil:
        cdef record *r = s.r
        cdef copy_tx *c = &r.tx[(r.tx_turn + 1) & 1]
        c.seq = s.tx_seq
        c.count = s.tx_count
        c.flags = 0
        memcpy(c.key, s.tx_key, 16)
        fence_release()
        r.tx_turn += 1

    cdef void _commit_rx(self, session *s) noexcept nogil:
        cdef record *r = s.r
        cdef copy_rx *c = &r.rx[(r.rx_turn + 1) & 1]
        c.seq = s.rx_next
        c.count = s.rx_count
        c.flags = RX_SEEN if s.rx_seen else 0
        memcpy(c.key, s.rx_key, 16)
        c.acked = s.tx_acked
        fence_release()
        r.rx_turn += 1

    # -- lists of sessions with a timer that all wait equally long

    cdef void _ack_list(self, session *s) noexcept nogil:
        if s.ack_listed:
            return
        s.ack_listed = True
        s.ack_due = self.now + self.ack_ns
        s.ack_before = self.ack_last
        s.ack_after = NOBODY
        if self.ack_last != NOBODY:
            self.t.all[self.ack_last].ack_after = <int32_t>s.index
        else:
            self.ack_first = <int32_t>s.index
        self.ack_last = <int32_t>s.index

    cdef void _ack_unlist(self, session *s) noexcept nogil:
        s.unacked = 0
        if not s.ack_listed:
            return
        s.ack_listed = False
        if s.ack_before != NOBODY:
            self.t.all[s.ack_before].ack_after = s.ack_after
        else:
            self.ack_first = s.ack_after
        if s.ack_after != NOBODY:
            self.t.all[s.ack_after].ack_before = s.ack_before
        else:
            self.ack_last = s.ack_before

    cdef void _hold_list(self, session *s, uint64_t due) noexcept nogil:
        """In the order of `due`; where too many are due later, a little late."""
        cdef int32_t before = self.hold_last
        cdef uint32_t steps = 0
        if s.hold_listed:
            return
        while before != NOBODY and self.t.all[before].hold_due > due:
            if steps == HOLD_STEPS:
                due = self.t.all[before].hold_due
                break
            steps += 1
            before = self.t.all[before].hold_before
        s.hold_listed = True
        s.hold_due = due
        s.hold_before = before
        if before != NOBODY:
            s.hold_after = self.t.all[before].hold_after
            self.t.all[before].hold_after = <int32_t>s.index
        else:
            s.hold_after = self.hold_first
            self.hold_first = <int32_t>s.index
        if s.hold_after != NOBODY:
            self.t.all[s.hold_after].hold_before = <int32_t>s.index
        else:
            self.hold_last = <int32_t>s.index

    cdef void _hold_unlist(self, session *s) noexcept nogil:
        if not s.hold_listed:
            return
        s.hold_listed = False
        if s.hold_before != NOBODY:
            self.t.all[s.hold_before].hold_after = s.hold_after
        else:
            self.hold_first = s.hold_after
        if s.hold_after != NOBODY:
            self.t.all[s.hold_after].hold_before = s.hold_before
        else:
            self.hold_last = s.hold_before

    # -- from the subscriber: 1. receive, sequence

    cdef bint _gre_in(self) noexcept nogil:
        """One batch; True when the socket may hold more."""
        cdef int n = receive_many(self.gre_fd, self.in_messages, self.batch)
        cdef int i
        if n < <int>self.batch:
            self.senders.drained = True
        crowd_turn(&self.senders, self.now)
        if n <= 0:
            return False
        self._bucket(0, <uint32_t>n)
        self.n_items = 0
        self.n_done = 0
        self.n_touched = 0
        for i in range(n):
            self.count[C_GRE_RX_PACKETS] += 1
            self.count[C_GRE_RX_BYTES] += self.in_messages[i].msg_len
            if truncated(&self.in_messages[i]):
                self.count[D_RX_MALFORMED] += 1
                continue
            self._packet_in(self.in_data + i * IN_SIZE, self.in_messages[i].msg_len)
        self._frames_in()
        return n == <int>self.batch

    cdef void _frames_in(self) noexcept nogil:
        """Steps 2 to 4 for all that is listed, then the buffers are free again."""
        cdef uint32_t i
        self._open_frames()
        for i in range(self.n_touched):
            self.touched[i].rx_touched = False
            self._commit_rx(self.touched[i])
        self.n_touched = 0
        self._deliver()
        self._acks()
        for i in range(self.n_done):
            self.pool_free[self.n_free] = self.done_slots[i]
            self.n_free += 1
        self.n_done = 0
        self.n_items = 0
        self.page.poison_sid = 0
        if self.n_out:
            self._flush()

    cdef void _packet_in(self, uint8_t *p, uint32_t n) noexcept nogil:
        """An outer IPv4 packet (packet and raw sockets both give the IP header)."""
        cdef gre_header h
        cdef uint32_t ip_size, total, source, here
        cdef int32_t i, ahead
        cdef int at
        cdef session *s = NULL
        if n < 28 or (p[0] >> 4) != 4:
            self.count[D_RX_MALFORMED] += 1
            return
        ip_size = (p[0] & 15) * 4
        total = be16(p + 2)
        if (ip_size < 20 or total > n or total < ip_size + 8
                or (self.unproven and checksum(p, ip_size, 0) != 0)):
            self.count[D_RX_MALFORMED] += 1
            return
        at = gre_parse(p + ip_size, total - ip_size, &h)
        if at < 0:
            self.count[D_RX_MALFORMED] += 1
            return
        i = self.t.by_call[h.call_id]
        if i == NOBODY:
            self.count[D_RX_NO_SESSION] += 1
            return
        memcpy(&source, p + 12, 4)
        memcpy(&here, p + 16, 4)
        while i != NOBODY:
            if self.t.all[i].peer == source and self.t.all[i].here == here:
                s = &self.t.all[i]
                break
            i = self.t.all[i].next_call
        if s == NULL:
            self.count[D_RX_WRONG_PEER] += 1
            return
        self.page.poison_sid = s.r.sid
        s.r.gre_rx_packets += 1
        if not crowd_passes(&self.senders, &s.sends):
            self._drop(s, D_RX_OVERLOAD)
            return
        if h.has_ack and <int32_t>(h.ack - s.tx_seq) < 0 and <int32_t>(h.ack - s.tx_acked) > 0:
            s.tx_acked = h.ack
        if not h.has_seq or h.size == 0:
            # A sequence number without payload says nothing (RFC 2637 4.1): not counted in.
            self.count[C_RX_ACK_ONLY] += 1
            return
        p += ip_size + at
        if not s.rx_seen:
            s.rx_seen = True
            if h.seq <= 1:
                s.rx_next = h.seq      # both conventions of the first number (trap 4.19)
        ahead = <int32_t>(h.seq - s.rx_next)
        if ahead == 0:
            self._accept(s, p, h.size, -1)
            if s.held_count:
                self._drain(s)
        elif ahead < -JUMP_MAX:
            self._stray(s, &h, p)
        elif ahead < 0:
            ahead = -ahead
            if ahead <= 64 and not (s.rx_map >> (ahead - 1)) & 1:
                s.rx_map |= <uint64_t>1 << (ahead - 1)
                self._drop(s, D_RX_LATE)
            else:
                self._drop(s, D_RX_DUPLICATE)
        elif ahead < <int32_t>self.depth:
            self._hold(s, h.seq, p, h.size)
        elif ahead < JUMP_MAX:
            # Give up no more gaps than make room: what fills the others may be on its way.
            while s.held_count and ahead >= <int32_t>self.depth:
                self._give_up(s)
                ahead = <int32_t>(h.seq - s.rx_next)
            if 0 < ahead < <int32_t>self.depth:
                self._hold(s, h.seq, p, h.size)
            else:
                if ahead:
                    self._skip_to(s, h.seq)
                self._accept(s, p, h.size, -1)
        else:
            self._stray(s, &h, p)

    cdef void _drop(self, session *s, uint32_t reason) noexcept nogil:
        self.count[reason] += 1
        s.r.drops += 1

    cdef void _stray(self, session *s, gre_header *h, uint8_t *p) noexcept nogil:
        """Far outside the window. One forged packet must not move it, but a peer that went
        on while the way was cut must get through: some in a row make the new sequence."""
        if s.stray_count and h.seq == s.stray_next:
            s.stray_count += 1
        else:
            s.stray_count = 1
        s.stray_next = h.seq + 1
        if s.stray_count < STRAYS:
            self._drop(s, D_RX_OUT_OF_WINDOW)
            return
        s.stray_count = 0
        while s.held_count:
            self._give_up(s)
        s.rx_next = h.seq
        s.rx_map = 0
        self._accept(s, p, h.size, -1)

    cdef void _accept(self, session *s, uint8_t *p, uint32_t n, int32_t slot) noexcept nogil:
        """In order: list it for the next step."""
        cdef in_item *item
        s.rx_next += 1
        s.rx_map = (s.rx_map << 1) | 1
        s.last_rx = self.now
        s.stray_count = 0
        s.unacked += 1
        if not s.ack_listed:
            self._ack_list(s)
        if not s.rx_touched:
            s.rx_touched = True
            self.touched[self.n_touched] = s
            self.n_touched += 1
        if slot >= 0:
            self.done_slots[self.n_done] = slot
            self.n_done += 1
        item = &self.items[self.n_items]
        self.n_items += 1
        item.s = s
        item.p = p
        item.n = n
        item.slot = slot

    cdef void _hold(self, session *s, uint32_t seq, uint8_t *p, uint32_t n) noexcept nogil:
        """Early: keep a copy until the gap closes or is given up."""
        cdef int32_t slot
        cdef uint32_t at = seq % HELD
        if s.held == NULL:
            s.held = <int32_t *>calloc(HELD, sizeof(int32_t))
            if s.held == NULL:
                self._drop(s, D_RX_OUT_OF_WINDOW)
                return
        if s.held[at]:
            self._drop(s, D_RX_DUPLICATE)
            return
        if self.n_free == 0 or n > IN_SIZE:
            self._drop(s, D_RX_OUT_OF_WINDOW)
            return
        self.n_free -= 1
        slot = self.pool_free[self.n_free]
        memcpy(self.pool + slot * IN_SIZE, p, n)
        self.pool_size_of[slot] = n
        self.pool_seq[slot] = seq
        self.pool_since[slot] = self.now
        s.held[at] = slot + 1
        s.held_count += 1
        self.count[C_QUEUED] += 1
        self.count[C_REORDERED] += 1
        self._hold_list(s, self.now + self.hold_ns)

    cdef void _drain(self, session *s) noexcept nogil:
        """Deliver what is held and in order now."""
        cdef int32_t slot
        cdef uint32_t at
        cdef uint64_t since = self.now
        while s.held_count:
            at = s.rx_next % HELD
            slot = s.held[at] - 1
            if slot < 0 or self.pool_seq[slot] != s.rx_next:
                break
            s.held[at] = 0
            s.held_count -= 1
            self.count[C_QUEUED] -= 1
            self._accept(s, self.pool + slot * IN_SIZE, self.pool_size_of[slot], slot)
        self._hold_unlist(s)
        if s.held_count:
            # The next gap's time runs since the first packet behind it came, not from now:
            # else nobody would know how long the last of several gaps stops its packets.
            for at in range(HELD):
                if s.held[at] and self.pool_since[s.held[at] - 1] < since:
                    since = self.pool_since[s.held[at] - 1]
            self._hold_list(s, since + self.hold_ns)

    cdef void _skip_to(self, session *s, uint32_t seq) noexcept nogil:
        cdef uint32_t lost = seq - s.rx_next
        self.count[C_GRE_LOST] += lost
        s.rx_map = s.rx_map << lost if lost < 64 else 0
        s.rx_next = seq

    cdef void _give_up(self, session *s) noexcept nogil:
        """Do not wait any longer for the oldest gap: go on with the first that is held."""
        cdef uint32_t i
        cdef int32_t slot
        if not s.held_count:
            self._hold_unlist(s)
            return
        for i in range(1, self.depth):
            slot = s.held[(s.rx_next + i) % HELD] - 1
            if slot >= 0:
                self._skip_to(s, self.pool_seq[slot])
                break
        self._drain(s)

    # -- 2. PPP and MPPE

    cdef void _open_frames(self) noexcept nogil:
        """PPP headers; keys in the order of arrival; then decrypt all at once."""
        cdef uint32_t i, n_jobs = 0
        cdef in_item *item
        self.n_chains = 0
        for i in range(self.n_items):
            item = &self.items[i]
            item.live = 0
            item.encrypted = 0
            self.page.poison_sid = item.s.r.sid
            if item.s.state == DATA_NONE:
                self.count[D_RX_NO_SESSION] += 1
                continue
            self._open_frame(item, &self.jobs[n_jobs])
            if item.encrypted:
                n_jobs += 1
        run_chains(self.chains, self.n_chains, self.jobs)
        if n_jobs:
            crypt(self.jobs, n_jobs)

    cdef void _open_frame(self, in_item *item, crypt_job *job) noexcept nogil:
        cdef session *s = item.s
        cdef uint8_t *p = item.p
        cdef uint32_t n = item.n, protocol
        cdef uint8_t head[2]
        if n >= 2 and p[0] == 0xFF and p[1] == 0x03:
            p += 2
            n -= 2
        if n >= 1 and p[0] & 1:
            protocol = p[0]
            p += 1
            n -= 1
        elif n >= 2 and p[1] & 1:
            protocol = be16(p)
            p += 2
            n -= 2
        else:
            self._drop(s, D_RX_MALFORMED)
            return
        if protocol == PPP_COMP:
            self._open_mppe(item, job, p, n)
        elif protocol == PPP_IP or (protocol == PPP_IPV6 and s.six):
            if s.state != DATA_UP:
                self._drop(s, D_RX_NOT_UP)
            elif s.mppe_rx_bits:
                self._drop(s, D_RX_MPPE_CLEAR)
            else:
                item.p = p
                item.n = n
                item.live = 1
        elif protocol < 0x4000 and s.state == DATA_UP:
            self._drop(s, D_RX_PROTOCOL)       # data of a network protocol nobody agreed on
        elif protocol == PPP_LCP and s.state == DATA_UP and n >= 8 and (p[0] == 9 or p[0] == 10):
            self.count[C_RX_CONTROL] += 1
            if p[0] == 9:
                self._answer_echo(s, p, n)
        elif (protocol == PPP_CCP and s.state == DATA_UP and n >= 4 and s.mppe_tx_bits
                and (p[0] == 14 or p[0] == 15)):
            # The next packet has A set; a peer that asks again before it comes gets no second
            # change. RFC 3078 section 8 wants no Reset-Ack, but RFC 1962 does, and Linux
            # decrypts nothing until it has one.
            self.count[C_RX_CONTROL] += 1
            if p[0] == 14:
                self.count[C_MPPE_RESETS_RECEIVED] += 1
                s.tx_flush = s.tx_stream != NULL
                self._reset(s, 15, p[1])
        else:
            if s.frames <= 0 or ring_used(&self.events_ring) >= FRAME_END:
                self._drop(s, D_RX_RING_FULL)
                return
            s.frames -= 1
            put16(head, protocol)
            if self._event_of(EV_FRAME, s.index, s.generation, head, 2, p, n):
                self.count[C_RX_CONTROL] += 1
            else:
                self._drop(s, D_RX_RING_FULL)

    cdef void _open_mppe(self, in_item *item, crypt_job *job, uint8_t *p,
                         uint32_t n) noexcept nogil:
        """The coherency count of a stateless packet (RFC 3078 section 3.1, trap 4.17)."""
        cdef session *s = item.s
        cdef uint32_t bits, steps
        if s.state != DATA_UP:
            self._drop(s, D_RX_NOT_UP)
            return
        if n < 3:
            self._drop(s, D_RX_MALFORMED)
            return
        bits = be16(p)
        if not s.mppe_rx_bits or (bits & (MPPE_C | MPPE_D)) != MPPE_D:
            self._drop(s, D_RX_MPPE_COHERENCY)
            return
        if s.rx_stream != NULL:
            if not self._stateful_key(s, bits, job):
                self._drop(s, D_RX_MPPE_COHERENCY)
                return
        else:
            if not bits & MPPE_A:
                self._drop(s, D_RX_MPPE_COHERENCY)
                # Some agree to stateless MPPE and send it stateful: never to be read.
                self._garbled(s, b"stateful", 8)
                return
            steps = (bits - s.rx_count) & MPPE_COUNT
            if steps >= 0x800 or (steps and (s.work < <int32_t>steps
                                             or self.key_work < <int32_t>steps)):
                self._drop(s, D_RX_MPPE_COHERENCY)     # late: never re-key for it
                return
            if steps:
                s.work -= <int32_t>steps
                self.key_work -= <int32_t>steps
                self.count[C_MPPE_REKEYS] += steps
            job.stream = NULL
            job.key_size = key_size(s.mppe_rx_bits)
            if s.rx_chain >= self.n_chains or self.chains[s.rx_chain].owner != s:
                s.rx_chain = self.n_chains
                self._chain(&self.chains[self.n_chains], s, s.r.rx_start, s.rx_key,
                            s.mppe_rx_bits)
                self.n_chains += 1
            chain_add(&self.chains[s.rx_chain], self.jobs, <int32_t>(job - self.jobs), steps + 1)
        s.rx_count = <uint16_t>((bits + 1) & MPPE_COUNT)
        item.p = p + 2
        item.n = n - 2
        item.live = 1
        item.encrypted = 1
        job.data = item.p
        job.size = item.n
        if job.stream != NULL:
            memcpy(job.key, s.rx_key, 16)

    cdef void _chain(self, key_chain *c, session *s, const uint8_t *start, uint8_t *key,
                     uint32_t bits) noexcept nogil:
        c.owner = s
        c.start = start
        c.key = key
        c.bits = bits
        c.first = -1

    cdef bint _stateful_key(self, session *s, uint32_t bits, crypt_job *job) noexcept nogil:
        """RFC 3078 sections 7.1 and 8: the key changes where A is set, which every 256th
        packet has. After a loss all is discarded until A comes; the changes missed with
        lost ones of those packets are caught up."""
        cdef uint32_t last = (s.rx_count - 1) & MPPE_COUNT
        cdef uint32_t count = bits & MPPE_COUNT
        if (count - s.rx_count) & MPPE_COUNT >= 0x800:
            return False               # late
        if not s.discard and count != s.rx_count:
            s.discard = True
            s.reset_due = 0
        if s.discard:
            if not bits & MPPE_A:
                self._request_reset(s)
                return False
            while (count ^ last) & 0xF00:
                next_key(s.r.rx_start, s.mppe_rx_bits, s.rx_key)
                self.count[C_MPPE_REKEYS] += 1
                last = (last + 256) & MPPE_COUNT
            s.discard = False
        elif (count & 0xFF) == 0xFF and not bits & MPPE_A:
            return False
        job.stream = s.rx_stream
        job.key_size = 0
        if bits & MPPE_A:
            next_key(s.r.rx_start, s.mppe_rx_bits, s.rx_key)
            job.key_size = key_size(s.mppe_rx_bits)
        return True

    cdef void _request_reset(self, session *s) noexcept nogil:
        """CCP Reset-Request (RFC 1962 section 4.2), at most one in 250 ms."""
        if self.now < s.reset_due:
            return
        s.reset_due = self.now + 250 * MS
        s.reset_id += 1
        self._reset(s, 14, s.reset_id)
        self.count[C_MPPE_RESETS_SENT] += 1

    cdef void _reset(self, session *s, uint8_t code, uint8_t number) noexcept nogil:
        """Reset-Request (14) or Reset-Ack (15), without data as MPPE has it."""
        cdef uint8_t *p = self._frame_out(s, PPP_CCP, 4)
        p[0] = code
        p[1] = number
        put16(p + 2, 4)

    cdef void _answer_echo(self, session *s, const uint8_t *p, uint32_t n) noexcept nogil:
        """LCP Echo-Reply (RFC 1661 section 5.8), cut to the peer's MRU."""
        cdef uint32_t size = be16(p + 2)
        cdef uint8_t *q
        if size < 8 or size > n:
            return
        if size > s.mtu:
            size = s.mtu
        q = self._frame_out(s, PPP_LCP, size)
        if q == NULL:
            return
        memcpy(q, p, size)
        q[0] = 10
        put16(q + 2, size)
        put32(q + 4, s.magic)
        self.count[C_LCP_ECHO_ANSWERED] += 1

    # -- 4. to the TUN

    cdef void _deliver(self) noexcept nogil:
        cdef uint32_t i
        cdef in_item *item
        cdef writer *w = &self.out_tun
        self._begin_writing()
        for i in range(self.n_items):
            item = &self.items[i]
            if item.live:
                self.page.poison_sid = item.s.r.sid
                self._deliver_one(item, w)
            item.s.r.last_rx_ns = self.now
        self._end_writing()

    cdef void _begin_writing(self) noexcept nogil:
        cdef writer *w = &self.out_tun
        w.writes = w.packets = w.octets = w.failed = 0
        writer_begin(w)

    cdef void _end_writing(self) noexcept nogil:
        cdef writer *w = &self.out_tun
        writer_end(w)
        self.count[C_RX_DATA] += w.packets
        self.count[C_RX_DATA_BYTES] += w.octets
        self.count[D_RX_TUN_FULL] += w.failed
        self.count[C_TUN_TX_WRITES] += w.writes
        if w.batch:
            self._bucket(3, w.batch)

    cdef void _deliver_one(self, in_item *item, writer *w) noexcept nogil:
        cdef session *s = item.s
        cdef uint8_t *p = item.p
        cdef uint32_t n = item.n, protocol, source, total
        if item.encrypted:
            # The inner protocol field may be one octet, whatever was agreed (trap 4.17).
            if p[0] & 1:
                protocol = p[0]
                p += 1
                n -= 1
            else:
                protocol = be16(p) if n >= 2 else 0
                p += 2
                n = n - 2 if n >= 2 else 0
            if protocol != PPP_IP and not (protocol == PPP_IPV6 and s.six):
                if protocol in (0x57, 0x2B, 0x2D, 0x2F, 0x3F):
                    s.desync = 0
                    self._drop(s, D_RX_PROTOCOL)
                    return
                self._desync(s)
                return
            if n < 20 or (p[0] >> 4) != (4 if protocol == PPP_IP else 6):
                self._desync(s)
                return
            s.desync = 0
        if n < 20:
            self._drop(s, D_RX_MALFORMED)
            return
        if (p[0] >> 4) == 6 and s.six:
            total = 40 + be16(p + 4)
            if n < 40 or total > n:
                self._drop(s, D_RX_MALFORMED)
                return
            if self.role == ROLE_SERVER and not self._own_six(s, p + 8):
                self._drop(s, D_RX_SPOOFED)
                return
        else:
            total = be16(p + 2)
            if ((p[0] >> 4) != 4 or total < 20 or total > n or (p[0] & 15) < 5
                    or <uint32_t>((p[0] & 15) * 4) > total):
                self._drop(s, D_RX_MALFORMED)
                return
            memcpy(&source, p + 12, 4)
            if self.role == ROLE_SERVER and source != s.inner:
                self._drop(s, D_RX_SPOOFED)
                return
        if self.mss_clamp and clamp_mss(p, total, s.mtu):
            self.count[C_MSS_CLAMPED] += 1
        if s.limited != NULL and not self._limit_up(s, p, total):
            return
        writer_put(w, s.r, p, total)

    cdef bint _own_six(self, session *s, const uint8_t *source) noexcept nogil:
        """The link-local address of the identifier that IPv6CP agreed on (RFC 5072 5)."""
        cdef uint64_t iid
        memcpy(&iid, source + 8, 8)
        return be16(source) == 0xFE80 and be16(source + 2) == 0 and be16(source + 4) == 0 and (
            be16(source + 6) == 0 and iid == s.iid)

    cdef void _desync(self, session *s) noexcept nogil:
        self._drop(s, D_RX_MPPE_DESYNC)
        self._garbled(s, NULL, 0)

    cdef void _garbled(self, session *s, const uint8_t *why, uint32_t n) noexcept nogil:
        s.desync += 1
        if s.desync == DESYNCS and not self._event(EV_DESYNC, s, why, n):
            s.desync -= 1              # no room: told with the next one

    # -- to the subscriber

    cdef uint8_t *_slot(self) noexcept nogil:
        """The next output buffer; flushes when all are full."""
        if self.n_out == OUT_MAX:
            self._flush()
        return self.out_data + self.n_out * OUT_SIZE + OUT_HEAD

    cdef uint8_t *_frame_out(self, session *s, uint32_t protocol, uint32_t n) noexcept nogil:
        """Room for a clear frame of n octets after the protocol; always ff03, 2 octets."""
        cdef uint8_t *p = self._slot()
        cdef out_item *o = &self.out[self.n_out]
        if n > OUT_SIZE - OUT_HEAD:
            return NULL
        self.n_out += 1
        put16(p - 4, 0xFF03)
        put16(p - 2, protocol)
        o.s = s
        o.p = p - 4
        o.n = n + 4
        o.inner = 0
        o.secret = NULL
        o.ack_only = 0
        return p

    cdef void _send_frame(self, session *s, const uint8_t *frame, uint32_t n) noexcept nogil:
        cdef uint8_t *p
        if n < 2:
            return
        p = self._frame_out(s, be16(frame), n - 2)
        if p != NULL:
            memcpy(p, frame + 2, n - 2)
            self.count[C_TX_CONTROL] += 1

    cdef void _ack_out(self, session *s) noexcept nogil:
        """A pure acknowledgement."""
        cdef uint8_t *p = self._slot()
        cdef out_item *o = &self.out[self.n_out]
        self.n_out += 1
        o.s = s
        o.p = p
        o.n = 0
        o.inner = 0
        o.secret = NULL
        o.ack_only = 1
        self.count[C_TX_ACK_ONLY] += 1

    cdef void _data_out(self, session *s, uint8_t *p, uint32_t n) noexcept nogil:
        """PPP header before the inner packet that lies at p in the next slot."""
        cdef out_item *o = &self.out[self.n_out]
        cdef uint8_t *q = p
        cdef uint32_t protocol = PPP_IPV6 if (p[0] >> 4) == 6 else PPP_IP
        self.n_out += 1
        o.s = s
        o.inner = n
        o.ack_only = 0
        if s.mppe_tx_bits:
            put16(q - 2, protocol)
            o.secret = q - 2
            o.secret_size = n + 2
            q -= 4                     # room for the coherency count, set when flushed
            if s.framing & 2:
                q -= 1
                q[0] = PPP_COMP
            else:
                q -= 2
                put16(q, PPP_COMP)
        else:
            o.secret = NULL
            if s.framing & 2:
                q -= 1
                q[0] = <uint8_t>protocol
            else:
                q -= 2
                put16(q, protocol)
        if not s.framing & 1:
            q -= 2
            put16(q, 0xFF03)
        o.p = q
        o.n = <uint32_t>(p + n - q)

    cdef void _flush(self) noexcept nogil:
        """Keys, encryption, commit, send: all output buffers are free afterwards."""
        cdef uint32_t i, n = self.n_out, n_jobs = 0, n_touched = 0, size
        cdef out_item *o
        cdef session *s
        cdef session **touched = self.touched + self.batch + POOL_SIZE
        cdef crypt_job *jobs = self.jobs + self.batch + POOL_SIZE
        cdef crypt_job *job
        cdef key_chain *chains = self.chains + self.batch + POOL_SIZE
        cdef uint32_t n_chains = 0
        cdef bint ack
        cdef uint32_t at = 0, end
        cdef int sent, tries = 0, waits = 8    # ms for all of the queue, at most
        if n == 0:
            return
        for i in range(n):
            o = &self.out[i]
            s = o.s
            if o.secret != NULL:
                job = &jobs[n_jobs]
                n_jobs += 1
                job.data = o.secret
                job.size = o.secret_size
                job.stream = s.tx_stream
                if s.tx_stream == NULL:
                    put16(o.secret - 2, MPPE_A | MPPE_D | s.tx_count)
                    job.key_size = key_size(s.mppe_tx_bits)
                    if s.tx_chain >= n_chains or chains[s.tx_chain].owner != s:
                        s.tx_chain = n_chains
                        self._chain(&chains[n_chains], s, s.r.tx_start, s.tx_key,
                                    s.mppe_tx_bits)
                        n_chains += 1
                    chain_add(&chains[s.tx_chain], jobs, <int32_t>n_jobs - 1, 1)
                elif s.tx_flush or (s.tx_count & 0xFF) == 0xFF:
                    next_key(s.r.tx_start, s.mppe_tx_bits, s.tx_key)
                    put16(o.secret - 2, MPPE_A | MPPE_D | s.tx_count)
                    job.key_size = key_size(s.mppe_tx_bits)
                    memcpy(job.key, s.tx_key, 16)
                    s.tx_flush = False
                else:
                    put16(o.secret - 2, MPPE_D | s.tx_count)
                    job.key_size = 0
                s.tx_count = (s.tx_count + 1) & MPPE_COUNT
            ack = s.rx_seen and (o.ack_only or s.unacked != 0)
            size = gre_build(o.p, o.n, s.peer_call_id, not o.ack_only, s.tx_seq, ack,
                             s.rx_next - 1)
            if not o.ack_only:
                s.tx_seq += 1
                if not s.tx_touched:
                    s.tx_touched = True
                    touched[n_touched] = s
                    n_touched += 1
            if ack:
                self._ack_unlist(s)
            o.start = o.p - size
            o.total = o.n + size
            o.by_hop = s.hop_ifindex != 0 and o.total + 20 <= s.hop_mtu
            if o.by_hop and s.hop_age >= HOP_PROOF:
                s.hop_age = 0
                o.by_hop = 0
            if o.by_hop:
                self._ip_header(s, o)
                address_hop(&self.hop_targets[i], s.hop_ifindex, s.hop_mac, o.start - 20,
                            o.total + 20)
            else:
                address_message(&self.out_messages[i], &self.out_targets[i], s.peer, s.here,
                                o.start, o.total)
        run_chains(chains, n_chains, jobs)
        if n_jobs:
            crypt(jobs, n_jobs)
        for i in range(n_touched):
            touched[i].tx_touched = False
            self._commit_tx(touched[i])
        while at < n:
            end = at + 1
            while end < n and self.out[end].by_hop == self.out[at].by_hop:
                end += 1
            if self.out[at].by_hop:
                sent = send_many(self.hop_fd, self.hop_messages + at, end - at)
            else:
                sent = send_many(self.raw_fd, self.out_messages + at, end - at)
            if sent > 0:
                self._bucket(1, <uint32_t>sent)
                for i in range(at, at + <uint32_t>sent):
                    self._sent(&self.out[i])
                at += <uint32_t>sent
                tries = 0
                continue
            if errno == EINTR:
                continue
            if (errno == EAGAIN or errno == ENOBUFS) and tries < 3 and waits > 0:
                tries += 1
                waits -= 1
                wait_writable(self.hop_fd if self.out[at].by_hop else self.raw_fd)
                continue
            o = &self.out[at]
            s = o.s
            if o.by_hop and errno != EAGAIN and errno != ENOBUFS:
                # The device has gone or changed: the routed way at once, and tell.
                if s.hop_ifindex:
                    s.hop_ifindex = 0
                    self._event(EV_HOP_LOST, s, NULL, 0)
                o.by_hop = 0
                address_message(&self.out_messages[at], &self.out_targets[at], s.peer, s.here,
                                o.start, o.total)
                continue
            if o.inner:
                self._drop(s, D_TX_SEND_FAILED)
            at += 1
            tries = 0
        self.n_out = 0

    cdef void _ip_header(self, session *s, out_item *o) noexcept nogil:
        """The outer header (RFC 791) for the packet socket; DF clear, as by the raw socket."""
        cdef uint8_t *p = o.start - 20
        p[0] = 0x45
        p[1] = 0
        put16(p + 2, o.total + 20)
        # One count for all: sessions behind one address share its reassembly.
        self.ip_id += 1
        put16(p + 4, self.ip_id)
        put16(p + 6, 0)
        p[8] = 64
        p[9] = 47
        put16(p + 10, 0)
        memcpy(p + 12, &s.here, 4)
        memcpy(p + 16, &s.peer, 4)
        put16(p + 10, checksum(p, 20, 0))

    cdef void _sent(self, out_item *o) noexcept nogil:
        self.count[C_GRE_TX_PACKETS] += 1
        self.count[C_GRE_TX_BYTES] += o.total
        if o.by_hop:
            self.count[C_GRE_TX_BY_HOP] += 1
        if o.inner:
            self.count[C_TX_DATA] += 1
            self.count[C_TX_DATA_BYTES] += o.inner
            o.s.r.tx_packets += 1
            o.s.r.tx_bytes += o.inner

    cdef bint _tun_in(self) noexcept nogil:
        """Up to a batch of reads and of segments that waited; True when there may be more."""
        cdef uint32_t reads = 0, segments = 0
        cdef ssize_t n
        cdef uint8_t *data
        self.round += 1
        while reads < self.batch:
            data = backlog_buffer(&self.behind)
            n = read(self.tun_fd, data, LARGE_SIZE)
            if n <= 0:
                break
            reads += 1
            segments += self._packet_out(data, <uint32_t>n)
        self.count[C_TUN_RX_READS] += reads
        if segments:
            self._bucket(2, segments)
        if not backlog_empty(&self.behind):
            # What was read last goes before what waits: its session has had no turn yet.
            if self.n_out:
                self._flush()
            self._serve_turns()
        if self.n_out:
            self._flush()
        self.page.poison_sid = 0
        return reads == self.batch or not backlog_empty(&self.behind)

    cdef uint32_t _packet_out(self, uint8_t *data, uint32_t n) noexcept nogil:
        """One read: sent, or left waiting for its session's turn, or dropped. The segments."""
        cdef segmenter g
        cdef session *s
        cdef uint8_t *ip = data + VNET_SIZE
        cdef int code
        if n < VNET_SIZE + 20:
            self.count[C_TUN_RX_PACKETS] += 1
            self.count[D_TX_MALFORMED] += 1
            return 0
        s = self._session_of(ip, n - VNET_SIZE)
        if s != NULL:
            self.page.poison_sid = s.r.sid
        code = segments_begin(&g, data, n, s.mtu if s != NULL else 1500)
        self.count[C_TUN_RX_PACKETS] += g.count
        if code == SEGMENTS_NOT_IP:
            self.count[D_TX_NOT_IP] += g.count
        elif s == NULL:
            self.count[D_TX_NO_SESSION] += g.count
        elif code == SEGMENTS_TOO_BIG:
            self.count[D_TX_TOO_BIG] += g.count
            s.r.drops += g.count
            self._too_big(s, ip, n - VNET_SIZE)
        elif code != SEGMENTS_OK:
            self.count[D_TX_MALFORMED] += g.count
            s.r.drops += g.count
        elif s.limited == NULL or not self._limit_down(s, &g):
            if s.round != self.round:
                s.round = self.round
                s.passed = 0
            if s.backlog_count == 0 and s.passed + g.size <= TURN:
                s.passed += g.size
                while self._segment_out(s, &g):
                    pass
            elif backlog_put(&self.behind, &self.t, s, &g, n):
                self.count[C_TX_QUEUED] += g.count
            else:
                self.count[D_TX_OVERLOAD] += g.count
                s.r.drops += g.count
        return g.count

    cdef bint _limit_down(self, session *s, segmenter *g) noexcept nogil:
        """Filter and rate of a session; False if the packet is left to the caller."""
        cdef look seen
        cdef shaper *q = s.limited.down
        cdef uint32_t flow, size
        cdef uint8_t *p
        if not look_at(&seen, g.packet, g.size):
            return False
        # One look for all segments of a super-packet: they are one flow.
        if s.limited.rules != NULL and not filter_permits(
                &self.book, s.limited.rules, &seen, FILTER_DOWN):
            self.count[D_TX_FILTERED] += g.count
            s.r.drops += g.count
            return True
        if q == NULL or book_exempts(&self.book, seen.source, seen.six):
            return False
        flow = look_flow(&seen, self.seed)
        while True:
            p = self._slot()
            size = segments_next(g, p)
            if size == 0:
                return True
            if self.mss_clamp and clamp_mss(p, size, s.mtu):
                self.count[C_MSS_CLAMPED] += 1
            if shaper_passes(q, size, self.now):
                self._data_out(s, p, size)
            else:
                self._wait(s, q, flow, p, size)

    cdef session *_session_of(self, uint8_t *ip, uint32_t n) noexcept nogil:
        """By the inner destination; a client's by the source."""
        cdef uint32_t address
        cdef uint64_t iid
        cdef session *s
        if (ip[0] >> 4) == 4:
            memcpy(&address, ip + (12 if self.role == ROLE_CLIENT else 16), 4)
            return tables_by_inner(&self.t, address)
        if (ip[0] >> 4) == 6 and n >= 40:
            ip += 8 if self.role == ROLE_CLIENT else 24
            if be16(ip) == 0xFE80:
                memcpy(&iid, ip + 8, 8)
                s = tables_by_six(&self.t, iid)
                if s != NULL and s.state == DATA_UP:
                    return s
        return NULL

    cdef uint32_t _segment_out(self, session *s, segmenter *g) noexcept nogil:
        """The next segment into an output buffer; its octets, 0 if there is none left."""
        cdef uint8_t *p = self._slot()
        cdef uint32_t size = segments_next(g, p)
        if size:
            if self.mss_clamp and clamp_mss(p, size, s.mtu):
                self.count[C_MSS_CLAMPED] += 1
            self._data_out(s, p, size)
        return size

    cdef void _serve_turns(self) noexcept nogil:
        """Some of what waits, session by session in turns."""
        cdef uint32_t done = 0, size
        cdef session *s
        cdef segmenter *g
        while done < SERVE:
            s = backlog_next(&self.behind, &self.t)
            if s == NULL:
                break
            self.page.poison_sid = s.r.sid
            g = backlog_head(&self.behind, s)
            while done < SERVE and s.backlog_turn > 0:
                size = self._segment_out(s, g)
                if size == 0:
                    break
                s.backlog_turn -= <int32_t>size
                done += 1
                self.count[C_TX_QUEUED] -= 1
            if g.index >= g.count:
                backlog_done(&self.behind, &self.t, s)

    cdef void _too_big(self, session *s, const uint8_t *ip, uint32_t n) noexcept nogil:
        """ICMP fragmentation needed (RFC 1191), back into the TUN, some a second."""
        cdef uint8_t p[128]
        cdef uint32_t quoted = (ip[0] & 15) * 4 + 8
        if self.icmp_left <= 0:
            return
        if (ip[0] >> 4) == 6:
            self._too_big_six(s, ip, n)
            return
        self.icmp_left -= 1
        if quoted > n:
            quoted = n
        if quoted > 68:
            quoted = 68
        memset(p, 0, 128)
        p[VNET_SIZE] = 0x45
        put16(p + VNET_SIZE + 2, 28 + quoted)
        p[VNET_SIZE + 8] = 64
        p[VNET_SIZE + 9] = 1
        # From whom it was meant for: an address of our own would be a martian source there.
        memcpy(p + VNET_SIZE + 12, ip + 16, 4)
        memcpy(p + VNET_SIZE + 16, ip + 12, 4)
        put16(p + VNET_SIZE + 10, checksum(p + VNET_SIZE, 20, 0))
        p[VNET_SIZE + 20] = 3
        p[VNET_SIZE + 21] = 4
        put16(p + VNET_SIZE + 26, s.mtu)
        memcpy(p + VNET_SIZE + 28, ip, quoted)
        put16(p + VNET_SIZE + 22, checksum(p + VNET_SIZE + 20, 8 + quoted, 0))
        if write(self.tun_fd, p, VNET_SIZE + 28 + quoted) > 0:
            self.count[C_ICMP_TOO_BIG] += 1

    cdef void _too_big_six(self, session *s, const uint8_t *ip, uint32_t n) noexcept nogil:
        """ICMPv6 packet too big (RFC 4443 section 3.2), from our link-local address; never
        about an ICMPv6 error or to a multicast source (section 2.4)."""
        cdef uint8_t data[VNET_SIZE + 1280]
        cdef uint8_t *p = data + VNET_SIZE
        cdef uint32_t quoted = n if n < 1232 else 1232
        if n < 41 or ip[8] == 0xFF or (ip[6] == 58 and ip[40] < 128):
            return
        self.icmp_left -= 1
        memset(data, 0, VNET_SIZE + 48)
        p[0] = 0x60
        put16(p + 4, 8 + quoted)
        p[6] = 58
        p[7] = 64
        put16(p + 8, 0xFE80)
        memcpy(p + 16, s.r.our_iid, 8)
        memcpy(p + 24, ip + 8, 16)
        p[40] = 2
        put16(p + 44, s.mtu >> 16)
        put16(p + 46, s.mtu)
        memcpy(p + 48, ip, quoted)
        put16(p + 42, checksum(p + 40, 8 + quoted, sum16(p + 8, 32) + 58 + 8 + quoted))
        if write(self.tun_fd, data, VNET_SIZE + 48 + quoted) > 0:
            self.count[C_ICMP_TOO_BIG] += 1

    # -- timers

    cdef void _timers(self) noexcept nogil:
        cdef session *s
        cdef uint32_t part, end
        while self.ack_first != NOBODY:
            s = &self.t.all[self.ack_first]
            if s.ack_due > self.now:
                break
            self._ack_unlist(s)
            s.unacked = 1
            self._ack_out(s)
        if self.hold_first != NOBODY and self.t.all[self.hold_first].hold_due <= self.now:
            self.n_items = 0
            self.n_done = 0
            self.n_touched = 0
            while self.hold_first != NOBODY and self.n_items < 1024:
                s = &self.t.all[self.hold_first]
                if s.hold_due > self.now:
                    break
                self._give_up(s)
            self._frames_in()
        if self.shaped.n and self.shaped.at[0].due <= self.now:
            self._serve_due()
        if self.now >= self.next_tick:
            self.next_tick = self.now + TICK
            self.page.data_beat_ns = self.now
            self.icmp_left = 100
            self.key_work = KEY_WORK_ALL
            part = self.t.top // TICKS + 1
            end = self.sweep_at + part
            while self.sweep_at < end and self.sweep_at < self.t.top:
                s = &self.t.all[self.sweep_at]
                if s.state != DATA_NONE:
                    self._look_after(s)
                self.sweep_at += 1
            self.ticks += 1
            if self.ticks >= TICKS:        # not sooner: allowances are those of a second
                self.ticks = 0
                self.sweep_at = 0
        if self.n_out:
            self._flush()

    cdef void _look_after(self, session *s) noexcept nogil:
        """Once a second: allowances, LCP echo (any data counts as life)."""
        cdef uint8_t *p
        s.work = KEY_WORK
        # Who floods is held back; a new session still has its burst, and so its login.
        s.frames += FRAME_RATE if ring_used(&self.events_ring) < FRAME_QUEUE else FRAME_LEAST
        if s.frames > FRAME_BURST:
            s.frames = FRAME_BURST
        if s.hop_ifindex:
            s.hop_age += 1
        if s.state != DATA_UP or s.echo_interval == 0 or s.echo_lost:
            return
        if self.now - s.last_rx < s.echo_interval:
            s.echo_missed = 0
            s.echo_due = 0
            return
        if self.now < s.echo_due:
            return
        if s.echo_missed >= s.echo_failures:
            s.echo_lost = True
            self.count[C_LCP_ECHO_TIMEOUTS] += 1
            if not self._event(EV_ECHO_LOST, s, NULL, 0):
                s.echo_lost = False
            return
        p = self._frame_out(s, PPP_LCP, 8)
        s.echo_missed += 1
        s.echo_id += 1
        s.echo_due = self.now + s.echo_interval
        p[0] = 9
        p[1] = s.echo_id
        put16(p + 2, 8)
        put32(p + 4, s.magic)
        self.count[C_LCP_ECHO_SENT] += 1

    cdef void _acks(self) noexcept nogil:
        """A sender that honours our window must not wait: acknowledge before it is used up."""
        cdef uint32_t i
        cdef session *s
        for i in range(self.n_items):
            s = self.items[i].s
            if s.ack_listed and s.unacked >= s.ack_every:
                self._ack_unlist(s)
                s.unacked = 1
                self._ack_out(s)

    cdef void _bucket(self, uint32_t which, uint32_t n) noexcept nogil:
        cdef uint32_t b = 0, bound = 1
        while b < BUCKETS - 1 and n > bound:
            bound *= 2
            b += 1
        self.page.buckets[which][b] += 1
        self.page.sums[which] += n

    # -- the loop

    cdef uint64_t _nap_for(self, uint64_t before, uint64_t since) noexcept nogil:
        """How long to leave new packets lying; 0: not at all. `before` and `since` are the
        packet count and the time of the last time there was nothing to do."""
        cdef uint64_t n = (self.count[C_GRE_RX_PACKETS] + self.count[C_TUN_RX_PACKETS]) - before
        cdef uint64_t apart
        if n < NAP_LEAST or n >= NAP_MOST:
            return 0
        apart = (self.now - since) // n
        if apart > NAP_APART * self.poll_ns:
            return 0
        apart *= NAP_MOST - n
        return apart if apart < NAP_MAX * self.poll_ns else NAP_MAX * self.poll_ns

    cdef void _time_polls(self) noexcept nogil:
        """What it costs to ask for news in vain; the least of some tries."""
        cdef uint64_t began, best = POLL_MOST
        cdef int _i, woken = 0
        for _i in range(16):
            began = now_ns()
            wait_for(self.gre_fd, self.tun_fd, self.wake_fd, 0, &woken)
            began = now_ns() - began
            if began < best:
                best = began
        self.poll_ns = best if best > POLL_LEAST else POLL_LEAST

    cdef void _loop(self) noexcept nogil:
        cdef int ready = READY_GRE | READY_TUN, woken = 0
        cdef uint64_t until, rest, before = 0, since
        if self.cpu >= 0:
            if not pin_to(self.cpu):
                self.cpu = -1
        exact_timers()
        self._time_polls()
        self.page.cpu = <uint32_t>(self.cpu + 1)
        self.page.data_tid = thread_id()
        self.page.data_beat_ns = since = now_ns()
        while not self.stopping:
            self.now = now_ns()
            self._operations()
            if ready & READY_GRE and not self._gre_in():
                ready &= ~READY_GRE
            if ready & READY_TUN and not self._tun_in():
                ready &= ~READY_TUN
            self._timers()
            until = 0
            if ready == 0:
                until = self.next_tick
                if self.ack_first != NOBODY and self.t.all[self.ack_first].ack_due < until:
                    until = self.t.all[self.ack_first].ack_due
                if self.hold_first != NOBODY and self.t.all[self.hold_first].hold_due < until:
                    until = self.t.all[self.hold_first].hold_due
                if self.shaped.n and self.shaped.at[0].due < until:
                    until = self.shaped.at[0].due
                until = until - self.now if until > self.now else 0
                self.now = now_ns()
                rest = self._nap_for(before, since)
                before = self.count[C_GRE_RX_PACKETS] + self.count[C_TUN_RX_PACKETS]
                since = self.now
                if 0 < rest < until:
                    nap(rest)
                    self.count[C_WAKEUPS] += 1
                    ready = READY_GRE | READY_TUN
                    continue
                if not ring_sleep(&self.ops):
                    until = 0
            else:
                # Trying both costs less than asking which.
                ready = READY_GRE | READY_TUN
                continue
            wait_for(self.gre_fd, self.tun_fd, self.wake_fd, until, &woken)
            store_release(&self.ops.asleep, 0)
            if woken & 4:
                clear_event(self.wake_fd)
            if until:
                self.count[C_WAKEUPS] += 1
            ready |= woken & 3
        self._operations()
        self._flush()
