"""The network namespace of the subscribers' side, if it is another one than ours (lan.netns).

TUN devices, routes, proxy entries and the tables for isolation and address lists live there;
TCP, GRE and the nft table about GRE stay with us. setns(2) is a thread's own: who enters has
one thread for it.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from dispatcher.descriptors import UnavailableError

FOLDER: Final = "/run/netns"  # where ip-netns(8) keeps names
CLONE_NEWNET: Final = 0x40000000  # linux/sched.h
OURS: Final = "/proc/thread-self/ns/net"


def open_side(name: str) -> int:
    """A descriptor of lan.netns; -1 for our own. UnavailableError says how to have it."""
    if not name:
        return -1
    path = name if name.startswith("/") else f"{FOLDER}/{name}"
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as e:
        mend = f"run `ip netns add {name}`" if "/" not in name else "see ip-netns(8)"
        raise UnavailableError(
            f"lan.netns: {path} can't be opened ({os.strerror(e.errno or 0)}): {mend}"
        ) from None


def enter(fd: int) -> None:
    """This thread into the namespace; OSError if that is not permitted or it is no namespace."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(fd, CLONE_NEWNET) != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"setns: {os.strerror(code)}")


@contextmanager
def inside(fd: int) -> Iterator[None]:
    """What is opened meanwhile is the namespace's; -1: stay here."""
    if fd < 0:
        yield
        return
    before = os.open(OURS, os.O_RDONLY | os.O_CLOEXEC)
    try:
        enter(fd)
        try:
            yield
        finally:
            enter(before)
    finally:
        os.close(before)
