# cython: language_level=3
"""Frames of one queue of a device that several workers share, by AF_XDP's rings (linux/if_xdp.h).

Frames to receive into go round: fill ring, kernel, a worker's receive ring, its hand, fill
ring. Frames to send from: their worker (`free`), its send ring, kernel, completion ring, their
worker. Receive and send rings are a worker's own. Fill and completion ring are the queue's: who
writes the one or reads the other holds its lock, a robust mutex, which tells the next of an
owner that died; where nobody else is there, there is no lock. What a worker has in hand would
be lost with it, so it is noted in memory that outlives it, behind the frames. No sockets here.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t

cdef enum:
    XSK_FRAME = 2048
    XSK_HAND = 1024            # packets in hand, at most
    XSK_SEND = 2048            # frames to send from, of each sender
    XSK_ETHERNET = 14
    LOCK_SIZE = 64
    SEND_FREE = 0              # `busy`: the owner's
    SEND_BUSY = 1              # in its send ring, or the kernel's
    SEND_DONE = 2              # another one found it in the completion ring: to be collected

cdef struct xsk_ring:
    uint32_t *producer
    uint32_t *consumer
    void *entries
    uint32_t mask
    void *map
    size_t size

cdef struct xsk_desc:          # struct xdp_desc
    uint64_t address
    uint32_t size
    uint32_t options

cdef struct umem_page:         # shared by all; PAGE_SIZE of dispatcher/umem.py
    uint8_t filling[LOCK_SIZE]    # pthread_mutex_t: who may write the fill ring
    uint8_t reaping[LOCK_SIZE]    # and read the completion ring
    uint32_t filler            # whose hand goes back now, its worker + 1; 0: nobody's
    uint32_t filled            # the fill ring's producer before
    uint8_t pad[56]

cdef struct umem_notes:        # a worker's; NOTES_SIZE of dispatcher/umem.py
    uint32_t n                 # frames in hand, from the receive ring
    uint32_t sure              # of them, if the ring's consumer still is
    uint32_t taken             # this
    uint32_t put               # packets written to the send ring, if its producer still is
    uint32_t base              # this
    uint32_t pad[27]
    uint64_t frames[XSK_HAND]

cdef struct umem:              # as one worker sees it
    uint8_t *base
    size_t size
    umem_page *page
    umem_notes *all            # of all workers,
    umem_notes *notes          # and of this one
    uint8_t *busy              # of all frames to send from
    uint32_t worker
    bint fill_shared           # several receive
    bint done_shared           # several send
    uint32_t receive_frames
    uint32_t senders
    uint32_t first             # of those to send from, this worker's first one
    uint32_t send_frames       # this worker's; 0: it sends elsewhere
    xsk_ring rx
    xsk_ring fill
    xsk_ring tx
    xsk_ring done
    uint32_t *free
    uint32_t n_free

cdef size_t umem_size(uint32_t receive_frames, uint32_t senders, uint32_t workers) noexcept nogil
cdef void umem_lay(umem *u, uint8_t *base, uint32_t receive_frames, uint32_t senders,
                   uint32_t place, uint32_t workers, uint32_t worker) noexcept nogil
cdef bint umem_mend(umem *u) noexcept nogil
cdef uint32_t umem_take(umem *u, uint32_t most, uint8_t **at, uint32_t *size_of) noexcept nogil
cdef bint umem_give(umem *u, bint patient) noexcept nogil
cdef bint umem_mend_send(umem *u) noexcept nogil
cdef void umem_reap(umem *u) noexcept nogil
cdef uint8_t *umem_frame(umem *u) noexcept nogil
cdef void umem_put(umem *u, uint32_t at, const uint8_t *data, uint32_t size) noexcept nogil
