# cython: language_level=3
"""What the control thread asks of the data thread, by a ring."""

from fastpath.path cimport data_path

cdef enum:
    OP_INSTALL = 1
    OP_SEND = 2
    OP_MPPE = 3
    OP_UP = 4
    OP_DOWN = 5
    OP_REMOVE = 6
    OP_UP6 = 7
    OP_DOWN6 = 8
    OP_HOP = 9
    OP_RATES = 10
    OP_FILTERS = 11
    OP_NETS = 12
    OP_PACKET = 13
    OP_TRACE = 14
    OP_PEERS = 15

cdef void operations_take(data_path *path) noexcept nogil
cdef void operations_forget(data_path *path) noexcept nogil
