"""A worker's end of the way to the accounts process: logins, EAP, starts and stops.

The socket pair outlives either process. What is not answered is sent again when a
successor of the accounts process says that it is there.
"""

from __future__ import annotations

import asyncio
import os
from collections import deque
from dataclasses import astuple, dataclass
from typing import Any, Final

from workers.policy import NOTHING_SAID, Policy
from workers.ppp.actions import Authenticate, EapRelay, Verdict
from workers.radius import wire
from workers.radius.accounting import Counters, Facts

ANSWER_S: Final = 60.0  # the accounts process gives up long before
IDENTITY: Final = 1  # EAP type
Handle = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Answer:
    """To a login. `verdict` None: a challenge (EAP), or nobody answered (`reason`)."""

    verdict: Verdict | None = None
    policy: Policy = NOTHING_SAID
    eap: bytes = b""
    reason: str = ""


class Client:
    """One worker's."""

    def __init__(self, fd: int, loop: asyncio.AbstractEventLoop) -> None:
        self._fd = fd
        self._loop = loop
        os.set_blocking(fd, False)
        # A predecessor's numbers are not ours: answers to it must find nobody.
        self._next = int.from_bytes(os.urandom(6), "big") + 1
        self._open: dict[int, bytes] = {}
        self._futures: dict[int, asyncio.Future[tuple[Any, ...]]] = {}
        self._unsent: deque[int] = deque()
        self._tokens: dict[Handle, bytes] = {}  # of EAP conversations
        self._writing = False
        loop.add_reader(fd, self._readable)

    def close(self) -> None:
        """The descriptor stays open: it is a successor's, too."""
        self._loop.remove_reader(self._fd)
        if self._writing:
            self._loop.remove_writer(self._fd)

    async def login(self, handle: Handle, request: Authenticate) -> Answer:
        """Check credentials."""
        return self._answer(
            await self._ask(
                wire.LOGIN,
                *handle,
                request.method,
                request.name,
                request.identifier,
                request.challenge,
                request.response,
                request.state,
            )
        )

    async def eap(self, handle: Handle, request: EapRelay) -> Answer:
        """Hand an EAP packet on; the conversation stays with the server that began it."""
        first = request.packet[4:5] == bytes((IDENTITY,))
        token = b"" if first else self._tokens.get(handle, b"")
        said = await self._ask(wire.EAP, *handle, request.identity, request.packet, token)
        self._tokens.pop(handle, None)
        if said and said[0] == wire.CHALLENGE:
            self._tokens[handle] = said[2]
            return Answer(eap=said[1])
        return self._answer(said)

    def forget(self, handle: Handle) -> None:
        """The session is over."""
        self._tokens.pop(handle, None)

    def start(self, facts: Facts) -> None:
        """A session is up."""
        self._post(wire.START, facts.pack())

    def stop(self, sid: str, counters: Counters, cause: str, unix: float) -> None:
        """It is over."""
        self._post(wire.STOP, sid, astuple(counters), cause, unix)

    @property
    def unanswered(self) -> int:
        """Messages that the accounts process has not got, as far as we know."""
        return len(self._open)

    # -- inside

    @staticmethod
    def _answer(said: tuple[Any, ...]) -> Answer:
        match said:
            case (wire.ACCEPT, verdict, policy, eap):
                return Answer(wire.unpack_verdict(verdict), wire.unpack_policy(policy), eap)
            case (wire.REJECT, verdict, eap):
                return Answer(wire.unpack_verdict(verdict), eap=eap)
            case (wire.NONE, reason):
                return Answer(reason=reason)
        return Answer(reason="the accounts process does not answer")

    def _post(self, kind: int, *values: Any) -> int:
        seq = self._next
        self._next += 1
        self._open[seq] = wire.pack([seq, kind, *values])
        self._unsent.append(seq)
        self._send()
        return seq

    async def _ask(self, kind: int, *values: Any) -> tuple[Any, ...]:
        seq = self._post(kind, *values)
        future: asyncio.Future[tuple[Any, ...]] = self._loop.create_future()
        self._futures[seq] = future
        try:
            async with asyncio.timeout(ANSWER_S):
                return await future
        except TimeoutError:
            return ()
        finally:
            self._open.pop(seq, None)
            self._futures.pop(seq, None)

    def _send(self) -> None:
        while self._unsent:
            data = self._open.get(self._unsent[0])
            if data is not None:
                try:
                    os.write(self._fd, data)
                except BlockingIOError:
                    if not self._writing:
                        self._writing = True
                        self._loop.add_writer(self._fd, self._writable)
                    return
                except OSError:
                    return  # the keeper holds the other end: only at the very end
            self._unsent.popleft()

    def _writable(self) -> None:
        self._loop.remove_writer(self._fd)
        self._writing = False
        self._send()

    def _readable(self) -> None:
        while True:
            try:
                data = os.read(self._fd, wire.DATAGRAM)
            except (BlockingIOError, InterruptedError):
                return
            except OSError:
                data = b""
            if not data:
                self._loop.remove_reader(self._fd)
                return
            try:
                seq, *said = wire.unpack(data)
            except ValueError:
                continue
            if said[0] == wire.HELLO:
                self._unsent = deque(self._open)
                self._send()
                continue
            self._open.pop(seq, None)
            future = self._futures.get(seq)
            if future is not None and not future.done():
                future.set_result(tuple(said))
