"""The dispatcher process for real: TCP on loopback, ZeroMQ, shared memory."""

from __future__ import annotations

import os
import pwd
import signal
import socket
import struct
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from dispatcher.bus import Bus
from dispatcher.pptp.messages import (
    ClearRequest,
    DisconnectNotify,
    EchoReply,
    EchoRequest,
    Message,
    OutgoingReply,
    OutgoingRequest,
    SetLinkInfo,
    StartReply,
    StartRequest,
    StopReply,
    StopRequest,
)
from fastpath.layout import FREE, USED
from ops import messages as bus
from ops.ranges import format_address, parse_address
from ops.settings import Limits, Listen, Pool
from tests.dispatcher.rig import SETTINGS, Client, Rig, Worker, eventually, rig


@pytest.fixture
def one(tmp_path: Path) -> Iterator[Rig]:
    """A dispatcher with one worker, which has not said Hello."""
    with rig(tmp_path) as made:
        yield made


def up(client: Client, worker: Worker, user: str = "bob", call_id: int = 0) -> tuple[int, int]:
    """A session, from Outgoing-Call-Request to Up."""
    client.send(OutgoingRequest(call_id))
    handle = worker.install()
    assert client.read(OutgoingReply).result == 1
    admitted = worker.admit(handle, user)
    assert admitted.reason == ""
    worker.up(handle, admitted)
    return handle


def test_a_session_from_start_to_end(one: Rig) -> None:
    worker = one.worker()
    assert worker.hello() == bus.Welcome(bus.VERSION, 0x5E55, ())
    client = one.client()
    assert client.start().result == 1

    client.send(OutgoingRequest(0, max_bps=100_000_000, window=64))
    install = worker.read(bus.Install)
    record = one.table.session(install.index)
    assert record.generation == install.generation
    assert record.allot == USED
    assert record.peer_call_id == 0
    assert record.call_id != 0
    assert format_address(record.peer_address) == "127.0.0.1"
    # No reply before the worker has installed the call.
    client.sock.settimeout(0.2)
    with pytest.raises(TimeoutError):
        client.sock.recv(1)
    client.sock.settimeout(10)
    handle = install.index, install.generation
    worker.send(bus.Installed(*handle, True, ""))
    reply = client.read(OutgoingReply)
    assert (reply.call_id, reply.peer_call_id) == (record.call_id, 0)
    assert (reply.result, reply.error, reply.window) == (1, 0, 64)

    one.table.begin_link(*handle)
    admitted = worker.admit(handle, "bob")
    assert format_address(admitted.address) == "192.168.1.234"
    assert format_address(admitted.local) == "192.168.0.1"
    assert worker.admit(handle, "bob") == admitted  # said twice, the same answer
    worker.up(handle, admitted)
    one.logged("session up", f"sid={record.sid:016x}", "user=bob", "ip=192.168.1.234", "worker=0")

    client.send(SetLinkInfo(record.call_id, 0xFFFFFFFF, 0))
    assert worker.read(bus.LinkInfo) == bus.LinkInfo(*handle, 0xFFFFFFFF, 0)

    assert client.clear() == DisconnectNotify(record.call_id, 4)
    end = worker.end()
    assert (end.index, end.generation, end.cause, end.soft) == (*handle, "user_request", False)
    one.logged("session down", f"sid={record.sid:016x}", "cause=user_request", "rx_bytes=0")
    eventually(lambda: one.table.allot_state(handle[0])[1] == FREE, "the record is free")
    client.send(StopRequest())
    assert client.read(StopReply).result == 1
    assert client.at_end()
    for name in ("calls_requested", "calls_accepted", "sessions_started", "ended_user_request"):
        one.counted(name, 1)
    one.counted("connections_open", 0)


def test_many_calls_on_one_connection_and_its_end(one: Rig) -> None:
    worker = one.worker()
    worker.hello()
    client = one.client()
    client.start()
    handles = [up(client, worker, f"user{n}", n) for n in range(3)]
    assert one.used() == 3
    assert client.clear(1).result == 4
    assert worker.end().index == handles[1][0]
    client.close()
    ended = {worker.end().index for _ in range(2)}
    assert ended == {handles[0][0], handles[2][0]}
    one.counted("ended_lost_carrier", 2)
    eventually(lambda: one.used() == 0, "all records free")


def test_reset_after_many_requests_that_are_refused(tmp_path: Path) -> None:
    """The first refusal finds TCP broken; the requests read with it are nobody's any more."""
    with rig(tmp_path, replace(SETTINGS, limits=Limits(max_sessions=64, max_starting=1))) as one:
        worker = one.worker()
        worker.hello()
        client, other = one.client(), one.client()
        client.start()
        other.start()
        one.process.send_signal(signal.SIGSTOP)
        client.send(*(OutgoingRequest(n) for n in range(40)))
        client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.close()
        one.process.send_signal(signal.SIGCONT)
        worker.read(bus.Install)
        worker.end()
        one.logged("control connection closed", "TCP broke")
        eventually(lambda: one.used() == 0, "the record is free")
        assert one.count("refused_starting_limit") == 1
        other.send(EchoRequest(1))
        assert other.read(EchoReply).identifier == 1


@pytest.mark.parametrize("last", [ClearRequest(7), StopRequest(), b"\xff" * 12])
def test_call_taken_back_in_the_same_segment(one: Rig, last: Message | bytes) -> None:
    one.worker().hello()
    client = one.client()
    client.start()
    octets = last if isinstance(last, bytes) else last.encode()
    client.sock.sendall(OutgoingRequest(7).encode() + octets)
    if isinstance(last, ClearRequest):
        assert client.read(DisconnectNotify).result == 4
        client.send(StopRequest())
    one.counted("connections_open", 0)
    assert one.count("calls_requested") == 1
    assert one.used() == 0


def test_reset_before_our_last_word(one: Rig) -> None:
    """What is wrong can't be told any more: the connection still goes."""
    folder = f"/proc/{one.process.pid}/fd"
    before = len(os.listdir(folder))
    client = one.client()
    client.start()
    one.process.send_signal(signal.SIGSTOP)
    client.sock.sendall(StartRequest().encode()[:8] + bytes(148))  # type 0
    client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()
    one.process.send_signal(signal.SIGCONT)
    one.counted("connections_protocol_error", 1)
    one.counted("connections_open", 0)
    eventually(lambda: len(os.listdir(folder)) == before, "its descriptor is closed")


def test_client_that_reads_nothing(one: Rig) -> None:
    one.worker().hello()
    client = one.client()
    client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.start()
    with pytest.raises(OSError, match=r"reset|roken pipe"):
        while True:
            client.send(*(EchoRequest(n) for n in range(200)))
    one.logged("control connection closed", "reads nothing")
    one.counted("connections_open", 0)


def test_octet_by_octet_and_all_at_once(one: Rig) -> None:
    worker = one.worker()
    worker.hello()
    client = one.client()
    for octet in StartRequest().encode():
        client.sock.send(bytes([octet]))
    assert client.read(StartReply).result == 1
    client.send(EchoRequest(7), OutgoingRequest(5), EchoRequest(8))
    worker.install()
    assert client.read(EchoReply).identifier == 7
    assert client.read(EchoReply).identifier == 8
    assert client.read(OutgoingReply).result == 1


@pytest.mark.parametrize(
    "octets",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        bytes(200),
        b"\xff" * 200,
        StartRequest().encode()[:8] + b"\xff\xff" + StartRequest().encode()[10:],
    ],
)
def test_garbage_closes_that_connection_only(one: Rig, octets: bytes) -> None:
    other = one.client()
    other.start()
    client = one.client()
    client.sock.sendall(octets)
    client.sock.settimeout(10)
    while client.sock.recv(4096):
        pass
    one.counted("connections_protocol_error", 1)
    other.send(EchoRequest(1))
    assert other.read(EchoReply).identifier == 1


def test_silence_ends_one_connection_while_others_are_served(tmp_path: Path) -> None:
    settings = replace(SETTINGS, listen=Listen(start_timeout_s=0.5, call_timeout_s=1.0))
    with rig(tmp_path, settings) as one:
        worker = one.worker()
        worker.hello()
        silent = [one.client() for _ in range(5)]
        silent[0].sock.send(StartRequest().encode()[:100])
        began = time.monotonic()
        busy = one.client()
        busy.start()
        up(busy, worker)
        assert time.monotonic() - began < 0.5
        for client in silent:
            assert client.at_end()
        one.counted("connections_timeout", 5)
        idle = one.client()
        idle.start()
        assert idle.read(StopRequest).reason == 1
        assert idle.at_end()
        busy.send(EchoRequest(1))
        assert busy.read(EchoReply).identifier == 1


def test_echo_is_sent_and_its_absence_ends_the_calls(tmp_path: Path) -> None:
    settings = replace(SETTINGS, listen=Listen(echo_interval_s=0.3, echo_timeout_s=0.3))
    with rig(tmp_path, settings) as one:
        worker = one.worker()
        worker.hello()
        client = one.client()
        client.start()
        up(client, worker)
        request = client.read(EchoRequest)
        client.send(EchoReply(request.identifier))
        client.read(EchoRequest)
        end = worker.end()
        assert (end.cause, end.soft) == ("lost_service", True)
        assert client.at_end()


def test_a_pool_of_five_serves_five_with_eight_workers(tmp_path: Path) -> None:
    with rig(tmp_path, workers=8) as one:
        workers = [one.worker(index) for index in range(8)]
        for worker in workers:
            worker.hello()
        addresses = []
        for n in range(6):
            client = one.client()
            client.start()
            client.send(OutgoingRequest(0))  # the same peer call ID from one address
            handle = workers[n].install()  # ties take turns
            assert client.read(OutgoingReply).result == 1
            record = one.table.session(handle[0])
            assert record.call_id % 64 % 8 == n == record.worker
            admitted = workers[n].admit(handle, f"user{n}")
            if n < 5:
                addresses.append(format_address(admitted.address))
            else:
                assert admitted.reason == "no_address"
                for part in ("'default'", "all 5", "192.168.1.234-238", "pools.default.ranges"):
                    assert part in admitted.text
                one.logged("session refused", "reason=no_address", "pools.default.ranges")
                one.counted("refused_no_address", 1)
                workers[n].send(bus.Down(*handle, "refused", ""))
                assert client.read(DisconnectNotify).call_id == record.call_id
                workers[n].end()
                client.close()
        assert sorted(addresses) == [f"192.168.1.{n}" for n in range(234, 239)]
        eventually(lambda: one.used() == 5, "five are used")


def test_limits_are_refused_with_their_codes(tmp_path: Path) -> None:
    settings = replace(SETTINGS, limits=Limits(max_sessions=3, per_user_sessions=1, max_starting=2))
    with rig(tmp_path, settings) as one:
        client = one.client()
        client.start()
        reply = client.call(1)
        assert (reply.result, reply.error) == (2, 4)  # no worker is up
        one.logged("call refused", "reason=no_worker", "none of the 1 workers is up")
        worker = one.worker()
        worker.hello()
        first = up(client, worker, "bob", 1)
        client.send(OutgoingRequest(2))
        second = worker.install()
        client.read(OutgoingReply)
        admitted = worker.admit(second, "bob")
        assert admitted.reason == "per_user_limit"
        client.send(OutgoingRequest(3))
        worker.install()
        assert client.read(OutgoingReply).result == 1
        reply = client.call(4)
        assert (reply.result, reply.error) == (4, 0)
        one.logged("reason=no_slot", "limits.max_sessions")
        worker.send(bus.Down(*second, "auth_failed", ""))
        client.read(DisconnectNotify)
        worker.end()
        eventually(lambda: one.used() == 2, "a slot is free")
        worker.send(bus.Heartbeat(0))  # no credit
        time.sleep(0.1)
        reply = client.call(5)
        assert (reply.result, reply.error) == (2, 4)
        worker.send(bus.Heartbeat(100))
        one.configure(limits=Limits(max_sessions=3, per_ip_sessions=2))
        one.logged("settings taken over")
        assert client.call(6).result == 7
        one.counted("refused_per_ip_limit", 1)
        one.configure(limits=Limits(max_sessions=3, max_starting=1))
        eventually(lambda: one.log().count("settings taken over") == 2, "settings")
        assert client.call(7).result == 4
        one.counted("refused_starting_limit", 1)
        assert one.table.allot_state(first[0])[1] == USED


def test_static_addresses(one: Rig) -> None:
    worker = one.worker()
    worker.hello()
    client = one.client()
    client.start()
    client.send(OutgoingRequest(1), OutgoingRequest(2), OutgoingRequest(3))
    handles = [worker.install() for _ in range(3)]
    wanted = parse_address("192.168.1.234")  # the first of the pool
    assert worker.admit(handles[0], "ann", wanted).address == wanted
    assert worker.admit(handles[1], "ann", wanted).reason == "address_in_use"
    ours = worker.admit(handles[1], "ann", parse_address("192.168.0.1"))
    assert ours.reason == "address_not_allowed"
    assert format_address(worker.admit(handles[2], "bob").address) == "192.168.1.235"
    assert "nowhere" in worker.admit(handles[1], "eve", 0, "nowhere").text


def test_a_failed_install_is_refused(one: Rig) -> None:
    worker = one.worker()
    worker.hello()
    client = one.client()
    client.start()
    client.send(OutgoingRequest(1))
    worker.install(ok=False)
    reply = client.read(OutgoingReply)
    assert (reply.result, reply.error, reply.peer_call_id) == (2, 6, 1)
    worker.end()
    one.counted("refused_worker_failed", 1)
    eventually(lambda: one.used() == 0, "the record is free")


def test_a_worker_vanishes_and_its_successor_says_hello(one: Rig) -> None:
    worker = one.worker()
    worker.hello()
    client = one.client()
    client.start()
    stays = up(client, worker, "ann", 1)
    starting = up(client, worker, "bob", 2)
    client.send(OutgoingRequest(3))
    worker.read(bus.Install)
    worker.close()
    reply = client.read(OutgoingReply)  # as soon as the bus notices
    assert (reply.result, reply.error, reply.peer_call_id) == (2, 6, 3)
    one.logged("worker lost", "calls_refused=1")
    assert one.used() == 3  # sessions stay
    assert client.call(4).result == 2

    successor = one.worker(pid=4242)
    welcome = successor.hello(stays, (63, 9))
    assert welcome.ends == ((63, 9),)
    # what was not up there is cleared for the client and ended
    assert client.read(DisconnectNotify).error == 6
    ends = {successor.end().index for _ in range(2)}
    assert starting[0] in ends
    assert stays[0] not in ends
    eventually(lambda: one.used() == 1, "one session is left")
    handle = up(client, successor, "eve", 5)
    assert handle[0] != stays[0]


def test_dispatcher_and_vault_die_and_a_successor_ends_what_they_left(one: Rig) -> None:
    worker = one.worker()
    worker.hello()
    client = one.client()
    client.start()
    handle = up(client, worker)
    one.kill()
    one.kill_vault()
    assert client.at_end()
    worker.close()
    one.start_vault()
    one.start()
    assert one.used() == 1
    worker = one.worker()
    assert worker.hello(handle).ends == ()
    assert worker.end() == bus.End(*handle, "lost_carrier", True)
    eventually(lambda: one.used() == 0, "the record is free")
    one.logged("session down", "cause=lost_carrier", "ip=192.168.1.234")
    client = one.client()
    client.start()
    assert up(client, worker)[0] != handle[0]


def test_no_gre_is_named(tmp_path: Path) -> None:
    settings = replace(SETTINGS, listen=Listen(gre_timeout_s=0.2))
    with rig(tmp_path, settings) as one:
        worker = one.worker()
        worker.hello()
        client = one.client()
        client.start()
        client.send(OutgoingRequest(1))
        worker.install()
        client.read(OutgoingReply)
        one.counted("no_gre_seen", 1)
        one.logged("no GRE", "protocol 47", "peer=127.0.0.1")
        assert one.used() == 1


def test_terminate(one: Rig) -> None:
    worker = one.worker()
    worker.hello()
    client = one.client()
    client.start()
    first = up(client, worker, "ann", 1)
    up(client, worker, "bob", 2)
    console = one.console()

    def terminate(by: str, value: str) -> int:
        console.send(bus.encode(bus.Terminate(1, by, value, True)))
        answer = bus.decode(console.recv())
        assert isinstance(answer, bus.Terminated)
        return answer.count

    assert terminate("username", "nobody") == 0
    assert terminate("username", "ann") == 1
    end = worker.read(bus.End)
    assert (end.index, end.cause, end.soft) == (first[0], "admin_reset", True)
    worker.send(bus.Ended(end.index, end.generation))
    notify = client.read(DisconnectNotify)  # after LCP has ended
    assert notify.result == 3
    assert terminate("ip", "192.168.1.235") == 1
    worker.end()
    client.read(DisconnectNotify)
    up(client, worker, "eve", 3)
    sid = one.table.sessions()[0].sid
    assert terminate("sid", f"{sid:016x}") == 1
    worker.end()
    client.read(DisconnectNotify)
    up(client, worker, "eve", 4)
    assert terminate("csid", "127.0.0.1") == 1
    assert terminate("all", "") == 0  # it is ending already


def test_stop_ends_softly_then_says_goodbye(one: Rig) -> None:
    worker = one.worker()
    worker.hello()
    client = one.client()
    client.start()
    up(client, worker)
    idle = one.client()
    idle.start()
    one.tell({"type": "stop"})
    assert idle.read(StopRequest).reason == 3
    idle.send(StopReply())
    assert idle.at_end()
    end = worker.read(bus.End)
    assert (end.cause, end.soft) == ("admin_reboot", True)
    assert client.call(9).result == 7
    worker.send(bus.Ended(end.index, end.generation))
    assert client.read(DisconnectNotify).result == 3
    assert client.read(StopRequest).reason == 3
    client.send(StopReply())
    assert client.at_end()
    assert one.process.wait(10) == 0
    assert one.used() == 0


def test_stop_with_nobody_answering_ends_in_time(one: Rig) -> None:
    worker = one.worker()
    worker.hello()
    client = one.client()
    client.start()
    up(client, worker)
    began = time.monotonic()
    one.tell({"type": "stop"})
    assert client.read(DisconnectNotify).result == 3
    assert client.read(StopRequest).reason == 3
    assert client.at_end()
    assert one.process.wait(10) == 0
    assert 3 < time.monotonic() - began < 6.5


def test_ctrl_c_is_the_keepers_affair(one: Rig) -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        one.process.send_signal(number)
    assert one.client().start().result == 1
    assert one.stop() == 0


def test_a_bus_that_cannot_be_bound(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        Bus(f"ipc://{tmp_path}/nowhere/bus.sock")


def test_the_process_is_nobody_and_the_bus_is_its_own(one: Rig) -> None:
    if os.geteuid() != 0:
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)("needs root to drop")
    nobody = pwd.getpwnam("nobody").pw_uid
    status = dict(
        line.split(":", 1)
        for line in Path(f"/proc/{one.process.pid}/status").read_text().splitlines()
    )
    assert status["Uid"].split() == [str(nobody)] * 4
    assert status["Groups"].split() == []
    assert status["NoNewPrivs"].strip() == "1"
    sock = (one.run_dir / "bus.sock").stat()
    assert (sock.st_uid, sock.st_mode & 0o777) == (nobody, 0o600)


def test_the_keeper_is_gone(one: Rig) -> None:
    one.keeper.close()
    assert one.process.wait(10) == 0


def test_connection_limits(tmp_path: Path) -> None:
    settings = replace(SETTINGS, limits=Limits(max_sessions=64, max_connections=3))
    with rig(tmp_path, settings) as one:
        clients = [one.client() for _ in range(3)]
        for client in clients:
            client.start()
        assert one.client().at_end()
        one.counted("connections_refused_limit", 1)
        one.logged("control connection refused", "limits.max_connections")
        one.configure(limits=Limits(max_sessions=64, per_ip_connections=3))
        one.logged("settings taken over")
        assert one.client().at_end()
        one.logged("limits.per_ip_connections")
        clients[0].close()
        one.counted("connections_open", 2)
        one.client().start()


def test_running_out_of_descriptors_is_survived(tmp_path: Path) -> None:
    # So few that the process runs out of them before its own limit of connections.
    with rig(tmp_path, descriptors=26) as one:
        clients = [one.client() for _ in range(30)]
        one.logged("control connection refused", "Too many open files", "LimitNOFILE")
        both = ("connections_accepted", "connections_refused_limit")
        eventually(lambda: sum(map(one.count, both)) == 30, "an end for each of them")
        assert one.count("connections_refused_limit") >= 4
        for client in clients:
            client.close()
        one.counted("connections_open", 0)
        assert one.client().start().result == 1


def test_wrong_bus_version_is_refused_by_name(one: Rig) -> None:
    worker = one.worker()
    frame = bus.encode(bus.Hello(bus.VERSION, 0, 1, 1, ()))
    worker.socket.send(frame[:2] + bytes([bus.VERSION + 1]) + frame[3:])
    refused = worker.read(bus.Refused)
    assert f"bus version {bus.VERSION + 1}" in refused.reason
    assert f"speaks {bus.VERSION}" in refused.reason
    one.logged("bad bus message", "peer=worker-0", f"bus version {bus.VERSION + 1}")
    worker.socket.send(b"\xc1rubbish")
    worker.read(bus.Refused)
    one.counted("bus_errors", 2)
    worker.hello()


def test_pools_change_under_sessions(one: Rig) -> None:
    worker = one.worker()
    worker.hello()
    client = one.client()
    client.start()
    handle = up(client, worker, "ann", 1)
    one.configure(pools=(Pool("default", ("192.168.1.234-235",)),))
    one.logged("settings taken over", "pool_default=1/2")
    up(client, worker, "bob", 2)
    client.send(OutgoingRequest(3))
    third = worker.install()
    client.read(OutgoingReply)
    assert worker.admit(third, "eve").reason == "no_address"
    client.clear(1)
    worker.end()
    eventually(lambda: one.table.allot_state(handle[0])[1] == FREE, "the record is free")
    assert format_address(worker.admit(third, "eve").address) == "192.168.1.234"


def test_a_client_that_reads_nothing_is_given_up(one: Rig) -> None:
    client = one.client()
    client.start()
    echoes = EchoRequest(1).encode() * 500
    client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    with pytest.raises(OSError, match=r"reset|pipe"):
        for _ in range(20_000):
            client.sock.sendall(echoes)
    one.counted("connections_open", 0)
