# cython: language_level=3
"""Inner packets of a batch: see delivery.pxd."""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy

from fastpath.layout cimport (
    C_MSS_CLAMPED, C_RX_CONTROL, D_RX_MALFORMED, D_RX_MPPE_DESYNC, D_RX_PROTOCOL, D_RX_RING_FULL,
    D_RX_SPOOFED)
from fastpath.limits cimport limits_up
from fastpath.path cimport (
    EV_PACKET, FRAME_END, PPP_IP, PPP_IPV6, ROLE_SERVER, data_path, drop, garbled, in_item, tell,
    writing_begin, writing_end)
from fastpath.ring cimport ring_used
from fastpath.tables cimport session, session_has
from fastpath.trace cimport trace_packet
from fastpath.tun cimport clamp_mss, writer, writer_put
from fastpath.wire cimport be16

cdef enum:
    IP_UDP = 17
    IP_ICMPV6 = 58
    ROUTER_SOLICITATION = 133
    DHCPV6_SERVER = 547


cdef void delivery_write(data_path *path) noexcept nogil:
    cdef uint32_t i
    cdef in_item *item
    cdef writer *w = &path.writing
    writing_begin(path)
    for i in range(path.arrivals.n):
        item = &path.arrivals.items[i]
        if item.live:
            path.page.poison_sid = item.s.r.sid
            _deliver_one(path, item, w)
        item.s.r.last_rx_ns = path.now
    writing_end(path)


cdef void _deliver_one(data_path *path, in_item *item, writer *w) noexcept nogil:
    cdef session *s = item.s
    cdef uint8_t *p = item.p
    cdef uint32_t n = item.n, protocol, source, total
    if s.traced:
        trace_packet(path, s, p, n, item.encrypted)
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
                drop(path, s, D_RX_PROTOCOL)
                return
            _desync(path, s)
            return
        if n < 20 or (p[0] >> 4) != (4 if protocol == PPP_IP else 6):
            _desync(path, s)
            return
        s.desync = 0
    if n < 20:
        drop(path, s, D_RX_MALFORMED)
        return
    if (p[0] >> 4) == 6 and s.six:
        total = 40 + be16(p + 4)
        if n < 40 or total > n:
            drop(path, s, D_RX_MALFORMED)
            return
        if path.role == ROLE_SERVER:
            if p[6] in (IP_UDP, IP_ICMPV6) and _for_control(p, total):
                _to_control(path, s, p, total)
                return
            if not _own_six(path, s, p + 8):
                drop(path, s, D_RX_SPOOFED)
                return
    else:
        total = be16(p + 2)
        if ((p[0] >> 4) != 4 or total < 20 or total > n or (p[0] & 15) < 5
                or <uint32_t>((p[0] & 15) * 4) > total):
            drop(path, s, D_RX_MALFORMED)
            return
        memcpy(&source, p + 12, 4)
        if (path.role == ROLE_SERVER and source != s.inner
                and not session_has(s, 4, p + 12)):
            drop(path, s, D_RX_SPOOFED)
            return
    if path.mss_clamp and clamp_mss(p, total, s.mtu):
        path.count[C_MSS_CLAMPED] += 1
    if s.limited != NULL and not limits_up(path, s, p, total):
        return
    writer_put(w, s.r, p, total)


cdef bint _own_six(data_path *path, session *s, const uint8_t *source) noexcept nogil:
    """The link-local address of the identifier that IPv6CP agreed on (RFC 5072 5), or one of
    the networks behind the session."""
    cdef uint64_t iid
    if be16(source) != 0xFE80:
        return session_has(s, 6, source)
    memcpy(&iid, source + 8, 8)
    return be16(source + 2) == 0 and be16(source + 4) == 0 and (
        be16(source + 6) == 0 and iid == s.iid)


cdef bint _for_control(const uint8_t *p, uint32_t total) noexcept nogil:
    """A router solicitation (RFC 4861 section 4.1) or a client's DHCPv6 (RFC 8415 section 7)
    to our side of the link. Relayed or forwarded ones go the way of all packets."""
    if be16(p + 24) != 0xFE80 and p[24] != 0xFF:
        return False
    if p[6] == IP_ICMPV6:
        return total >= 48 and p[40] == ROUTER_SOLICITATION and p[7] == 255
    return total >= 48 and be16(p + 42) == DHCPV6_SERVER


cdef void _to_control(data_path *path, session *s, const uint8_t *p,
                      uint32_t total) noexcept nogil:
    """As frames of control protocols are: so many of a session, and not into a full ring."""
    if s.frames <= 0 or ring_used(&path.events) >= FRAME_END:
        drop(path, s, D_RX_RING_FULL)
        return
    s.frames -= 1
    if tell(path, EV_PACKET, s, p, total):
        path.count[C_RX_CONTROL] += 1
    else:
        drop(path, s, D_RX_RING_FULL)


cdef void _desync(data_path *path, session *s) noexcept nogil:
    drop(path, s, D_RX_MPPE_DESYNC)
    garbled(path, s, NULL, 0)
