"""What another server says of a refusal reaches the peer: E=, R=, C= and M= of MS-CHAP."""

from __future__ import annotations

import pytest

from workers.ppp.actions import Policy, Verdict
from workers.ppp.authentication import Again, Failed
from workers.ppp.chap import FAILURE, ChapServer
from workers.ppp.packets import Packet

GIVEN = bytes(range(16))


def refused(verdict: Verdict, retries: int = 1) -> tuple[ChapServer, bytes, list[object]]:
    server = ChapServer(Policy(auth_retries=retries), "mschapv2", challenge=bytes(32))
    server.start(0.0)
    server.out.clear()
    server.asked = True
    server.decide(verdict, 1.0)
    frames = [item for item in server.out if isinstance(item, bytes)]
    packet = Packet.decode(frames[0][2:])
    assert packet.code == FAILURE
    return server, packet.data, [item for item in server.out if not isinstance(item, bytes)]


def test_a_retry_answers_the_servers_challenge() -> None:
    server, text, rest = refused(Verdict(False, challenge=GIVEN, message="Try again"))
    assert text == f"E=691 R=1 C={GIVEN.hex().upper()} V=3 M=Try again".encode()
    assert server.challenge == GIVEN and isinstance(rest[0], Again)


@pytest.mark.parametrize(("verdict", "error"), [(Verdict(False, error=648, retry=False), 648)])
def test_no_retry_where_the_server_says_so(verdict: Verdict, error: int) -> None:
    _server, text, rest = refused(verdict)
    assert text.startswith(f"E={error} R=0 ".encode()) and isinstance(rest[0], Failed)


def test_a_challenge_of_the_wrong_size_is_not_used() -> None:
    server, _text, _rest = refused(Verdict(False, challenge=b"short"))
    assert len(server.challenge) == 16 and server.challenge != GIVEN
