"""Which rates and which filter a session gets, and when."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from fastpath.filter import Book
from ops.settings import AccountRule, Filter, Settings, Shaping
from tests.workers.world import World, settings
from workers import shaping
from workers.filters import number_of
from workers.live import Handle
from workers.policy import Policy
from workers.shaping import Limits

GUEST = Filter("guest", ("deny up tcp to any port 25",))
RULES = (
    AccountRule("billy", rate_down=2_000_000, filter="guest"),
    AccountRule("static", rate_up=-1),
)


def conf(**general: int | str) -> Settings:
    base = settings()
    return replace(
        base,
        accounts=replace(base.accounts, rules=RULES),
        shaping=Shaping(**general),  # type: ignore[arg-type]
        filters=(GUEST,),
    )


@pytest.fixture
def world() -> Iterator[World]:
    world = World(conf(rate_up=1_000_000, burst_up=9000))
    yield world
    world.close()


def limits(world: World, handle: Handle) -> Limits:
    s = world.table.session(handle[0])
    return Limits(s.rate_up, s.rate_down, s.burst_up, s.burst_down, s.filter)


def test_the_account_goes_before_the_general_rate() -> None:
    general = shaping.Shaping(conf(rate_up=1, rate_down=2, burst_up=3, burst_down=4))
    assert general.limits(Policy()) == Limits(1, 2, 3, 4, 0)
    # Its own burst belongs to its own rate.
    assert general.limits(Policy(rate_up=10)) == Limits(10, 2, 0, 4, 0)
    assert general.limits(Policy(rate_up=-1, rate_down=-1)) == Limits(0, 0, 0, 0, 0)
    assert general.limits(Policy(burst_down=7)) == Limits(1, 2, 3, 7, 0)
    named = shaping.Shaping(conf(filter="guest"))
    assert named.limits(Policy()).filter == number_of("guest")
    assert named.limits(Policy(filter="other")).filter == 0
    assert named.unknown(Policy(filter="other")) == "other"
    assert named.unknown(Policy()) == ""


def test_limits_are_set_before_data_flows(world: World) -> None:
    handle = world.up()
    assert limits(world, handle) == Limits(1_000_000, 2_000_000, 9000, 0, number_of("guest"))
    done = [what for what, of in world.engine.done if of == handle]
    assert done.index("set_rates") < done.index("up")


def test_a_change_of_a_live_session(world: World) -> None:
    handle = world.up()
    changes = {"rate_down": 64_000, "rate_up": -1, "filter": "none of ours"}
    assert world.control.apply(handle, changes, world.now) == ""
    assert limits(world, handle) == Limits(0, 64_000, 0, 0, 0)
    assert world.engine.done[-1] == ("set_rates", handle)
    (line,) = world.log.named("unknown filter: the session has none")
    assert line["filter"] == "none of ours"
    assert world.counter("filters_unknown") == 1
    world.restart()
    world.run()
    assert limits(world, handle) == Limits(0, 64_000, 0, 0, 0)
    assert world.control.apply(handle, {"filter": "guest"}, world.now) == ""
    assert limits(world, handle) == Limits(0, 64_000, 0, 0, number_of("guest"))


def test_nothing_is_told_twice(world: World) -> None:
    handle = world.up()
    before = len(world.engine.done)
    assert world.control.apply(handle, {"session_timeout_s": 5}, world.now) == ""
    assert ("set_rates", handle) not in world.engine.done[before:]


def test_a_reload_changes_what_accounts_leave_open(world: World) -> None:
    handle = world.up()
    world.control.configure(conf(rate_up=3_000_000, rate_down=9))
    assert limits(world, handle) == Limits(3_000_000, 2_000_000, 0, 0, number_of("guest"))
    assert not world.engine.filters  # the same words
    world.control.configure(replace(conf(), filters=()))
    assert limits(world, handle) == Limits(0, 2_000_000, 0, 0, 0)
    assert len(world.engine.filters) == 1
    with pytest.raises(KeyError):
        Book(world.engine.filters[0]).permits(number_of("guest"), bytes(20), True)


def test_filters_and_exempt_prefixes_become_a_block() -> None:
    base = conf()
    block = shaping.block_of(
        replace(base, shaping=Shaping(exempt=("10.0.0.0/8", "2001:db8::/32", "10.1.0.0/16")))
    )
    book = Book(block)
    assert book.exempts(bytes((10, 200, 0, 1)))
    assert not book.exempts(bytes((11, 0, 0, 0)))
    assert book.exempts(bytes.fromhex("20010db8") + bytes(12))
