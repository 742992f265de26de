"""What the console asks the keeper for: a reload, a shutdown, other log levels."""

from __future__ import annotations

import asyncio
import itertools
import json
import socket
from typing import Any, Final

TIMEOUT_S: Final = 40.0  # reading a configuration may take the keeper 30


class OrderError(Exception):
    """The keeper did not hear, or did not answer."""


class Orders:
    """Orders on the way, by their number."""

    def __init__(self, keeper: socket.socket) -> None:
        self._keeper = keeper
        self._numbers = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[dict[str, Any]]] = {}

    async def ask(self, order: str, **words: Any) -> dict[str, Any]:
        """The keeper's answer; "ok" says whether it did."""
        number = next(self._numbers)
        future = asyncio.get_running_loop().create_future()
        self._waiting[number] = future
        message = {"type": "order", "request": number, "order": order, **words}
        try:
            self._keeper.send(json.dumps(message).encode())
            return await asyncio.wait_for(future, TIMEOUT_S)
        except TimeoutError:
            raise OrderError(f"the keeper did not answer within {TIMEOUT_S:g} s") from None
        except OSError as e:
            raise OrderError(f"the keeper does not hear: {e.strerror}") from None
        finally:
            del self._waiting[number]

    def answered(self, message: dict[str, Any]) -> None:
        """A message of type "answer"."""
        future = self._waiting.get(message.pop("request", 0))
        message.pop("type", None)
        if future is not None and not future.done():
            future.set_result(message)
