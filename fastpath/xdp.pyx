# cython: language_level=3
"""See xdp.pxd."""

from libc.errno cimport EAGAIN, EBUSY, EINTR, ENETDOWN, ENOBUFS, ENOMEM, errno
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset

cdef extern from "atomics.h" nogil:
    uint32_t load_acquire_32(const uint32_t *p)
    void store_release_32(uint32_t *p, uint32_t v)
    void fence_release()

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
    static inline void prefetch(const void *p) { __builtin_prefetch(p); }
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
    void prefetch(const void *p) nogil
    uint64_t XDP_PGOFF_RX_RING, XDP_PGOFF_TX_RING
    uint64_t XDP_UMEM_PGOFF_FILL_RING, XDP_UMEM_PGOFF_COMPLETION_RING

assert sizeof(xsk_state) <= 12288, sizeof(xsk_state)
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


cdef void xdp_add(xdp_way *w, int fd, int memory, uint32_t ifindex, bytes mac,
                  uint32_t receive_frames, uint32_t send_frames) except *:
    """Map a unit and put right what a predecessor had in hand."""
    cdef xsk *u
    cdef uint64_t offsets[12]
    for frames in (receive_frames, send_frames):
        if frames & (frames - 1):
            raise ValueError(f"{frames} frames: no power of two")
    if w.n == XSK_MAX or len(mac) != 6 or send_frames > XSK_SEND:
        raise ValueError("no such unit")
    u = &w.units[w.n]
    memset(u, 0, sizeof(xsk))
    w.n += 1
    u.fd = fd
    u.ifindex = ifindex
    memcpy(u.mac, <const uint8_t *><const char *>mac, 6)
    u.receive_frames = receive_frames
    u.send_frames = send_frames
    u.size = <size_t>(receive_frames + send_frames) * XSK_FRAME + 12288
    u.base = <uint8_t *>map_shared(memory, u.size, 0)
    if u.base == NULL:
        raise OSError(errno, "frames of an AF_XDP socket")
    u.state = <xsk_state *>(u.base + u.size - 12288)
    if xsk_offsets(fd, offsets) < 0:
        raise OSError(errno, "an AF_XDP socket")
    if receive_frames:
        _ring(&u.rx, fd, offsets, XDP_PGOFF_RX_RING, receive_frames, sizeof(xsk_desc))
        _ring(&u.fill, fd, offsets + 6, XDP_UMEM_PGOFF_FILL_RING, receive_frames, 8)
        u.receives = w.receives = True
        _mend(u)
    if send_frames:
        _ring(&u.tx, fd, offsets + 3, XDP_PGOFF_TX_RING, send_frames, sizeof(xsk_desc))
        _ring(&u.done, fd, offsets + 9, XDP_UMEM_PGOFF_COMPLETION_RING, send_frames, 8)
        u.free = <uint32_t *>malloc(send_frames * sizeof(uint32_t))
        if u.free == NULL:
            raise MemoryError
        u.sends = True
        if w.sender == NULL:
            w.sender = u
        _mend_send(u)


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
    cdef xsk *u
    for i in range(w.n):
        u = &w.units[i]
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
    """Packets of all units, up to so many; theirs until `xdp_give_back`.

    A process that dies meanwhile loses these, as it would what it had read from a socket:
    they are out of the ring before anything is done with them.
    """
    cdef uint32_t got = 0, n, first, i, k
    cdef xsk *u
    cdef xsk_desc *d
    if most > XSK_HAND:
        most = XSK_HAND
    w.turn += 1
    for k in range(w.n):
        if got == most:
            break
        u = &w.units[(w.turn + k) % w.n]
        if not u.receives:
            continue
        first = u.rx.consumer[0]
        n = load_acquire_32(u.rx.producer) - first
        if n == 0:
            continue
        if n > most - got:
            n = most - got
        for i in range(n):
            d = <xsk_desc *>u.rx.entries + ((first + i) & u.rx.mask)
            u.state.frames[i] = d.address & ~<uint64_t>(XSK_FRAME - 1)
            w.at[got] = u.base + d.address + XSK_ETHERNET
            w.size_of[got] = d.size - XSK_ETHERNET
            # The kernel may have written it on another CPU: headers, and the inner ones.
            prefetch(w.at[got])
            prefetch(w.at[got] + 64)
            got += 1
        u.state.taken = first
        u.state.fill = u.fill.producer[0]
        fence_release()
        u.state.n = n
        store_release_32(u.rx.consumer, first + n)
    return got


cdef void xdp_give_back(xdp_way *w) noexcept nogil:
    """All packets taken are done with."""
    cdef uint32_t k
    for k in range(w.n):
        if w.units[k].receives and w.units[k].state.n:
            _refill(&w.units[k])


cdef void _refill(xsk *u) noexcept nogil:
    cdef uint64_t *entries = <uint64_t *>u.fill.entries
    cdef uint32_t at = u.state.fill, i, n = u.state.n
    for i in range(n):
        entries[(at + i) & u.fill.mask] = u.state.frames[i]
    store_release_32(u.fill.producer, at + n)
    u.state.n = 0


cdef void _mend(xsk *u) noexcept nogil:
    """What a predecessor had taken goes back, unless it did that, or had not taken it yet."""
    if u.state.n == 0:
        return
    if u.rx.consumer[0] == u.state.taken or u.fill.producer[0] != u.state.fill:
        u.state.n = 0
    else:
        _refill(u)


# -- sending

cdef void _reap(xsk *u) noexcept nogil:
    """Frames that the kernel is done with."""
    cdef uint64_t *entries = <uint64_t *>u.done.entries
    cdef uint32_t at = u.done.consumer[0], end = load_acquire_32(u.done.producer), f, first = at
    while at != end:
        f = <uint32_t>(entries[at & u.done.mask] // XSK_FRAME) - u.receive_frames
        u.state.busy[f] = 0
        u.free[u.n_free] = f
        u.n_free += 1
        at += 1
    if at != first:
        store_release_32(u.done.consumer, at)
    if u.leaks and at == u.tx.producer[0]:
        u.leaks = False
        for f in range(u.send_frames):
            if u.state.busy[f]:
                u.state.busy[f] = 0
                u.free[u.n_free] = f
                u.n_free += 1


cdef void _mend_send(xsk *u) noexcept nogil:
    """A predecessor may have filled frames it never sent; sent ones come back by themselves."""
    cdef uint32_t f
    for f in range(u.send_frames):
        if u.state.busy[f]:
            u.leaks = True
        else:
            u.free[u.n_free] = f
            u.n_free += 1
    if u.tx.producer[0] != load_acquire_32(u.tx.consumer):
        kick(u.fd)
    _reap(u)


cdef uint8_t *xdp_frame(xdp_way *w) noexcept nogil:
    """A free frame to send from; NULL if there is none. Not sent, it stays the caller's."""
    cdef xsk *u = w.sender
    if u.n_free == 0:
        _reap(u)
        if u.n_free == 0:
            return NULL
    u.n_free -= 1
    return u.base + <size_t>(u.receive_frames + u.free[u.n_free]) * XSK_FRAME


cdef uint32_t xdp_room(xdp_way *w) noexcept nogil:
    """So many frames may be sent now: each is replaced by a free one."""
    if w.sender == NULL or not w.sender.sends:
        return 0
    _reap(w.sender)
    return w.sender.n_free


cdef void xdp_put(xdp_way *w, uint32_t at, const uint8_t *data, uint32_t size) noexcept nogil:
    """The packet number `at` of the next `xdp_send`; `data` lies in a frame of ours."""
    cdef xsk *u = w.sender
    cdef xsk_desc *d = <xsk_desc *>u.tx.entries + ((u.tx.producer[0] + at) & u.tx.mask)
    d.address = <uint64_t>(data - u.base)
    d.size = size
    d.options = 0
    u.state.busy[d.address // XSK_FRAME - u.receive_frames] = 1


cdef bint xdp_send(xdp_way *w, uint32_t n) noexcept nogil:
    """Hand over `n` packets (0: only those left from before) and have the kernel send them.

    What it can't send yet stays in the ring, in order. False: it never will, the device has
    gone; `xdp_unsent` says how many of the last ones did not leave.
    """
    cdef xsk *u = w.sender
    cdef uint32_t left, before
    if n:
        store_release_32(u.tx.producer, u.tx.producer[0] + n)
    left = xdp_unsent(w)
    while left:
        before = left
        if kick(u.fd) < 0 and errno not in (EAGAIN, EBUSY, EINTR, ENOBUFS, ENOMEM, ENETDOWN):
            u.sends = False
            return False
        left = xdp_unsent(w)
        if left == before:
            break
    return True


cdef uint32_t xdp_unsent(xdp_way *w) noexcept nogil:
    cdef xsk *u = w.sender
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
