"""Network namespaces: make, remove, and do things inside without leaving the caller's own.

A namespace belongs to a thread, so work inside one is done by a thread that is born for
it and dies after it; a socket made there stays there, whoever uses it later.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeVar

T = TypeVar("T")

CLONE_NEWNET: Final = 0x40000000
FOLDER: Final = "/run/netns"  # where ip-netns(8) keeps names


class NetnsError(Exception):
    """A namespace or an interface could not be made; the text says which and why."""


def ip(*words: str) -> str:
    """Run ip(8); its complaint becomes a NetnsError."""
    try:
        done = subprocess.run(["ip", *words], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise NetnsError("the program `ip` is missing: apt-get install iproute2") from None
    if done.returncode != 0:
        reason = done.stderr.strip() or f"exit status {done.returncode}"
        raise NetnsError(f"ip {' '.join(words)}: {reason}")
    return done.stdout


def ip_batch(name: str, commands: str) -> None:
    """Many commands of ip(8) at once, in namespace `name`, a line each."""
    done = subprocess.run(
        ["ip", "-n", name, "-batch", "-"],
        input=commands,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise NetnsError(f"ip -n {name} -batch: {done.stderr.strip()}")


def exists(name: str) -> bool:
    """Is there a namespace of this name?"""
    return os.path.exists(f"{FOLDER}/{name}")


def inside(name: str, work: Callable[[], T]) -> T:
    """Call `work` in namespace `name`, in a thread of its own, and return what it returns."""
    result: list[T] = []
    failure: list[BaseException] = []

    def body() -> None:
        try:
            fd = os.open(f"{FOLDER}/{name}", os.O_RDONLY | os.O_CLOEXEC)
            try:
                libc = ctypes.CDLL(None, use_errno=True)
                if libc.setns(fd, CLONE_NEWNET) != 0:
                    code = ctypes.get_errno()
                    raise OSError(code, f"setns {name}: {os.strerror(code)}")
            finally:
                os.close(fd)
            result.append(work())
        except BaseException as e:  # handed to the caller's thread below
            failure.append(e)

    thread = threading.Thread(target=body, name=f"in-{name}", daemon=True)
    thread.start()
    thread.join()
    if failure:
        raise failure[0]
    return result[0]


def processes(name: str) -> list[int]:
    """Process ids of all that live in the namespace."""
    try:
        wanted = os.stat(f"{FOLDER}/{name}").st_ino
    except OSError:
        return []
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                if os.stat(f"/proc/{entry}/ns/net").st_ino == wanted:
                    found.append(int(entry))
            except OSError:
                continue
    return sorted(found)


def set_sysctl(name: str, key: str, value: str) -> None:
    """Set a sysctl of the namespace; `key` with slashes, under net."""
    inside(name, lambda: Path(f"/proc/sys/net/{key}").write_text(value, encoding="ascii"))
