# cython: language_level=3
"""Writes to the TUN: see tun_queue.pxd."""

from libc.errno cimport EINVAL, errno
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

from fastpath.layout cimport D_RX_MALFORMED, D_RX_TUN_FULL, record
from fastpath.system cimport now_ns
from fastpath.wire cimport checksum, pseudo, put16

cdef extern from "<sys/uio.h>" nogil:
    ssize_t writev(int fd, const iovec *iov, int n)

cdef extern from "<unistd.h>" nogil:
    ssize_t write(int fd, const void *data, size_t n)

cdef extern from *:
    """
    #include <linux/if.h>
    #include <linux/if_tun.h>
    #include <sys/ioctl.h>

    static inline int is_tun(int fd)
    {
        struct ifreq r;
        return ioctl(fd, TUNGETIFF, &r) == 0;
    }
    """
    bint is_tun(int fd) nogil

cdef enum:
    UDP = 17
    TRIES = 8                  # to time both ways, the best of
    TRIED = 32                 # writes each

# By WRITES_AUTO, WRITES_PLAIN, WRITES_URING
WRITES = ("auto", "plain", "io_uring")


cdef int tun_queue_open(tun_queue *q, int mode) noexcept nogil:
    """In the data thread. 0, or why there is no io_uring (errno)."""
    cdef int code
    q.batched = False
    if mode == WRITES_PLAIN or (mode == WRITES_AUTO and not is_tun(q.fd)):
        return 0
    code = uring_open(&q.ring, PENDING, q.fd)
    if code:
        return code
    q.batched = mode == WRITES_URING or _is_quicker(q)
    if not q.batched:
        uring_close(&q.ring)
    return 0


cdef bint _is_quicker(tun_queue *q) noexcept nogil:
    """What a write costs each way before the kernel looks at the packet: of octets too few for
    a virtio header, which it refuses at once and counts nowhere."""
    cdef uint64_t began, number = 0, plain = <uint64_t>-1, batched = <uint64_t>-1
    cdef uint8_t octet = 0
    cdef int _i, _j, result = 0
    for _i in range(TRIES):
        began = now_ns()
        for _j in range(TRIED):
            write(q.fd, &octet, 1)
        began = now_ns() - began
        if began < plain:
            plain = began
        began = now_ns()
        for _j in range(TRIED):
            uring_write(&q.ring, &octet, 1, 0)
        if uring_submit(&q.ring) < 0:
            return False
        while uring_result(&q.ring, &number, &result):
            if result != -EINVAL:
                return False
        began = now_ns() - began
        if began < batched:
            batched = began
    return batched < plain


cdef void tun_queue_close(tun_queue *q) noexcept nogil:
    if q.batched:
        uring_close(&q.ring)
        q.batched = False


cdef void tun_queue_begin(tun_queue *q) noexcept nogil:
    q.n = q.n_parts = 0
    q.done = q.packets = q.octets = q.failed = 0


cdef void tun_queue_put(tun_queue *q, record *owner, uint8_t *ip, uint32_t n) noexcept nogil:
    """One packet as it is."""
    cdef tun_write *w
    memset(ip - VNET_SIZE, 0, VNET_SIZE)
    if not q.batched:
        if write(q.fd, ip - VNET_SIZE, n + VNET_SIZE) < 0:
            _failed(q, owner, 1)
        else:
            _written(q, owner, 1, n)
        return
    if q.n == PENDING:
        tun_queue_send(q)
    w = &q.writes[q.n]
    w.owner = owner
    w.packets = 1
    w.octets = n
    uring_write(&q.ring, ip - VNET_SIZE, n + VNET_SIZE, q.n)
    q.n += 1


cdef void tun_queue_put_super(tun_queue *q, const tun_write *made) noexcept nogil:
    """A super-packet with its virtio header; the list of its parts is copied."""
    cdef tun_write *w
    if not q.batched:
        w = &q.writes[0]
        w[0] = made[0]
        _ended(q, w, 0 if writev(q.fd, w.parts, <int>w.n_parts) >= 0 else -errno)
        return
    if q.n == PENDING or q.n_parts + made.n_parts > PENDING_PARTS:
        tun_queue_send(q)
    w = &q.writes[q.n]
    w[0] = made[0]
    w.parts = &q.parts[q.n_parts]
    memcpy(w.parts, made.parts, made.n_parts * sizeof(iovec))
    uring_writev(&q.ring, w.parts, w.n_parts, q.n)
    q.n += 1
    q.n_parts += w.n_parts


cdef void tun_queue_send(tun_queue *q) noexcept nogil:
    """All that is put is written, and its memory free, afterwards."""
    cdef uint64_t number = 0
    cdef int result = 0
    cdef uint32_t i
    if q.n == 0:
        return
    if uring_submit(&q.ring) < 0:
        # Never seen. What became of the writes is not known: they are counted as lost, and
        # the next are plain.
        for i in range(q.n):
            _failed(q, q.writes[i].owner, q.writes[i].packets)
        tun_queue_close(q)
    else:
        while uring_result(&q.ring, &number, &result):
            _ended(q, &q.writes[number], result)
    q.n = q.n_parts = 0


cdef inline void _written(tun_queue *q, record *owner, uint32_t packets,
                          uint64_t octets) noexcept nogil:
    q.done += 1
    q.packets += packets
    q.octets += octets
    owner.rx_packets += packets
    owner.rx_bytes += octets


cdef void _failed(tun_queue *q, record *owner, uint32_t packets) noexcept nogil:
    q.done += 1
    q.failed += packets
    owner.drops += packets
    owner.drops_by[D_RX_TUN_FULL - D_RX_MALFORMED] += packets


cdef void _ended(tun_queue *q, tun_write *w, int result) noexcept nogil:
    if result >= 0:
        _written(q, w.owner, w.packets, w.octets)
    elif result == -EINVAL and w.packets > 1 and w.head[9] == UDP:
        q.no_uso = True
        q.done += 1
        tun_queue_apart(q, w)
    else:
        _failed(q, w.owner, w.packets)


cdef void tun_queue_apart(tun_queue *q, tun_write *w) noexcept nogil:
    """Write the datagrams of a super-packet that the kernel refused one by one. Only the
    first one's header was changed; the others have theirs before their data."""
    cdef uint32_t i, n = w.head_size + w.mss, total
    cdef uint8_t *head = w.head
    put16(head + 2, n)
    put16(head + 10, 0)
    put16(head + 10, checksum(head, 20, 0))
    put16(head + 24, 8 + w.mss)
    put16(head + 26, 0)
    total = checksum(head + 20, 8 + w.mss, pseudo(head, UDP, 8 + w.mss))
    put16(head + 26, total if total else 0xFFFF)
    _plain(q, w.owner, head, n)
    for i in range(1, w.n_parts):
        _plain(q, w.owner, <uint8_t *>w.parts[i].iov_base - w.head_size,
               w.head_size + <uint32_t>w.parts[i].iov_len)


cdef void _plain(tun_queue *q, record *owner, uint8_t *ip, uint32_t n) noexcept nogil:
    """At once, also where others are written together."""
    memset(ip - VNET_SIZE, 0, VNET_SIZE)
    if write(q.fd, ip - VNET_SIZE, n + VNET_SIZE) < 0:
        _failed(q, owner, 1)
    else:
        _written(q, owner, 1, n)
