"""bpf(2), as much of it as an XDP program needs: maps, loading, a link. No library, no compiler.

Every function returns a descriptor that its caller owns, or raises OSError. A program stays
attached for as long as its link is open: it goes with the last process that has it.
"""

from __future__ import annotations

import ctypes
import os
import platform
import struct
from collections.abc import Sequence
from typing import Final, NamedTuple

# linux/bpf.h
BPF_MAP_CREATE: Final = 0
BPF_MAP_UPDATE_ELEM: Final = 2
BPF_PROG_LOAD: Final = 5
BPF_LINK_CREATE: Final = 28
MAP_ARRAY: Final = 2
MAP_XSK: Final = 17
PROG_XDP: Final = 6
ATTACH_XDP: Final = 37
F_MMAPABLE: Final = 1 << 10
XDP_FLAGS_SKB_MODE: Final = 1 << 1  # linux/if_link.h
XDP_FLAGS_DRV_MODE: Final = 1 << 2
SYSCALLS: Final = {"x86_64": 321, "aarch64": 280}
LICENSE: Final = b"GPL\0"  # of the program in the kernel; none of its helpers ask for it
LOG_SIZE: Final = 65536
INSTRUCTION: Final = struct.Struct("=BBhi")


class Instruction(NamedTuple):
    """One step of an eBPF program (linux/bpf.h, struct bpf_insn)."""

    code: int
    to: int
    source: int
    offset: int
    value: int


def pack(program: Sequence[Instruction]) -> bytes:
    """The program as the kernel takes it."""
    return b"".join(
        INSTRUCTION.pack(step.code, step.to | step.source << 4, step.offset, step.value)
        for step in program
    )


def _bpf(command: int, attributes: bytes) -> int:
    number = SYSCALLS.get(platform.machine())
    if number is None:
        raise OSError(38, f"bpf(2) on {platform.machine()}")
    libc = ctypes.CDLL(None, use_errno=True)
    room = ctypes.create_string_buffer(attributes, len(attributes))
    done: int = libc.syscall(number, command, room, len(attributes))
    if done < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return done


def _owned(fd: int) -> int:
    os.set_inheritable(fd, False)
    return fd


def create_map(kind: int, key: int, value: int, entries: int, flags: int = 0) -> int:
    """A map with keys and values of so many octets."""
    return _owned(_bpf(BPF_MAP_CREATE, struct.pack("=IIIII", kind, key, value, entries, flags)))


def update(map_fd: int, key: int, value: int) -> None:
    """Set a 32 bit value at a 32 bit key."""
    at_key = ctypes.c_uint32(key)
    at_value = ctypes.c_uint32(value)
    where = struct.pack("=IIQQQ", map_fd, 0, *map(ctypes.addressof, (at_key, at_value)), 0)
    _bpf(BPF_MAP_UPDATE_ELEM, where)


def load_xdp(program: Sequence[Instruction], name: str) -> int:
    """Load an XDP program; OSError has what the kernel's verifier said."""
    code = ctypes.create_string_buffer(pack(program))
    license_text = ctypes.create_string_buffer(LICENSE)
    log = ctypes.create_string_buffer(LOG_SIZE)

    def attributes(level: int) -> bytes:
        return struct.pack(
            "=IIQQIIQII16s",
            *(PROG_XDP, len(program), ctypes.addressof(code), ctypes.addressof(license_text)),
            *(level, LOG_SIZE if level else 0, ctypes.addressof(log) if level else 0, 0, 0),
            name.encode()[:15],
        )

    try:
        return _owned(_bpf(BPF_PROG_LOAD, attributes(0)))
    except OSError as e:
        try:
            return _owned(_bpf(BPF_PROG_LOAD, attributes(1)))
        except OSError:
            said = log.value.decode("ascii", "replace").strip().splitlines()
            raise OSError(e.errno, "; ".join(said[-3:]) or os.strerror(e.errno or 0)) from None


def attach_xdp(program: int, ifindex: int, flags: int) -> int:
    """Attach to a device by a link. EBUSY, EEXIST: another program is there."""
    return _owned(
        _bpf(BPF_LINK_CREATE, struct.pack("=IIIII", program, ifindex, ATTACH_XDP, flags, 0))
    )
