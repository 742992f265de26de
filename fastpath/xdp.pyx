# cython: language_level=3
"""See xdp.pxd."""

from libc.errno cimport EAGAIN, EBUSY, EINTR, ENETDOWN, ENOBUFS, ENOMEM, errno
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset

from fastpath.umem cimport (
    XSK_SEND, umem, umem_give, umem_lay, umem_mend, umem_mend_send, umem_reap, umem_size, umem_take,
    xsk_desc, xsk_ring)

cdef extern from "atomics.h" nogil:
    uint32_t load_acquire_32(const uint32_t *p)
    void store_release_32(uint32_t *p, uint32_t v)

cdef extern from *:
    """
    #ifndef _GNU_SOURCE
    #define _GNU_SOURCE
    #endif
    #include <linux/if_xdp.h>
    #include <poll.h>
    #include <time.h>
    #include <sys/mman.h>
    #include <sys/socket.h>
    #ifndef SOL_XDP
    #define SOL_XDP 283
    #endif
    static inline int xsk_offsets(int fd, uint64_t *all)
    {
        struct xdp_mmap_offsets o;
        socklen_t n = sizeof o;
        if (getsockopt(fd, SOL_XDP, XDP_MMAP_OFFSETS, &o, &n) < 0 || n != sizeof o)
            return -1;
        struct xdp_ring_offset *each[4] = {&o.rx, &o.tx, &o.fr, &o.cr};
        for (int i = 0; i < 4; i++) {
            all[3 * i] = each[i]->producer;
            all[3 * i + 1] = each[i]->consumer;
            all[3 * i + 2] = each[i]->desc;
        }
        return 0;
    }
    static inline void *map_shared(int fd, size_t size, uint64_t offset)
    {
        void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd,
                       (off_t)offset);
        return p == MAP_FAILED ? NULL : p;
    }
    static inline void unmap(void *p, size_t size)
    {
        if (p)
            munmap(p, size);
    }
    static inline int kick(int fd) { return (int)sendto(fd, NULL, 0, MSG_DONTWAIT, NULL, 0); }
    #define XSK_POLLED 35
    static inline int poll_many(struct pollfd *p, int n, uint64_t ns)
    {
        struct timespec t = {(time_t)(ns / 1000000000u), (long)(ns % 1000000000u)};
        return ppoll(p, (nfds_t)n, &t, NULL);
    }
    """
    int xsk_offsets(int fd, uint64_t *all)
    void *map_shared(int fd, size_t size, uint64_t offset)
    void unmap(void *p, size_t size) nogil
    int kick(int fd) nogil
    cdef struct pollfd:
        int fd
        short events
        short revents
    int poll_many(pollfd *p, int n, uint64_t ns) nogil
    short POLLIN, POLLERR, POLLNVAL
    uint64_t XDP_PGOFF_RX_RING, XDP_PGOFF_TX_RING
    uint64_t XDP_UMEM_PGOFF_FILL_RING, XDP_UMEM_PGOFF_COMPLETION_RING

assert sizeof(call_entry) == 16 and sizeof(xsk_desc) == 16


cdef void xdp_open(xdp_way *w, uint32_t worker):
    memset(w, 0, sizeof(xdp_way))
    w.worker = worker


cdef void _ring(xsk_ring *r, int fd, uint64_t *offsets, uint64_t where, uint32_t entries,
                uint32_t entry) except *:
    cdef uint8_t *base
    r.size = offsets[2] + <size_t>entries * entry
    base = <uint8_t *>map_shared(fd, r.size, where)
    if base == NULL:
        raise OSError(errno, "an AF_XDP ring")
    r.map = base
    r.producer = <uint32_t *>(base + offsets[0])
    r.consumer = <uint32_t *>(base + offsets[1])
    r.entries = base + offsets[2]
    r.mask = entries - 1


cdef void xdp_add(xdp_way *w, int fd, int memory, dict told) except *:
    """Map a unit, of which `told` is what dispatcher.umem.Unit.told says, and put right what a
    predecessor had in hand."""
    cdef xsk *x
    cdef umem *u
    cdef uint64_t offsets[12]
    cdef bytes mac = bytes.fromhex(told["mac"])
    cdef uint32_t frames = told["frames"], ring = told["ring"], senders = told["senders"]
    cdef uint32_t workers = told["workers"]
    cdef uint8_t *base
    if (w.n == XSK_MAX or len(mac) != 6 or w.worker >= workers or senders > workers
            or ring & (ring - 1) or ring > frames):
        raise ValueError("no such unit")
    x = &w.units[w.n]
    memset(x, 0, sizeof(xsk))
    base = <uint8_t *>map_shared(memory, umem_size(frames, senders, workers), 0)
    if base == NULL:
        raise OSError(errno, "frames of an AF_XDP socket")
    w.n += 1
    x.fd = fd
    x.ifindex = told["ifindex"]
    memcpy(x.mac, <const uint8_t *><const char *>mac, 6)
    u = &x.u
    umem_lay(u, base, frames, senders, told["place"], workers, w.worker)
    if xsk_offsets(fd, offsets) < 0:
        raise OSError(errno, "an AF_XDP socket")
    if ring:
        _ring(&u.rx, fd, offsets, XDP_PGOFF_RX_RING, ring, sizeof(xsk_desc))
        _ring(&u.fill, fd, offsets + 6, XDP_UMEM_PGOFF_FILL_RING, _power(frames), 8)
        if not umem_mend(u):
            raise OSError(EBUSY, "the fill ring of an AF_XDP socket")
        x.receives = w.receives = True
    if u.send_frames:
        _ring(&u.tx, fd, offsets + 3, XDP_PGOFF_TX_RING, XSK_SEND, sizeof(xsk_desc))
        _ring(&u.done, fd, offsets + 9, XDP_UMEM_PGOFF_COMPLETION_RING, _power(senders * XSK_SEND),
              8)
        u.free = <uint32_t *>malloc(XSK_SEND * sizeof(uint32_t))
        if u.free == NULL:
            raise MemoryError
        if not umem_mend_send(u):
            raise OSError(EBUSY, "the completion ring of an AF_XDP socket")
        x.sends = True
        if w.sender == NULL:
            w.sender = x
        if u.tx.producer[0] != load_acquire_32(u.tx.consumer):
            kick(fd)


cdef uint32_t _power(uint32_t n):
    """The power of two that is not less."""
    return 1 << (int(n) - 1).bit_length()


cdef void xdp_calls(xdp_way *w, int fd) except *:
    """The map of calls; entries of a predecessor go, its sessions are entered again."""
    cdef uint32_t i
    w.calls = <call_entry *>map_shared(fd, CALL_ENTRIES * sizeof(call_entry), 0)
    if w.calls == NULL:
        raise OSError(errno, "the map of calls")
    for i in range(CALL_ENTRIES):
        if w.calls[i].peer and w.calls[i].worker == w.worker:
            w.calls[i].peer = 0


cdef void xdp_close(xdp_way *w) noexcept nogil:
    cdef uint32_t i
    cdef umem *u
    for i in range(w.n):
        u = &w.units[i].u
        unmap(u.rx.map, u.rx.size)
        unmap(u.fill.map, u.fill.size)
        unmap(u.tx.map, u.tx.size)
        unmap(u.done.map, u.done.size)
        unmap(u.base, u.size)
        free(u.free)
    unmap(w.calls, CALL_ENTRIES * sizeof(call_entry))
    memset(w, 0, sizeof(xdp_way))


cdef void xdp_enter(xdp_way *w, uint32_t call, uint32_t peer, uint32_t here) noexcept nogil:
    """From now on the program takes this call's packets."""
    cdef call_entry *e
    if w.calls == NULL:
        return
    e = &w.calls[call & (CALL_ENTRIES - 1)]
    store_release_32(&e.peer, 0)
    e.here = here
    e.worker = w.worker
    store_release_32(&e.peer, peer)


cdef void xdp_leave(xdp_way *w, uint32_t call) noexcept nogil:
    if w.calls != NULL:
        store_release_32(&w.calls[call & (CALL_ENTRIES - 1)].peer, 0)


# -- receiving

cdef uint32_t xdp_take(xdp_way *w, uint32_t most) noexcept nogil:
    """Packets of all units, up to so many; theirs until `xdp_give_back`."""
    cdef uint32_t got = 0, k
    cdef xsk *x
    if most > XSK_HAND:
        most = XSK_HAND
    w.turn += 1
    for k in range(w.n):
        if got == most:
            break
        x = &w.units[(w.turn + k) % w.n]
        if x.receives:
            got += umem_take(&x.u, most - got, &w.at[got], &w.size_of[got])
    return got


cdef void xdp_give_back(xdp_way *w) noexcept nogil:
    """All packets taken are done with. Where another worker is just giving back its own, ours
    stay in hand until the next time."""
    cdef uint32_t k
    for k in range(w.n):
        if w.units[k].receives:
            umem_give(&w.units[k].u, False)


# -- sending

cdef uint32_t xdp_room(xdp_way *w) noexcept nogil:
    """So many frames may be sent now: each is replaced by a free one."""
    if w.sender == NULL or not w.sender.sends:
        return 0
    umem_reap(&w.sender.u)
    return w.sender.u.n_free


cdef bint xdp_send(xdp_way *w, uint32_t n) noexcept nogil:
    """Hand over `n` packets (0: only those left from before) and have the kernel send them.

    What it can't send yet stays in the ring, in order. False: it never will, the device has
    gone; `xdp_unsent` says how many of the last ones did not leave.
    """
    cdef xsk *x = w.sender
    cdef uint32_t left, before
    if n:
        store_release_32(x.u.tx.producer, x.u.tx.producer[0] + n)
    left = xdp_unsent(w)
    while left:
        before = left
        if kick(x.fd) < 0 and errno not in (EAGAIN, EBUSY, EINTR, ENOBUFS, ENOMEM, ENETDOWN):
            x.sends = False
            return False
        left = xdp_unsent(w)
        if left == before:
            break
    return True


cdef uint32_t xdp_unsent(xdp_way *w) noexcept nogil:
    cdef umem *u = &w.sender.u
    return u.tx.producer[0] - load_acquire_32(u.tx.consumer)


cdef int xdp_wait(xdp_way *w, int a, int b, int c, uint64_t ns, int *ready) noexcept nogil:
    """ppoll for three descriptors, bits 1, 2 and 4 of `ready`, and all rings: bit 8."""
    cdef pollfd p[3 + XSK_MAX]
    cdef int n = 3, i, found
    cdef uint32_t k
    cdef uint32_t unit[3 + XSK_MAX]
    p[0].fd = a
    p[1].fd = b
    p[2].fd = c
    for k in range(w.n):
        if w.units[k].receives:
            if not umem_give(&w.units[k].u, True) and ns > 1000000:
                ns = 1000000   # who has the lock may be dead or stopped: tried again
            unit[n] = k
            p[n].fd = w.units[k].fd
            n += 1
    for i in range(n):
        p[i].events = POLLIN
        p[i].revents = 0
    if w.sender != NULL and w.sender.sends and xdp_unsent(w):
        xdp_send(w, 0)
        if xdp_unsent(w) and ns > 1000000:
            ns = 1000000
    found = poll_many(p, n, ns)
    ready[0] = 0
    for i in range(n if found > 0 else 0):
        if p[i].revents == 0:
            continue
        ready[0] |= 1 << i if i < 3 else 8
        if i >= 3 and p[i].revents & (POLLERR | POLLNVAL):
            xdp_gone(w, unit[i])
    return found


cdef void xdp_gone(xdp_way *w, uint32_t unit) noexcept nogil:
    """A unit's device has gone: its socket is dead for good."""
    cdef uint32_t k
    w.units[unit].receives = w.units[unit].sends = w.receives = False
    for k in range(w.n):
        w.receives |= w.units[k].receives
