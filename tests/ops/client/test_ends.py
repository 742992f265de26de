"""Both ends of the load generator on loopback: real sockets, 127.0.0.x for inner addresses."""

from __future__ import annotations

import io
import json
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from ops.client.far_end import FarEnd, Silent
from ops.client.mmsg import BATCH, MTU, Batch, network_order
from ops.client.near_end import NearEnd, Session, serve
from ops.client.numbers import HEADER, MAGIC


class There:
    """A far end in a thread."""

    def __init__(self) -> None:
        self.loop = Silent()
        self.end = self._bound()
        self.target = ("127.0.0.1", self.port)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _bound(self) -> FarEnd:
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        return FarEnd(self.loop, "127.0.0.1", self.port)

    def _run(self) -> None:
        while not self.loop.stopping:
            self.loop.turn(0.01)

    def close(self) -> None:
        self.loop.stopping = True
        self._thread.join()
        self.end.udp.close()
        self.end.tcp.close()


@pytest.fixture
def there() -> Iterator[There]:
    far = There()
    yield far
    far.close()


def run(there: There, *commands: dict[str, Any], sessions: int = 3) -> list[dict[str, Any]]:
    """The near end with these commands; what it says."""
    first = {
        "sessions": [[i, f"127.0.1.{i}"] for i in range(1, sessions + 1)],
        "target": there.target,
    }
    text = "".join(json.dumps(line) + "\n" for line in (first, *commands))
    output = io.StringIO()
    serve(Silent(), io.StringIO(text), output)
    return [json.loads(line) for line in output.getvalue().splitlines()]


def only(lines: list[dict[str, Any]], event: str) -> dict[str, Any]:
    (line,) = (line for line in lines if line["event"] == event)
    return line


def test_numbered_datagrams_come_back_and_all_are_accounted_for(there: There) -> None:
    lines = run(
        *(there, {"do": "numbered", "seconds": 0.3, "rate": 4000}, {"do": "account"}),
        sessions=3,
    )
    account = only(lines, "account")
    up, down = account["up"], account["down"]
    assert up["sent"] > 500
    assert up["received"] == down["sent"] == down["received"] == up["sent"]
    assert up["lost"] == up["duplicated"] == down["lost"] == down["reordered"] == 0
    assert account["near"]["misrouted"] == account["near"]["strange"] == 0
    assert all(trip > 0 for trip in only(lines, "done")["trips_ms"])


def test_imix_has_small_tcp_too(there: There) -> None:
    lines = run(there, {"do": "imix", "seconds": 0.3, "rate": 2000}, {"do": "account"})
    done, account = only(lines, "done"), only(lines, "account")
    assert done["answers"] == done["requests"] > 30
    assert account["up"]["received"] == account["up"]["sent"] > 200
    assert account["far"]["tcp_octets"] >= 100 * done["requests"]


def test_bulk_flows_both_ways(there: There) -> None:
    lines = run(
        *(there, {"do": "bulk", "seconds": 0.2, "rate": 0, "streams": 2}, {"do": "account"})
    )
    account = only(lines, "account")
    assert account["far"]["tcp_octets"] > 100_000
    assert account["near"]["tcp_octets"] > 100_000
    assert only(lines, "done")["tcp_failed"] == 0


def test_a_far_end_that_is_not_there_is_told() -> None:
    far = There()
    far.close()
    assert "127.0.0.1" in only(run(far, {"do": "account"}), "trouble")["reason"]


def test_strangers_are_counted_and_not_answered(there: There) -> None:
    good = HEADER.pack(MAGIC, 1, 0, 0, 0.0)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(5)
        for data in (b"x", bytes(64), HEADER.pack(MAGIC, 1, 1 << 60, 0, 0.0), good, b""):
            sock.sendto(data, there.target)
        assert sock.recv(2048) == good  # the first number of the way down is 0
        sock.settimeout(0.05)
        with pytest.raises(TimeoutError):
            sock.recv(2048)
    with socket.create_connection(there.target, 5) as stream:
        stream.sendall(b"r")
        report = json.loads(b"".join(iter(lambda: stream.recv(65536), b"")))
    assert report["strange"] == 4
    assert report["flows"] == {"1": [1, 1, 0, 1, 0, 0, len(good) + 28]}
    with socket.create_connection(there.target, 5) as stream:
        stream.sendall(b"?")
        assert stream.recv(1) == b""


def test_a_datagram_for_another_session_is_misrouted(there: There) -> None:
    near = NearEnd(
        Silent(), [Session(1, "127.0.1.1"), Session(2, "127.0.1.2")], there.target, io.StringIO()
    )
    port = near.udp.getsockname()[1]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        for flow, address in ((1, "127.0.1.1"), (2, "127.0.1.1"), (9, "127.0.1.2")):
            sock.sendto(HEADER.pack(MAGIC, flow, 0, 0, 0.0), (address, port))
    near.loop.turn(1.0)
    assert near.sessions[0].account.received == 1
    assert (near.misrouted, near.strange) == (1, 1)
    near.udp.close()


def test_what_the_kernel_refuses_keeps_its_number() -> None:
    """127.9.9.9 is ours, 192.0.2.1 is not: no datagram can come from there."""
    near = NearEnd(
        Silent(), [Session(1, "127.9.9.9"), Session(2, "192.0.2.1")],
        ("127.0.0.1", 9), io.StringIO(),
    )  # fmt: skip
    for _ in range(4):
        near._burst(2, (64,))
    assert [s.sent for s in near.sessions] == [4, 0]
    assert near.refused == 4
    near.udp.close()


def test_batches_beyond_what_a_socket_takes() -> None:
    """A datagram larger than the room is cut, as recv does it; nothing is there: 0."""
    batch = Batch(packet_info=True)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        assert batch.receive(sock) == 0
        sock.sendto(bytes(MTU + 1), sock.getsockname())
        assert batch.receive(sock) == 1
        assert batch.length(0) == MTU
        assert network_order("1.2.3.4") == 0x04030201
        batch = Batch(packet_info=True)
        batch.address(sock.getsockname())
        for i in range(BATCH):
            batch.put(i, 4, network_order("127.0.0.5"))
        assert batch.send(sock, 0, BATCH) == BATCH
        assert sock.recvfrom(10)[1][0] == "127.0.0.5"
