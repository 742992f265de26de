# cython: language_level=3
"""Many packets a system call: recvmmsg(2) and sendmmsg(2) for GRE."""

from libc.stdint cimport uint8_t, uint32_t

from fastpath.tun_queue cimport iovec

cdef extern from *:
    """
    #ifndef _GNU_SOURCE
    #define _GNU_SOURCE
    #endif
    #include <arpa/inet.h>
    #include <linux/if_packet.h>
    #include <netinet/in.h>
    #include <stdint.h>
    #include <string.h>
    #include <sys/socket.h>
    #include <sys/uio.h>

    /* One message out: destination, and our source address by IP_PKTINFO. */
    struct out_message {
        struct sockaddr_in to;
        struct iovec part;
        union {
            char octets[CMSG_SPACE(sizeof(struct in_pktinfo))];
            struct cmsghdr align;
        } control;
    };
    static inline void prepare_message(struct mmsghdr *m, struct out_message *o)
    {
        struct cmsghdr *c;
        memset(m, 0, sizeof *m);
        memset(o, 0, sizeof *o);
        o->to.sin_family = AF_INET;
        m->msg_hdr.msg_name = &o->to;
        m->msg_hdr.msg_namelen = sizeof o->to;
        m->msg_hdr.msg_iov = &o->part;
        m->msg_hdr.msg_iovlen = 1;
        m->msg_hdr.msg_control = o->control.octets;
        m->msg_hdr.msg_controllen = sizeof o->control.octets;
        c = CMSG_FIRSTHDR(&m->msg_hdr);
        c->cmsg_level = IPPROTO_IP;
        c->cmsg_type = IP_PKTINFO;
        c->cmsg_len = CMSG_LEN(sizeof(struct in_pktinfo));
    }
    static inline void address_message(struct mmsghdr *m, struct out_message *o, uint32_t to,
                                       uint32_t from, void *data, size_t size)
    {
        struct in_pktinfo *info = (struct in_pktinfo *)CMSG_DATA(CMSG_FIRSTHDR(&m->msg_hdr));
        o->to.sin_addr.s_addr = to;
        info->ipi_spec_dst.s_addr = from;
        o->part.iov_base = data;
        o->part.iov_len = size;
    }
    /* The same by a packet socket: the IP header is ours, the next hop is given. */
    struct hop_message {
        struct sockaddr_ll to;
        struct iovec part;
    };
    static inline void prepare_hop(struct mmsghdr *m, struct hop_message *o)
    {
        memset(m, 0, sizeof *m);
        memset(o, 0, sizeof *o);
        o->to.sll_family = AF_PACKET;
        o->to.sll_protocol = htons(0x0800);
        o->to.sll_halen = 6;
        m->msg_hdr.msg_name = &o->to;
        m->msg_hdr.msg_namelen = sizeof o->to;
        m->msg_hdr.msg_iov = &o->part;
        m->msg_hdr.msg_iovlen = 1;
    }
    static inline void address_hop(struct hop_message *o, uint32_t ifindex, const uint8_t *mac,
                                   void *data, size_t size)
    {
        o->to.sll_ifindex = (int)ifindex;
        memcpy(o->to.sll_addr, mac, 6);
        o->part.iov_base = data;
        o->part.iov_len = size;
    }
    static inline void prepare_receive(struct mmsghdr *m, struct iovec *part, void *data, size_t n)
    {
        memset(m, 0, sizeof *m);
        part->iov_base = data;
        part->iov_len = n;
        m->msg_hdr.msg_iov = part;
        m->msg_hdr.msg_iovlen = 1;
    }
    static inline int receive_many(int fd, struct mmsghdr *m, unsigned n)
    {
        return recvmmsg(fd, m, n, MSG_DONTWAIT, NULL);
    }
    static inline int send_many(int fd, struct mmsghdr *m, unsigned n)
    {
        return sendmmsg(fd, m, n, MSG_DONTWAIT);
    }
    static inline int truncated(struct mmsghdr *m) { return m->msg_hdr.msg_flags & MSG_TRUNC; }
    """
    uint32_t htonl(uint32_t) nogil
    cdef struct mmsghdr:
        unsigned msg_len
    cdef struct out_message:
        pass
    void prepare_message(mmsghdr *m, out_message *o) nogil
    void address_message(mmsghdr *m, out_message *o, uint32_t to, uint32_t src, void *data,
                         size_t size) nogil
    cdef struct hop_message:
        pass
    void prepare_hop(mmsghdr *m, hop_message *o) nogil
    void address_hop(hop_message *o, uint32_t ifindex, const uint8_t *mac, void *data,
                     size_t size) nogil
    void prepare_receive(mmsghdr *m, iovec *part, void *data, size_t n) nogil
    int receive_many(int fd, mmsghdr *m, unsigned n) nogil
    int send_many(int fd, mmsghdr *m, unsigned n) nogil
    int truncated(mmsghdr *m) nogil
