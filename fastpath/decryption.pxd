# cython: language_level=3
"""MPPE from subscribers: coherency counts, key changes, resets (RFC 3078, RFC 1962)."""

from libc.stdint cimport uint8_t, uint32_t

from fastpath.mppe cimport crypt_job
from fastpath.path cimport data_path, in_item
from fastpath.tables cimport session

cdef void decryption_prepare(data_path *path, in_item *item, crypt_job *job, uint8_t *p,
                             uint32_t n) noexcept nogil
cdef void decryption_reset(data_path *path, session *s, uint8_t code,
                           uint8_t number) noexcept nogil
