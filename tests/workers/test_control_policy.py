"""What an account is given: from login to the blob, and changed while the session is up."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import msgpack
import pytest

from fastpath.layout import BLOB_MAX
from ops.messages import Admit, Applied, Apply, Banned, Failed
from ops.ranges import parse_address
from ops.settings import AccountRule
from tests.workers.world import World, settings
from workers.live import Handle
from workers.policy import Policy, pack_changes
from workers.session import Saved

RULES = (
    AccountRule("static", pool="never", sessions=3),
    AccountRule(
        "billy", pool="gold", dns=("9.9.9.9",), sessions=2, session_timeout_s=600, volume=10**12
    ),
)


@pytest.fixture
def world() -> Iterator[World]:
    conf = settings()
    world = World(replace(conf, accounts=replace(conf.accounts, rules=RULES)))
    yield world
    world.close()


def saved(world: World, handle: Handle) -> Policy:
    return Policy.thaw(Saved.unpack(world.table.blob(handle[0])).policy)


def test_the_rule_completes_the_account(world: World) -> None:
    handle = world.up()
    assert world.of(handle, Admit) == [Admit(*handle, "billy", 0, "gold", "billy", 2)]
    policy = saved(world, handle)
    assert (policy.source, policy.pool, policy.session_timeout_s) == ("secrets", "gold", 600)
    assert world.clients[handle].link.freeze()["ipcp"]  # it has asked for name servers
    assert Saved.unpack(world.table.blob(0)).dns == (parse_address("9.9.9.9"),)


def test_an_address_of_the_account_goes_before_the_rule(world: World) -> None:
    handle = world.start(0, "static", "secret")
    admit = Admit(*handle, "static", parse_address("10.5.5.5"), "never", "static", 3)
    assert world.of(handle, Admit) == [admit]


def test_a_change_is_in_the_blob_and_outlives_the_worker(world: World) -> None:
    handle = world.up()
    assert world.control.apply(handle, {"rate_up": 64000, "filter": "games"}, world.now) == ""
    world.restart()
    world.run()
    assert world.control.apply(handle, {"rate_down": 128000}, world.now) == ""
    policy = saved(world, handle)
    assert (policy.rate_up, policy.rate_down, policy.filter) == (64000, 128000, "games")
    assert world.control.busy == 0
    assert world.log.named("session changed")


def test_what_cannot_change_changes_nothing(world: World) -> None:
    handle = world.up()
    before = saved(world, handle)
    for changes, text in (
        ({"rate_up": 1, "address": 2}, "address: cannot change"),
        ({"reply": "x" * BLOB_MAX}, "at most"),
        ({"no": 1}, "no such field"),
    ):
        assert text in world.control.apply(handle, changes, world.now)
    assert saved(world, handle) == before
    assert world.control.apply((7, 1), {}, world.now) == "no such session"
    assert world.control.apply(handle, {"rate_up": 1}, world.now) == ""


def test_the_dispatcher_asks_and_is_answered(world: World) -> None:
    handle = world.up()
    world.control.message(Apply(*handle, 5, pack_changes({"rate_up": 9})), world.now)
    world.control.message(Apply(*handle, 6, b"\xc1"), world.now)
    good, bad = world.of(handle, Applied)
    assert good == Applied(*handle, 5, "")
    assert isinstance(bad, Applied)
    assert "not msgpack" in bad.error
    assert saved(world, handle).rate_up == 9


def test_an_account_that_says_too_much_is_refused(world: World) -> None:
    verify = world.accounts.check

    def talkative(request: object, unit: int) -> object:
        login = verify(request, unit)  # type: ignore[arg-type]
        return replace(login, policy=Policy(source="radius", classes=(bytes(250),) * 5))

    world.accounts.check = talkative  # type: ignore[method-assign,assignment]
    handle = world.start()
    assert not world.clients[handle].up
    (line,) = world.log.named("login refused")[:1]
    assert "radius says too much: 12" in str(line["reason"])


def test_the_room_in_the_blob_is_what_the_link_leaves(world: World) -> None:
    handle = world.up()
    link = Saved.unpack(world.table.blob(handle[0])).link
    # 40 octets are the rest of the blob; 960 POLICY_ROOM.
    assert len(msgpack.packb(link)) + 40 + 960 + 60 < BLOB_MAX


def test_a_wrong_password_is_told_and_a_banned_user_is_refused_unseen(world: World) -> None:
    handle = world.start(0, "billy", "wrong")
    assert world.of(handle, Failed)[0] == Failed(*handle, "billy")
    world.control.message(Banned(("billy",)), world.now)
    told = len(world.requests)
    second = world.start(1)  # the password is right
    assert not world.clients[second].up
    assert len(world.requests) == told
    assert world.of(second, Failed) == []
    assert "banned" in str(world.log.named("login refused")[-1]["reason"])
    world.control.message(Banned(()), world.now)
    assert world.clients[world.start(2)].up
