# cython: language_level=3
"""See umem.pxd.

A worker can end at any instruction. So each step is written down before it is taken, in this
order everywhere: what will be done, the ring's index, that it is done. Whoever comes next, its
successor or who gets the lock that it held, tells by the ring's index which of the two is true.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memset

cdef extern from "atomics.h" nogil:
    uint32_t load_acquire_32(const uint32_t *p)
    void store_release_32(uint32_t *p, uint32_t v)
    void fence_release()

cdef extern from *:
    """
    #ifndef _GNU_SOURCE
    #define _GNU_SOURCE
    #endif
    #include <errno.h>
    #include <pthread.h>
    #include <time.h>
    #include <sys/mman.h>
    #define UMEM_PATIENCE 1000000 /* ns */
    _Static_assert(sizeof(pthread_mutex_t) <= 64, "a lock has 64 octets");
    static inline int umem_lock(void *p, int patient)
    {
        int code = pthread_mutex_trylock((pthread_mutex_t *)p);
        if (code == EBUSY && patient) {
            struct timespec t;
            clock_gettime(CLOCK_REALTIME, &t);
            t.tv_nsec += UMEM_PATIENCE;
            if (t.tv_nsec >= 1000000000) {
                t.tv_nsec -= 1000000000;
                t.tv_sec++;
            }
            code = pthread_mutex_timedlock((pthread_mutex_t *)p, &t);
        }
        return code;
    }
    static inline void umem_consistent(void *p) { pthread_mutex_consistent((pthread_mutex_t *)p); }
    static inline void umem_unlock(void *p) { pthread_mutex_unlock((pthread_mutex_t *)p); }
    static inline void prefetch(const void *p) { __builtin_prefetch(p); }
    static inline void *umem_map(int fd, size_t size)
    {
        void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        return p == MAP_FAILED ? NULL : p;
    }
    static inline void umem_unmap(void *p, size_t size)
    {
        if (p)
            munmap(p, size);
    }
    """
    int EOWNERDEAD
    int umem_lock(void *p, bint patient) nogil
    void umem_consistent(void *p) nogil
    void umem_unlock(void *p) nogil
    void prefetch(const void *p) nogil
    void *umem_map(int fd, size_t size)
    void umem_unmap(void *p, size_t size) nogil

cdef enum:
    FEW = XSK_SEND // 2        # free ones, and it is time to look what others have found
    TRIES = 2000               # each of a millisecond: a predecessor's lock must come free

assert sizeof(umem_page) == 192 and sizeof(umem_notes) == 8320, sizeof(umem_notes)


cdef size_t umem_size(uint32_t receive_frames, uint32_t senders, uint32_t workers) noexcept nogil:
    """Octets of the memory: frames, the page, notes, `busy`."""
    return (<size_t>(receive_frames + senders * XSK_SEND) * XSK_FRAME + sizeof(umem_page)
            + workers * sizeof(umem_notes) + senders * XSK_SEND)


cdef void umem_lay(umem *u, uint8_t *base, uint32_t receive_frames, uint32_t senders,
                   uint32_t place, uint32_t workers, uint32_t worker) noexcept nogil:
    """Say what lies where. `place`: of this worker among the senders; not below: it is none."""
    memset(u, 0, sizeof(umem))
    u.base = base
    u.size = umem_size(receive_frames, senders, workers)
    u.page = <umem_page *>(base + <size_t>(receive_frames + senders * XSK_SEND) * XSK_FRAME)
    u.all = <umem_notes *>(u.page + 1)
    u.notes = &u.all[worker]
    u.busy = <uint8_t *>(u.all + workers)
    u.worker = worker
    u.fill_shared = workers > 1
    u.done_shared = senders > 1
    u.receive_frames = receive_frames
    u.senders = senders
    if place < senders:
        u.first = place * XSK_SEND
        u.send_frames = XSK_SEND


# -- receiving

cdef uint32_t umem_take(umem *u, uint32_t most, uint8_t **at, uint32_t *size_of) noexcept nogil:
    """Packets from the receive ring, up to so many: in hand until `umem_give`.

    A process that dies meanwhile loses these, as it would what it had read from a socket:
    they are out of the ring before anything is done with them.
    """
    cdef uint32_t had, n, first = u.rx.consumer[0], i
    cdef xsk_desc *d
    cdef uint64_t *frames
    n = load_acquire_32(u.rx.producer) - first
    if n > most:
        n = most
    if u.notes.n:
        umem_give(u, u.notes.n + n > XSK_HAND)
    if n == 0:
        return 0
    had = u.notes.n
    if n > XSK_HAND - had:
        n = XSK_HAND - had
        if n == 0:
            return 0
    frames = u.notes.frames + had
    for i in range(n):
        d = <xsk_desc *>u.rx.entries + ((first + i) & u.rx.mask)
        frames[i] = d.address & ~<uint64_t>(XSK_FRAME - 1)
        at[i] = u.base + d.address + XSK_ETHERNET
        size_of[i] = d.size - XSK_ETHERNET
        # The kernel may have written it on another CPU: headers, and the inner ones.
        prefetch(at[i])
        prefetch(at[i] + 64)
    u.notes.sure = had
    store_release_32(&u.notes.taken, first)
    store_release_32(&u.notes.n, had + n)
    store_release_32(u.rx.consumer, first + n)
    return n


cdef inline bint _filling(umem *u, bint patient) noexcept nogil:
    """The fill ring is ours, and in order."""
    cdef int code
    if not u.fill_shared:
        return True
    code = umem_lock(u.page.filling, patient)
    if code == EOWNERDEAD:
        _settle(u)
        umem_consistent(u.page.filling)
        return True
    return code == 0


cdef void _settle(umem *u) noexcept nogil:
    """Who died while its hand went back: it has gone back if the ring has moved."""
    cdef uint32_t who = u.page.filler
    if who == 0:
        return
    if u.fill.producer[0] != u.page.filled:
        store_release_32(&u.all[who - 1].n, 0)
    store_release_32(&u.page.filler, 0)


cdef bint umem_give(umem *u, bint patient) noexcept nogil:
    """All in hand goes back; False: not now, another one is at it. Patient: within 1 ms."""
    cdef uint64_t *entries = <uint64_t *>u.fill.entries
    cdef uint32_t at, i, n = u.notes.n
    if n == 0:
        return True
    if not _filling(u, patient):
        return False
    at = u.fill.producer[0]
    u.page.filled = at
    store_release_32(&u.page.filler, u.worker + 1)
    for i in range(n):
        entries[(at + i) & u.fill.mask] = u.notes.frames[i]
    store_release_32(u.fill.producer, at + n)
    store_release_32(&u.notes.n, 0)
    store_release_32(&u.page.filler, 0)
    if u.fill_shared:
        umem_unlock(u.page.filling)
    return True


cdef bint umem_mend(umem *u) noexcept nogil:
    """What a predecessor had in hand goes back; False: the lock is not to be had."""
    cdef uint32_t _i
    if u.fill_shared:
        # Once it was ours, the predecessor's last step is settled, by us or another one.
        for _i in range(TRIES):
            if _filling(u, True):
                break
        else:
            return False
        umem_unlock(u.page.filling)
    else:
        _settle(u)
    if u.notes.n and u.rx.consumer[0] == u.notes.taken:
        u.notes.n = u.notes.sure   # noted, and not taken any more
    for _i in range(TRIES):
        if umem_give(u, True):
            return True
    return False


# -- sending

cdef inline bint _reaping(umem *u, bint patient) noexcept nogil:
    """The completion ring is ours. Who died at it left nothing to settle: what it had seen and
    not taken out is seen again, and all that it marked is still marked."""
    cdef int code
    if not u.done_shared:
        return True
    code = umem_lock(u.page.reaping, patient)
    if code == EOWNERDEAD:
        umem_consistent(u.page.reaping)
        return True
    return code == 0


cdef void _found(umem *u) noexcept nogil:
    """Frames that the kernel is done with: ours are free, others' marked."""
    cdef uint64_t *entries = <uint64_t *>u.done.entries
    cdef uint32_t at = u.done.consumer[0], end = load_acquire_32(u.done.producer), f
    if at == end:
        return
    while at != end:
        f = <uint32_t>(entries[at & u.done.mask] // XSK_FRAME) - u.receive_frames
        at += 1
        if f >= u.senders * XSK_SEND or u.busy[f] != SEND_BUSY:
            continue
        if f - u.first < u.send_frames:
            u.busy[f] = SEND_FREE
            u.free[u.n_free] = f
            u.n_free += 1
        else:
            u.busy[f] = SEND_DONE
    store_release_32(u.done.consumer, at)


cdef void _collect(umem *u) noexcept nogil:
    """What others have found of ours. Only once the ring's index is past it: a frame must not
    go out again while it may be seen once more."""
    cdef uint32_t f, k
    cdef uint8_t *busy
    cdef const uint64_t *eight
    for f in range(u.first, u.first + u.send_frames, 8):
        busy = u.busy + f
        eight = <const uint64_t *>busy
        if eight[0] & <uint64_t>0x0202020202020202 == 0:
            continue
        for k in range(8):
            if busy[k] == SEND_DONE:
                busy[k] = SEND_FREE
                u.free[u.n_free] = f + k
                u.n_free += 1


cdef void umem_reap(umem *u) noexcept nogil:
    """Look what is free again; not now if another one is at it."""
    if not u.done_shared:
        _found(u)
        return
    if (u.n_free >= FEW and u.done.consumer[0] == load_acquire_32(u.done.producer)
            or not _reaping(u, u.n_free == 0)):
        return
    _found(u)
    if u.n_free < FEW:
        _collect(u)
    umem_unlock(u.page.reaping)


cdef bint umem_mend_send(umem *u) noexcept nogil:
    """What a predecessor wrote and never handed over is free, as is what it left. What it did
    hand over comes back by itself. False: the lock is not to be had."""
    cdef uint32_t f, i, _i
    cdef xsk_desc *d
    if u.notes.put and u.notes.base == u.tx.producer[0]:
        for i in range(u.notes.put):
            d = <xsk_desc *>u.tx.entries + ((u.notes.base + i) & u.tx.mask)
            f = <uint32_t>(d.address // XSK_FRAME) - u.receive_frames
            if f - u.first < u.send_frames:
                u.busy[f] = SEND_FREE
    u.notes.put = 0
    for _i in range(TRIES):
        if _reaping(u, True):
            break
    else:
        return False
    _found(u)
    u.n_free = 0
    for f in range(u.first, u.first + u.send_frames):
        if u.busy[f] != SEND_BUSY:
            u.busy[f] = SEND_FREE
            u.free[u.n_free] = f
            u.n_free += 1
    if u.done_shared:
        umem_unlock(u.page.reaping)
    return True


cdef uint8_t *umem_frame(umem *u) noexcept nogil:
    """A free frame to send from; NULL if there is none. Not sent, it stays the caller's."""
    if u.n_free == 0:
        umem_reap(u)
        if u.n_free == 0:
            return NULL
    u.n_free -= 1
    return u.base + <size_t>(u.receive_frames + u.free[u.n_free]) * XSK_FRAME


cdef void umem_put(umem *u, uint32_t at, const uint8_t *data, uint32_t size) noexcept nogil:
    """The packet number `at`, from 0 in turn, of those handed over next."""
    cdef xsk_desc *d = <xsk_desc *>u.tx.entries + ((u.tx.producer[0] + at) & u.tx.mask)
    if at == 0:
        u.notes.put = 0
        store_release_32(&u.notes.base, u.tx.producer[0])
    d.address = <uint64_t>(data - u.base)
    d.size = size
    d.options = 0
    store_release_32(&u.notes.put, at + 1)
    fence_release()
    u.busy[d.address // XSK_FRAME - u.receive_frames] = SEND_BUSY


# -- for tests

cdef size_t _region(xsk_ring *r, uint8_t *base, size_t at, uint32_t entries,
                    uint32_t size) noexcept:
    r.producer = <uint32_t *>(base + at)
    r.consumer = <uint32_t *>(base + at + 64)
    r.entries = base + at + 128
    r.mask = entries - 1
    return at + 128 + <size_t>entries * size


cdef class Umem:
    """See umem.pyi."""

    cdef umem u
    cdef uint8_t *rings
    cdef size_t size

    def __cinit__(self, int memory, int rings, size_t size, uint32_t frames, uint32_t ring,
                  uint32_t senders, uint32_t workers, uint32_t worker, uint32_t done):
        cdef size_t at
        cdef uint8_t *base = <uint8_t *>umem_map(memory, umem_size(frames, senders, workers))
        self.size = size
        self.rings = <uint8_t *>umem_map(rings, size)
        if base == NULL or self.rings == NULL:
            raise MemoryError
        umem_lay(&self.u, base, frames, senders, worker, workers, worker)
        at = _region(&self.u.fill, self.rings, 0, frames, 8)
        at = _region(&self.u.done, self.rings, at, done, 8)
        at += worker * (256 + (ring + XSK_SEND) * sizeof(xsk_desc))
        at = _region(&self.u.rx, self.rings, at, ring, sizeof(xsk_desc))
        at = _region(&self.u.tx, self.rings, at, XSK_SEND, sizeof(xsk_desc))
        self.u.free = <uint32_t *>malloc(XSK_SEND * sizeof(uint32_t))
        if at > size or self.u.free == NULL:
            raise MemoryError

    def __dealloc__(self):
        free(self.u.free)
        umem_unmap(self.rings, self.size)
        umem_unmap(self.u.base, self.u.size)

    @property
    def in_hand(self):
        return self.u.notes.n

    @property
    def free(self):
        cdef uint32_t i
        return [self.u.free[i] for i in range(self.u.n_free)]

    def mend(self):
        return umem_mend(&self.u) and umem_mend_send(&self.u)

    def take(self, uint32_t most):
        return self._take(min(most, XSK_HAND))

    cdef uint32_t _take(self, uint32_t most) noexcept nogil:
        cdef uint8_t *at[XSK_HAND]
        cdef uint32_t size_of[XSK_HAND]
        return umem_take(&self.u, most, at, size_of)

    def give(self, bint patient=False):
        return umem_give(&self.u, patient)

    def put(self, uint32_t most):
        return self._put(most)

    cdef uint32_t _put(self, uint32_t most) noexcept nogil:
        cdef uint32_t n = 0
        cdef uint8_t *data
        umem_reap(&self.u)
        while n < most:
            data = umem_frame(&self.u)
            if data == NULL:
                break
            umem_put(&self.u, n, data, 60)
            n += 1
        return n

    def hand_over(self, uint32_t n):
        store_release_32(self.u.tx.producer, self.u.tx.producer[0] + n)

    def reap(self):
        umem_reap(&self.u)

    def run(self, uint32_t batch):
        cdef uint32_t n
        with nogil:
            while True:
                self._take(batch)
                umem_give(&self.u, False)
                n = self._put(batch)
                store_release_32(self.u.tx.producer, self.u.tx.producer[0] + n)
