"""Watching the secrets file, which only root reads: `workers.secrets_load` does the reading."""

from __future__ import annotations

import os
from typing import Final

from dispatcher import descriptors
from dispatcher.children import Helper
from ops.log import Log

MODULE: Final = "workers.secrets_load"
LOAD_S: Final = 30.0
MAX_WATCHED: Final = 1000

Stamp = tuple[int, int, int, int] | None


def _stamp(path: str) -> Stamp:
    """What changes when a file is edited or replaced; None if there is none."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


class Secrets:
    """The newest readable content of one secrets file, sealed in a memfd."""

    def __init__(self, path: str, log: Log) -> None:
        self.path = path
        self.fd = -1  # -1: never read yet
        self.helper: Helper | None = None
        self._log = log
        self._stamps: dict[str, Stamp] = {}

    @property
    def changed(self) -> bool:
        """Has the file, or one it names, changed since the last reading began?"""
        return any(_stamp(path) != stamp for path, stamp in self._stamps.items())

    def begin(self) -> Helper | None:
        """Start a reading; None if there is no file configured or one is under way."""
        if not self.path or self.helper is not None:
            return None
        # Stamped before it is read: an edit meanwhile is seen as a change afterwards.
        self._stamps[self.path] = _stamp(self.path)
        for path in self._stamps:
            self._stamps[path] = _stamp(path)
        self.helper = Helper("secrets", MODULE, self.path, descriptors.memfd("secrets"))
        return self.helper

    def finish(self) -> bool:
        """Take the ended helper's result; True if there is new content in `fd`."""
        helper = self.helper
        if helper is None:
            return False
        result = helper.result()
        if result is None:
            return False
        self.helper = None
        code, printed = result
        if code != 0:
            os.close(helper.memfd)
            kept = "the accounts read before" if self.fd >= 0 else "no account of this file"
            self._log.error("secrets not read", file=self.path, kept=kept)
            return False
        named = printed.decode("utf-8", "surrogateescape").splitlines()[:MAX_WATCHED]
        fresh = {path: self._stamps.get(path, _stamp(path)) for path in (self.path, *named)}
        self._stamps = fresh
        descriptors.seal(helper.memfd)
        if self.fd >= 0:
            os.close(self.fd)
        self.fd = helper.memfd
        self._log.info("secrets read", file=self.path, octets=os.fstat(self.fd).st_size)
        return True

    def read_now(self) -> None:
        """The first reading, before there is anybody to serve."""
        helper = self.begin()
        if helper is not None:
            helper.wait(LOAD_S)
            self.finish()
