/* io_uring(7) for writes to one descriptor: many with one system call, all done when it
 * returns. Only system calls, no liburing: it is as long as its binding would be. One thread
 * makes, fills and closes it. */
#ifndef PPTPCON_URING_H
#define PPTPCON_URING_H

#include <errno.h>
#include <linux/io_uring.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

struct uring {
    int fd;
    unsigned entries;
    unsigned queued;
    unsigned tail;
    unsigned *sq_tail, *sq_mask;
    unsigned *cq_head, *cq_tail, *cq_mask;
    struct io_uring_sqe *sqes;
    struct io_uring_cqe *cqes;
    void *rings;
    size_t rings_size, sqes_size;
};

static inline void uring_close(struct uring *u)
{
    if (u->sqes)
        munmap(u->sqes, u->sqes_size);
    if (u->rings)
        munmap(u->rings, u->rings_size);
    if (u->fd > 0)
        close(u->fd);
    memset(u, 0, sizeof *u);
}

/* 0, or an errno: ENOSYS, EPERM (sysctl kernel.io_uring_disabled), ENOMEM, EINVAL (too old) */
static inline int uring_open(struct uring *u, unsigned entries, int file)
{
    /* From 6.1 nothing is put off to task work of other threads. */
    static const unsigned ways[] = {(1U << 12) | (1U << 13), 0}; /* SINGLE_ISSUER, DEFER_TASKRUN */
    struct io_uring_params p;
    unsigned i, *array;
    char *at;
    memset(u, 0, sizeof *u);
    for (i = 0; i < sizeof ways / sizeof *ways; i++) {
        memset(&p, 0, sizeof p);
        p.flags = ways[i];
        u->fd = (int)syscall(SYS_io_uring_setup, entries, &p);
        if (u->fd >= 0 || errno != EINVAL)
            break;
    }
    if (u->fd < 0) {
        u->fd = 0;
        return errno;
    }
    if (!(p.features & IORING_FEAT_SINGLE_MMAP)) {
        uring_close(u);
        return EINVAL;
    }
    u->entries = p.sq_entries;
    u->rings_size = p.sq_off.array + p.sq_entries * sizeof(unsigned);
    if (u->rings_size < p.cq_off.cqes + p.cq_entries * sizeof(struct io_uring_cqe))
        u->rings_size = p.cq_off.cqes + p.cq_entries * sizeof(struct io_uring_cqe);
    u->rings = mmap(NULL, u->rings_size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, u->fd,
                    IORING_OFF_SQ_RING);
    if (u->rings == MAP_FAILED) {
        u->rings = NULL;
        i = errno;
        uring_close(u);
        return (int)i;
    }
    u->sqes_size = p.sq_entries * sizeof(struct io_uring_sqe);
    u->sqes = mmap(NULL, u->sqes_size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, u->fd,
                   IORING_OFF_SQES);
    if (u->sqes == MAP_FAILED) {
        u->sqes = NULL;
        i = errno;
        uring_close(u);
        return (int)i;
    }
    at = u->rings;
    u->sq_tail = (unsigned *)(at + p.sq_off.tail);
    u->sq_mask = (unsigned *)(at + p.sq_off.ring_mask);
    u->cq_head = (unsigned *)(at + p.cq_off.head);
    u->cq_tail = (unsigned *)(at + p.cq_off.tail);
    u->cq_mask = (unsigned *)(at + p.cq_off.ring_mask);
    u->cqes = (struct io_uring_cqe *)(at + p.cq_off.cqes);
    u->tail = *u->sq_tail;
    array = (unsigned *)(at + p.sq_off.array);
    for (i = 0; i < p.sq_entries; i++)
        array[i] = i;
    if (syscall(SYS_io_uring_register, u->fd, IORING_REGISTER_FILES, &file, 1) < 0) {
        i = errno;
        uring_close(u);
        return (int)i;
    }
    return 0;
}

/* There must be room: uring.queued < uring.entries. What is named stays until uring_submit. */
static inline void uring_put(struct uring *u, int opcode, const void *what, unsigned n,
                             uint64_t number)
{
    struct io_uring_sqe *e = &u->sqes[u->tail & *u->sq_mask];
    memset(e, 0, sizeof *e);
    e->opcode = (uint8_t)opcode;
    e->flags = IOSQE_FIXED_FILE; /* the one that is registered: number 0 */
    e->addr = (uint64_t)(uintptr_t)what;
    e->len = n;
    e->user_data = number;
    u->tail++;
    u->queued++;
}
static inline void uring_write(struct uring *u, const void *data, unsigned size, uint64_t number)
{
    uring_put(u, IORING_OP_WRITE, data, size, number);
}
static inline void uring_writev(struct uring *u, const struct iovec *parts, unsigned n,
                                uint64_t number)
{
    uring_put(u, IORING_OP_WRITEV, parts, n, number);
}

/* Carry out all that is queued and wait until it is done. How many are, or -errno. */
static inline int uring_submit(struct uring *u)
{
    unsigned n = u->queued, given = 0;
    __atomic_store_n(u->sq_tail, u->tail, __ATOMIC_RELEASE);
    while (__atomic_load_n(u->cq_tail, __ATOMIC_ACQUIRE) - *u->cq_head < n) {
        long done = syscall(SYS_io_uring_enter, u->fd, n - given, n, IORING_ENTER_GETEVENTS, NULL,
                            0);
        if (done < 0 && errno != EINTR && errno != EAGAIN && errno != EBUSY)
            return -errno;
        if (done > 0)
            given += (unsigned)done;
    }
    u->queued = 0;
    return (int)n;
}

/* The next result of what is done: the number it was given, octets or -errno. 0: no more. */
static inline int uring_result(struct uring *u, uint64_t *number, int *result)
{
    unsigned head = *u->cq_head;
    const struct io_uring_cqe *c;
    if (head == __atomic_load_n(u->cq_tail, __ATOMIC_ACQUIRE))
        return 0;
    c = &u->cqes[head & *u->cq_mask];
    *number = c->user_data;
    *result = c->res;
    __atomic_store_n(u->cq_head, head + 1, __ATOMIC_RELEASE);
    return 1;
}

#endif
