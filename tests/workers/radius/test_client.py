"""A worker's end of the way to the accounts process, and who decides about a login."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import pytest

from ops.settings import AccountRule, Mppe, Radius, RadiusServer, Settings
from ops.settings import Accounts as AccountsSettings
from tests.workers.radius.test_book import FACTS
from workers.accounts import Accounts, Login
from workers.logins import Logins
from workers.policy import Policy
from workers.ppp.actions import Authenticate, EapRelay, Verdict
from workers.radius import wire
from workers.radius.accounting import Counters
from workers.radius.client import Client
from workers.secrets_file import Index

REQUEST = Authenticate("pap", "carl", 1, b"", b"local")
SETTINGS = Settings(
    accounts=AccountsSettings(users=(("carl", "local"),)),
    radius=Radius(servers=(RadiusServer("192.0.2.1", "secret"),)),
)
HANDLE = (3, 1)
Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def pair() -> Iterator[Pair]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    theirs.setblocking(False)
    yield ours, theirs
    ours.close()
    theirs.close()


def told(theirs: socket.socket, message: list[Any]) -> None:
    theirs.send(wire.pack(message))


async def heard(theirs: socket.socket) -> tuple[Any, ...]:
    loop = asyncio.get_running_loop()
    return wire.unpack(await loop.sock_recv(theirs, wire.DATAGRAM))


def run(pair: Pair, body: Callable[[Client, Callable[[list[Any]], None]], Awaitable[None]]) -> None:
    async def main() -> None:
        client = Client(pair[0].fileno(), asyncio.get_running_loop())
        try:
            async with asyncio.timeout(5):
                await body(client, partial(told, pair[1]))
        finally:
            client.close()

    asyncio.run(main())


async def decided(
    client: Client,
    settings: Settings,
    theirs: socket.socket,
    answer: Callable[[int], bytes],
    request: Authenticate = REQUEST,
) -> Login:
    accounts = Accounts(settings, Index())
    task = asyncio.create_task(Logins(client).verify(accounts, settings, HANDLE, request))
    message = await heard(theirs)
    assert message[1:5] == (wire.LOGIN, *HANDLE, request.method)
    theirs.send(answer(message[0]))
    return await task


def accept(verdict: Verdict, policy: Policy) -> Callable[[int], bytes]:
    return lambda seq: wire.pack(
        [seq, wire.ACCEPT, wire.pack_verdict(verdict), policy.freeze(), b""]
    )


def test_an_accept_and_the_rules_of_accounts(pair: Pair) -> None:
    rule = AccountRule("carl", mppe="deny", pool="slow")
    settings = replace(
        SETTINGS,
        accounts=replace(SETTINGS.accounts, rules=(rule,)),
        mppe=Mppe(strengths=(128, 40)),
    )
    verdict = Verdict(True, "carl", mppe_strengths=(40, 56))
    policy = Policy(source="radius", address=7, rate_up=5)

    async def body(client: Client, send: object) -> None:
        login = await decided(client, settings, pair[1], accept(verdict, policy))
        assert login.verdict.ok and login.verdict.mppe == "deny"
        assert login.verdict.mppe_strengths == (40,)
        assert (login.policy.address, login.policy.pool, login.policy.rate_up) == (7, "slow", 5)
        assert login.verdict.address == 7 and login.verdict.pool == "slow"

    run(pair, body)


def test_a_server_may_not_loosen_encryption(pair: Pair) -> None:
    for said, want in (((40,), (128,)), ((128, 40), (128,)), ((), (128,))):
        verdict = Verdict(True, "carl", mppe_strengths=said)

        async def body(
            client: Client,
            send: object,
            verdict: Verdict = verdict,
            want: tuple[int, ...] = want,
        ) -> None:
            login = await decided(client, SETTINGS, pair[1], accept(verdict, Policy()))
            assert login.verdict.mppe_strengths == want and login.verdict.mppe == ""

        run(pair, body)


@pytest.mark.parametrize("fallback", ["off", "local"])
def test_when_nobody_answers(pair: Pair, fallback: str) -> None:
    settings = replace(
        SETTINGS,
        radius=replace(SETTINGS.radius, fallback=fallback),  # type: ignore[arg-type]
    )

    async def body(client: Client, send: object) -> None:
        none: Callable[[int], bytes] = lambda seq: wire.pack([seq, wire.NONE, "all dead"])  # noqa: E731
        login = await decided(client, settings, pair[1], none)
        assert login.verdict.ok == (fallback == "local")
        if fallback == "off":
            assert login.unanswered and not login.counted and "all dead" in login.verdict.reason
        reject: Callable[[int], bytes] = lambda seq: wire.pack(  # noqa: E731
            [seq, wire.REJECT, wire.pack_verdict(Verdict(False, "carl", "no")), b""]
        )
        login = await decided(client, settings, pair[1], reject)
        assert not login.verdict.ok and not login.unanswered  # a refusal is final

    run(pair, body)


def test_without_servers_the_local_accounts_decide(pair: Pair) -> None:
    settings = replace(SETTINGS, radius=Radius())

    async def body(client: Client, send: object) -> None:
        accounts = Accounts(settings, Index())
        assert (await Logins(client).verify(accounts, settings, HANDLE, REQUEST)).verdict.ok
        relay = EapRelay("x", b"\x02\x01\x00\x06\x01x")
        _packet, login = await Logins(None).relay(accounts, settings, HANDLE, relay)
        assert login is not None and not login.verdict.ok

    run(pair, body)


def test_eap_carries_the_token_of_its_server(pair: Pair) -> None:
    async def body(client: Client, send: Callable[[list[Any]], None]) -> None:
        first = asyncio.create_task(client.eap(HANDLE, EapRelay("x", b"\x02\x01\x00\x06\x01x")))
        seq, *said = await heard(pair[1])
        assert said == [wire.EAP, *HANDLE, "x", b"\x02\x01\x00\x06\x01x", b""]
        send([seq, wire.CHALLENGE, b"question", b"token"])
        assert (await first).eap == b"question"
        second = asyncio.create_task(client.eap(HANDLE, EapRelay("x", b"\x02\x02\x00\x06\x19x")))
        seq, *said = await heard(pair[1])
        assert said[-1] == b"token"
        send([seq, wire.ACCEPT, wire.pack_verdict(Verdict(True, "x")), {}, b"success"])
        answer = await second
        assert answer.verdict is not None and answer.verdict.ok and answer.eap == b"success"

    run(pair, body)


def test_a_successor_is_told_what_was_not_answered(pair: Pair) -> None:
    async def body(client: Client, send: Callable[[list[Any]], None]) -> None:
        client.start(FACTS)
        client.stop(FACTS.sid, Counters(1, 2, 3, 4, 5), "user_request", 1000.0)
        start, stop = await heard(pair[1]), await heard(pair[1])
        assert stop[1:] == (wire.STOP, FACTS.sid, (1, 2, 3, 4, 5), "user_request", 1000.0)
        send([start[0], wire.DONE])
        send([0, wire.HELLO, 4711])
        assert await heard(pair[1]) == stop
        send([stop[0], wire.DONE])
        send([12345, wire.DONE])  # an answer to a predecessor
        for _ in range(20):
            await asyncio.sleep(0)
        assert client.unanswered == 0

    run(pair, body)


def test_any_octets_are_passed_over(pair: Pair) -> None:
    async def body(client: Client, send: Callable[[list[Any]], None]) -> None:
        task = asyncio.create_task(client.login(HANDLE, REQUEST))
        seq, *_ = await heard(pair[1])
        for data in (b"\xc1", b"x", wire.pack([1]), wire.pack(["a", 2])):
            pair[1].send(data)
        send([seq, wire.NONE, "nobody"])
        assert (await task).reason == "nobody"

    run(pair, body)


def test_verdicts_cross_whole() -> None:
    verdict = Verdict(
        True,
        "anna\udcff",
        authenticator_response="S=" + "A" * 40,
        send_key=b"s" * 16,
        receive_key=b"r" * 16,
        mppe="require",
        mppe_strengths=(128,),
        error=648,
        retry=False,
    )
    packed = wire.unpack(wire.pack([1, wire.ACCEPT, wire.pack_verdict(verdict)]))
    assert wire.unpack_verdict(packed[2]) == verdict
