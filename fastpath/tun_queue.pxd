# cython: language_level=3
"""Writes to the TUN: each by a system call of its own, or many together by io_uring.

What is put must stay in place until `tun_queue_send`, and the VNET_SIZE octets before a packet
are the queue's, for the virtio header: one part to write is cheaper than two. Writes are
carried out in order. Which way is quicker depends on the kernel and on what a system call
costs on the machine, so the data thread tries both when it starts; where io_uring is missing
or forbidden (sysctl kernel.io_uring_disabled), each write is a system call.
"""

from libc.stdint cimport int32_t, uint8_t, uint16_t, uint32_t, uint64_t

from fastpath.layout cimport record

cdef extern from "<sys/uio.h>" nogil:
    cdef struct iovec:
        void *iov_base
        size_t iov_len

cdef extern from "uring.h" nogil:
    cdef struct uring:
        unsigned entries
        unsigned queued
    int uring_open(uring *u, unsigned entries, int file)
    void uring_close(uring *u)
    void uring_write(uring *u, const void *data, unsigned size, uint64_t number)
    void uring_writev(uring *u, const iovec *parts, unsigned n, uint64_t number)
    int uring_submit(uring *u)
    bint uring_result(uring *u, uint64_t *number, int *result)

cdef enum:
    WRITES_AUTO = 0
    WRITES_PLAIN = 1
    WRITES_URING = 2
    VNET_SIZE = 10
    PENDING = 128              # writes of one system call, at most
    PENDING_PARTS = 1024       # and parts of memory of them all

cdef packed struct vnet_header:
    uint8_t flags
    uint8_t gso_type
    uint16_t hdr_len
    uint16_t gso_size
    uint16_t csum_start
    uint16_t csum_offset

cdef struct tun_write:
    record *owner
    uint8_t *head              # of a super-packet: its first header
    uint32_t head_size
    uint32_t mss
    uint32_t packets
    uint32_t n_parts
    uint64_t octets
    iovec *parts               # the first from the virtio header, before head

cdef struct tun_queue:
    int fd
    bint batched               # by io_uring
    bint no_uso                # the kernel refused UDP segmentation
    uring ring
    tun_write writes[PENDING]
    iovec parts[PENDING_PARTS]
    uint32_t n, n_parts
    # since tun_queue_begin
    uint64_t done              # writes
    uint64_t packets           # delivered
    uint64_t octets
    uint64_t failed            # packets the device did not take

cdef int tun_queue_open(tun_queue *q, int mode) noexcept nogil
cdef void tun_queue_close(tun_queue *q) noexcept nogil
cdef void tun_queue_begin(tun_queue *q) noexcept nogil
cdef void tun_queue_put(tun_queue *q, record *owner, uint8_t *ip, uint32_t n) noexcept nogil
cdef void tun_queue_put_super(tun_queue *q, const tun_write *made) noexcept nogil
cdef void tun_queue_send(tun_queue *q) noexcept nogil
cdef void tun_queue_apart(tun_queue *q, tun_write *w) noexcept nogil
