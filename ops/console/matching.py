"""Regular expressions of others, where one that backtracks for ever costs nobody anything.

A child of ours does the matching and has a second of CPU for it. It does nothing else:
it must not touch what the parent's other threads may have held when it was made.
"""

from __future__ import annotations

import asyncio
import concurrent.futures.thread  # loaded here: later we may not be able to read it
import os
import re
import resource
import signal
from collections.abc import Sequence
from typing import Final, NoReturn

CPU_S: Final = 1
PATTERN_MAX: Final = 256
_POOL: Final = concurrent.futures.thread.ThreadPoolExecutor(4, "matching")


class MatchError(ValueError):
    """What is wrong with the expression."""


def compiled(pattern: str) -> re.Pattern[str]:
    """The expression; MatchError."""
    if len(pattern) > PATTERN_MAX:
        raise MatchError(f"longer than {PATTERN_MAX} characters")
    try:
        return re.compile(pattern)
    except (re.error, RecursionError, OverflowError) as e:
        raise MatchError(str(e)) from None


async def matching(pattern: str, texts: Sequence[str]) -> list[bool]:
    """Which of `texts` the expression is found in; MatchError."""
    expression = compiled(pattern)
    reader, writer = os.pipe()
    pid = os.fork()
    if not pid:
        _child(expression, texts, writer)
    os.close(writer)
    # Goes on when we are cancelled, and ends with the child.
    collected = asyncio.get_running_loop().run_in_executor(_POOL, _collect, reader, pid)
    answer = await asyncio.shield(collected)
    if len(answer) != len(texts):
        raise MatchError(f"takes longer than {CPU_S} s")
    return [octet == 1 for octet in answer]


def _child(expression: re.Pattern[str], texts: Sequence[str], writer: int) -> NoReturn:
    code = 1
    try:
        signal.signal(signal.SIGXCPU, signal.SIG_DFL)
        # A fork begins at 0 s of CPU.
        resource.setrlimit(resource.RLIMIT_CPU, (CPU_S, CPU_S + 1))
        answer = bytes(expression.search(text) is not None for text in texts)
        at = 0
        while at < len(answer):
            at += os.write(writer, answer[at:])
        code = 0
    finally:
        os._exit(code)


def _collect(reader: int, pid: int) -> bytes:
    with open(reader, "rb") as file:
        answer = file.read()
    os.waitpid(pid, 0)
    return answer
