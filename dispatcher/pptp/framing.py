"""TCP's stream of octets into control messages, RFC 2637 section 1.4 (header)."""

from __future__ import annotations

from dataclasses import dataclass, field

from dispatcher.pptp.messages import HEADER, Message, RemoteError, check_header, decode


@dataclass(slots=True)
class Framer:
    """Messages of one direction of one connection.

    Holds less than one message between calls: the header is judged as soon as its 12
    octets are there, so a peer can make nobody wait for a length that no type has.
    """

    _rest: bytes = b""
    _failed: bool = field(default=False)

    def feed(self, data: bytes) -> tuple[list[Message], RemoteError | None]:
        """The messages completed by `data`, and what was wrong after them.

        After an error nothing more comes out: the stream has no next boundary.
        """
        messages: list[Message] = []
        if self._failed:
            return messages, None
        buffer = self._rest + data
        at = 0
        try:
            while len(buffer) - at >= HEADER.size:
                length = check_header(buffer[at : at + HEADER.size])
                if len(buffer) - at < length:
                    break
                messages.append(decode(buffer[at : at + length]))
                at += length
        except RemoteError as e:
            self._failed = True
            self._rest = b""
            return messages, e
        self._rest = buffer[at:]
        return messages, None

    def resume(self, rest: bytes) -> None:
        """Go on where another framer had `rest`."""
        self._rest = rest

    @property
    def rest(self) -> bytes:
        """Octets of an unfinished message."""
        return self._rest

    @property
    def partial(self) -> int:
        """Their number."""
        return len(self._rest)
