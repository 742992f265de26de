"""SIGINT and SIGTERM of a command that has things to clean up."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn


class Stopped(BaseException):
    """SIGINT or SIGTERM: clean up and go."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def _interrupted(number: int, _frame: FrameType | None) -> NoReturn:
    # The next one must not break into the cleaning up.
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, signal.SIG_IGN)
    raise Stopped(number)


@contextmanager
def signals() -> Iterator[None]:
    """The first of them raises Stopped, wherever the program is."""
    before = {n: signal.signal(n, _interrupted) for n in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
