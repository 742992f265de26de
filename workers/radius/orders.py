"""Changes and ends of sessions, asked of the dispatcher: what the command line may ask, too."""

from __future__ import annotations

import asyncio
import itertools
import os
from typing import Any, Final

import zmq
import zmq.asyncio

from ops import messages
from ops.messages import Change, Changed, Message, MessageError, Refused, Terminate, Terminated
from workers.policy import pack_changes

TIMEOUT_S: Final = 4.0  # the dispatcher gives a worker 3


class OrderError(Exception):
    """It was not carried out; the text says why."""


class Orders:
    """A DEALER for each order: a late answer finds nobody to confuse."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._numbers = itertools.count(1)
        self._context: zmq.asyncio.Context | None = None

    async def change(self, sid: str, changes: dict[str, Any]) -> None:
        """Set fields of a session's Policy."""
        number = next(self._numbers)
        asked = Change(number, "sid", sid, pack_changes(changes))
        answer = await self._ask(number, asked)
        if isinstance(answer, Changed) and not answer.count:
            raise OrderError("; ".join(answer.errors) or "no such session")

    async def end(self, sid: str) -> None:
        """End a session by LCP Terminate."""
        number = next(self._numbers)
        answer = await self._ask(number, Terminate(number, "sid", sid, True))
        if isinstance(answer, Terminated) and not answer.count:
            raise OrderError("no such session")

    def close(self) -> None:
        """Nothing is asked after this."""
        if self._context is not None:
            self._context.destroy(linger=0)
            self._context = None

    async def _ask(self, number: int, asked: Message) -> Message:
        if self._context is None:
            self._context = zmq.asyncio.Context(1)
        sock = self._context.socket(zmq.DEALER)
        try:
            sock.setsockopt(zmq.IDENTITY, f"console-{os.getpid()}-{number}".encode())
            sock.setsockopt(zmq.LINGER, 0)
            sock.setsockopt(zmq.IMMEDIATE, 1)
            sock.connect(self._address)
            async with asyncio.timeout(TIMEOUT_S):
                await sock.send(messages.encode(asked))
                while True:
                    frames = await sock.recv_multipart()
                    message = messages.decode(frames[-1])
                    if isinstance(message, Refused):
                        raise OrderError(f"refused by the dispatcher: {message.reason}")
                    if isinstance(message, Changed | Terminated) and message.request == number:
                        return message
        except TimeoutError:
            raise OrderError("the dispatcher does not answer") from None
        except (zmq.ZMQError, MessageError) as e:
            raise OrderError(f"bus: {e}") from None
        finally:
            sock.close()
