"""Sessions from Install to Ended: real links on both ends, simulated time, an engine twin."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from dataclasses import replace

import pytest

from fastpath import layout
from ops.messages import Admit, Admitted, Down, End, Ended, Hello, Install, Installed, Up, Welcome
from ops.ranges import parse_address
from tests.workers.slow_engine import KINDS
from tests.workers.world import LOCAL, World, settings
from workers.control import CREDIT, FIRST_FRAME_WAIT_S
from workers.live import MOVES, LocalError, Phase
from workers.session import Saved


@pytest.fixture
def world() -> Iterator[World]:
    world = World()
    yield world
    world.close()


def lcp_echo(identifier: int) -> bytes:
    return b"\xc0\x21\x09" + bytes((identifier,)) + b"\x00\x08" + bytes(4)


def test_a_login_comes_up_and_leaves_no_object(world: World) -> None:
    handle = world.up()
    session = world.table.session(0)
    assert session.state == layout.STATE_ACTIVE
    assert session.name == "billy"
    assert session.address == world.pool
    assert session.local == LOCAL
    assert session.mppe_rx_bits == session.mppe_tx_bits == 128
    assert session.mtu <= 1400
    assert handle in world.engine.is_up
    assert world.engine.mppe[handle][0] == 128
    assert world.routes == {world.pool}
    assert world.control.busy == 0
    assert world.control.deadline() is None
    assert [type(m) for m in world.messages] == [Installed, Admit, Up]
    saved = Saved.unpack(world.table.blob(0))
    assert (saved.user, saved.peer_name, saved.auth) == ("billy", "billy", "mschapv2")
    assert world.counter("auth_mschapv2_accept") == 1
    assert world.log.named("link up")[0]["mppe"] == "128s"
    client = world.clients[handle].link
    assert client.deadline is None


def test_data_goes_up_before_the_client_is_told(world: World) -> None:
    world.answer_routes = False
    handle = world.start()
    assert not world.clients[handle].up  # our Configure-Ack waits for the route
    assert handle not in world.engine.is_up
    assert world.table.session(0).state == layout.STATE_STARTING
    world.answer_routes = True
    world.run()
    assert world.clients[handle].up
    order = [name for name, _ in world.engine.done]
    assert order.index("set_mppe") < order.index("up") < len(order) - 1
    assert order[order.index("up") + 1] == "send"


def test_a_silent_client_is_asked_after_a_moment(world: World) -> None:
    world.install()
    world.run()
    assert not [name for name, _ in world.engine.done if name == "send"]
    world.wait(FIRST_FRAME_WAIT_S)
    assert [name for name, _ in world.engine.done if name == "send"]


def test_a_silent_client_is_given_up(world: World) -> None:
    handle = world.install()
    world.clients[handle].deaf = True
    world.run()
    world.wait(100.0)
    assert len(world.of(handle, Down)) == 1
    assert world.of(handle, Ended) == [Ended(*handle)]
    assert world.control.busy == 0


def test_wrong_password(world: World) -> None:
    handle = world.start(0, "billy", "wrong")
    world.wait(10.0)
    assert not world.clients[handle].up
    assert world.causes(handle) == ["auth_failed"]
    assert world.of(handle, Ended)
    assert world.counter("auth_mschapv2_reject") >= 1
    line = world.log.named("login refused")[0]
    assert line["reason"] == "wrong password (chap-secrets line 2)"
    (down,) = world.of(handle, Down)
    assert isinstance(down, Down)
    assert down.reason == line["reason"]
    assert world.table.session(0).name == "billy"
    assert line["user"] == "billy"
    assert line["peer"] == "198.18.1.1"
    assert line["sid"] == f"{world.table.session(0).sid:016x}"
    assert not any(str(v) == "wrong" for _, _, fields in world.log.lines for v in fields.values())
    assert world.routes == set()


def test_a_login_that_does_not_come(world: World) -> None:
    handle = world.install()
    world.run()
    world.clients[handle].mute = (b"\xc2\x23",)  # it never answers the Challenge
    world.clients[handle].link.start(world.now)
    world.run()
    world.wait(60.0)
    assert world.causes(handle) == ["auth_failed"]
    assert world.of(handle, Ended)
    assert world.counter("auth_mschapv2_timeout") == 1


def test_unknown_user(world: World) -> None:
    world.start(0, "nobody", "bob")
    world.wait(10.0)
    assert str(world.log.named("login refused")[0]["reason"]).startswith("no such user")


def test_a_static_address_is_asked_for(world: World) -> None:
    handle = world.start(0, "static", "secret")
    assert world.of(handle, Admit) == [
        Admit(*handle, "static", parse_address("10.5.5.5"), "", "static")
    ]
    assert world.table.session(0).address == parse_address("10.5.5.5")


def test_an_address_that_the_secrets_forbid(world: World) -> None:
    handle = world.start(0, "net", "secret")
    world.wait(10.0)
    assert not world.clients[handle].up
    assert world.causes(handle) == ["refused"]
    line = world.log.named("session refused")[0]
    assert line["cause"] == "address_not_allowed"
    assert "10.99.1.1 from the pool" in str(line["reason"])


def test_refused_admission(world: World) -> None:
    world.refuse = ("no_address", "pool default: all 5 addresses are in use")
    handle = world.start()
    world.wait(10.0)
    assert world.causes(handle) == ["refused"]
    assert world.of(handle, Ended)
    assert world.log.named("session refused")[0]["cause"] == "no_address"


def test_a_late_admission_of_another_generation_is_nothing(world: World) -> None:
    world.answer_admits = False
    handle = world.start()
    admit = world.admits.popleft()
    world.control.message(Admitted(handle[0], handle[1] + 1, 1, 2, "", ""), world.now)
    world.run()
    assert world.table.session(0).address == 0
    world.control.message(world.admitted(admit), world.now)
    world.run()
    assert world.clients[handle].up


def test_the_client_hangs_up(world: World) -> None:
    handle = world.up()
    world.clients[handle].link.close("user_request", "bye", world.now)
    world.run()
    world.wait(10.0)
    assert world.causes(handle) == ["user_request"]
    assert world.of(handle, Ended) == [Ended(*handle)]
    assert world.routes == set()
    assert world.table.session(0).state == layout.STATE_NONE
    assert world.control.busy == 0
    order = [name for name, _ in world.engine.done]
    assert order[-1] == "remove"


def test_route_goes_before_the_data_threads_memory(world: World) -> None:
    handle = world.up()
    world.answer_routes = False
    world.control.message(End(*handle, "admin_reset", False), world.now)
    world.run()
    assert handle in world.engine.installed
    assert not world.of(handle, Ended)
    world.answer_routes = True
    world.run()
    assert handle not in world.engine.installed
    assert world.of(handle, Ended)


def test_soft_end(world: World) -> None:
    handle = world.up()
    world.control.message(End(*handle, "admin_reset", True), world.now)
    world.control.message(End(*handle, "admin_reset", True), world.now)
    world.run()
    world.wait(5.0)
    assert world.clients[handle].finished is not None
    assert world.of(handle, Down) == []
    assert world.of(handle, Ended) == [Ended(*handle)]


def test_the_links_own_cause_is_told_when_the_client_hangs_up_meanwhile(world: World) -> None:
    """The client answers no Terminate-Request but closes: it was the password all the same."""
    handle = world.install(0, "billy", "wrong")
    world.run()
    world.clients[handle].mute = (b"\xc0\x21\x06",)
    world.clients[handle].link.start(world.now)
    world.run()
    assert world.causes(handle) == []
    world.control.message(End(*handle, "lost_carrier", False), world.now)
    world.run()
    assert world.causes(handle) == ["auth_failed"]
    assert world.of(handle, Ended)


def test_soft_end_of_a_client_that_is_gone(world: World) -> None:
    handle = world.up()
    world.clients[handle].deaf = True
    world.control.message(End(*handle, "admin_reset", True), world.now)
    world.wait(20.0)
    assert world.of(handle, Ended) == [Ended(*handle)]
    assert world.control.busy == 0


@pytest.mark.parametrize("soft", [True, False])
def test_an_end_at_any_time_is_answered(soft: bool) -> None:
    for steps in range(60):
        world = World()
        world.answer_routes = steps % 2 == 0
        handle = world.install()
        world.clients[handle].link.start(world.now)
        for _ in range(steps):
            world._turn()
        world.answer_routes = True
        world.control.message(End(*handle, "lost_carrier", soft), world.now)
        world.run()
        world.wait(30.0)
        assert world.of(handle, Ended), steps
        assert world.of(handle, Down) == [], steps
        assert world.control.busy == 0
        assert world.routes == set()
        assert world.engine.installed == set()
        world.close()


def test_ends_that_mean_nothing_are_answered(world: World) -> None:
    world.control.message(End(3, 7, "admin_reset", False), world.now)
    world.control.message(End(999, 7, "admin_reset", False), world.now)
    world.run()
    assert world.messages == [Ended(3, 7)]
    assert world.counter("bus_errors") == 1


def test_a_repeated_install_is_one_install(world: World) -> None:
    handle = world.install()
    world.control.message(Install(*handle), world.now)
    world.run()
    world.control.message(Install(*handle), world.now)
    world.clients[handle].link.start(world.now)
    world.run()
    world.control.message(Install(*handle), world.now)
    world.run()
    assert world.clients[handle].up
    assert world.of(handle, Installed) == [Installed(*handle, True, "")] * 3
    assert len(world.of(handle, Up)) == 1


def test_installs_that_are_not_ours_are_refused_by_name(world: World) -> None:
    other = world.allot(1, worker=1)
    for handle, text in (
        (other, "belongs to worker 1"),
        ((other[0], 9), "has generation 1, not 9"),
        ((99, 1), "record 99 of 8"),
    ):
        world.control.message(Install(*handle), world.now)
        answer = world.messages.pop()
        assert isinstance(answer, Installed)
        assert not answer.ok
        assert text in answer.reason


def test_a_record_given_to_a_new_call(world: World) -> None:
    old = world.up()
    world.table.release(0)
    world.clients[old].deaf = True
    new = world.start()
    assert new != old
    assert world.clients[new].up
    assert world.table.session(0).generation == new[1]


def test_lost_echoes_end_at_once(world: World) -> None:
    handle = world.up()
    world.clients[handle].deaf = True
    world.engine.emit(KINDS.echo_lost, handle)
    world.run()
    assert world.causes(handle) == ["echo_timeout"]
    assert world.of(handle, Ended)


def test_desync_is_named(world: World) -> None:
    handle = world.up()
    world.engine.emit(KINDS.desync, handle)
    world.run()
    world.wait(10.0)
    assert world.causes(handle) == ["protocol_error"]
    assert world.log.named("MPPE key mismatch")[0]["user"] == "billy"


def test_stateful_after_all_is_named(world: World) -> None:
    """Some PocketPCs agree to stateless MPPE and send it stateful."""
    handle = world.up()
    world.engine.emit(KINDS.desync, handle, b"stateful")
    world.run()
    world.wait(10.0)
    assert world.causes(handle) == ["protocol_error"]
    assert world.log.named("MPPE state mismatch")[0]["user"] == "billy"


def test_no_route_no_session(world: World) -> None:
    world.route_errno = errno.ENETUNREACH
    handle = world.start()
    world.wait(10.0)
    assert not world.clients[handle].up
    assert world.causes(handle) == ["internal_error"]
    assert world.of(handle, Ended)
    assert world.counter("netops_failures") >= 1
    assert world.log.named("route not added")


def test_a_full_ring_delays_and_loses_nothing(world: World) -> None:
    world.engine.room = 0
    handle = world.install()
    world.run()
    assert world.control.backlog == 1
    assert world.control.credit == CREDIT - 1
    world.clients[handle].link.start(world.now)
    for _ in range(400):
        world.engine.room = 1
        world.run()
        world.wait(0.01)
    assert world.clients[handle].up
    assert world.control.backlog == 0


def test_an_up_session_answers_frames_from_its_blob(world: World) -> None:
    handle = world.up()
    before = world.table.blob(0)
    world.engine.deliver(handle, lcp_echo(7))
    for event in world.engine.events():
        world.control.event(*event, world.now)
    assert [frame[2:4] for _, frame in world.engine.sent] == [b"\x0a\x07"]
    assert world.control.busy == 0
    assert world.table.blob(0) != b""
    assert len(world.table.blob(0)) == pytest.approx(len(before), abs=16)


def test_unwanted_protocols_are_rejected_once_each(world: World) -> None:
    handle = world.up()
    for _ in range(3):
        world.engine.deliver(handle, b"\x80\x57\x01\x01\x00\x04")
        world.run()
    assert 1 <= world.counter("protocol_rejects_sent") <= 3
    assert world.clients[handle].finished is None


def test_frames_of_no_session_are_dropped(world: World) -> None:
    for handle in ((0, 1), (3, 0), (0, 77)):
        world.control.event(KINDS.frame, *handle, lcp_echo(1), world.now)
    assert world.counter("frames_received") == 3
    assert world.control.busy == 0


def test_any_octets_from_the_peer(world: World) -> None:
    handle = world.up()
    for n in range(300):
        frame = bytes((n * 7 + k * k * 31) & 0xFF for k in range(n % 40 + 2))
        for head in (b"", b"\xc0\x21", b"\xc2\x23", b"\x80\x21", b"\x80\xfd", b"\xc0\x23"):
            world.engine.deliver(handle, head + frame)
    world.run()
    world.wait(60.0)
    assert world.log.named("internal error") == []


def test_a_successor_knows_what_is_up(world: World) -> None:
    handle = world.up()
    world.start(1, "billy", "wrong")
    starting = world.install(2)
    world.run()
    world.messages.clear()
    world.restart()
    world.run()
    assert world.counter("sessions_resumed") == 1
    hello = world.control.hello(42, world.now)
    assert (hello.pid, hello.worker, hello.sessions) == (42, 0, (handle,))
    # The dispatcher ends what Hello did not list.
    world.control.message(End(*starting, "worker_lost", False), world.now)
    world.run()
    assert world.of(starting, Ended) == [Ended(*starting)]
    # The session that was up lives on: it answers, and ends in order.
    world.engine.deliver(handle, lcp_echo(9))
    for event in world.engine.events():
        world.control.event(*event, world.now)
    assert world.engine.sent.popleft()[1][2:4] == b"\x0a\x09"
    world.clients[handle].link.close("user_request", "bye", world.now)
    world.run()
    world.wait(10.0)
    assert world.causes(handle) == ["user_request"]
    assert world.of(handle, Ended)
    assert world.routes == set()


def test_a_successor_takes_back_the_route_of_a_half_started_session(world: World) -> None:
    world.answer_routes = False
    handle = world.start()
    world.answer_routes = True
    world.routes.add(world.pool)  # netops had done it
    world.restart()
    world.run()
    assert world.control.hello(1, world.now).sessions == ()
    world.control.message(End(*handle, "worker_lost", False), world.now)
    world.run()
    assert world.routes == set()
    assert world.of(handle, Ended)


def test_poison_and_half_up_sessions_are_not_adopted(world: World) -> None:
    world.up()
    sid = world.table.session(0).sid
    assert world.control.hello(1, world.now).sessions == ((0, 1),)
    world.control.adopt(frozenset({sid}))
    # Told as ours, so that it ends by its own cause and not as one that was lost.
    assert world.control.hello(1, world.now).sessions == ((0, 1),)
    world.control.message(Welcome(1, 0x5EED, ()), world.now)
    assert world.causes((0, 1)) == ["poison"]
    assert world.log.named("poison session not resumed")[0]["sid"] == f"{sid:016x}"
    world.control.message(End(0, 1, "poison", False), world.now)
    world.run()
    assert world.of((0, 1), Ended)
    assert world.routes == set()
    assert world.control.hello(1, world.now).sessions == ()


def test_a_broken_blob_ends_its_session_only(world: World) -> None:
    good, bad = world.up(0), world.up(1)
    world.table.write_blob(1, b"rubbish")
    world.engine.deliver(bad, lcp_echo(1))
    world.engine.deliver(good, lcp_echo(1))
    world.run()
    assert world.causes(bad) == ["internal_error"]
    assert world.of(bad, Ended)
    assert world.of(good, Down) == []
    assert world.routes == {world.pool}


def test_welcome_ends_what_the_dispatcher_does_not_know(world: World) -> None:
    first, second = world.up(0), world.up(1)
    world.control.message(Welcome(1, 0x5EED, (second,)), world.now)
    world.run()
    world.wait(10.0)
    assert world.of(second, Ended)
    assert not world.of(first, Ended)
    assert world.clients[second].finished is not None


def test_stop_ends_every_session_in_order(world: World) -> None:
    handles = [world.up(i) for i in range(3)]
    half = world.install(3)
    world.run()
    world.clients[handles[2]].deaf = True
    world.control.stop(world.now)
    world.run()
    assert world.control.credit == 0
    assert [len(world.of(h, Ended)) for h in handles] == [1, 1, 0]
    assert world.of(half, Ended)
    refused = world.allot(5)
    world.control.message(Install(*refused), world.now)
    answer = world.messages[-1]
    assert isinstance(answer, Installed)
    assert answer.reason == "worker is stopping"
    world.control.abort(world.now)
    world.run()
    assert world.of(handles[2], Ended)
    assert world.control.busy == 0
    assert world.routes == set()
    assert all(world.causes(h) == ["admin_reboot"] for h in handles)


def test_settings_are_for_new_links(world: World) -> None:
    base = settings()
    world.control.configure(replace(base, ip=replace(base.ip, dns=("9.9.9.9",))))
    world.up()
    saved = Saved.unpack(world.table.blob(0))
    assert isinstance(saved.dns, tuple)


def test_many_sessions_need_no_objects() -> None:
    world = World(capacity=64)
    for index in range(64):
        world.up(index)
    assert world.control.busy == 0
    assert len(world.control.hello(1, world.now).sessions) == 64
    assert world.control.deadline() is None
    world.close()


def test_phases_are_enforced(world: World) -> None:
    world.install()
    live = world.control._live[0]
    for start in Phase:
        for goal in Phase:
            live.phase = start
            if goal is start or goal in MOVES[start]:
                live.move(goal)
            else:
                with pytest.raises(LocalError):
                    live.move(goal)


def test_hello_is_a_message(world: World) -> None:
    assert isinstance(world.control.hello(1, world.now), Hello)


def test_accounting_begins_once_up_and_ends_once_gone(world: World) -> None:
    handle = world.up()
    assert world.accounting == [("start", handle, "")]
    world.restart()  # its successor says a young session again: the books know it by its sid
    world.run()
    world.clients[handle].link.close("user_request", "bye", world.now)
    world.run()
    world.wait(10.0)
    said = [("start", handle, "")] * 2
    assert world.accounting == [*said, ("stop", handle, "user_request")]


def test_a_call_that_never_came_up_is_not_billed(world: World) -> None:
    world.start(0, "billy", "wrong")
    world.wait(10.0)
    assert world.accounting == []
