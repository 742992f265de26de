# cython: language_level=3
"""AF_XDP sockets of a data thread: rings that it shares with the kernel (linux/if_xdp.h).

A *unit* is a socket on one queue of a device, with the queue's frames, which dispatcher.xdp made.
How workers share these, and what is left of one that died: umem.pxd.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy

from fastpath.umem cimport XSK_HAND, umem, umem_frame, umem_put

cdef enum:
    XSK_MAX = 32
    CALL_ENTRIES = 65536

cdef struct xsk:
    int fd
    bint receives
    bint sends
    uint32_t ifindex
    uint8_t mac[6]
    umem u

cdef struct call_entry:        # of the program's map, at the call ID; dispatcher/xdp_program.py
    uint32_t peer              # network order, written last; 0: none
    uint32_t here
    uint32_t worker
    uint32_t pad

cdef struct xdp_way:
    xsk units[XSK_MAX]
    uint32_t n
    uint32_t turn              # the unit that is asked first
    xsk *sender                # or NULL
    call_entry *calls          # or NULL
    uint32_t worker
    bint receives              # some unit does
    uint8_t *at[XSK_HAND]      # taken: IP headers,
    uint32_t size_of[XSK_HAND]  # and octets from there

cdef void xdp_open(xdp_way *w, uint32_t worker)
cdef void xdp_add(xdp_way *w, int fd, int memory, dict told) except *
cdef void xdp_calls(xdp_way *w, int fd) except *
cdef void xdp_close(xdp_way *w) noexcept nogil
cdef void xdp_enter(xdp_way *w, uint32_t call, uint32_t peer, uint32_t here) noexcept nogil
cdef void xdp_leave(xdp_way *w, uint32_t call) noexcept nogil
cdef uint32_t xdp_take(xdp_way *w, uint32_t most) noexcept nogil
cdef void xdp_give_back(xdp_way *w) noexcept nogil
cdef uint32_t xdp_room(xdp_way *w) noexcept nogil
cdef bint xdp_send(xdp_way *w, uint32_t n) noexcept nogil
cdef uint32_t xdp_unsent(xdp_way *w) noexcept nogil
cdef int xdp_wait(xdp_way *w, int a, int b, int c, uint64_t ns, int *ready) noexcept nogil
cdef void xdp_gone(xdp_way *w, uint32_t unit) noexcept nogil


cdef inline uint8_t *xdp_frame(xdp_way *w) noexcept nogil:
    """A free frame to send from; NULL if there is none. Not sent, it stays the caller's."""
    return umem_frame(&w.sender.u)


cdef inline void xdp_put(xdp_way *w, uint32_t at, const uint8_t *data,
                         uint32_t size) noexcept nogil:
    """The packet number `at` of the next `xdp_send`; `data` lies in a frame of ours."""
    umem_put(&w.sender.u, at, data, size)


cdef inline bint xdp_owns(xsk *u, const uint8_t *p) noexcept nogil:
    """Whether this lies in a frame to send from."""
    return u.u.base <= p and p < u.u.base + u.u.size


cdef inline void xdp_ethernet(xdp_way *w, uint8_t *p, const uint8_t *to) noexcept nogil:
    """The link's header before an IPv4 packet."""
    memcpy(p, to, 6)
    memcpy(p + 6, w.sender.mac, 6)
    p[12] = 0x08
    p[13] = 0
