# cython: language_level=3
"""ICMP and ICMPv6 about packets over a session's MTU: see too_big.pxd."""

from libc.stdint cimport uint8_t, uint32_t
from libc.string cimport memcpy, memset

from fastpath.layout cimport C_ICMP_TOO_BIG
from fastpath.path cimport data_path
from fastpath.system cimport write
from fastpath.tables cimport session
from fastpath.tun cimport VNET_SIZE
from fastpath.wire cimport be16, checksum, put16, sum16


cdef void too_big_tell(data_path *path, session *s, const uint8_t *ip, uint32_t n) noexcept nogil:
    """ICMP fragmentation needed (RFC 1191), back into the TUN, some a second."""
    cdef uint8_t p[128]
    cdef uint32_t quoted = (ip[0] & 15) * 4 + 8
    if path.icmp_left <= 0:
        return
    if (ip[0] >> 4) == 6:
        _tell_six(path, s, ip, n)
        return
    path.icmp_left -= 1
    if quoted > n:
        quoted = n
    if quoted > 68:
        quoted = 68
    memset(p, 0, 128)
    p[VNET_SIZE] = 0x45
    put16(p + VNET_SIZE + 2, 28 + quoted)
    p[VNET_SIZE + 8] = 64
    p[VNET_SIZE + 9] = 1
    # From whom it was meant for: an address of our own would be a martian source there.
    memcpy(p + VNET_SIZE + 12, ip + 16, 4)
    memcpy(p + VNET_SIZE + 16, ip + 12, 4)
    put16(p + VNET_SIZE + 10, checksum(p + VNET_SIZE, 20, 0))
    p[VNET_SIZE + 20] = 3
    p[VNET_SIZE + 21] = 4
    put16(p + VNET_SIZE + 26, s.mtu)
    memcpy(p + VNET_SIZE + 28, ip, quoted)
    put16(p + VNET_SIZE + 22, checksum(p + VNET_SIZE + 20, 8 + quoted, 0))
    if write(path.tun_fd, p, VNET_SIZE + 28 + quoted) > 0:
        path.count[C_ICMP_TOO_BIG] += 1


cdef void _tell_six(data_path *path, session *s, const uint8_t *ip, uint32_t n) noexcept nogil:
    """ICMPv6 packet too big (RFC 4443 section 3.2), from our link-local address to
    another such one; never about an ICMPv6 error or to a multicast source (section 2.4)."""
    cdef uint8_t data[VNET_SIZE + 1280]
    cdef uint8_t *p = data + VNET_SIZE
    cdef uint32_t quoted = n if n < 1232 else 1232
    if n < 41 or ip[8] == 0xFF or (ip[6] == 58 and ip[40] < 128):
        return
    path.icmp_left -= 1
    memset(data, 0, VNET_SIZE + 48)
    p[0] = 0x60
    put16(p + 4, 8 + quoted)
    p[6] = 58
    p[7] = 64
    if be16(ip + 8) == 0xFE80:
        put16(p + 8, 0xFE80)
        memcpy(p + 16, s.r.our_iid, 8)
    else:
        memcpy(p + 8, ip + 24, 16)     # an address of ours might not be of a scope that is routed
    memcpy(p + 24, ip + 8, 16)
    p[40] = 2
    put16(p + 44, s.mtu >> 16)
    put16(p + 46, s.mtu)
    memcpy(p + 48, ip, quoted)
    put16(p + 42, checksum(p + 40, 8 + quoted, sum16(p + 8, 32) + 58 + 8 + quoted))
    if write(path.tun_fd, data, VNET_SIZE + 48 + quoted) > 0:
        path.count[C_ICMP_TOO_BIG] += 1
