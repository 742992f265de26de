# cython: language_level=3
"""What ends a session that is up: see bounds.pxd."""

from libc.stdint cimport uint8_t, uint64_t

from fastpath.layout cimport record
from fastpath.path cimport EV_BOUND, MS, data_path, tell
from fastpath.tables cimport session

cdef enum:
    # what the event says first; workers/bounds.py has the same order
    BOUND_TIME = 1
    BOUND_IDLE = 2
    BOUND_UP = 3
    BOUND_DOWN = 4
    BOUND_BOTH = 5


cdef void bounds_look(data_path *path, session *s) noexcept nogil:
    """Once a second. Said again each time until the control thread has acted, with the bound
    that was reached: another one may hold by then."""
    cdef record *r = s.r
    cdef uint64_t seen = r.rx_packets + (0 if r.idle_by else r.tx_packets)
    if seen != s.data_seen:
        s.data_seen = seen
        r.last_data_ns = path.now
    if r.ends_ns and path.now >= r.ends_ns:
        _tell(path, s, BOUND_TIME, r.ends_ns)
    elif r.idle_s and path.now - r.last_data_ns >= <uint64_t>r.idle_s * 1000 * MS:
        _tell(path, s, BOUND_IDLE, r.idle_s)
    elif r.volume_up and r.rx_bytes >= r.volume_up:
        _tell(path, s, BOUND_UP, r.volume_up)
    elif r.volume_down and r.tx_bytes >= r.volume_down:
        _tell(path, s, BOUND_DOWN, r.volume_down)
    elif r.volume and r.rx_bytes + r.tx_bytes >= r.volume:
        _tell(path, s, BOUND_BOTH, r.volume)


cdef void _tell(data_path *path, session *s, uint64_t kind, uint64_t value) noexcept nogil:
    cdef uint64_t said[2]
    said[0] = kind
    said[1] = value
    tell(path, EV_BOUND, s, <uint8_t *>said, sizeof(said))
