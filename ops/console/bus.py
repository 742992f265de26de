"""What the console asks the dispatcher: to end sessions, and which calls have ended."""

from __future__ import annotations

import asyncio
import itertools
import os
from typing import Final, TypeVar

import zmq
import zmq.asyncio

from ops import messages
from ops.messages import (
    BanList,
    Change,
    Changed,
    Drain,
    Drained,
    Ends,
    HeldBan,
    ListBans,
    Message,
    MessageError,
    PastCall,
    PastCalls,
    Refused,
    Terminate,
    Terminated,
    Unban,
    Unbanned,
    Unwatch,
    Watch,
    Watched,
)

TIMEOUT_S: Final = 5.0

A = TypeVar("A", Terminated, PastCalls, Changed, BanList, Unbanned, Drained, Watched)


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
        answer = await self._request(number, Terminate(number, by, value, soft), Terminated)
        return answer.count

    async def change(self, by: str, value: str, changes: bytes) -> tuple[int, tuple[str, ...]]:
        """Change the sessions that match; how many did, and what was said about others."""
        number = next(self._numbers)
        answer = await self._request(number, Change(number, by, value, changes), Changed)
        return answer.count, answer.errors

    async def bans(self) -> tuple[HeldBan, ...]:
        """Those that hold."""
        number = next(self._numbers)
        return (await self._request(number, ListBans(number), BanList)).bans

    async def unban(self, kind: str, name: str) -> int:
        """Lift bans and forget failures; how many had any."""
        number = next(self._numbers)
        return (await self._request(number, Unban(number, kind, name), Unbanned)).count

    async def drain(self, workers: tuple[int, ...], on: bool) -> Drained:
        """Give workers no new calls, or give them again; none are all."""
        number = next(self._numbers)
        return await self._request(number, Drain(number, workers, on), Drained)

    async def watch(self, trace: int, by: str, value: str, packets: bool) -> int:
        """Open a trace; how many sessions it has now. BusError says why there is none."""
        number = next(self._numbers)
        answer = await self._request(number, Watch(number, trace, by, value, packets), Watched)
        if answer.reason:
            raise BusError(answer.reason)
        return answer.count

    async def unwatch(self, trace: int) -> None:
        """Close a trace."""
        number = next(self._numbers)
        await self._request(number, Unwatch(number, trace), Watched)

    async def ends(self, value: str, limit: int) -> tuple[PastCall, ...]:
        """The newest calls that ended, of those that `value` names; "" and 0: all."""
        if not self._there():  # asked beside what the table tells: no time is lost on it
            raise BusError("the dispatcher is not there; see `pptpcon show stat`")
        number = next(self._numbers)
        return (await self._request(number, Ends(number, value, limit), PastCalls)).calls

    def _there(self) -> bool:
        return os.path.exists(self._address.removeprefix("ipc://"))

    async def _request(self, number: int, request: Message, kind: type[A]) -> A:
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
                await socket.send(messages.encode(request))
                return await self._answer(socket, number, kind)
        except TimeoutError:
            raise BusTimeoutError(
                f"the dispatcher did not answer within {self._timeout_s:g} s; "
                "see `pptpcon show stat` whether it runs"
            ) from None
        except zmq.ZMQError as e:
            raise BusError(f"{self._address}: {e}") from None
        finally:
            socket.close()

    @staticmethod
    async def _answer(socket: zmq.asyncio.Socket, number: int, kind: type[A]) -> A:
        while True:
            frames = await socket.recv_multipart()
            try:
                message = messages.decode(frames[-1])
            except MessageError as e:
                raise BusError(str(e)) from None
            if isinstance(message, Refused):
                raise BusError(f"refused by the dispatcher: {message.reason}")
            if isinstance(message, kind) and message.request == number:
                return message

    def close(self) -> None:
        """Nothing is sent after this."""
        if self._context is not None:
            self._context.destroy(linger=0)
            self._context = None
