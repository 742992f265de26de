# cython: language_level=3
"""The shared memory's layout: header, worker pages, session records, blobs, prefixes.

No thread and no I/O here. One writer per field, named at each group: D dispatcher,
C a worker's control thread, T its data thread, K keeper. Addresses are host-order
numbers; times are CLOCK_MONOTONIC in ns. Change anything: raise LAYOUT_VERSION.
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

cdef enum:
    LAYOUT_VERSION = 10
    MAX_WORKERS = 64
    RECORD_SIZE = 1024
    BLOB_SIZE = 1536           # one copy, with its head
    BLOB_HEAD = 24
    NETS_MAX = 32              # prefixes of one session beside its address
    DATA_COUNTERS_MAX = 96
    CONTROL_COUNTERS_MAX = 96
    DISPATCHER_COUNTERS_MAX = 128
    NETOPS_COUNTERS_MAX = 32
    HISTOGRAMS = 4             # gre in, gre out, tun in, tun out: packets of a batch
    BUCKETS = 10               # <= 1 2 4 8 16 32 64 128 256, more
    SETUP_PHASES = 5           # layout.SETUP_PHASE_NAMES
    SETUP_BUCKETS = 9          # layout.SETUP_BOUNDS, more
    DURATION_BUCKETS = 7       # layout.DURATION_BOUNDS, more

cdef enum:
    # client to LAN; every GRE packet read ends in exactly one of those marked *
    C_GRE_RX_PACKETS           # read from the GRE socket
    C_GRE_RX_BYTES
    C_RX_ACK_ONLY              # * no payload
    C_RX_CONTROL               # * a PPP frame for the control thread, or LCP echo
    C_RX_DATA                  # * an inner packet delivered to the TUN
    C_RX_DATA_BYTES            # inner IP octets of those
    D_RX_MALFORMED             # * GRE or PPP header no good
    D_RX_DENIED                # * source is not in listen.allow, or is in listen.deny
    D_RX_NO_SESSION            # *
    D_RX_WRONG_PEER            # * source is not the control peer
    D_RX_DUPLICATE             # *
    D_RX_OUT_OF_WINDOW         # *
    D_RX_LATE                  # * behind a gap that was given up
    D_RX_MPPE_CLEAR            # * clear IP on an encrypted link
    D_RX_MPPE_COHERENCY        # * late, A or D bit wrong, distance too great
    D_RX_MPPE_DESYNC           # * decrypts to no known protocol
    D_RX_NOT_UP                # * data before the session is up
    D_RX_PROTOCOL              # * a network protocol nobody agreed on
    D_RX_SPOOFED               # * inner source is not the session's
    D_RX_TUN_FULL              # * write failed
    D_RX_RING_FULL             # * control thread does not keep up
    D_RX_FILTERED              # * the session's filter
    D_RX_SHAPED                # * over the session's rate
    D_RX_OVERLOAD              # * the worker is full, and its session sends most of it
    D_RX_SESSION_ENDED         # * held for reordering or by its rate when its session ended
    # LAN to client; every inner packet read (after segmentation) ends in one of *
    C_TUN_RX_PACKETS           # segments
    C_TUN_RX_READS             # reads: super-packets count once
    C_TX_DATA                  # * inner packet sent in GRE
    C_TX_DATA_BYTES
    D_TX_NO_SESSION            # *
    D_TX_NOT_IP                # *
    D_TX_MALFORMED             # *
    D_TX_TOO_BIG               # * DF, over the MTU: ICMP sent
    D_TX_SEND_FAILED           # * sendmmsg said no (ENOBUFS ...)
    D_TX_FILTERED              # * the session's filter
    D_TX_SHAPED                # * over the session's rate
    D_TX_OVERLOAD              # * more waits for its session's turn than its share
    D_TX_SESSION_ENDED         # * waited when its session ended
    # beside the two ways
    C_GRE_TX_PACKETS
    C_GRE_TX_BYTES
    C_GRE_TX_BY_HOP            # of them by the packet socket, past the routing table
    C_GRE_TX_BY_XDP            # of them by an AF_XDP ring
    C_GRE_RX_BY_XDP            # received so
    C_TX_CONTROL               # PPP frames of the control thread
    C_TX_ACK_ONLY
    C_TUN_TX_WRITES            # writes: super-packets count once
    C_REORDERED                # arrived late, put in order
    C_GRE_LOST                 # sequence numbers given up
    C_MPPE_REKEYS              # key changes beyond one a packet (gaps)
    C_MPPE_RESETS_SENT         # CCP Reset-Requests, stateful MPPE
    C_MPPE_RESETS_RECEIVED
    C_LCP_ECHO_SENT
    C_LCP_ECHO_ANSWERED        # Echo-Requests of the peer
    C_LCP_ECHO_TIMEOUTS
    C_MSS_CLAMPED
    C_ICMP_TOO_BIG
    C_WAKEUPS
    C_QUEUED                   # gauge: * packets held for reordering or by a rate now
    C_TX_QUEUED                # gauge: * packets to subscribers that wait, by a rate or for a turn
    C_COUNTERS                 # their number

cdef struct copy_tx:
    uint32_t seq               # next GRE sequence to send
    uint16_t count             # next MPPE coherency count
    uint16_t flags
    uint8_t key[16]            # session key of packet `count - 1`
    uint8_t pad[8]

cdef struct copy_rx:
    uint32_t seq               # next GRE sequence expected
    uint16_t count             # next MPPE coherency count expected
    uint16_t flags             # RX_SEEN: a first sequence is known
    uint8_t key[16]
    uint32_t acked             # highest sequence of ours that was acknowledged
    uint8_t pad[4]

cdef enum:
    RX_SEEN = 1

cdef enum AllotState:          # D
    ALLOT_FREE = 0
    ALLOT_USED = 1
    ALLOT_ENDING = 2

cdef enum LinkState:           # C
    LINK_NONE = 0
    LINK_STARTING = 1
    LINK_ACTIVE = 2
    LINK_FINISHING = 3

cdef enum DataState:           # T
    DATA_NONE = 0
    DATA_INSTALLED = 1         # GRE demultiplexed, frames go to control
    DATA_UP = 2                # inner packets flow

cdef struct record:
    # D: written by the dispatcher before Install
    uint32_t generation        # raised when the record is allotted
    uint8_t allot
    uint8_t worker
    uint8_t pool               # index into settings.pools; 255: static address
    uint8_t answered           # the client heard that the call is accepted, or is about to
    uint16_t call_id           # ours: the key of GRE that arrives
    uint16_t peer_call_id      # the key of GRE we send; 0 is valid
    uint32_t local_address
    uint32_t peer_address
    uint16_t peer_port
    uint16_t peer_window
    uint32_t peer_speed        # bit/s, from OCRQ
    uint64_t sid
    uint64_t connection        # the control connection's number in its dispatcher
    uint64_t allotted_ns
    uint32_t granted_address   # by admission; 0: none yet
    uint32_t granted_local
    uint8_t granted_lengths[3]  # of the three below; 0: none
    uint8_t d_pad[5]
    uint8_t granted6[3][16]    # IPv6: of the link, delegated, the address of IA_NA
    uint64_t user_mark         # digest of the user for whom it counts; 0: not admitted yet
    uint64_t realm_mark        # and of the realm; 0: none
    # C: written by the worker's control thread
    uint32_t c_generation      # the generation these fields belong to
    uint8_t state
    uint8_t auth               # index into ops.metrics.AUTH_METHODS
    uint8_t mppe_rx_bits       # 0, 40, 56, 128
    uint8_t mppe_tx_bits
    uint8_t stateful           # bit 0 receive, bit 1 transmit
    uint8_t framing            # bit 0: send without ff03, bit 1: 1-byte protocols
    uint16_t mtu               # largest inner packet to the peer
    uint16_t mru               # what the peer may send
    uint16_t echo_interval_s
    uint8_t echo_failures
    uint8_t nets               # prefixes in its net_list, NETS_MAX at most
    uint8_t c_pad[2]
    uint32_t address           # inner address of the subscriber, 0: none
    uint32_t local             # our inner address
    uint32_t magic             # ours
    uint32_t peer_magic
    uint64_t up_ns
    uint64_t blob_turn         # selects the copy: the blob at blob_turn & 1 is newest
    uint8_t name[64]           # user, UTF-8, cut; the blob has it whole
    uint8_t iid[8]             # IPv6CP: the subscriber's interface identifier
    uint8_t our_iid[8]
    uint8_t six                # IPv6CP is open
    uint8_t c_pad2[3]
    uint32_t filter            # number of its filter, 0: none
    uint64_t rate_up           # bit/s, 0: none; up is from the subscriber
    uint64_t rate_down
    uint64_t burst_up          # octets, 0: from the rate
    uint64_t burst_down
    uint64_t ends_ns           # session timeout; 0: none
    uint64_t volume_up         # inner octets that end the session; 0: none
    uint64_t volume_down
    uint64_t volume            # of both directions
    uint32_t idle_s            # without inner packets that end it; 0: none
    uint8_t idle_by            # 1: only the subscriber's packets count
    uint8_t c_pad3[3]
    # T: written by the worker's data thread
    uint32_t t_generation
    uint8_t data_state
    uint8_t t_pad[3]
    uint64_t rx_packets
    uint64_t rx_bytes          # inner IP octets
    uint64_t tx_packets
    uint64_t tx_bytes
    uint64_t drops
    uint64_t gre_rx_packets    # any GRE at all
    uint64_t last_rx_ns
    uint32_t tx_turn           # tx[tx_turn & 1] is valid
    uint32_t rx_turn
    copy_tx tx[2]
    copy_rx rx[2]
    uint8_t tx_start[16]       # MPPE start keys: a key change needs them
    uint8_t rx_start[16]
    uint64_t last_data_ns      # an inner packet passed, either way: to the second
    uint64_t gre_lost          # sequence numbers of the peer that were given up
    uint8_t t_reserved[16]
    uint32_t drops_by[32]      # `drops` by reason, from D_RX_MALFORMED on

cdef struct worker_page:
    uint32_t pid               # K
    uint32_t starts            # K: times started
    uint32_t state             # K: 1 up, 0 down
    uint32_t cpu               # T: CPU of the data thread + 1; 0: not pinned
    uint32_t data_tid          # T
    uint32_t control_tid       # C
    uint64_t data_beat_ns      # T
    uint64_t control_beat_ns   # C
    uint64_t poison_sid        # T: session in hand; 0: none
    uint32_t kernel            # C: MPPE code in use, place in mppe.KERNELS + 1
    uint32_t bus_queue         # D: messages that wait for this worker in the dispatcher
    uint64_t loop_lag_ns       # C: by how much its loop was late, worst of the last seconds
    uint32_t writes            # T: to the TUN, place in tun_queue.WRITES; 0: not known yet
    uint32_t w_pad
    uint64_t reserved[5]
    uint64_t data[DATA_COUNTERS_MAX]         # T
    uint64_t control[CONTROL_COUNTERS_MAX]   # C
    uint64_t buckets[HISTOGRAMS][BUCKETS]    # T
    uint64_t sums[HISTOGRAMS]                # T
    uint64_t setup[SETUP_PHASES][SETUP_BUCKETS]  # C: sessions that came up, by time of a phase
    uint64_t setup_ns[SETUP_PHASES]          # C

cdef struct header:
    uint8_t magic[8]           # "pptpcon" and a zero
    uint32_t version
    uint32_t capacity          # records
    uint32_t workers
    uint32_t record_size
    uint32_t blob_size
    uint32_t epoch             # start epoch, high half of each sid
    uint64_t size
    uint64_t started_ns
    uint64_t started_unix
    uint32_t keeper_pid        # K
    uint32_t stopping          # K: no new calls
    uint32_t dispatcher_pid    # K
    uint32_t netops_pid        # K
    uint32_t console_pid       # K
    uint32_t config_epoch      # K: raised at each reload
    uint64_t next_sid          # D: counter, low half of the next sid
    uint64_t dispatcher_beat_ns                      # D
    uint64_t config_loaded_unix                      # K
    uint32_t config_ok                               # K: 1 if the last (re)load was good
    uint8_t gre_receive                              # K: place in GRE_WAYS
    uint8_t gre_send                                 # K
    uint16_t pad
    uint64_t draining                                # D: a bit a worker: no new calls
    uint64_t reserved[31]
    uint64_t dispatcher[DISPATCHER_COUNTERS_MAX]     # D
    uint64_t netops[NETOPS_COUNTERS_MAX]             # netops
    uint64_t durations[DURATION_BUCKETS]             # D: sessions that were up, by their length
    uint64_t durations_s                             # D

cdef struct blob_head:
    uint64_t turn
    uint32_t length
    uint32_t crc               # CRC-32 of the octets, begun with turn and generation
    uint32_t generation
    uint32_t pad

cdef struct net:               # a prefix that is the session's
    uint8_t family             # 4 or 6
    uint8_t length
    uint8_t pad[2]
    uint8_t prefix[16]         # IPv4: the first four; the rest is zero

cdef struct net_list:          # C; record.nets of them count
    uint64_t turn              # odd while C writes
    uint64_t pad
    net all[NETS_MAX]

cdef class Table:
    cdef object _map
    cdef Py_buffer _view
    cdef uint8_t *base
    cdef header *head
    cdef readonly bint writable
    cdef worker_page *page(self, uint32_t worker) noexcept nogil
    cdef record *record_at(self, uint32_t index) noexcept nogil
    cdef net_list *nets_at(self, uint32_t index) noexcept nogil
    cdef uint8_t *blob_at(self, uint32_t index, uint32_t copy) noexcept nogil
    cdef record *_checked(self, uint32_t index) except NULL
    cdef worker_page *_page(self, uint32_t worker) except NULL
    cdef object _blob_copy(self, uint8_t *at, uint32_t generation)
