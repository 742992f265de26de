# cython: language_level=3
"""Segmentation and coalescing for the TUN device: see tun.pxd."""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy, memset

from fastpath.layout cimport record
from fastpath.tun_queue cimport (
    WRITES_PLAIN, WRITES_URING, tun_queue_apart, tun_queue_begin, tun_queue_close,
    tun_queue_open, tun_queue_put, tun_queue_put_super, tun_queue_send, tun_write, vnet_header)
from fastpath.wire cimport be16, be32, checksum, copy_sum16, fold, pseudo, put16, put32, sum16

cdef extern from "<unistd.h>" nogil:
    ssize_t read(int fd, void *data, size_t n)

cdef enum:
    TCP = 6
    UDP = 17
    FIN = 0x01
    SYN = 0x02
    RST = 0x04
    PSH = 0x08
    ACK = 0x10
    CWR = 0x80
    DF = 0x4000
    MF_AND_OFFSET = 0x3FFF


cdef inline void ip_checksum(uint8_t *ip, uint32_t size) noexcept nogil:
    put16(ip + 10, 0)
    put16(ip + 10, checksum(ip, size, 0))


cdef int segments_begin(segmenter *g, uint8_t *data, uint32_t n, uint32_t mtu) noexcept nogil:
    """Look at what was read (virtio header first). `mtu` is the session's."""
    cdef vnet_header v
    cdef uint8_t *ip = data + VNET_SIZE
    cdef uint32_t kind, start, field, head, total
    g.count = 1
    if n < VNET_SIZE + 20:
        return SEGMENTS_MALFORMED
    memcpy(&v, data, VNET_SIZE)
    n -= VNET_SIZE
    g.six = (ip[0] >> 4) == 6
    if g.six:
        if n < 40:
            return SEGMENTS_MALFORMED
        g.ip_size = 40
        total = 40 + be16(ip + 4)
        g.protocol = ip[6]
    elif (ip[0] >> 4) == 4:
        g.ip_size = (ip[0] & 15) * 4
        total = be16(ip + 2)
        g.protocol = ip[9]
    else:
        return SEGMENTS_NOT_IP
    if g.ip_size < 20 or g.ip_size > n or total < g.ip_size or total > n:
        return SEGMENTS_MALFORMED
    g.packet = ip
    g.size = total
    g.at = 0
    g.index = 0
    g.whole = False
    g.fragments = False
    g.part = 0
    kind = v.gso_type & <uint8_t>~GSO_ECN
    if kind != GSO_NONE:
        if kind == (GSO_TCPV6 if g.six else GSO_TCPV4) and g.protocol == TCP:
            if total < g.ip_size + 20:
                return SEGMENTS_MALFORMED
            head = (ip[g.ip_size + 12] >> 4) * 4
            if head < 20:
                return SEGMENTS_MALFORMED
        elif kind == GSO_UDP_L4 and g.protocol == UDP:
            head = 8
        else:
            return SEGMENTS_MALFORMED
        g.head_size = g.ip_size + head
        if g.head_size > total or g.head_size + 8 > mtu or v.gso_size == 0:
            return SEGMENTS_MALFORMED
        g.step = v.gso_size
        if g.step > total - g.head_size:
            g.step = total - g.head_size
        if g.step == 0:
            return SEGMENTS_OK         # headers alone: one packet
        g.count = (total - g.head_size + g.step - 1) // g.step
        if g.head_size + g.step > mtu:
            if g.protocol == TCP:
                g.step = mtu - g.head_size
                g.count = (total - g.head_size + g.step - 1) // g.step
            elif g.six or be16(ip + 6) & DF:
                return SEGMENTS_TOO_BIG
            else:
                # Datagrams can't be made smaller; each of them goes in fragments.
                g.part = g.step
                g.step = (mtu - g.ip_size) & ~<uint32_t>7
                g.count = _datagram_fragments(g)
        return SEGMENTS_OK
    if v.flags & VNET_NEEDS_CSUM:
        # The kernel left the pseudo header's sum in the field: finish it.
        start = v.csum_start
        field = start + v.csum_offset
        if start > total or field + 2 > total:
            return SEGMENTS_MALFORMED
        put16(ip + field, checksum(ip + start, total - start, 0))
        if g.protocol == UDP and be16(ip + field) == 0:
            put16(ip + field, 0xFFFF)
    if total <= mtu:
        g.whole = True
        return SEGMENTS_OK
    if g.six or be16(ip + 6) & DF:
        return SEGMENTS_TOO_BIG
    g.fragments = True
    g.head_size = g.ip_size
    g.step = (mtu - g.ip_size) & ~<uint32_t>7
    g.count = (total - g.ip_size + g.step - 1) // g.step
    return SEGMENTS_OK


cdef uint32_t _datagram_fragments(const segmenter *g) noexcept nogil:
    """Fragments of all datagrams of a super-packet."""
    cdef uint32_t data = g.size - g.head_size
    cdef uint32_t rest = data % g.part
    cdef uint32_t each = (8 + g.part + g.step - 1) // g.step
    return data // g.part * each + ((8 + rest + g.step - 1) // g.step if rest else 0)


cdef uint32_t _datagram_next(segmenter *g, uint8_t *out) noexcept nogil:
    """The next fragment of a super-packet's datagrams. g.at counts what UDP carries: eight
    octets of header before each datagram's data."""
    cdef uint32_t full = g.part + 8
    cdef uint32_t number = g.at // full, offset = g.at % full
    cdef uint32_t data = g.size - g.head_size - number * g.part
    cdef uint32_t size, part, total
    cdef uint8_t *source = g.packet + g.head_size + number * g.part
    cdef uint8_t head[8]
    if g.index >= g.count:
        return 0
    if data > g.part:
        data = g.part
    size = data + 8
    part = size - offset
    if part > g.step:
        part = g.step
    memcpy(out, g.packet, g.ip_size)
    if offset == 0:
        memcpy(head, g.packet + g.ip_size, 4)
        put16(head + 4, size)
        put16(head + 6, 0)
        # Data is added in steps of an even length, so the sums of both parts add up.
        total = checksum(source, data, sum16(head, 8) + pseudo(g.packet, UDP, size))
        put16(head + 6, total if total else 0xFFFF)
        memcpy(out + g.ip_size, head, 8)
        memcpy(out + g.ip_size + 8, source, part - 8)
    else:
        memcpy(out + g.ip_size, source + offset - 8, part)
    total = g.ip_size + part
    put16(out + 2, total)
    put16(out + 4, be16(g.packet + 4) + number)
    put16(out + 6, offset // 8 | (0x2000 if offset + part < size else 0))
    ip_checksum(out, g.ip_size)
    # The last datagram may be shorter; nothing comes behind it.
    g.at += part
    g.index += 1
    return total


cdef uint32_t segments_next(segmenter *g, uint8_t *out) noexcept nogil:
    """Write the next packet to `out`; its size, 0 when there is none left."""
    cdef uint32_t left, part, size, offset, payload_sum = 0
    cdef uint8_t *l4
    cdef const uint8_t *payload
    if g.whole:
        if g.index:
            return 0
        g.index = 1
        memcpy(out, g.packet, g.size)
        return g.size
    if g.part:
        return _datagram_next(g, out)
    left = g.size - g.head_size - g.at
    if g.index >= g.count:
        return 0
    part = left if left < g.step else g.step
    size = g.head_size + part
    memcpy(out, g.packet, g.head_size)
    payload = g.packet + g.head_size + g.at
    if g.fragments:
        memcpy(out + g.head_size, payload, part)
    else:
        # The headers before it have an even number of octets, so its sum may be added.
        payload_sum = copy_sum16(out + g.head_size, payload, part)
    put16(out + (4 if g.six else 2), size - 40 if g.six else size)
    if g.fragments:
        offset = be16(g.packet + 6)
        put16(out + 6, (offset & 0xE000) | ((offset & 0x1FFF) + g.at // 8)
              | (0x2000 if part < left else 0))
    else:
        if not g.six:
            put16(out + 4, be16(g.packet + 4) + g.index)
        l4 = out + g.ip_size
        if g.protocol == TCP:
            put32(l4 + 4, be32(l4 + 4) + g.at)
            if part < left:
                l4[13] &= <uint8_t>~(FIN | PSH)
            if g.index:
                l4[13] &= <uint8_t>~CWR
            put16(l4 + 16, 0)
            payload_sum += pseudo(out, TCP, size - g.ip_size)
            put16(l4 + 16, checksum(l4, g.head_size - g.ip_size, payload_sum))
        else:
            put16(l4 + 4, size - g.ip_size)
            put16(l4 + 6, 0)
            payload_sum += pseudo(out, UDP, size - g.ip_size)
            offset = checksum(l4, g.head_size - g.ip_size, payload_sum)
            put16(l4 + 6, offset if offset else 0xFFFF)
    if not g.six:
        ip_checksum(out, g.ip_size)
    g.at += part
    g.index += 1
    return size


cdef bint clamp_mss(uint8_t *ip, uint32_t n, uint32_t mtu) noexcept nogil:
    """Lower the MSS option of a SYN to the MTU less both headers (RFC 6691); True if it was
    changed."""
    cdef bint six = (ip[0] >> 4) == 6
    cdef uint32_t ip_size = 40 if six else (ip[0] & 15) * 4
    cdef uint8_t *tcp = ip + ip_size
    cdef uint32_t head, at, size, was, limit
    if n < ip_size + 20 or (ip[6] if six else ip[9]) != TCP or not tcp[13] & SYN:
        return False
    if not six and be16(ip + 6) & 0x1FFF:
        return False
    head = (tcp[12] >> 4) * 4
    if head < 20 or n < ip_size + head or mtu < 120:
        return False
    limit = mtu - ip_size - 20
    if not six:
        limit = mtu - 40
    at = 20
    while at + 1 < head:
        if tcp[at] == 0:
            break
        if tcp[at] == 1:
            at += 1
            continue
        size = tcp[at + 1]
        if size < 2 or at + size > head:
            break
        if tcp[at] == 2 and size == 4:
            was = be16(tcp + at + 2)
            if was <= limit:
                return False
            put16(tcp + at + 2, limit)
            # RFC 1624, equation 3; an odd offset swaps the octets of the word's share.
            if at & 1:
                was = ((was & 0xFF) << 8) | (was >> 8)
                limit = ((limit & 0xFF) << 8) | (limit >> 8)
            put16(tcp + 16, ~fold(<uint64_t>(<uint16_t>~be16(tcp + 16))
                                  + <uint16_t>~was + limit) & 0xFFFF)
            return True
        at += size
    return False


# -- coalescing


cdef void writer_begin(writer *w) noexcept nogil:
    w.used = 0
    w.used_udp = 0
    w.batch = 0
    tun_queue_begin(&w.queue)


cdef inline void _put_plain(writer *w, record *owner, uint8_t *ip, uint32_t n) noexcept nogil:
    tun_queue_put(&w.queue, owner, ip, n)


cdef void _super_packet(flow *f, tun_write *made) noexcept nogil:
    """The first segment's header becomes the super-packet's."""
    cdef uint8_t *tcp = f.head + 20
    cdef vnet_header v
    memset(&v, 0, sizeof(vnet_header))
    v.flags = VNET_NEEDS_CSUM
    v.hdr_len = <uint16_t>f.head_size
    v.gso_size = <uint16_t>f.mss
    v.csum_start = 20
    put16(f.head + 2, f.total)
    ip_checksum(f.head, 20)
    if f.head[9] == UDP:
        v.gso_type = GSO_UDP_L4
        v.csum_offset = 6
        put16(tcp + 4, f.total - 20)
        put16(tcp + 6, fold(pseudo(f.head, UDP, f.total - 20)))
    else:
        v.gso_type = GSO_TCPV4
        v.csum_offset = 16
        put16(tcp + 16, fold(pseudo(f.head, TCP, f.total - 20)))
    memcpy(f.head - VNET_SIZE, &v, VNET_SIZE)
    made.owner = f.owner
    made.head = f.head
    made.head_size = f.head_size
    made.mss = f.mss
    made.packets = f.segments
    made.octets = f.total + <uint64_t>(f.segments - 1) * f.head_size
    made.parts = f.parts
    made.n_parts = f.n_parts


cdef void _flush(writer *w, flow *f) noexcept nogil:
    """Write what a flow has."""
    cdef tun_write made
    if f.segments == 1:
        tun_queue_put(&w.queue, f.owner, f.head, f.total)
    else:
        _super_packet(f, &made)
        tun_queue_put_super(&w.queue, &made)
    f.segments = 0


cdef void _put_odd(writer *w, record *owner, uint8_t *ip, uint32_t n) noexcept nogil:
    """A packet that may be of a flow, but whose ports can't be compared: a fragment, or one with
    IP options or with a header that is none. It goes after all that is held of its protocol
    between its two addresses."""
    cdef flow *f = &w.datagrams[0] if ip[9] == UDP else &w.flows[0]
    cdef uint32_t i
    for i in range(w.used_udp if ip[9] == UDP else w.used):
        if f[i].segments and memcmp(f[i].head + 12, ip + 12, 8) == 0:
            _flush(w, &f[i])
    _put_plain(w, owner, ip, n)


cdef inline bint udp_sum_right(const uint8_t *ip, uint32_t n) noexcept nogil:
    return checksum(ip + 20, n - 20, pseudo(ip, UDP, n - 20)) == 0


cdef void _put_udp(writer *w, record *owner, uint8_t *ip, uint32_t n) noexcept nogil:
    """A datagram with ports, ip[0] is 0x45. Of one flow, equal sizes are held; a shorter one
    ends it."""
    cdef uint8_t *udp = ip + 20
    cdef flow *f = NULL
    cdef uint32_t i, payload = n - 28
    cdef bint df
    if w.queue.no_uso:
        _put_plain(w, owner, ip, n)
        return
    for i in range(w.used_udp):
        if w.datagrams[i].segments and memcmp(w.datagrams[i].head + 12, ip + 12, 12) == 0:
            f = &w.datagrams[i]
            break
    # Without a checksum there is none to be made again when it is cut.
    if payload == 0 or be16(udp + 6) == 0 or be16(udp + 4) != n - 20:
        if f != NULL:
            _flush(w, f)
        _put_plain(w, owner, ip, n)
        return
    df = (be16(ip + 6) & DF) != 0
    if f != NULL:
        # The checksums are verified when there is something to put together: most packets
        # stay alone, and what is written alone keeps the checksum that it came with.
        if (not f.closed and f.segments < GRO_SEGMENTS and payload <= f.mss
                and f.total + payload <= 65535 and f.head[1] == ip[1] and f.head[8] == ip[8]
                and be16(f.head + 6) == be16(ip + 6) and (df or be16(ip + 4) == f.next_id)
                and (f.checked or udp_sum_right(f.head, f.total)) and udp_sum_right(ip, n)):
            f.checked = True
            f.parts[f.n_parts].iov_base = ip + 28
            f.parts[f.n_parts].iov_len = payload
            f.n_parts += 1
            f.segments += 1
            f.total += payload
            f.next_id += 1
            f.closed = payload < f.mss
            return
        _flush(w, f)
    else:
        for i in range(w.used_udp):
            if not w.datagrams[i].segments:
                f = &w.datagrams[i]
                break
        if f == NULL:
            if w.used_udp < GRO_DATAGRAMS:
                f = &w.datagrams[w.used_udp]
                w.used_udp += 1
            else:
                f = &w.datagrams[w.turn % GRO_DATAGRAMS]
                w.turn += 1
                _flush(w, f)
    f.owner = owner
    f.head = ip
    f.head_size = 28
    f.total = n
    f.mss = payload
    f.next_id = <uint16_t>(be16(ip + 4) + 1)
    f.segments = 1
    f.closed = False
    f.checked = False
    f.parts[0].iov_base = ip - VNET_SIZE
    f.parts[0].iov_len = n + VNET_SIZE
    f.n_parts = 1


cdef void writer_put(writer *w, record *owner, uint8_t *ip, uint32_t n) noexcept nogil:
    """Take one valid IP packet of n octets. It must stay in place until writer_end, and the
    VNET_SIZE octets before it are the writer's."""
    cdef flow *f
    cdef flow *found = NULL
    cdef uint8_t *tcp = ip + 20
    cdef uint32_t head = 0, payload = 0, i
    cdef bint fits
    w.batch += 1
    if (ip[0] >> 4) != 4 or ip[9] != TCP and ip[9] != UDP:
        _put_plain(w, owner, ip, n)
        return
    if ip[0] != 0x45 or be16(ip + 6) & MF_AND_OFFSET or n < (28 if ip[9] == UDP else 40):
        _put_odd(w, owner, ip, n)
        return
    if ip[9] == UDP:
        _put_udp(w, owner, ip, n)
        return
    head = 20 + (tcp[12] >> 4) * 4
    if head < 40 or head > n:
        _put_odd(w, owner, ip, n)
        return
    payload = n - head
    for i in range(w.used):
        f = &w.flows[i]
        if f.segments and memcmp(f.head + 12, ip + 12, 12) == 0:
            found = f
            break
    fits = (payload != 0 and (tcp[13] & <uint8_t>~PSH) == ACK and be16(ip + 6) & DF
            and checksum(tcp, n - 20, pseudo(ip, TCP, n - 20)) == 0)
    if found != NULL:
        f = found
        if (fits and not f.closed and f.segments < GRO_SEGMENTS and be32(tcp + 4) == f.next_seq
                and payload <= f.mss and f.total + payload <= 65535
                and tcp[12] == f.head[32]       # the header's size, reserved bits (AE: RFC 9768)
                and f.head[1] == ip[1] and f.head[8] == ip[8]
                and be32(tcp + 8) == be32(f.head + 28)          # acknowledgement
                and be16(tcp + 14) == be16(f.head + 34)         # window
                and memcmp(tcp + 20, f.head + 40, head - 40) == 0):
            f.parts[f.n_parts].iov_base = ip + head
            f.parts[f.n_parts].iov_len = payload
            f.n_parts += 1
            f.segments += 1
            f.total += payload
            f.next_seq += payload
            if payload < f.mss or tcp[13] & PSH:
                f.closed = True
                f.head[33] |= tcp[13] & PSH
            return
        _flush(w, f)
    if not fits:
        _put_plain(w, owner, ip, n)
        return
    if found == NULL:
        f = NULL
        for i in range(w.used):
            if not w.flows[i].segments:
                f = &w.flows[i]
                break
        if f == NULL:
            if w.used < GRO_FLOWS:
                f = &w.flows[w.used]
                w.used += 1
            else:
                f = &w.flows[w.turn % GRO_FLOWS]
                w.turn += 1
                _flush(w, f)
    f.owner = owner
    f.head = ip
    f.head_size = head
    f.total = n
    f.mss = payload
    f.next_seq = be32(tcp + 4) + payload
    f.segments = 1
    f.closed = (tcp[13] & PSH) != 0
    f.parts[0].iov_base = ip - VNET_SIZE
    f.parts[0].iov_len = n + VNET_SIZE
    f.n_parts = 1


cdef void writer_end(writer *w) noexcept nogil:
    """Write out what is left; afterwards all that was put is free."""
    cdef uint32_t i
    for i in range(w.used):
        if w.flows[i].segments:
            _flush(w, &w.flows[i])
    for i in range(w.used_udp):
        if w.datagrams[i].segments:
            _flush(w, &w.datagrams[i])
    w.used = 0
    w.used_udp = 0
    tun_queue_send(&w.queue)


# -- entries for tests


def segment(bytes packet not None, uint32_t mtu, *, int flags=0, int gso_type=0, int gso_size=0,
            int csum_start=0, int csum_offset=0):
    """Packets that a packet read from the TUN becomes; ValueError with the reason if none."""
    cdef vnet_header v
    cdef segmenter g
    cdef uint8_t out[2048]
    cdef uint32_t n
    memset(&v, 0, sizeof(v))
    v.flags = flags
    v.gso_type = gso_type
    v.gso_size = gso_size
    v.csum_start = csum_start
    v.csum_offset = csum_offset
    data = bytearray((<uint8_t *>&v)[:VNET_SIZE] + packet)
    cdef uint8_t[::1] view = data
    if mtu > 1600:
        raise ValueError("mtu over 1600")
    cdef int code = segments_begin(&g, &view[0], <uint32_t>len(data), mtu)
    if code != SEGMENTS_OK:
        raise ValueError({SEGMENTS_NOT_IP: "not IPv4", SEGMENTS_MALFORMED: "malformed",
                          SEGMENTS_TOO_BIG: "too big"}[code])
    packets = []
    while True:
        n = segments_next(&g, out)
        if n == 0:
            return packets
        packets.append(<bytes>out[:n])


def coalesce(list packets not None, int fd, *, bint refused=False, str writes="plain"):
    """Write IPv4 packets as the data thread would; (writes, packets, octets, failed).

    `refused`: as after a kernel's word that it knows no UDP segmentation. `writes`: "plain" or
    "io_uring", OSError if the kernel has none."""
    cdef writer w
    cdef record owner
    cdef tun_write made
    cdef uint32_t i
    cdef flow *f
    cdef uint8_t[::1] view
    memset(&w, 0, sizeof(w))
    memset(&owner, 0, sizeof(owner))
    w.queue.fd = fd
    cdef int code = tun_queue_open(&w.queue, WRITES_URING if writes == "io_uring" else WRITES_PLAIN)
    if code:
        raise OSError(code, "io_uring")
    buffers = [bytearray(VNET_SIZE) + p for p in packets]
    writer_begin(&w)
    for buffer in buffers:
        if len(buffer) < VNET_SIZE + 20:
            tun_queue_close(&w.queue)
            raise ValueError("no IPv4 packet")
        view = buffer
        writer_put(&w, &owner, &view[VNET_SIZE], <uint32_t>len(buffer) - VNET_SIZE)
    if refused:
        tun_queue_send(&w.queue)
    for i in range(w.used_udp if refused else 0):
        f = &w.datagrams[i]
        if f.segments > 1:
            _super_packet(f, &made)
            tun_queue_apart(&w.queue, &made)
            f.segments = 0
    writer_end(&w)
    tun_queue_close(&w.queue)
    return w.queue.done, w.queue.packets, w.queue.octets, w.queue.failed


def clamp(bytes packet not None, uint32_t mtu):
    """The packet with its MSS option lowered."""
    buffer = bytearray(packet)
    cdef uint8_t[::1] view = buffer
    if len(buffer) < 40:
        raise ValueError("no TCP packet")
    clamp_mss(&view[0], <uint32_t>len(buffer), mtu)
    return bytes(buffer)


def measure_write(bytes packets not None, uint32_t size, uint32_t batch, int fd, *,
                  str writes="plain"):
    """For benches: write packets of `size` octets each, coalescing `batch` of them at a time;
    (writes, delivered)."""
    cdef writer w
    cdef record owner
    cdef uint32_t i, n = <uint32_t>len(packets) // size
    cdef uint32_t each = VNET_SIZE + size
    data = bytearray().join(bytes(VNET_SIZE) + packets[i * size:(i + 1) * size] for i in range(n))
    cdef uint8_t[::1] view = data
    memset(&w, 0, sizeof(w))
    memset(&owner, 0, sizeof(owner))
    w.queue.fd = fd
    cdef int code = tun_queue_open(&w.queue, WRITES_URING if writes == "io_uring" else WRITES_PLAIN)
    if code:
        raise OSError(code, "io_uring")
    writer_begin(&w)
    with nogil:
        for i in range(n):
            if i % batch == 0:
                w.batch = 0
            writer_put(&w, &owner, &view[i * each + VNET_SIZE], size)
            if i % batch == batch - 1 or i == n - 1:
                writer_end(&w)
    tun_queue_close(&w.queue)
    return w.queue.done, w.queue.packets


def measure_read(int fd, uint32_t mtu):
    """For benches: read and segment all that waits; (reads, packets, octets)."""
    cdef segmenter g
    cdef uint8_t out[2048]
    cdef ssize_t n
    cdef uint32_t size
    cdef uint64_t reads = 0, packets = 0, octets = 0
    data = bytearray(65552 + 64)
    cdef uint8_t[::1] view = data
    if mtu > 1600:
        raise ValueError("mtu over 1600")
    with nogil:
        while True:
            n = read(fd, &view[0], 65552 + 64)
            if n <= 0:
                break
            reads += 1
            if n < VNET_SIZE + 20 or segments_begin(&g, &view[0], <uint32_t>n, mtu) != SEGMENTS_OK:
                continue
            while True:
                size = segments_next(&g, out)
                if size == 0:
                    break
                packets += 1
                octets += size
    return reads, packets, octets
