# cython: language_level=3
"""The session table in shared memory: see layout.pxd for the fields and their writers."""

import mmap
import os
import time
import zlib
from typing import NamedTuple

from cpython.buffer cimport PyBUF_SIMPLE, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy, memset


cdef extern from "atomics.h" nogil:
    uint64_t swap_all(uint64_t *p, uint64_t v)

MAGIC = b"pptpcon\0"
VERSION = LAYOUT_VERSION
PAGE = 4096

FREE, USED, ENDING = ALLOT_FREE, ALLOT_USED, ALLOT_ENDING
STATE_NONE, STATE_STARTING, STATE_ACTIVE, STATE_FINISHING = (
    LINK_NONE, LINK_STARTING, LINK_ACTIVE, LINK_FINISHING)
DATA_IS_NONE, DATA_IS_INSTALLED, DATA_IS_UP = DATA_NONE, DATA_INSTALLED, DATA_UP
STATIC_POOL = 255
BLOB_MAX = BLOB_SIZE - BLOB_HEAD
NETWORKS_MAX = NETS_MAX
NAME_MAX = 64

DATA_COUNTERS = (
    "gre_rx_packets", "gre_rx_bytes", "rx_ack_only", "rx_control", "rx_data", "rx_data_bytes",
    "drop_rx_malformed", "drop_rx_denied", "drop_rx_no_session", "drop_rx_wrong_peer",
    "drop_rx_duplicate", "drop_rx_out_of_window", "drop_rx_late", "drop_rx_mppe_clear",
    "drop_rx_mppe_coherency", "drop_rx_mppe_desync", "drop_rx_not_up", "drop_rx_protocol",
    "drop_rx_spoofed", "drop_rx_tun_full", "drop_rx_ring_full", "drop_rx_filtered",
    "drop_rx_shaped", "drop_rx_overload", "drop_rx_session_ended",
    "tun_rx_packets", "tun_rx_reads", "tx_data", "tx_data_bytes",
    "drop_tx_no_session", "drop_tx_not_ip", "drop_tx_malformed", "drop_tx_too_big",
    "drop_tx_send_failed", "drop_tx_filtered", "drop_tx_shaped", "drop_tx_overload",
    "drop_tx_session_ended",
    "gre_tx_packets", "gre_tx_bytes", "gre_tx_by_hop", "gre_tx_by_xdp", "gre_rx_by_xdp",
    "tx_control", "tx_ack_only", "tun_tx_writes",
    "reordered", "gre_lost", "mppe_rekeys",
    "mppe_resets_sent", "mppe_resets_received", "lcp_echo_sent", "lcp_echo_answered",
    "lcp_echo_timeouts", "mss_clamped", "icmp_too_big", "wakeups", "queued", "tx_queued",
)
GRE_WAYS = ("raw", "packet", "xdp generic", "xdp native", "xdp")
HISTOGRAM_NAMES = ("gre_rx", "gre_tx", "tun_rx", "tun_tx")
BUCKET_BOUNDS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
SETUP_PHASE_NAMES = ("call", "lcp", "auth", "network", "total")
SETUP_BOUNDS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)  # seconds
DURATION_BOUNDS = (60, 600, 3600, 21600, 86400, 604800)  # seconds

assert len(DATA_COUNTERS) == C_COUNTERS
assert D_TX_SESSION_ENDED - D_RX_MALFORMED < 32
assert len(SETUP_PHASE_NAMES) == SETUP_PHASES
assert len(SETUP_BOUNDS) + 1 == SETUP_BUCKETS
assert len(DURATION_BOUNDS) + 1 == DURATION_BUCKETS
assert sizeof(header) <= PAGE and sizeof(worker_page) <= PAGE
assert sizeof(record) <= RECORD_SIZE, sizeof(record)
assert sizeof(blob_head) == BLOB_HEAD


class Session(NamedTuple):
    """A snapshot of one record. Addresses are host-order numbers, times CLOCK_MONOTONIC ns."""

    index: int
    generation: int
    allot: int
    worker: int
    pool: int
    call_id: int
    peer_call_id: int
    local_address: int
    peer_address: int
    peer_port: int
    peer_window: int
    peer_speed: int
    sid: int
    connection: int
    allotted_ns: int
    granted_address: int
    granted_local: int
    answered: bool
    user_mark: int
    realm_mark: int
    state: int
    auth: int
    mppe_rx_bits: int
    mppe_tx_bits: int
    stateful: int
    framing: int
    mtu: int
    mru: int
    echo_interval_s: int
    echo_failures: int
    address: int
    local: int
    magic: int
    peer_magic: int
    up_ns: int
    name: str
    data_state: int
    rx_packets: int
    rx_bytes: int
    tx_packets: int
    tx_bytes: int
    drops: int
    gre_rx_packets: int
    last_rx_ns: int
    tx_seq: int
    rx_seq: int
    tx_count: int
    rx_count: int
    iid: bytes
    our_iid: bytes
    filter: int
    rate_up: int
    rate_down: int
    burst_up: int
    burst_down: int
    ends_ns: int
    idle_s: int
    idle_by: int
    volume_up: int
    volume_down: int
    volume: int
    last_data_ns: int
    gre_lost: int


class Worker(NamedTuple):
    """A snapshot of one worker's page, counters apart."""

    pid: int
    starts: int
    state: int
    cpu: int
    data_tid: int
    control_tid: int
    data_beat_ns: int
    control_beat_ns: int
    poison_sid: int
    kernel: int
    bus_queue: int
    loop_lag_ns: int
    writes: int


class LayoutError(Exception):
    """The memory is not a session table of this version."""


cdef uint64_t _round(uint64_t n) noexcept:
    return (n + 4095) & ~<uint64_t>4095


def table_size(uint32_t capacity, uint32_t workers):
    """Octets of a table (sparse: only touched pages take memory)."""
    return (_round(sizeof(header)) + workers * _round(sizeof(worker_page))
            + _round(<uint64_t>capacity * RECORD_SIZE)
            + _round(<uint64_t>capacity * 2 * BLOB_SIZE)
            + _round(<uint64_t>capacity * sizeof(net_list)))


cdef class Table:
    """The mapped table. Make one with `create` (keeper) or `attach` (all others)."""

    def __init__(self, int fd, bint writable=True):
        size = os.fstat(fd).st_size
        if size < <Py_ssize_t>sizeof(header):
            raise LayoutError(f"session table of {size} octets is too short")
        access = mmap.PROT_READ | (mmap.PROT_WRITE if writable else 0)
        self._map = mmap.mmap(fd, size, mmap.MAP_SHARED, access)
        PyObject_GetBuffer(self._map, &self._view, PyBUF_WRITABLE if writable else PyBUF_SIMPLE)
        self.base = <uint8_t *>self._view.buf
        self.head = <header *>self.base
        self.writable = writable

    def __dealloc__(self):
        if self.base != NULL:
            PyBuffer_Release(&self._view)

    @staticmethod
    def create(int fd, uint32_t capacity, uint32_t workers, uint32_t epoch):
        """Size the memfd and write the header. 1 to 64 workers."""
        if not 1 <= workers <= MAX_WORKERS:
            raise LayoutError(f"{workers} workers, not 1 to {MAX_WORKERS}")
        os.ftruncate(fd, table_size(capacity, workers))
        cdef Table table = Table(fd)
        cdef header *h = table.head
        memcpy(h.magic, b"pptpcon\0", 8)
        h.version = LAYOUT_VERSION
        h.capacity = capacity
        h.workers = workers
        h.record_size = RECORD_SIZE
        h.blob_size = BLOB_SIZE
        h.epoch = epoch
        h.size = table_size(capacity, workers)
        h.started_ns = time.monotonic_ns()
        h.started_unix = int(time.time())
        h.next_sid = 1
        return table

    @staticmethod
    def attach(int fd, bint writable=True):
        """Map an existing table; LayoutError if it is another version's."""
        cdef Table table = Table(fd, writable)
        cdef header *h = table.head
        if memcmp(h.magic, b"pptpcon\0", 8) != 0:
            raise LayoutError("not a session table")
        if h.version != LAYOUT_VERSION:
            raise LayoutError(f"session table version {h.version}, this program has {VERSION}")
        if (h.record_size != RECORD_SIZE or h.blob_size != BLOB_SIZE
                or h.size != <uint64_t>table._view.len or not 1 <= h.workers <= MAX_WORKERS
                or h.size != table_size(h.capacity, h.workers)):
            raise LayoutError("session table sizes do not agree with its header")
        return table

    cdef worker_page *page(self, uint32_t worker) noexcept nogil:
        return <worker_page *>(self.base + _round_c(sizeof(header))
                               + worker * _round_c(sizeof(worker_page)))

    cdef record *record_at(self, uint32_t index) noexcept nogil:
        return <record *>(self.base + _round_c(sizeof(header))
                          + self.head.workers * _round_c(sizeof(worker_page))
                          + <uint64_t>index * RECORD_SIZE)

    cdef uint8_t *blob_at(self, uint32_t index, uint32_t copy) noexcept nogil:
        return (self.base + _round_c(sizeof(header))
                + self.head.workers * _round_c(sizeof(worker_page))
                + _round_c(<uint64_t>self.head.capacity * RECORD_SIZE)
                + (<uint64_t>index * 2 + copy) * BLOB_SIZE)

    cdef net_list *nets_at(self, uint32_t index) noexcept nogil:
        cdef uint8_t *first = self.blob_at(0, 0)
        return <net_list *>(first + _round_c(<uint64_t>self.head.capacity * 2 * BLOB_SIZE)) + index

    cdef record *_checked(self, uint32_t index) except NULL:
        if index >= self.head.capacity:
            raise IndexError(f"session index {index} of {self.head.capacity}")
        return self.record_at(index)

    cdef worker_page *_page(self, uint32_t worker) except NULL:
        if worker >= self.head.workers:
            raise IndexError(f"worker {worker} of {self.head.workers}")
        return self.page(worker)

    # -- reading, by anyone

    @property
    def capacity(self):
        return self.head.capacity

    @property
    def workers(self):
        return self.head.workers

    @property
    def epoch(self):
        return self.head.epoch

    @property
    def started_ns(self):
        return self.head.started_ns

    @property
    def started_unix(self):
        return self.head.started_unix

    @property
    def stopping(self):
        return bool(self.head.stopping)

    @property
    def draining(self):
        """Workers that get no new calls."""
        cdef uint32_t i
        return [i for i in range(self.head.workers) if self.head.draining >> i & 1]

    @property
    def pids(self):
        """Of keeper, netops, dispatcher and console; 0: none."""
        cdef header *h = self.head
        return {"keeper": h.keeper_pid, "netops": h.netops_pid,
                "dispatcher": h.dispatcher_pid, "console": h.console_pid}

    @property
    def config(self):
        """(epoch, good, unix time) of the last configuration load."""
        return self.head.config_epoch, bool(self.head.config_ok), self.head.config_loaded_unix

    @property
    def dispatcher_beat_ns(self):
        return self.head.dispatcher_beat_ns

    def allot_state(self, uint32_t index):
        """(generation, FREE, USED or ENDING): cheap, for scans."""
        cdef record *r = self._checked(index)
        return r.generation, r.allot

    def session(self, uint32_t index):
        """A snapshot. Fields of C and T that belong to an older generation read as zero."""
        cdef record *r = self._checked(index)
        cdef bint c = r.c_generation == r.generation
        cdef bint t = r.t_generation == r.generation
        cdef copy_tx *tx = &r.tx[r.tx_turn & 1]
        cdef copy_rx *rx = &r.rx[r.rx_turn & 1]
        name = ""
        if c:
            name = (<bytes>r.name[:64]).partition(b"\0")[0].decode("utf-8", "replace")
        return Session(
            index, r.generation, r.allot, r.worker, r.pool, r.call_id, r.peer_call_id,
            r.local_address, r.peer_address, r.peer_port, r.peer_window, r.peer_speed,
            r.sid, r.connection, r.allotted_ns, r.granted_address, r.granted_local,
            bool(r.answered), r.user_mark, r.realm_mark,
            r.state if c else 0, r.auth if c else 0,
            r.mppe_rx_bits if c else 0, r.mppe_tx_bits if c else 0,
            r.stateful if c else 0, r.framing if c else 0,
            r.mtu if c else 0, r.mru if c else 0,
            r.echo_interval_s if c else 0, r.echo_failures if c else 0,
            r.address if c else 0, r.local if c else 0,
            r.magic if c else 0, r.peer_magic if c else 0, r.up_ns if c else 0, name,
            r.data_state if t else 0,
            r.rx_packets if t else 0, r.rx_bytes if t else 0,
            r.tx_packets if t else 0, r.tx_bytes if t else 0,
            r.drops if t else 0, r.gre_rx_packets if t else 0, r.last_rx_ns if t else 0,
            tx.seq if t else 0, rx.seq if t else 0,
            tx.count if t else 0, rx.count if t else 0,
            <bytes>r.iid[:8] if c and r.six else b"", <bytes>r.our_iid[:8] if c and r.six else b"",
            r.filter if c else 0, r.rate_up if c else 0, r.rate_down if c else 0,
            r.burst_up if c else 0, r.burst_down if c else 0,
            r.ends_ns if c else 0, r.idle_s if c else 0, r.idle_by if c else 0,
            r.volume_up if c else 0, r.volume_down if c else 0, r.volume if c else 0,
            r.last_data_ns if t else 0, r.gre_lost if t else 0)

    def drops(self, uint32_t index):
        """A session's drops by reason, those that are not zero; names of DATA_COUNTERS."""
        cdef record *r = self._checked(index)
        cdef uint32_t i
        if r.t_generation != r.generation:
            return {}
        return {DATA_COUNTERS[D_RX_MALFORMED + i]: r.drops_by[i]
                for i in range(D_TX_SESSION_ENDED - D_RX_MALFORMED + 1) if r.drops_by[i]}

    def meters(self):
        """Octets of all records for rates: (generation, rx_bytes, tx_bytes) of each index,
        as native 64 bit numbers; zeros where nothing flows."""
        cdef uint32_t i
        cdef record *r
        cdef bytearray out = bytearray(<Py_ssize_t>self.head.capacity * 24)
        cdef uint64_t *to = <uint64_t *><char *>out
        for i in range(self.head.capacity):
            r = self.record_at(i)
            if r.allot != ALLOT_FREE and r.t_generation == r.generation:
                to[3 * i] = r.generation
                to[3 * i + 1] = r.rx_bytes
                to[3 * i + 2] = r.tx_bytes
        return bytes(out)

    def sessions(self):
        """Snapshots of all records in use."""
        cdef uint32_t i
        return [self.session(i) for i in range(self.head.capacity)
                if self.record_at(i).allot != ALLOT_FREE]

    def used(self):
        """Records in use, by worker."""
        cdef uint32_t i
        cdef record *r
        counts = [0] * self.head.workers
        for i in range(self.head.capacity):
            r = self.record_at(i)
            if r.allot != ALLOT_FREE and r.worker < self.head.workers:
                counts[r.worker] += 1
        return counts

    def worker(self, uint32_t worker):
        """A snapshot of a worker's page."""
        cdef worker_page *p = self._page(worker)
        return Worker(p.pid, p.starts, p.state, p.cpu, p.data_tid, p.control_tid,
                      p.data_beat_ns, p.control_beat_ns, p.poison_sid, p.kernel,
                      p.bus_queue, p.loop_lag_ns, p.writes)

    def data_counters(self, uint32_t worker):
        """The data thread's counters by name."""
        cdef worker_page *p = self._page(worker)
        return {name: p.data[i] for i, name in enumerate(DATA_COUNTERS)}

    def control_counters(self, uint32_t worker):
        """The control thread's counters, by slot of ops.metrics.CONTROL_COUNTERS."""
        cdef worker_page *p = self._page(worker)
        cdef int i
        return [p.control[i] for i in range(CONTROL_COUNTERS_MAX)]

    def dispatcher_counters(self):
        """By slot of ops.metrics.DISPATCHER_COUNTERS."""
        cdef int i
        return [self.head.dispatcher[i] for i in range(DISPATCHER_COUNTERS_MAX)]

    def netops_counters(self):
        """By slot of ops.metrics.NETOPS_COUNTERS."""
        cdef int i
        return [self.head.netops[i] for i in range(NETOPS_COUNTERS_MAX)]

    def histogram(self, uint32_t worker, int which):
        """(counts of the buckets, not summed up; sum) of batch sizes."""
        cdef worker_page *p = self._page(worker)
        cdef int i
        if not 0 <= which < HISTOGRAMS:
            raise IndexError(which)
        return [p.buckets[which][i] for i in range(BUCKETS)], p.sums[which]

    def setup_times(self, uint32_t worker, int phase):
        """(counts of the buckets, not summed up; seconds) of a place in SETUP_PHASE_NAMES."""
        cdef worker_page *p = self._page(worker)
        cdef int i
        if not 0 <= phase < SETUP_PHASES:
            raise IndexError(phase)
        return [p.setup[phase][i] for i in range(SETUP_BUCKETS)], p.setup_ns[phase] / 1e9

    def durations(self):
        """(counts of the buckets, not summed up; seconds) of sessions that have ended."""
        cdef int i
        return [self.head.durations[i] for i in range(DURATION_BUCKETS)], self.head.durations_s

    def blob(self, uint32_t index):
        """The newer valid copy of a record's blob; b"" if neither is valid for its generation."""
        cdef record *r = self._checked(index)
        best = None
        best_turn = -1
        for copy in range(2):
            at = self.blob_at(index, copy)
            data = self._blob_copy(at, r.generation)
            if data is not None and data[0] > best_turn:
                best_turn, best = data
        return best if best is not None else b""

    cdef object _blob_copy(self, uint8_t *at, uint32_t generation):
        cdef blob_head h
        memcpy(&h, at, sizeof(blob_head))
        if h.generation != generation or h.length > BLOB_SIZE - BLOB_HEAD or h.turn == 0:
            return None
        data = <bytes>at[BLOB_HEAD:BLOB_HEAD + h.length]
        if _crc(h.turn, generation, data) != h.crc:
            return None
        return h.turn, data

    def nets(self, uint32_t index):
        """(octets of the prefix, length) of each network that is the session's beside its
        IPv4 address."""
        cdef record *r = self._checked(index)
        cdef net_list *all = self.nets_at(index)
        cdef int i
        if r.c_generation != r.generation:
            return []
        return [(<bytes>all.all[i].prefix[:4 if all.all[i].family == 4 else 16], all.all[i].length)
                for i in range(min(r.nets, <uint8_t>NETS_MAX))]

    def net_owner(self, bytes octets not None, uint8_t length, uint32_t but):
        """The record of another session that has exactly this prefix; -1: none has."""
        cdef net wanted
        cdef record *r
        cdef net_list *all
        cdef uint32_t i
        cdef uint8_t j
        _net(&wanted, octets, length)
        for i in range(self.head.capacity):
            r = self.record_at(i)
            if (i == but or r.allot == ALLOT_FREE or r.nets == 0
                    or r.c_generation != r.generation):
                continue
            all = self.nets_at(i)
            for j in range(min(r.nets, <uint8_t>NETS_MAX)):
                if memcmp(&all.all[j], &wanted, sizeof(net)) == 0:
                    return i
        return -1

    # -- K, the keeper

    def set_pid(self, str role, uint32_t pid):
        """`role`: keeper, netops, dispatcher or console."""
        cdef header *h = self.head
        if role == "keeper":
            h.keeper_pid = pid
        elif role == "netops":
            h.netops_pid = pid
        elif role == "dispatcher":
            h.dispatcher_pid = pid
        elif role == "console":
            h.console_pid = pid
        else:
            raise KeyError(role)

    def set_worker(self, uint32_t worker, uint32_t pid, bint up):
        """A start (pid, up) or an end (0, down) of a worker process."""
        cdef worker_page *p = self._page(worker)
        p.pid = pid
        if up:
            p.starts += 1
        p.state = 1 if up else 0

    def set_stopping(self, bint stopping=True):
        self.head.stopping = stopping

    def set_config(self, bint good):
        """A configuration was (re)loaded, or refused."""
        cdef header *h = self.head
        if good:
            h.config_epoch += 1
            h.config_loaded_unix = int(time.time())
        h.config_ok = good

    def set_ways(self, str receive, str send):
        """How GRE comes and goes: of GRE_WAYS."""
        self.head.gre_receive = GRE_WAYS.index(receive)
        self.head.gre_send = GRE_WAYS.index(send)

    @property
    def ways(self):
        """What `set_ways` was told."""
        return GRE_WAYS[self.head.gre_receive], GRE_WAYS[self.head.gre_send]

    # -- D, the dispatcher

    def set_draining(self, workers):
        """Which workers get no new calls; outlives the dispatcher."""
        cdef uint64_t mask = 0
        for worker in workers:
            self._page(worker)
            mask |= <uint64_t>1 << <uint32_t>worker
        self.head.draining = mask

    def allot(self, uint32_t index, *, uint8_t worker, uint16_t call_id, uint16_t peer_call_id,
              uint32_t local_address, uint32_t peer_address, uint16_t peer_port,
              uint16_t peer_window, uint32_t peer_speed, uint64_t connection):
        """Take a free record for a call; returns (generation, sid)."""
        cdef record *r = self._checked(index)
        if r.allot != ALLOT_FREE:
            raise LayoutError(f"record {index} is in use")
        r.generation += 1
        if r.generation == 0:
            r.generation = 1
        r.worker = worker
        r.pool = STATIC_POOL
        r.call_id = call_id
        r.peer_call_id = peer_call_id
        r.local_address = local_address
        r.peer_address = peer_address
        r.peer_port = peer_port
        r.peer_window = peer_window
        r.peer_speed = peer_speed
        r.sid = (<uint64_t>self.head.epoch << 32) | (self.head.next_sid & 0xFFFFFFFF)
        self.head.next_sid += 1
        r.connection = connection
        r.allotted_ns = time.monotonic_ns()
        r.granted_address = 0
        r.granted_local = 0
        r.answered = 0
        r.user_mark = r.realm_mark = 0
        memset(r.granted_lengths, 0, 3)
        r.allot = ALLOT_USED
        return r.generation, r.sid

    def answered(self, uint32_t index):
        """Note that Outgoing-Call-Reply says yes, before it does."""
        self._checked(index).answered = 1

    def grant(self, uint32_t index, uint32_t address, uint32_t local, uint8_t pool,
              uint64_t user_mark=0, uint64_t realm_mark=0):
        """Note what admission gave: the address, its pool (STATIC_POOL for a static one), and
        for whom it counts."""
        cdef record *r = self._checked(index)
        r.user_mark = user_mark
        r.realm_mark = realm_mark
        r.granted_local = local
        r.pool = pool
        r.granted_address = address

    def grant6(self, uint32_t index, tuple prefixes not None):
        """Note IPv6 prefixes that admission gave, (octets, length) each: the link's, the
        delegated one, an address (/128). A length of 0: none."""
        cdef record *r = self._checked(index)
        cdef int i
        cdef bytes octets
        for i, (octets, length) in enumerate(prefixes):
            if i > 2 or not 0 <= length <= 128 or (length and len(octets) != 16):
                raise LayoutError("three IPv6 prefixes")
            if length:
                memcpy(r.granted6[i], <const uint8_t *><const char *>octets, 16)
            r.granted_lengths[i] = length

    def granted6(self, uint32_t index):
        """The inverse of `grant6`: three times (octets, length), (b"", 0) where there is none."""
        cdef record *r = self._checked(index)
        cdef int i
        return tuple((<bytes>r.granted6[i][:16], r.granted_lengths[i])
                     if r.granted_lengths[i] else (b"", 0) for i in range(3))

    def set_ending(self, uint32_t index):
        self._checked(index).allot = ALLOT_ENDING

    def release(self, uint32_t index):
        """The record is free again; its handle is void."""
        self._checked(index).allot = ALLOT_FREE

    def dispatcher_count(self, uint32_t slot, uint64_t n=1):
        """Raise a counter of ops.metrics.DISPATCHER_COUNTERS."""
        if slot >= DISPATCHER_COUNTERS_MAX:
            raise IndexError(slot)
        self.head.dispatcher[slot] += n

    def dispatcher_gauge(self, uint32_t slot, uint64_t value):
        if slot >= DISPATCHER_COUNTERS_MAX:
            raise IndexError(slot)
        self.head.dispatcher[slot] = value

    def dispatcher_beat(self):
        self.head.dispatcher_beat_ns = time.monotonic_ns()

    def session_lasted(self, uint64_t seconds):
        """A session that had been up has ended."""
        cdef int bucket = 0
        while bucket < DURATION_BUCKETS - 1 and seconds > DURATION_BOUNDS[bucket]:
            bucket += 1
        self.head.durations[bucket] += 1
        self.head.durations_s += seconds

    def bus_queue(self, uint32_t worker, uint32_t length):
        """Messages to a worker that its queue has not taken yet."""
        self._page(worker).bus_queue = length

    # -- netops

    def netops_count(self, uint32_t slot, uint64_t n=1):
        """Raise a counter of ops.metrics.NETOPS_COUNTERS."""
        if slot >= NETOPS_COUNTERS_MAX:
            raise IndexError(slot)
        self.head.netops[slot] += n

    # -- C, a worker's control thread

    def begin_link(self, uint32_t index, uint32_t generation):
        """Take a record over from D: clear C's fields, state STARTING."""
        cdef record *r = self._checked(index)
        r.state = LINK_NONE
        r.c_generation = generation
        r.auth = r.mppe_rx_bits = r.mppe_tx_bits = r.stateful = r.framing = 0
        r.mtu = r.mru = r.echo_interval_s = 0
        r.echo_failures = 0
        r.address = r.local = r.magic = r.peer_magic = 0
        r.up_ns = 0
        r.six = 0
        memset(r.iid, 0, 8)
        memset(r.our_iid, 0, 8)
        r.filter = 0
        r.rate_up = r.rate_down = r.burst_up = r.burst_down = 0
        r.ends_ns = r.volume_up = r.volume_down = r.volume = 0
        r.idle_s = r.idle_by = 0
        r.nets = 0
        r.blob_turn = 0
        memset(r.name, 0, 64)
        r.state = LINK_STARTING

    def set_state(self, uint32_t index, uint8_t state):
        self._checked(index).state = state

    def set_user(self, uint32_t index, str name, uint8_t auth):
        cdef record *r = self._checked(index)
        cut = name.encode("utf-8", "surrogateescape")[:NAME_MAX - 1]
        memset(r.name, 0, 64)
        memcpy(r.name, <const uint8_t *><const char *>cut, len(cut))
        r.auth = auth

    def set_link(self, uint32_t index, *, uint32_t address, uint32_t local, uint16_t mtu,
                 uint16_t mru, uint8_t mppe_rx_bits, uint8_t mppe_tx_bits, uint8_t stateful,
                 uint8_t framing, uint32_t magic, uint32_t peer_magic, uint16_t echo_interval_s,
                 uint8_t echo_failures):
        """What the link agreed on; then set_state(ACTIVE) and Engine.up()."""
        cdef record *r = self._checked(index)
        r.address = address
        r.local = local
        r.mtu = mtu
        r.mru = mru
        r.mppe_rx_bits = mppe_rx_bits
        r.mppe_tx_bits = mppe_tx_bits
        r.stateful = stateful
        r.framing = framing
        r.magic = magic
        r.peer_magic = peer_magic
        r.echo_interval_s = echo_interval_s
        r.echo_failures = echo_failures
        if not r.up_ns:  # an up session may agree anew
            r.up_ns = time.monotonic_ns()

    def set_limits(self, uint32_t index, *, uint64_t rate_up, uint64_t rate_down,
                   uint64_t burst_up, uint64_t burst_down, uint32_t filter):
        """Rates in bit/s, bursts in octets, the number of a filter; then Engine.set_rates()."""
        cdef record *r = self._checked(index)
        r.burst_up = burst_up
        r.burst_down = burst_down
        r.rate_up = rate_up
        r.rate_down = rate_down
        r.filter = filter

    def set_bounds(self, uint32_t index, *, uint64_t ends_ns, uint32_t idle_s, uint8_t idle_by,
                   uint64_t volume_up, uint64_t volume_down, uint64_t volume):
        """What ends the session; the data thread looks here once a second."""
        cdef record *r = self._checked(index)
        r.ends_ns = ends_ns
        r.idle_by = idle_by
        r.idle_s = idle_s
        r.volume_up = volume_up
        r.volume_down = volume_down
        r.volume = volume

    def set_six(self, uint32_t index, bytes iid not None, bytes our_iid not None):
        """IPv6CP agreed on these identifiers (8 octets each); b"" twice: it went down.
        Then Engine.up6() or Engine.down6()."""
        cdef record *r = self._checked(index)
        if len(iid) not in (0, 8) or len(our_iid) != len(iid):
            raise LayoutError("an interface identifier has 8 octets")
        r.six = 0
        if iid:
            memcpy(r.iid, <const uint8_t *><const char *>iid, 8)
            memcpy(r.our_iid, <const uint8_t *><const char *>our_iid, 8)
            r.six = 1

    def set_nets(self, uint32_t index, object found not None):
        """(octets, length) of each network behind the session, NETS_MAX at most; then
        Engine.set_nets()."""
        cdef record *r = self._checked(index)
        cdef net_list *all = self.nets_at(index)
        cdef uint32_t i
        cdef net made[NETS_MAX]
        if len(found) > NETS_MAX:
            raise LayoutError(f"{len(found)} networks, at most {NETS_MAX}")
        for i, (octets, length) in enumerate(found):
            _net(&made[i], octets, length)
        if not found and r.nets == 0:
            return
        swap_all(&all.turn, all.turn | 1)
        r.nets = len(found)
        memcpy(all.all, made, len(found) * sizeof(net))
        swap_all(&all.turn, (all.turn | 1) + 1)

    def write_blob(self, uint32_t index, bytes data):
        """Store `data` (at most BLOB_MAX octets) in the older copy, then make it the newer."""
        cdef record *r = self._checked(index)
        if len(data) > BLOB_SIZE - BLOB_HEAD:
            raise LayoutError(f"blob of {len(data)} octets, at most {BLOB_MAX}")
        cdef uint64_t turn = r.blob_turn + 1
        cdef uint8_t *at = self.blob_at(index, turn & 1)
        cdef blob_head h
        h.turn = turn
        h.length = len(data)
        h.generation = r.c_generation
        h.crc = _crc(turn, r.c_generation, data)
        h.pad = 0
        memcpy(at + BLOB_HEAD, <const uint8_t *><const char *>data, len(data))
        memcpy(at, &h, sizeof(blob_head))
        r.blob_turn = turn

    def control_count(self, uint32_t worker, uint32_t slot, uint64_t n=1):
        """Raise a counter of ops.metrics.CONTROL_COUNTERS."""
        if slot >= CONTROL_COUNTERS_MAX:
            raise IndexError(slot)
        self._page(worker).control[slot] += n

    def session_set_up(self, uint32_t worker, int phase, uint64_t ns):
        """A session came up: how long one of SETUP_PHASE_NAMES, by its place, had taken."""
        cdef worker_page *p = self._page(worker)
        cdef int bucket = 0
        if not 0 <= phase < SETUP_PHASES:
            raise IndexError(phase)
        while bucket < SETUP_BUCKETS - 1 and ns > SETUP_BOUNDS[bucket] * 1e9:
            bucket += 1
        p.setup[phase][bucket] += 1
        p.setup_ns[phase] += ns

    def loop_lag(self, uint32_t worker, uint64_t ns):
        """By how much the control thread's loop was late, worst of the last seconds."""
        self._page(worker).loop_lag_ns = ns

    def kernel_is(self, uint32_t worker, uint32_t number):
        """Which MPPE code encrypts: place in mppe.KERNELS + 1."""
        self._page(worker).kernel = number

    def control_beat(self, uint32_t worker, uint32_t tid=0):
        cdef worker_page *p = self._page(worker)
        p.control_beat_ns = time.monotonic_ns()
        if tid:
            p.control_tid = tid


cdef int _net(net *into, bytes octets, int length) except -1:
    if len(octets) not in (4, 16) or not 0 <= length <= 8 * len(octets):
        raise LayoutError("a network has 4 or 16 octets, and a length")
    memset(into, 0, sizeof(net))
    into.family = 4 if len(octets) == 4 else 6
    into.length = length
    memcpy(into.prefix, <const uint8_t *><const char *>octets, len(octets))
    return 0


cdef inline uint64_t _round_c(uint64_t n) noexcept nogil:
    return (n + 4095) & ~<uint64_t>4095


cdef uint32_t _crc(uint64_t turn, uint32_t generation, bytes data):
    return zlib.crc32(data, (turn ^ generation) & 0xFFFFFFFF)
