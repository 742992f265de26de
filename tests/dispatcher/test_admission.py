"""Who may have a session: limits of users, realms and sources, conflicts, bans, chains."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from dispatcher.calls import Call, CallState
from dispatcher.pptp.messages import OutgoingReply, OutgoingRequest
from ops import messages as bus
from ops.networks import Network
from ops.ranges import parse_address
from ops.settings import Bans, Ip, Limits, Pool, Pool6, Settings
from tests.dispatcher.test_exchange import SETTINGS, Box, of

STATIC = parse_address("10.9.9.9")
HERE, ELSEWHERE = 0x7F000001, 0x7F000002
Make = Callable[[Settings], Box]


@pytest.fixture
def make() -> Iterator[Make]:
    boxes: list[Box] = []

    def made(config: Settings) -> Box:
        box = Box(config, workers=1)
        box.quiet = set()
        box.hello(0)
        boxes.append(box)
        return box

    yield made
    for box in boxes:
        box.close()


def limits(**values: object) -> Settings:
    return replace(SETTINGS, limits=replace(SETTINGS.limits, **values))  # type: ignore[arg-type]


def ask(
    box: Box, user: str = "bob", address: int = 0, sessions: int = 0, pool: str = ""
) -> tuple[Call, list[bus.Message]]:
    """A call of its own connection asks for admission; what its worker is told."""
    call = box.started(box.connect())
    box.take()
    name = user
    box.say(0, bus.Admit(*call.handle, user, address, pool, name, sessions))
    return call, box.take()


def admitted(messages: list[bus.Message]) -> bus.Admitted:
    (message,) = messages
    assert isinstance(message, bus.Admitted), message
    return message


def test_one_over_the_users_limit_is_denied(make: Make) -> None:
    box = make(limits(per_user_sessions=1))
    assert not admitted(ask(box)[1]).reason
    refused = admitted(ask(box)[1])
    assert refused.reason == "per_user_limit"
    assert refused.text == "1 sessions of user 'bob' (limits.per_user_sessions)"
    assert not admitted(ask(box, "eve")[1]).reason
    assert not admitted(ask(box, "kate", sessions=2)[1]).reason
    assert not admitted(ask(box, "kate", sessions=2)[1]).reason
    assert "of the account" in admitted(ask(box, "kate", sessions=2)[1]).text


def test_or_takes_the_place_of_the_oldest(make: Make) -> None:
    box = make(limits(per_user_sessions=1, over_user_limit="replace"))
    old, _ = ask(box)
    box.say(0, bus.Up(*old.handle))
    new, told = ask(box)
    assert told == [bus.End(*old.handle, "replaced", False)]
    assert not of(box.take(), bus.Admitted)  # it waits
    box.say(0, bus.Ended(*old.handle))
    (answer,) = of(box.take(), bus.Admitted)
    assert isinstance(answer, bus.Admitted)
    assert (answer.index, answer.reason) == (new.index, "")
    assert box.count("ended_replaced") == 1
    assert any("replaced by session" in line for line in box.log.lines)


def test_the_newest_of_several_that_wait_stays(make: Make) -> None:
    box = make(limits(per_user_sessions=1, over_user_limit="replace"))
    calls = [ask(box)[0] for _ in range(3)]
    for _ in range(3):
        for call in calls:
            if call.state is CallState.ENDING and call.index in box.exchange.calls:
                box.say(0, bus.Ended(*call.handle))
    left = list(box.exchange.calls.values())
    assert [bool(call.user_mark) for call in left] == [True]
    assert len(left) == 1


def test_who_waits_may_go(make: Make) -> None:
    box = make(limits(per_user_sessions=1, over_user_limit="replace"))
    old, _ = ask(box)
    new, _ = ask(box)
    box.say(0, bus.Down(*new.handle, "user_request", "it left"))
    box.say(0, bus.Ended(*new.handle))
    box.say(0, bus.Ended(*old.handle))
    assert not box.exchange.calls
    assert not admitted(ask(box)[1]).reason


def test_a_realm_has_its_limit(make: Make) -> None:
    box = make(limits(per_realm_sessions=2))
    first, told = ask(box, r"ISP\bob")
    assert not admitted(told).reason
    assert not admitted(ask(box, "kate@isp")[1]).reason
    assert admitted(ask(box, "joe@ISP")[1]).reason == "per_realm_limit"
    assert not admitted(ask(box, "joe@other")[1]).reason
    assert not admitted(ask(box, "joe")[1]).reason
    box.say(0, bus.Down(*first.handle, "user_request", "it left"))
    box.say(0, bus.Ended(*first.handle))
    box.take()
    assert not admitted(ask(box, "joe@ISP")[1]).reason


@pytest.mark.parametrize("policy", ["refuse", "old", "new"])
def test_two_sessions_one_static_address(make: Make, policy: str) -> None:
    box = make(replace(SETTINGS, ip=Ip(local="10.0.0.1", conflict=policy)))  # type: ignore[arg-type]
    old, told = ask(box, "bob", STATIC)
    assert admitted(told).address == STATIC
    new, told = ask(box, "eve", STATIC)
    if policy == "refuse":
        assert admitted(told).reason == "address_in_use"
        assert old.state is CallState.STARTING
    elif policy == "old":
        answer = admitted(told)
        assert (answer.reason, answer.address >> 8) == ("", 0x0A0001)
        assert any("one of the pool instead" in line for line in box.log.lines)
    else:
        assert told == [bus.End(*old.handle, "replaced", False)]
        box.say(0, bus.Ended(*old.handle))
        (answer_,) = of(box.take(), bus.Admitted)
        assert answer_ == bus.Admitted(*new.handle, STATIC, parse_address("10.0.0.1"), "", "")


def test_starts_of_a_source_are_rated(make: Make) -> None:
    box = make(limits(per_ip_starts_per_minute=2))
    for peer, good in ((HERE, True), (HERE, True), (HERE, False), (ELSEWHERE, True)):
        control = box.connect(peer)
        box.speak(control, OutgoingRequest(0))
        replies = box.replies(control)
        assert (not replies) == good
        if not good:
            (reply,) = replies
            assert isinstance(reply, OutgoingReply)
            assert reply.result == 4  # Busy: try again later
    assert box.count("refused_start_rate") == 1
    box.pass_time(31)
    box.speak(box.connect(HERE), OutgoingRequest(0))
    assert box.count("refused_start_rate") == 1


def fail(box: Box, name: str, peer: int = HERE) -> list[bus.Message]:
    """A login with a wrong password; what the worker is told then."""
    call = box.started(box.connect(peer))
    box.take()
    box.say(0, bus.Failed(*call.handle, name))
    told = box.take()
    box.say(0, bus.Down(*call.handle, "auth_failed", "no"))
    box.say(0, bus.Ended(*call.handle))
    box.take()
    return told


def test_a_user_is_banned_and_free_again(make: Make) -> None:
    box = make(replace(SETTINGS, bans=Bans(user_failures=3, ban_s=60)))
    assert fail(box, "bob") == []
    assert fail(box, r"DOM\Bob") == []
    assert fail(box, "bob") == [bus.Banned(("bob",))]
    assert box.hello(0)[1:] == [bus.Banned(("bob",))]  # a successor is told, too
    box.pass_time(59)
    assert not of(box.take(), bus.Banned)
    box.pass_time(2)
    assert of(box.take(), bus.Banned) == [bus.Banned(())]
    assert box.count("bans_user") == 1


def test_a_source_is_banned_and_lifted(make: Make) -> None:
    box = make(replace(SETTINGS, bans=Bans(source_failures=2)))
    fail(box, "a")
    fail(box, "b")
    control = box.connect(HERE)
    box.speak(control, OutgoingRequest(0))
    (reply,) = box.replies(control)
    assert isinstance(reply, OutgoingReply)
    assert reply.result == 7  # Do Not Accept
    box.call(box.connect(ELSEWHERE))
    console = b"console-1-1"
    box.exchange.message(console, bus.ListBans(5), box.now)
    box.exchange.message(console, bus.Unban(6, "source", "127.0.0.1"), box.now)
    box.exchange.message(console, bus.Unban(7, "source", "127.0.0.1"), box.now)
    assert box.sent[console] == [
        bus.BanList(5, (("source", "127.0.0.1", 60, 1),)),
        bus.Unbanned(6, 1),
        bus.Unbanned(7, 0),
    ]
    box.call(box.connect(HERE))


def test_a_change_reaches_the_sessions_it_names(make: Make) -> None:
    box = make(SETTINGS)
    one, two = box.up(box.connect(), user="bob"), box.up(box.connect(), user="eve")
    console = b"console-1-1"
    box.exchange.message(console, bus.Change(9, "username", "bob", b"\x80"), box.now)
    (told,) = box.take()
    assert isinstance(told, bus.Apply)
    assert (told.index, told.changes) == (one.index, b"\x80")
    assert console not in box.sent
    box.say(0, bus.Applied(*one.handle, told.request, ""))
    assert box.sent.pop(console) == [bus.Changed(9, 1, ())]
    box.exchange.message(console, bus.Change(10, "username", "nobody", b"\x80"), box.now)
    assert box.sent.pop(console) == [bus.Changed(10, 0, ())]
    box.exchange.message(console, bus.Change(11, "all", "", b"\x80"), box.now)
    box.pass_time(4)
    (late,) = box.sent.pop(console)
    assert isinstance(late, bus.Changed)
    assert late.count == 0
    assert len(late.errors) == 2
    assert f"{two.sid:016x}: its worker does not answer" in late.errors


CHAINED = replace(
    SETTINGS,
    limits=Limits(max_sessions=12),
    pools=(
        Pool("default", ("10.0.1.0-1",), "more"),
        Pool("more", ("10.0.2.0-1",), "default"),
        Pool("other", ("10.0.3.0-1",)),
    ),
)


def test_a_chain_is_used_up_in_its_order(make: Make) -> None:
    box = make(CHAINED)
    given = [admitted(ask(box, f"u{n}")[1]) for n in range(4)]
    assert [answer.address >> 8 & 0xFF for answer in given] == [1, 1, 2, 2]
    refused = admitted(ask(box, "u5")[1])
    assert refused.reason == "no_address"
    assert "pools 'default', 'more' are used up: all 4 addresses" in refused.text
    assert "pools.more.next" in refused.text


def test_a_user_comes_back_to_the_far_end_of_a_chain(make: Make) -> None:
    box = make(CHAINED)
    calls = [ask(box, f"u{n}") for n in range(3)]
    address = admitted(calls[2][1]).address
    for call, _ in calls:
        box.say(0, bus.Down(*call.handle, "user_request", "it left"))
        box.say(0, bus.Ended(*call.handle))
    box.take()
    assert admitted(ask(box, "u2")[1]).address == address


def test_a_range_that_a_reload_takes_away_gives_no_more(make: Make) -> None:
    box = make(CHAINED)
    call, told = ask(box, "u0")
    assert admitted(told).address == parse_address("10.0.1.0")
    box.exchange.configure(replace(CHAINED, pools=(Pool("default", ("10.0.7.0-1",)),)))
    assert call.state is CallState.STARTING  # it keeps its address
    assert box.exchange.pools() == [("default", 2, 0)]
    for n in (1, 2):
        assert admitted(ask(box, f"u{n}")[1]).address >> 8 == 0x0A0007
    box.say(0, bus.Down(*call.handle, "user_request", "it left"))
    box.say(0, bus.Ended(*call.handle))
    box.take()
    assert admitted(ask(box, "u0")[1]).reason == "no_address"


SIX = replace(
    SETTINGS,
    ipv6=replace(
        SETTINGS.ipv6,
        ipv6cp="on",
        pools=(Pool6("links", ("2001:db8:1::/63",)), Pool6("homes", ("2001:db8:2::/48",), 56)),
    ),
)


def test_ipv6_prefixes_are_in_the_record_before_the_answer(make: Make) -> None:
    box = make(SIX)
    words = ("", "links", "2001:db8:7::/48", "homes", "2001:db8::9", "")

    def six(user: str) -> tuple[Call, list[str]]:
        call = box.started(box.connect())
        box.take()
        box.say(0, bus.Admit(*call.handle, user, 0, "", user, 0, words))
        assert not admitted(box.take()).reason
        given = box.table.granted6(call.index)
        return call, [str(Network(*net)) if net[1] else "" for net in given]

    first, got = six("bob")
    assert got == ["2001:db8:1::/64", "2001:db8:7::/48", "2001:db8::9/128"]
    _, got = six("eve")  # what is bob's she does without, and has a session all the same
    assert got == ["2001:db8:1:1::/64", "", ""]
    _, got = six("dan")
    assert got == ["", "", ""]
    box.say(0, bus.Down(*first.handle, "user_request", "over"))
    box.say(0, bus.Ended(*first.handle))
    box.take()
    _, got = six("bob")
    assert got == ["2001:db8:1::/64", "2001:db8:7::/48", "2001:db8::9/128"]
