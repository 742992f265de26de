# cython: language_level=3
"""What the data thread asks of the kernel beside its sockets: time, sleep, CPU."""

from libc.stdint cimport uint32_t, uint64_t

cdef extern from *:
    """
    #ifndef _GNU_SOURCE
    #define _GNU_SOURCE
    #endif
    #include <poll.h>
    #include <sched.h>
    #include <stdint.h>
    #include <sys/prctl.h>
    #include <sys/syscall.h>
    #include <time.h>
    #include <unistd.h>

    static inline uint64_t now_ns(void)
    {
        struct timespec t;
        clock_gettime(CLOCK_MONOTONIC, &t);
        return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
    }
    static inline int pin_to(int cpu)
    {
        cpu_set_t set;
        CPU_ZERO(&set);
        CPU_SET(cpu, &set);
        return sched_setaffinity(0, sizeof set, &set) == 0;
    }
    static inline void exact_timers(void) { prctl(PR_SET_TIMERSLACK, 1000UL, 0, 0, 0); }
    static inline void nap(uint64_t ns)
    {
        struct timespec t = {(time_t)(ns / 1000000000u), (long)(ns % 1000000000u)};
        clock_nanosleep(CLOCK_MONOTONIC, 0, &t, NULL);
    }
    static inline uint32_t thread_id(void) { return (uint32_t)syscall(SYS_gettid); }

    static inline int wait_for(int a, int b, int c, uint64_t ns, int *ready)
    {
        struct pollfd p[3] = {{a, POLLIN, 0}, {b, POLLIN, 0}, {c, POLLIN, 0}};
        struct timespec t = {(time_t)(ns / 1000000000u), (long)(ns % 1000000000u)};
        int n = ppoll(p, 3, &t, NULL);
        *ready = 0;
        for (int i = 0; n > 0 && i < 3; i++)
            if (p[i].revents)
                *ready |= 1 << i;
        return n;
    }
    static inline void wait_writable(int fd)
    {
        struct pollfd p = {fd, POLLOUT, 0};
        poll(&p, 1, 1);
    }
    static inline void raise_event(int fd)
    {
        uint64_t one = 1;
        if (write(fd, &one, 8) < 0) { /* it is raised already */ }
    }
    static inline void clear_event(int fd)
    {
        uint64_t n;
        if (read(fd, &n, 8) < 0) { /* it was not raised */ }
    }
    """
    uint64_t now_ns() nogil
    bint pin_to(int cpu) nogil
    void exact_timers() nogil
    void nap(uint64_t ns) nogil
    uint32_t thread_id() nogil
    int wait_for(int a, int b, int c, uint64_t ns, int *ready) nogil
    void wait_writable(int fd) nogil
    void raise_event(int fd) nogil
    void clear_event(int fd) nogil
    ssize_t read(int fd, void *data, size_t n) nogil
    ssize_t write(int fd, const void *data, size_t n) nogil
