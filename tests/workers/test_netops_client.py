"""The netops client: batches, answers in any order, a netops that dies with requests."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator

import msgpack
import pytest

from ops.netops_client import BATCH, Ledger, NetopsClient, ReplyError


def test_requests_travel_in_one_datagram_and_are_answered_once() -> None:
    ledger = Ledger()
    seqs = [ledger.add(("route_add", n, 7), 0.0) for n in range(3)]
    data = ledger.batch()
    assert msgpack.unpackb(data) == [[seq, "route_add", n, 7] for n, seq in enumerate(seqs)]
    ledger.sent()
    assert ledger.batch() == b""
    replies = msgpack.packb([[seqs[2], 0], [seqs[0], 17], [99, 0]])
    assert ledger.receive(replies, 0.1) == [(seqs[2], 0), (seqs[0], 17)]
    assert ledger.receive(replies, 0.2) == []
    assert ledger.unanswered == 1


def test_many_requests_are_several_datagrams() -> None:
    ledger = Ledger()
    for n in range(BATCH + 1):
        ledger.add(("route_del", n, 1), 0.0)
    assert len(msgpack.unpackb(ledger.batch())) == BATCH
    ledger.sent()
    assert len(msgpack.unpackb(ledger.batch())) == 1


def test_unanswered_requests_are_sent_again_in_order_after_a_silence() -> None:
    ledger = Ledger(resend_s=2.0)
    first = ledger.add(("route_add", 1, 7), 10.0)
    ledger.sent()
    second = ledger.add(("route_del", 1, 7), 11.0)
    ledger.sent()
    assert not ledger.handle_timer(11.9)
    assert ledger.handle_timer(12.0)
    assert [r[0] for r in msgpack.unpackb(ledger.batch())] == [first, second]
    ledger.sent()
    assert not ledger.handle_timer(13.9)
    ledger.receive(msgpack.packb([[first, 0]]), 13.9)
    assert not ledger.handle_timer(15.8)
    assert ledger.handle_timer(15.9)
    assert [r[0] for r in msgpack.unpackb(ledger.batch())] == [second]


@pytest.mark.parametrize("data", [b"", b"\xc1", b"\x01", b"\x91\x01", b"\x91\x91\x01"])
def test_rubbish_is_no_reply(data: bytes) -> None:
    with pytest.raises(ReplyError):
        Ledger().receive(data, 0.0)


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    theirs.setblocking(False)
    with ours, theirs:
        yield ours, theirs


async def request(loop: asyncio.AbstractEventLoop, sock: socket.socket) -> list[list[object]]:
    items: list[list[object]] = msgpack.unpackb(await loop.sock_recv(sock, 65536))
    return items


def test_futures_over_a_real_socket(pair: tuple[socket.socket, socket.socket]) -> None:
    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        client = NetopsClient(pair[0].fileno(), loop)
        added, deleted = client.route_add(0x0A000001, 5), client.route_del(0x0A000002, 5)
        got = await request(loop, pair[1])
        assert [r[1:] for r in got] == [["route_add", 0x0A000001, 5], ["route_del", 0x0A000002, 5]]
        pair[1].send(b"\xc1")
        pair[1].send(msgpack.packb([[got[1][0], 3], [got[0][0], 0]]))
        assert (await added, await deleted) == (0, 3)
        assert client.bad_replies == 1

        third = client.route_add(1, 5)
        lost = await request(loop, pair[1])
        client.restarted()  # netops read it and died
        assert await request(loop, pair[1]) == lost
        pair[1].send(msgpack.packb([[lost[0][0], 0]]))
        assert await third == 0
        assert client.unanswered == 0
        client.close()

    asyncio.run(scenario())


def test_a_full_socket_loses_nothing(pair: tuple[socket.socket, socket.socket]) -> None:
    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        pair[0].setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4608)
        client = NetopsClient(pair[0].fileno(), loop)
        futures = []
        for n in range(20):
            futures.append(client.route_add(n, 5))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        seen: list[int] = []
        while len(seen) < 20:
            got = await request(loop, pair[1])
            seen += [int(str(r[2])) for r in got]
            pair[1].send(msgpack.packb([[r[0], 0] for r in got]))
        assert seen == list(range(20))
        assert await asyncio.gather(*futures) == [0] * 20
        client.close()

    asyncio.run(scenario())
