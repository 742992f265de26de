# cython: language_level=3
"""What is done because its time has come: see timers.pxd."""

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from fastpath.acks cimport acks_due
from fastpath.arrivals cimport arrivals_late
from fastpath.bounds cimport bounds_look
from fastpath.layout cimport C_LCP_ECHO_SENT, C_LCP_ECHO_TIMEOUTS, DATA_NONE, DATA_UP
from fastpath.limits cimport limits_serve_due
from fastpath.output cimport output_flush, output_frame
from fastpath.path cimport (
    EV_ECHO_LOST, FRAME_BURST, FRAME_LEAST, FRAME_QUEUE, FRAME_RATE, KEY_WORK, KEY_WORK_ALL,
    PPP_LCP, data_path, tell)
from fastpath.ring cimport ring_used
from fastpath.tables cimport NOBODY, session
from fastpath.wire cimport put16, put32

cdef enum:
    TRACED = 100               # packets of traced sessions told in a tick
    TICKS = 10                 # a sweep of all sessions takes so many ticks

cdef uint64_t TICK = 100000000


cdef void timers_run(data_path *path) noexcept nogil:
    cdef session *s
    cdef uint32_t part, end
    acks_due(path)
    if path.reorder.first != NOBODY and path.t.all[path.reorder.first].hold_due <= path.now:
        arrivals_late(path)
    if path.shaping.due.n and path.shaping.due.at[0].due <= path.now:
        limits_serve_due(path)
    if path.now >= path.next_tick:
        path.next_tick = path.now + TICK
        path.page.data_beat_ns = path.now
        path.icmp_left = 100
        path.key_work = KEY_WORK_ALL
        path.trace_left = TRACED
        part = path.t.top // TICKS + 1
        end = path.sweep_at + part
        while path.sweep_at < end and path.sweep_at < path.t.top:
            s = &path.t.all[path.sweep_at]
            if s.state != DATA_NONE:
                _look_after(path, s)
            path.sweep_at += 1
        path.ticks += 1
        if path.ticks >= TICKS:        # not sooner: allowances are those of a second
            path.ticks = 0
            path.sweep_at = 0
    if path.output.n:
        output_flush(path)


cdef void _look_after(data_path *path, session *s) noexcept nogil:
    """Once a second: allowances, LCP echo (any data counts as life)."""
    cdef uint8_t *p
    s.work = KEY_WORK
    # Who floods is held back; a new session still has its burst, and so its login.
    s.frames += FRAME_RATE if ring_used(&path.events) < FRAME_QUEUE else FRAME_LEAST
    if s.frames > FRAME_BURST:
        s.frames = FRAME_BURST
    if s.hop_ifindex:
        s.hop_age += 1
    if s.state != DATA_UP:
        return
    bounds_look(path, s)
    if s.echo_interval == 0 or s.echo_lost:
        return
    if path.now - s.last_rx < s.echo_interval:
        s.echo_missed = 0
        s.echo_due = 0
        return
    if path.now < s.echo_due:
        return
    if s.echo_missed >= s.echo_failures:
        s.echo_lost = True
        path.count[C_LCP_ECHO_TIMEOUTS] += 1
        if not tell(path, EV_ECHO_LOST, s, NULL, 0):
            s.echo_lost = False
        return
    p = output_frame(path, s, PPP_LCP, 8)
    s.echo_missed += 1
    s.echo_id += 1
    s.echo_due = path.now + s.echo_interval
    p[0] = 9
    p[1] = s.echo_id
    put16(p + 2, 8)
    put32(p + 4, s.magic)
    path.count[C_LCP_ECHO_SENT] += 1
