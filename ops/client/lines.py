"""JSON lines from children's pipes, read without waiting for any one of them."""

from __future__ import annotations

import json
import os
import selectors
from collections.abc import Iterator
from typing import IO, Any

Line = dict[str, Any]


class Lines:
    """The pipes, by label."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._rest: dict[str, bytes] = {}

    def add(self, label: str, pipe: IO[bytes] | None) -> None:
        """Read this pipe from now on; its lines come with `label`."""
        if pipe is None:
            raise ValueError(f"{label}: no pipe")
        os.set_blocking(pipe.fileno(), False)
        self._rest[label] = b""
        self._selector.register(pipe, selectors.EVENT_READ, label)

    def open(self, label: str) -> bool:
        """Has the pipe not ended yet?"""
        return label in self._rest

    def read(self, timeout: float) -> Iterator[tuple[str, Line]]:
        """Lines that are there, or come within `timeout`; what is no JSON object is left out."""
        for key, _ in self._selector.select(max(timeout, 0.0)):
            label: str = key.data
            data = os.read(key.fd, 1 << 20)
            if not data:
                self._selector.unregister(key.fileobj)
                del self._rest[label]
                continue
            *whole, self._rest[label] = (self._rest[label] + data).split(b"\n")
            for text in whole:
                try:
                    line = json.loads(text)
                except ValueError:
                    continue
                if isinstance(line, dict):
                    yield label, line

    def close(self) -> None:
        """Stop watching; the pipes are their owners' to close."""
        self._selector.close()
