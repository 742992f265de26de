# cython: language_level=3
"""The data thread's loop: see loop.pxd."""

from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memset

from fastpath.arrivals cimport arrivals_read, arrivals_rings
from fastpath.downlink cimport downlink_read
from fastpath.layout cimport C_GRE_RX_PACKETS, C_TUN_RX_PACKETS, C_WAKEUPS
from fastpath.operations cimport operations_take
from fastpath.output cimport output_flush
from fastpath.path cimport data_path
from fastpath.priority cimport priority, priority_begin, priority_turn
from fastpath.ring cimport ring_sleep, store_release
from fastpath.system cimport clear_event, exact_timers, nap, now_ns, pin_to, thread_id
from fastpath.tables cimport NOBODY
from fastpath.timers cimport timers_run
from fastpath.tun_queue cimport (
    WRITES_PLAIN, WRITES_URING, tun_queue_close, tun_queue_open)
from fastpath.xdp cimport xdp_wait

cdef enum:
    # Between few packets that come fast the thread naps, as a network card holds its
    # interrupt back: a wake-up costs as much as several packets, and what comes together is
    # coalesced, which saves the host behind its acknowledgements, too. How much depends on
    # the machine, a virtual one's system calls being dear: times are in empty polls, 0.8 ms
    # at most on a fast machine. tests/bench/RESULTS.md has what longer and shorter ones cost.
    NAP_LEAST = 2              # packets of a wake-up: a lone ping waits for nobody
    NAP_LOOK = 8               # of so many, most in one direction: one at a time is bulk, too
    NAP_MOST = 64              # a batch that is worth its wake-up
    NAP_APART = 800            # polls between packets, at most
    NAP_MAX = 2000
    POLL_LEAST = 400           # ns of a poll, whatever was measured
    POLL_MOST = 2500
    READY_GRE = 1
    READY_TUN = 2
    READY_RINGS = 8
    SOCKET_EVERY = 8           # rounds, where the rings have nearly all


cdef struct napping:
    uint64_t packets           # when there was nothing to do the last time, both directions
    uint64_t since             # and the time of that
    uint64_t gre, tun          # counts when `bulk` was judged
    bint bulk                  # requests and answers come by turns, downloads do not


cdef uint64_t _nap_for(napping *p, data_path *path) noexcept nogil:
    """How long to leave new packets lying, now that there is nothing to do; 0: not at all."""
    cdef uint64_t gre = path.count[C_GRE_RX_PACKETS], tun = path.count[C_TUN_RX_PACKETS]
    cdef uint64_t n = gre + tun - p.packets, apart, since = p.since
    p.packets = gre + tun
    p.since = path.now
    if gre - p.gre + tun - p.tun >= NAP_LOOK:
        p.bulk = gre - p.gre >= 2 * (tun - p.tun) or tun - p.tun >= 2 * (gre - p.gre)
        p.gre = gre
        p.tun = tun
    if n >= NAP_MOST or n < (1 if p.bulk else NAP_LEAST):
        return 0
    apart = (path.now - since) // n
    if apart > NAP_APART * path.poll_ns:
        return 0
    apart *= NAP_MOST - n
    return apart if apart < path.nap_ns else path.nap_ns


cdef void _time_polls(data_path *path) noexcept nogil:
    """What it costs to ask for news in vain; the least of some tries."""
    cdef uint64_t began, best = POLL_MOST
    cdef int _i, woken = 0
    for _i in range(16):
        began = now_ns()
        xdp_wait(&path.xdp, path.gre_fd, path.tun_fd, path.wake_fd, 0, &woken)
        began = now_ns() - began
        if began < best:
            best = began
    path.poll_ns = best if best > POLL_LEAST else POLL_LEAST
    if path.nap_ns > NAP_MAX * path.poll_ns:
        path.nap_ns = NAP_MAX * path.poll_ns


cdef int _all(data_path *path) noexcept nogil:
    """All that is to be tried without asking."""
    if not path.xdp.receives:
        return READY_GRE | READY_TUN
    path.arrivals.rounds += 1
    if path.arrivals.rounds % SOCKET_EVERY == 0:
        return READY_GRE | READY_TUN | READY_RINGS
    return READY_TUN | READY_RINGS


cdef void loop_run(data_path *path) noexcept nogil:
    cdef int ready = READY_GRE | READY_TUN | READY_RINGS, woken = 0
    cdef uint64_t until, rest
    cdef napping naps
    cdef priority turns
    if path.cpu >= 0:
        if not pin_to(path.cpu):
            path.cpu = -1
    exact_timers()
    _time_polls(path)
    tun_queue_open(&path.writing.queue, path.writes)
    path.page.writes = WRITES_URING if path.writing.queue.batched else WRITES_PLAIN
    path.page.cpu = <uint32_t>(path.cpu + 1)
    path.page.data_tid = thread_id()
    path.page.data_beat_ns = now_ns()
    priority_begin(&turns, path.page.data_beat_ns)
    memset(&naps, 0, sizeof(napping))
    while not path.stopping:
        path.now = now_ns()
        priority_turn(&turns, path.now)
        operations_take(path)
        if ready & READY_RINGS and not (path.xdp.receives and arrivals_rings(path)):
            ready &= ~READY_RINGS
        if ready & READY_GRE and not arrivals_read(path):
            ready &= ~READY_GRE
        if ready & READY_TUN and not downlink_read(path):
            ready &= ~READY_TUN
        timers_run(path)
        until = 0
        if ready == 0:
            until = path.next_tick
            if path.owed.first != NOBODY and path.t.all[path.owed.first].ack_due < until:
                until = path.t.all[path.owed.first].ack_due
            if path.reorder.first != NOBODY and path.t.all[path.reorder.first].hold_due < until:
                until = path.t.all[path.reorder.first].hold_due
            if path.shaping.due.n and path.shaping.due.at[0].due < until:
                until = path.shaping.due.at[0].due
            until = until - path.now if until > path.now else 0
            path.now = now_ns()
            rest = _nap_for(&naps, path)
            if 0 < rest < until:
                nap(rest)
                turns.slept += now_ns() - path.now
                path.count[C_WAKEUPS] += 1
                ready = _all(path)
                continue
            if not ring_sleep(&path.operations):
                until = 0
        else:
            # Trying both costs less than asking which.
            ready = _all(path)
            continue
        xdp_wait(&path.xdp, path.gre_fd, path.tun_fd, path.wake_fd, until, &woken)
        store_release(&path.operations.asleep, 0)
        if woken & 4:
            clear_event(path.wake_fd)
        if until:
            path.count[C_WAKEUPS] += 1
            turns.slept += now_ns() - path.now
        ready |= woken & (READY_GRE | READY_TUN | READY_RINGS)
    operations_take(path)
    output_flush(path)
    tun_queue_close(&path.writing.queue)
