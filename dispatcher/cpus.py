"""How many workers there are, and on which CPUs their data threads run."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from ops.settings import Workers

MAX_WORKERS: Final = 64  # buckets of call IDs, and worker pages of the session table
SHARE_FROM: Final = 4  # with fewer CPUs all of them carry data


@dataclass(frozen=True, slots=True)
class Plan:
    """`cpus[i]` is the CPU of worker i's data thread."""

    cpus: tuple[int, ...]
    missing: tuple[int, ...]  # configured, but not ours to use

    @property
    def workers(self) -> int:
        """How many."""
        return len(self.cpus)

    def alone(self, worker: int) -> bool:
        """Whether a worker has its CPU for itself. Several data threads of real time on one CPU
        each leave some of it, and together nothing for those who log subscribers in.
        """
        return self.cpus.count(self.cpus[worker]) == 1


def available() -> list[int]:
    """The CPUs this process may use."""
    return sorted(os.sched_getaffinity(0))


def plan(wanted: Workers, usable: Sequence[int]) -> Plan:
    """From 4 CPUs up one in eight, rounded up, is left to the control threads.

    The first CPUs are the ones left free: interrupts and system services gather there.
    """
    missing = tuple(cpu for cpu in wanted.cpus if cpu not in usable)
    cpus = [cpu for cpu in wanted.cpus if cpu in usable]
    if not cpus:
        left = -(-len(usable) // 8) if len(usable) >= SHARE_FROM else 0
        cpus = list(usable[left:])
    count = min(wanted.count or len(cpus), MAX_WORKERS)
    return Plan(tuple(cpus[i % len(cpus)] for i in range(count)), missing)
