/* Acquire, release and the full fence: what Cython has no words for. */
#ifndef PPTPCON_ATOMICS_H
#define PPTPCON_ATOMICS_H
#include <stdint.h>

static inline uint64_t load_acquire(const uint64_t *p) { return __atomic_load_n(p, __ATOMIC_ACQUIRE); }
static inline void store_release(uint64_t *p, uint64_t v) { __atomic_store_n(p, v, __ATOMIC_RELEASE); }
static inline uint32_t load_acquire_32(const uint32_t *p) { return __atomic_load_n(p, __ATOMIC_ACQUIRE); }
static inline void store_release_32(uint32_t *p, uint32_t v) { __atomic_store_n(p, v, __ATOMIC_RELEASE); }
static inline uint64_t swap_all(uint64_t *p, uint64_t v) { return __atomic_exchange_n(p, v, __ATOMIC_SEQ_CST); }
static inline void fence_all(void) { __atomic_thread_fence(__ATOMIC_SEQ_CST); }
static inline void fence_release(void) { __atomic_thread_fence(__ATOMIC_RELEASE); }

#endif
