"""What only this host can tell of a configuration: has it the user, the CPUs, the files?"""

from __future__ import annotations

import os
import pwd
import socket
import stat
from collections.abc import Iterable
from typing import Final

from fastpath import mppe
from ops.config.checks import Path, Remark
from ops.config.problems import printable, quoted, reason
from ops.settings import Settings
from workers import secrets_file

MAX_SECRETS_BYTES: Final = 256 << 20
MAX_SECRET_REMARKS: Final = 10


def host_remarks(settings: Settings, name: str) -> Iterable[Remark]:
    """What only this host can tell: does it have the user, the file, the CPUs?"""
    user = settings.server.user
    try:
        entry = pwd.getpwnam(user)
    except KeyError:
        yield Remark(("server", "user"), f'this host has no user "{user}"; useradd -r {user}')
    else:
        if entry.pw_uid == 0:
            text = f'"{user}" is root: packets of strangers would be read with all privileges'
            yield Remark(("server", "user"), text, fatal=False)
    missing = sorted(set(settings.workers.cpus) - os.sched_getaffinity(0))
    if missing:
        have = ", ".join(str(cpu) for cpu in sorted(os.sched_getaffinity(0)))
        names = ", ".join(str(cpu) for cpu in missing)
        yield Remark(("workers", "cpus"), f"CPU {names} can't be used here; there is {have}")
    interface = settings.gre.interface
    if interface and interface not in {name for _, name in socket.if_nameindex()}:
        text = f"this host has no interface {quoted(interface)}; `ip link` lists them"
        yield Remark(("gre", "interface"), text)
    if settings.mppe.kernel not in ("auto", *mppe.usable()):
        names = ", ".join(f'"{kernel}"' for kernel in mppe.usable())
        text = f'this CPU can\'t run "{settings.mppe.kernel}"; "auto", or one of {names}'
        yield Remark(("mppe", "kernel"), text)
    if settings.accounts.chap_secrets:
        yield from _secrets_remarks(
            settings.accounts.chap_secrets,
            settings.server.name,
            [pool.name for pool in settings.pools],
        )
    radius = settings.radius
    secrets = [*settings.accounts.users, *radius.servers, *radius.clients]
    if secrets and name:
        try:
            mode = os.stat(name).st_mode
        except (OSError, ValueError):
            mode = 0
        if stat.S_ISREG(mode) and mode & 0o007:
            text = f"others can read these passwords; chmod o= {printable(name)}"
            users = settings.accounts.users
            key: Path = ("accounts", "users") if users else ("radius",)
            yield Remark(key, text, fatal=False)


def _secrets_remarks(path: str, server: str, pools: Iterable[str]) -> Iterable[Remark]:
    key: Path = ("accounts", "chap_secrets")
    shown = printable(path)
    try:
        mode = os.stat(path).st_mode
        if not stat.S_ISREG(mode):
            yield Remark(key, f"{shown} is not a regular file")
            return
        data = _octets(path)
    except PermissionError:
        yield Remark(key, f"{shown}: permission denied to this user; root may", fatal=False)
        return
    except (OSError, ValueError) as e:
        yield Remark(key, f"{shown}: {reason(e)}")
        return
    if mode & 0o007:
        yield Remark(key, f"others can read {shown}; chmod o= {shown}", fatal=False)
    data, problems = secrets_file.expand(data, _octets)
    index = secrets_file.parse(data, frozenset(pools))
    # One line for each of the first, so that a file in another format does not flood.
    problems = sorted([*problems, *index.problems], key=lambda p: p.line)
    for problem in problems[:MAX_SECRET_REMARKS]:
        yield Remark(key, f"{shown}:{problem.line}: {problem.text}", fatal=False)
    if len(problems) > MAX_SECRET_REMARKS:
        more = len(problems) - MAX_SECRET_REMARKS
        yield Remark(key, f"{shown}: and {more} more lines like these", fatal=False)
    servers = {line.server for line in index.lines.values()}
    if servers and not servers & {server, secrets_file.WILD}:
        names = ", ".join(_word(name) for name in sorted(servers)[:4])
        text = f'{shown}: every line is for another server ({names}); server.name is "{server}"'
        yield Remark(key, text, fatal=False)


def _word(name: str) -> str:
    """A word of a file that may be anything at all, for a terminal."""
    return name if name.isprintable() and len(name) <= 60 else quoted(name)


def _octets(path: str) -> bytes:
    """A regular file's content; a device or FIFO could go on for ever."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except ValueError as e:  # a NUL in the path
        raise OSError(str(e)) from None
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise OSError("not a regular file")
    with os.fdopen(fd, "rb") as file:
        return file.read(MAX_SECRETS_BYTES)
