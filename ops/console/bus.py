"""The console's one request to the dispatcher: Terminate, answered by Terminated."""

from __future__ import annotations

import asyncio
import itertools
import os
from typing import Final

import zmq
import zmq.asyncio

from ops import messages
from ops.messages import MessageError, Refused, Terminate, Terminated

TIMEOUT_S: Final = 5.0


class BusError(Exception):
    """The dispatcher said no, or nothing that we understand."""


class BusTimeoutError(BusError):
    """It said nothing."""


class Bus:
    """A DEALER for each request: an answer that comes too late finds nobody to confuse."""

    def __init__(self, address: str, timeout_s: float = TIMEOUT_S) -> None:
        self._address = address
        self._timeout_s = timeout_s
        self._numbers = itertools.count(1)
        self._context: zmq.asyncio.Context | None = None

    async def terminate(self, by: str, value: str, soft: bool) -> int:
        """End the sessions that match; how many the dispatcher found."""
        number = next(self._numbers)
        if self._context is None:
            self._context = zmq.asyncio.Context(1)
        socket = self._context.socket(zmq.DEALER)
        try:
            socket.setsockopt(zmq.IDENTITY, f"console-{os.getpid()}-{number}".encode())
            # A request the dispatcher did not get in time must not reach it later.
            socket.setsockopt(zmq.LINGER, 0)
            socket.setsockopt(zmq.IMMEDIATE, 1)
            socket.connect(self._address)
            async with asyncio.timeout(self._timeout_s):
                await socket.send(messages.encode(Terminate(number, by, value, soft)))
                return await self._answer(socket, number)
        except TimeoutError:
            raise BusTimeoutError(
                f"the dispatcher did not answer within {self._timeout_s:g} s; "
                "see `pptpcon show stat` whether it runs"
            ) from None
        except zmq.ZMQError as e:
            raise BusError(f"{self._address}: {e}") from None
        finally:
            socket.close()

    async def _answer(self, socket: zmq.asyncio.Socket, number: int) -> int:
        while True:
            frames = await socket.recv_multipart()
            try:
                message = messages.decode(frames[-1])
            except MessageError as e:
                raise BusError(str(e)) from None
            if isinstance(message, Refused):
                raise BusError(f"refused by the dispatcher: {message.reason}")
            if isinstance(message, Terminated) and message.request == number:
                return message.count

    def close(self) -> None:
        """Nothing is sent after this."""
        if self._context is not None:
            self._context.destroy(linger=0)
            self._context = None
