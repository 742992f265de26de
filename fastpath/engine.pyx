# cython: language_level=3
"""The data thread of a worker: GRE in, PPP, MPPE, TUN out, and back.

One thread runs `run` without the GIL from start to end. It owns all of this object but
the control thread's ends of the two rings. The way of a batch from a subscriber:

  1. recvmmsg; GRE header, session, sequence: what is in order is listed
  2. PPP header; the key of each encrypted packet, then all are decrypted together
  3. commit: sequence, count and key of every session touched go to its record
  4. source check, MSS, coalescing, TUN write

and to a subscriber: TUN read, session, segments straight into the output buffers, then
`output_flush`: keys, encryption together, commit, sendmmsg. A process that dies after a commit
loses at most that batch; it never repeats a sequence or a (key, count).
"""

import os

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset

from fastpath.arrivals cimport arrivals_close, arrivals_open
from fastpath.backlog cimport backlog_close, backlog_open
from fastpath.filter cimport book_close, book_open, rule_book
from fastpath.layout cimport Table
from fastpath.limits cimport limits_close, limits_open
from fastpath.links cimport links_account, links_left, links_resume
from fastpath.loop cimport loop_run
from fastpath.mppe cimport key_size
from fastpath.operations cimport (
    OP_DOWN, OP_DOWN6, OP_FILTERS, OP_HOP, OP_INSTALL, OP_MPPE, OP_NETS, OP_PACKET, OP_PEERS,
    OP_RATES, OP_REMOVE, OP_SEND, OP_TRACE, OP_UP, OP_UP6, operations_forget)
from fastpath.output cimport output_close, output_frames, output_open
from fastpath.path cimport (
    EV_BOUND, EV_DESYNC, EV_ECHO_LOST, EV_FRAME, EV_HOP_LOST, EV_INSTALLED, EV_PACKET, EV_REMOVED,
    EV_RESUMED, EV_TRACED, KEY_WORK_ALL, MS, OUT_HEAD, OUT_SIZE, ROLE_CLIENT, ROLE_SERVER,
    data_path, path_record)
from fastpath.peers cimport peers, peers_close, peers_open
from fastpath.reorder cimport HELD, reorder_close, reorder_open
from fastpath.ring cimport (
    entry, ring_close, ring_drop, ring_open, ring_peek, ring_push, ring_sleep, ring_wake_owed)
from fastpath.system cimport clear_event, now_ns, raise_event
from fastpath.tables cimport NOBODY, tables_close, tables_open
from fastpath.tun_queue import WRITES
from fastpath.xdp cimport xdp_add, xdp_calls, xdp_close, xdp_open

cdef enum:
    RING_SIZE = 4194304

SERVER = ROLE_SERVER
CLIENT = ROLE_CLIENT
EVENT_FRAME = EV_FRAME
EVENT_INSTALLED = EV_INSTALLED
EVENT_REMOVED = EV_REMOVED
EVENT_ECHO_LOST = EV_ECHO_LOST
EVENT_DESYNC = EV_DESYNC
EVENT_RESUMED = EV_RESUMED
EVENT_HOP_LOST = EV_HOP_LOST
EVENT_BOUND = EV_BOUND
EVENT_PACKET = EV_PACKET
EVENT_TRACED = EV_TRACED


class EngineError(Exception):
    """The engine could not be made."""


cdef class Engine:
    """See engine.pyi."""

    cdef Table table
    cdef data_path path

    def __cinit__(self, Table table, uint32_t worker, *, int role, int gre_fd, int raw_fd,
                  int tun_fd, bint packet_mode, int cpu=-1, uint32_t batch=64,
                  uint32_t reorder_depth=32, uint32_t reorder_timeout_ms=50,
                  uint32_t ack_delay_ms=100, uint32_t coalesce_us=5000, bint mss_clamp=True,
                  skip_sids=(), int hop_fd=-1, uint32_t window=64, int calls_fd=-1, rings=(),
                  str writes="auto"):
        cdef data_path *path = &self.path
        if worker >= table.head.workers:
            raise EngineError(f"worker {worker} of {table.head.workers}")
        if not 1 <= batch <= 1024 or reorder_depth > HELD:
            raise EngineError("batch is 1 to 1024, reorder_depth 0 to 64")
        if role not in (ROLE_SERVER, ROLE_CLIENT):
            raise EngineError(f"role {role}")
        if writes not in WRITES:
            raise EngineError(f"writes {writes!r}")
        self.table = table
        path.records = table.record_at(0)
        path.nets = table.nets_at(0)
        path.worker = worker
        path.page = table.page(worker)
        path.count = path.page.data
        path.role = role
        path.gre_fd = gre_fd
        path.output.raw_fd = raw_fd
        path.output.hop_fd = hop_fd
        path.tun_fd = path.writing.queue.fd = tun_fd
        path.cpu = cpu
        path.writes = WRITES.index(writes)
        path.batch = batch
        path.reorder.depth = reorder_depth
        path.reorder.hold_ns = <uint64_t>reorder_timeout_ms * MS
        # A peer that honours our window must never stand at its end.
        path.owed.every = min(16, window // 2 if window > 1 else 1)
        path.owed.delay_ns = <uint64_t>ack_delay_ms * MS
        path.nap_ns = <uint64_t>coalesce_us * 1000
        path.owed.first = path.owed.last = NOBODY
        path.mss_clamp = mss_clamp
        path.arrivals.unproven = packet_mode
        path.key_work = KEY_WORK_ALL
        path.wake_fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        path.event_fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        path.shaping.seed = <uint64_t>int.from_bytes(os.urandom(8), "little")
        if (not ring_open(&path.operations, RING_SIZE) or not ring_open(&path.events, RING_SIZE)
                or not tables_open(&path.t, table.head.capacity) or not arrivals_open(path)
                or not reorder_open(path) or not output_open(path)
                or not backlog_open(&path.behind) or not limits_open(path)):
            raise MemoryError
        xdp_open(&path.xdp, worker)
        for fd, memory, told in rings:
            xdp_add(&path.xdp, fd, memory, told)
        if path.xdp.sender != NULL:
            output_frames(path)
        if calls_fd >= 0:
            xdp_calls(&path.xdp, calls_fd)
        path.events.asleep = 1
        path.now = now_ns()
        self._resume(frozenset(skip_sids))

    cdef void _resume(self, skip):
        """What a predecessor left, but for sessions that are to end."""
        cdef uint32_t i
        for i in range(self.path.t.capacity):
            if links_left(&self.path, i) and path_record(&self.path, i).sid not in skip:
                links_resume(&self.path, i)
        links_account(&self.path)

    def __dealloc__(self):
        cdef data_path *path = &self.path
        for fd in (path.wake_fd, path.event_fd):
            if fd > 0:
                os.close(fd)
        operations_forget(path)
        ring_close(&path.operations)
        ring_close(&path.events)
        tables_close(&path.t)
        arrivals_close(path)
        reorder_close(path)
        output_close(path)
        limits_close(path)
        backlog_close(&path.behind)
        xdp_close(&path.xdp)

    @property
    def event_fd(self):
        return self.path.event_fd

    # -- the control thread's side

    cdef bint _push(self, uint32_t kind, uint32_t index, uint32_t generation,
                    const uint8_t *data, uint32_t size):
        if index >= self.path.t.capacity:
            raise IndexError(f"session index {index} of {self.path.t.capacity}")
        if not ring_push(&self.path.operations, kind, index, generation, data, size, NULL, 0):
            return False
        if ring_wake_owed(&self.path.operations):
            raise_event(self.path.wake_fd)
        return True

    def install(self, uint32_t index, uint32_t generation):
        return self._push(OP_INSTALL, index, generation, NULL, 0)

    def send(self, uint32_t index, uint32_t generation, bytes frame not None):
        if not 2 <= len(frame) <= OUT_SIZE - OUT_HEAD:
            raise ValueError(f"PPP frame of {len(frame)} octets")
        return self._push(OP_SEND, index, generation, <const uint8_t *><const char *>frame,
                          <uint32_t>len(frame))

    def set_mppe(self, uint32_t index, uint32_t generation, uint32_t rx_bits, bytes rx_key not None,
                 bint rx_stateful, uint32_t tx_bits, bytes tx_key not None, bint tx_stateful):
        cdef uint8_t data[40]
        for bits, key in ((rx_bits, rx_key), (tx_bits, tx_key)):
            if bits not in (0, 40, 56, 128) or len(key) != (key_size(bits) if bits else 0):
                raise ValueError(f"MPPE start key of {len(key)} octets for {bits} bits")
        memset(data, 0, 40)
        data[0] = rx_bits
        data[1] = tx_bits
        data[2] = (1 if rx_stateful and rx_bits else 0) | (2 if tx_stateful and tx_bits else 0)
        memcpy(data + 8, <const uint8_t *><const char *>rx_key, len(rx_key))
        memcpy(data + 24, <const uint8_t *><const char *>tx_key, len(tx_key))
        return self._push(OP_MPPE, index, generation, data, 40)

    def up(self, uint32_t index, uint32_t generation):
        return self._push(OP_UP, index, generation, NULL, 0)

    def down(self, uint32_t index, uint32_t generation):
        return self._push(OP_DOWN, index, generation, NULL, 0)

    def up6(self, uint32_t index, uint32_t generation):
        return self._push(OP_UP6, index, generation, NULL, 0)

    def down6(self, uint32_t index, uint32_t generation):
        return self._push(OP_DOWN6, index, generation, NULL, 0)

    def set_hop(self, uint32_t index, uint32_t generation, uint32_t ifindex, bytes mac not None,
                uint32_t mtu):
        cdef uint8_t data[16]
        if len(mac) != (6 if ifindex else 0):
            raise ValueError(f"hardware address of {len(mac)} octets")
        memset(data, 0, 16)
        memcpy(data, &ifindex, 4)
        memcpy(data + 4, &mtu, 4)
        memcpy(data + 8, <const uint8_t *><const char *>mac, len(mac))
        return self._push(OP_HOP, index, generation, data, 16)

    def set_nets(self, uint32_t index, uint32_t generation):
        return self._push(OP_NETS, index, generation, NULL, 0)

    def packet(self, uint32_t index, uint32_t generation, bytes packet not None):
        if not 20 <= len(packet) <= OUT_SIZE - OUT_HEAD:
            raise ValueError(f"inner packet of {len(packet)} octets")
        return self._push(OP_PACKET, index, generation, <const uint8_t *><const char *>packet,
                          <uint32_t>len(packet))

    def set_rates(self, uint32_t index, uint32_t generation):
        return self._push(OP_RATES, index, generation, NULL, 0)

    def set_filters(self, bytes block not None):
        cdef rule_book *book = <rule_book *>malloc(sizeof(rule_book))
        if book == NULL:
            raise MemoryError
        if not book_open(book, <const uint8_t *><const char *>block, len(block)):
            free(book)
            raise ValueError("no filters")
        if not self._push(OP_FILTERS, 0, 0, <const uint8_t *>&book, sizeof(book)):
            book_close(book)
            free(book)
            return False
        return True

    def set_peers(self, bytes block not None):
        cdef peers *allowed = NULL
        if block:
            allowed = <peers *>malloc(sizeof(peers))
            if allowed == NULL:
                raise MemoryError
            if not peers_open(allowed, <const uint8_t *><const char *>block, len(block)):
                free(allowed)
                raise ValueError("no ranges of addresses")
        if not self._push(OP_PEERS, 0, 0, <const uint8_t *>&allowed, sizeof(allowed)):
            if allowed != NULL:
                peers_close(allowed)
                free(allowed)
            return False
        return True

    def trace(self, uint32_t index, uint32_t generation, uint8_t what):
        return self._push(OP_TRACE, index, generation, &what, 1)

    def remove(self, uint32_t index, uint32_t generation):
        return self._push(OP_REMOVE, index, generation, NULL, 0)

    def stop(self):
        self.path.stopping = True
        raise_event(self.path.wake_fd)

    def events(self, uint32_t limit=256):
        found = []
        cdef entry *e
        clear_event(self.path.event_fd)
        while True:
            e = ring_peek(&self.path.events)
            if e == NULL:
                if ring_sleep(&self.path.events):
                    return found
                continue
            if <uint32_t>len(found) >= limit:
                raise_event(self.path.event_fd)
                return found
            found.append((e.kind, e.index, e.generation, <bytes>(<uint8_t *>e + 16)[:e.size]))
            ring_drop(&self.path.events, e)

    def run(self):
        """Body of the data thread."""
        with nogil:
            loop_run(&self.path)
