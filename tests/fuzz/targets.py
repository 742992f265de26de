"""What is fuzzed: each target takes any octets and raises only if something is wrong.

A target's name is its folder in corpus/ and its word for `python -m tests.fuzz`. Nothing
here knows of a fuzzer: the unit stage replays the corpora through the same functions.
Modules are imported when a target is first wanted, so that a fuzzer can watch the import.
"""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Callable
from typing import Final

Target = Callable[[bytes], None]

# name: (module, packages whose code is watched)
TARGETS: Final[dict[str, tuple[str, tuple[str, ...]]]] = {
    "control": ("tests.fuzz.control", ("dispatcher",)),
    "link": ("tests.fuzz.link", ("workers",)),
    "packets": ("tests.fuzz.packets", ("workers",)),
    "gre": ("tests.fuzz.gre", ()),
    "tun": ("tests.fuzz.tun", ()),
    "limits": ("tests.fuzz.limits", ()),
    "engine": ("tests.fuzz.engine", ()),
    "bus": ("tests.fuzz.bus", ("ops.messages", "workers.session", "dispatcher.routes")),
    "config": ("tests.fuzz.config", ("ops.config", "ops.ranges")),
    "rules": ("tests.fuzz.rules", ("dispatcher.ruleset", "dispatcher.firewall")),
    "radius": ("tests.fuzz.radius", ("workers.radius",)),
    "ipv6": ("tests.fuzz.ipv6", ("workers.ipv6",)),
    "secrets": ("tests.fuzz.secrets", ("workers.secrets_file",)),
}
NEEDS_ROOT: Final = frozenset({"engine"})  # raw sockets


def load(name: str) -> Target:
    """The function of a target."""
    target: Target = importlib.import_module(TARGETS[name][0]).one
    return target


class Reader:
    """Takes a fuzzer's octets apart; at their end everything is zero and empty."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def __bool__(self) -> bool:
        return self._at < len(self._data)

    def octets(self, size: int) -> bytes:
        taken = self._data[self._at : self._at + size]
        self._at += size
        return taken

    def number(self, size: int = 1) -> int:
        return int.from_bytes(self.octets(size), "big")

    def block(self) -> bytes:
        """Octets with their length before them: one octet, two if it is 255."""
        size = self.number()
        return self.octets(self.number(2) if size == 255 else size)

    def rest(self) -> bytes:
        return self.octets(len(self._data))


allowed = contextlib.suppress
