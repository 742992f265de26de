# cython: language_level=3
"""What the control thread asks of the data thread: see operations.pxd."""

from libc.stdint cimport uint8_t, uint32_t
from libc.stdlib cimport free
from libc.string cimport memcpy

from fastpath.filter cimport book_close, rule_book
from fastpath.layout cimport DATA_NONE
from fastpath.limits cimport limits_set, limits_set_filters
from fastpath.links cimport (
    links_down, links_install, links_remove, links_set_mppe, links_set_nets, links_six_down,
    links_six_up, links_up)
from fastpath.output cimport output_flush, output_packet, output_send
from fastpath.path cimport EV_REMOVED, data_path, tell_of
from fastpath.peers cimport peers, peers_close
from fastpath.ring cimport entry, ring_drop, ring_peek
from fastpath.tables cimport session


cdef session *_known(data_path *path, entry *e) noexcept nogil:
    cdef session *s = &path.t.all[e.index]
    if s.state == DATA_NONE or s.generation != e.generation:
        return NULL
    return s


cdef void _set_peers(data_path *path, const uint8_t *data) noexcept nogil:
    """Whom GRE is taken from now on; NULL: anybody."""
    cdef peers *old = path.arrivals.allowed
    memcpy(&path.arrivals.allowed, data, sizeof(old))
    if old != NULL:
        peers_close(old)
        free(old)


cdef void operations_take(data_path *path) noexcept nogil:
    cdef entry *e
    cdef session *s
    cdef uint8_t *data
    cdef uint32_t done = 0
    while done < 1024:
        e = ring_peek(&path.operations)
        if e == NULL:
            break
        done += 1
        data = <uint8_t *>e + 16
        s = _known(path, e)
        if e.kind == OP_INSTALL:
            links_install(path, e.index, e.generation)
        elif e.kind == OP_SEND:
            if s != NULL:
                output_send(path, s, data, e.size)
        elif e.kind == OP_MPPE:
            if s != NULL:
                links_set_mppe(path, s, data)
        elif e.kind == OP_UP:
            if s != NULL and s.r.c_generation == s.generation:
                links_up(path, s)
        elif e.kind == OP_DOWN:
            if s != NULL:
                links_down(path, s)
        elif e.kind == OP_HOP:
            if s != NULL and path.output.hop_fd >= 0:
                memcpy(&s.hop_ifindex, data, 4)
                memcpy(&s.hop_mtu, data + 4, 4)
                memcpy(s.hop_mac, data + 8, 6)
                s.hop_age = 0
        elif e.kind == OP_UP6:
            if s != NULL and s.r.c_generation == s.generation:
                links_six_down(path, s)
                links_six_up(path, s)
        elif e.kind == OP_RATES:
            if s != NULL and s.r.c_generation == s.generation:
                limits_set(path, s)
        elif e.kind == OP_NETS:
            if s != NULL and s.r.c_generation == s.generation:
                links_set_nets(path, s)
        elif e.kind == OP_PACKET:
            if s != NULL:
                output_packet(path, s, data, e.size)
        elif e.kind == OP_TRACE:
            if s != NULL:
                s.traced = data[0]
        elif e.kind == OP_FILTERS:
            limits_set_filters(path, data)
        elif e.kind == OP_PEERS:
            _set_peers(path, data)
        elif e.kind == OP_DOWN6:
            if s != NULL:
                links_six_down(path, s)
        elif e.kind == OP_REMOVE:
            output_flush(path)
            if s != NULL:
                links_remove(path, s)
            tell_of(path, EV_REMOVED, e.index, e.generation, NULL, 0, NULL, 0)
        ring_drop(&path.operations, e)
    if path.output.n:
        output_flush(path)


cdef void operations_forget(data_path *path) noexcept nogil:
    """Filters and ranges of addresses that were sent and never taken."""
    cdef entry *e
    cdef rule_book *book
    cdef peers *ranges
    if path.operations.base == NULL:
        return
    e = ring_peek(&path.operations)
    while e != NULL:
        if e.kind == OP_FILTERS:
            memcpy(&book, <uint8_t *>e + 16, sizeof(book))
            book_close(book)
            free(book)
        elif e.kind == OP_PEERS:
            memcpy(&ranges, <uint8_t *>e + 16, sizeof(ranges))
            if ranges != NULL:
                peers_close(ranges)
                free(ranges)
        ring_drop(&path.operations, e)
        e = ring_peek(&path.operations)
