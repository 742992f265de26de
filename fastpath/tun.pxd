# cython: language_level=3
"""The TUN's super-packets: segmentation of what is read, coalescing of what is written.

A packet on the device has a virtio_net_hdr of 10 octets before it (Linux, uapi
virtio_net.h, fields in host order). IPv6 is segmented, but not coalesced.

Coalescing goes by the rules of Linux's GRO (net/ipv4: af_inet.c, tcp_offload.c,
udp_offload.c): what the device gets, cut again, is what came, in the same order in each
flow. A kernel that knows no UDP segmentation (before 6.2) is found out by its first
refusal, and loses nothing by it.
"""

from libc.stdint cimport int32_t, uint8_t, uint16_t, uint32_t, uint64_t

from fastpath.layout cimport record
from fastpath.tun_queue cimport VNET_SIZE, iovec, tun_queue

cdef enum:
    VNET_NEEDS_CSUM = 1
    GSO_NONE = 0
    GSO_TCPV4 = 1
    GSO_TCPV6 = 4
    GSO_UDP_L4 = 5
    GSO_ECN = 0x80
    SEGMENTS_OK = 0
    SEGMENTS_NOT_IP = -1
    SEGMENTS_MALFORMED = -2
    SEGMENTS_TOO_BIG = -3      # over the MTU and must not be fragmented
    GRO_FLOWS = 16
    GRO_SEGMENTS = 46          # 46 * 1400 < 65536
    GRO_DATAGRAMS = 8          # flows of UDP: most have no second packet in a batch

cdef struct segmenter:
    uint8_t *packet            # IP header
    uint32_t size              # octets of the IP packet
    uint32_t ip_size           # octets of the IP header
    uint32_t head_size         # IP and TCP or UDP header; for fragments the IP header
    uint32_t step              # payload octets of one segment
    uint32_t part              # payload octets of one datagram that is sent in fragments
    uint32_t at                # payload octets done
    uint32_t count             # segments there will be
    uint32_t index
    uint8_t protocol
    bint six
    bint whole                 # one packet, as it is
    bint fragments

cdef int segments_begin(segmenter *g, uint8_t *data, uint32_t n, uint32_t mtu) noexcept nogil
cdef uint32_t segments_next(segmenter *g, uint8_t *out) noexcept nogil
cdef bint clamp_mss(uint8_t *ip, uint32_t n, uint32_t mtu) noexcept nogil

cdef struct flow:
    record *owner
    uint8_t *head
    uint32_t head_size         # IP and TCP header
    uint32_t total             # octets of the super-packet
    uint32_t mss
    uint32_t next_seq
    uint32_t segments
    bint closed                # a short or pushed segment was the last
    bint checked               # UDP: the first one's checksum has been verified
    uint16_t next_id           # UDP: of the IP header, where DF is not set
    iovec parts[GRO_SEGMENTS + 1]      # the first from the virtio header, before head
    uint32_t n_parts

cdef struct writer:
    tun_queue queue
    uint32_t used
    uint32_t used_udp
    flow flows[GRO_FLOWS]
    flow datagrams[GRO_DATAGRAMS]
    uint32_t turn              # which flow is written out when all are taken
    uint32_t batch             # packets since writer_begin

cdef void writer_begin(writer *w) noexcept nogil
cdef void writer_put(writer *w, record *owner, uint8_t *ip, uint32_t n) noexcept nogil
cdef void writer_end(writer *w) noexcept nogil
