# cython: language_level=3
"""A data thread with real-time priority leaves time to others.

Why it has one (workers/process.py): on a CPU that others use too, a packet waits for the
scheduler most of all. A fair one lets whoever runs use up his turn, up to a tick (4 ms),
whatever the nice values say. But who never sleeps would starve all others, and be cut off by
the kernel's own bound (sched_rt_runtime_us: 50 ms of each second in one piece). So a thread
that sleeps too little is one among others for a while (SCHED_OTHER), if it may become what it
was again (RLIMIT_RTPRIO); else it sleeps a fifth of a millisecond in four.
"""

from libc.stdint cimport uint64_t

from fastpath.system cimport nap

cdef extern from *:
    """
    #ifndef _GNU_SOURCE
    #define _GNU_SOURCE
    #endif
    #include <sched.h>
    #include <sys/resource.h>

    static inline int has_priority(void)
    {
        return (sched_getscheduler(0) & ~SCHED_RESET_ON_FORK) == SCHED_FIFO;
    }
    static inline int may_have_priority(void)
    {
        struct rlimit limit;
        return getrlimit(RLIMIT_RTPRIO, &limit) == 0 && limit.rlim_cur >= 1;
    }
    static inline int set_priority(int on)
    {
        struct sched_param p = {.sched_priority = on ? 1 : 0};
        return sched_setscheduler(0, on ? SCHED_FIFO : SCHED_OTHER, &p) == 0;
    }
    """
    bint has_priority() nogil
    bint may_have_priority() nogil
    bint set_priority(bint on) nogil

cdef enum:
    WINDOW = 20000000          # ns
    PIECE = 4000000            # of one whose priority can't be given up: rests are short
    REST = 5                   # percent of a window that others get at least
    FREE = 20                  # sleeping less, a thread is one among others
    PRIORITY_KEEP = 0
    PRIORITY_GIVE_UP = 1
    PRIORITY_TAKE = 2
    PRIORITY_NAP = 3

cdef struct priority:
    bint used
    bint now                   # not given up for a while
    bint returns               # can be given up and taken again
    uint64_t since             # the window's begin
    uint64_t slept             # in it


cdef inline void priority_begin(priority *p, uint64_t now) noexcept nogil:
    p.since = now
    p.slept = 0
    p.used = p.now = has_priority()
    p.returns = may_have_priority()


cdef inline int priority_judge(priority *p, uint64_t now) noexcept nogil:
    """What is due; another window begins if one is over. No clock and no system call here."""
    cdef uint64_t share
    cdef bint wanted
    if not p.used or now - p.since < (WINDOW if p.returns else PIECE):
        return PRIORITY_KEEP
    share = 100 * p.slept // (now - p.since)
    p.since = now
    p.slept = 0
    if not p.returns:
        return PRIORITY_NAP if share < REST else PRIORITY_KEEP
    wanted = share >= FREE
    if wanted == p.now:
        return PRIORITY_KEEP
    return PRIORITY_TAKE if wanted else PRIORITY_GIVE_UP


cdef inline void priority_turn(priority *p, uint64_t now) noexcept nogil:
    """At the begin of a round."""
    cdef int due = priority_judge(p, now)
    if due == PRIORITY_NAP:
        nap(PIECE * REST // 100)
    elif due != PRIORITY_KEEP and set_priority(due == PRIORITY_TAKE):
        p.now = due == PRIORITY_TAKE
