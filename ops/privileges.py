"""Giving root away, and dying with the process that started us. Leaf module: stdlib only.

A child calls `die_with_parent` first and `drop` after its imports, before it reads
anything a stranger wrote. The kernel forgets PR_SET_PDEATHSIG when a process changes
its user, so `drop` sets it again.
"""

from __future__ import annotations

import codecs
import ctypes
import grp
import os
import pwd
import signal
import sys
from typing import Final

PR_SET_PDEATHSIG: Final = 1
PR_SET_NO_NEW_PRIVS: Final = 38
CAPABILITIES: Final = {"CAP_NET_ADMIN": 12, "CAP_NET_RAW": 13}
FALLBACK_USER: Final = "nobody"
FALLBACK_ID: Final = 65534  # the kernel's overflow user: owns nothing by convention
# Python imports a codec when it is first used. After the drop that fails if the interpreter
# lies where the new user may not look, such as under /root.
CODECS: Final = ("ascii", "utf-16-le", "idna", "unicode_escape", "raw_unicode_escape")

_parent: int | None = None


def _prctl(option: int, value: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, ctypes.c_ulong(value), *(ctypes.c_ulong(0),) * 3) != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"prctl({option}): {os.strerror(code)}")


def die_with_parent() -> None:
    """Have the kernel kill this process when its parent dies; exit if it already has.

    The first call notes who the parent is. A signal asked for after the parent's death
    never comes, so the parent is looked at again once the signal is armed.
    """
    parent = _note_parent()
    _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        raise SystemExit(0)


def _note_parent() -> int:
    global _parent  # noqa: PLW0603 - one process has one parent
    if _parent is None:
        _parent = os.getppid()
    return _parent


def _account(user: str, key: str) -> tuple[int, int]:
    for name in (user, FALLBACK_USER):
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        if name != user:
            _warn(key, user, f"{name} (uid {entry.pw_uid})")
        return entry.pw_uid, entry.pw_gid
    _warn(key, user, f"uid {FALLBACK_ID}")
    return FALLBACK_ID, FALLBACK_ID


def _warn(key: str, user: str, instead: str) -> None:
    print(
        f"pptpcon: {key}: no user {user!r} on this host; running as {instead} instead",
        file=sys.stderr,
    )


def missing_capabilities() -> list[str]:
    """Those of CAPABILITIES that this process lacks to open TUNs and GRE sockets."""
    held = 0
    with open("/proc/self/status") as status:
        for line in status:
            if line.startswith("CapEff:"):
                held = int(line.split()[1], 16)
    return [name for name, bit in CAPABILITIES.items() if not held >> bit & 1]


def drop(
    user: str, *, groups: bool = False, more: tuple[str, ...] = (), key: str = "server.user"
) -> None:
    """Become `user` for good; for "", or when we are not root, keep the user we are.

    With `groups` of all its groups, and of those in `more` that exist. Either way no
    privilege can be gained any more, and the parent's death is ours.
    """
    _note_parent()
    for name in CODECS:
        codecs.lookup(name)
    if user and os.geteuid() == 0:
        uid, gid = _account(user, key)
        ours = os.getgrouplist(user, gid) if groups else []
        for name in more:
            try:
                ours.append(grp.getgrnam(name).gr_gid)
            except KeyError:
                continue
        os.setgroups(ours)
        os.setresgid(gid, gid, gid)
        os.setresuid(uid, uid, uid)
    _prctl(PR_SET_NO_NEW_PRIVS, 1)
    die_with_parent()
