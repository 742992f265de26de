"""The automaton against RFC 1661 section 4.1, typed a second time as the RFC prints it."""

from __future__ import annotations

import itertools

import pytest

from workers.ppp.automaton import TRANSITIONS, WAITING, Automaton, Do, Event, State
from workers.ppp.errors import LocalError

# Rows in the RFC's order; columns are states 0 to 9; "-" is a blank cell. The letters r, p
# and x are footnotes and left out; "rest", "no" and "good"/"bad" mark our split events.
TABLE = """
UP           2  irc,scr/6 -     -               -     -     -         -         -         -
DOWN         -  -         0     tls/1           0     1     1         1         1         tld/1
OPEN         tls/1 1      irc,scr/6 3           5     5     6         7         8         9
CLOSE        0  tlf/0     2     2               4     4     irc,str/4 irc,str/4 irc,str/4 tld,irc,str/4
TIMEOUT      -  -         -     -               str/4 str/5 scr/6     scr/6     scr/8     -
GAVE_UP      -  -         -     -               tlf/2 tlf/3 tlf/3     tlf/3     tlf/3     -
REQUEST_GOOD -  -         sta/2 irc,scr,sca/8   4     5     sca/8     sca,tlu/9 sca/8     tld,scr,sca/8
REQUEST_BAD  -  -         sta/2 irc,scr,scn/6   4     5     scn/6     scn/7     scn/6     tld,scr,scn/6
ACK          -  -         sta/2 sta/3           4     5     irc/7     scr/6     irc,tlu/9 tld,scr/6
NAK          -  -         sta/2 sta/3           4     5     irc,scr/6 scr/6     irc,scr/8 tld,scr/6
TERM_REQUEST -  -         sta/2 sta/3           sta/4 sta/5 sta/6     sta/6     sta/6     tld,zrc,sta/5
TERM_ACK     -  -         2     3               tlf/2 tlf/3 6         6         8         tld,scr/6
UNKNOWN      -  -         scj/2 scj/3           scj/4 scj/5 scj/6     scj/7     scj/8     scj/9
REJECT_GOOD  -  -         2     3               4     5     6         6         8         9
REJECT_BAD   -  -         tlf/2 tlf/3           tlf/2 tlf/3 tlf/3     tlf/3     tlf/3     tld,irc,str/5
ECHO         -  -         2     3               4     5     6         7         8         ser/9
"""  # noqa: E501


def rows() -> dict[tuple[State, Event], str]:
    cells = {}
    for line in TABLE.strip().splitlines():
        name, *row = line.split()
        assert len(row) == 10
        for state, cell in zip(State, row, strict=True):
            if cell != "-":
                cells[state, Event[name]] = cell
    return cells


def shown(actions: tuple[Do, ...], state: State) -> str:
    names = ",".join(action.value.split(" ")[0] for action in actions)
    return f"{names}/{int(state)}" if names else str(int(state))


def test_table_is_the_rfc() -> None:
    assert {key: shown(*value) for key, value in TRANSITIONS.items()} == rows()


@pytest.mark.parametrize(("state", "event"), list(itertools.product(State, Event)))
def test_every_pair(state: State, event: Event) -> None:
    machine = Automaton(state=state)
    if state in WAITING:
        machine.timer_at = 5.0
    if (state, event) not in TRANSITIONS:
        with pytest.raises(LocalError, match=state.name):
            machine.step(event, 1.0)
        return
    machine.step(event, 1.0)
    # A state that waits has an end; one that does not has no timer.
    assert (machine.timer_at is not None) == (machine.state in WAITING)


def test_counters_follow_what_is_sent() -> None:
    for actions, _ in TRANSITIONS.values():
        for first, second in itertools.pairwise(actions):
            if second is Do.SEND_TERM_REQUEST:
                assert first is Do.INIT_TERMINATE
        if Do.INIT_TERMINATE in actions:
            assert Do.SEND_TERM_REQUEST in actions


def due(machine: Automaton, now: float) -> tuple[Do, ...]:
    event = machine.handle_timer(now)
    return machine.step(event, now) if event else ()


def test_request_is_resent_then_given_up() -> None:
    machine = Automaton(max_configure=2)
    machine.step(Event.OPEN, 0.0)
    assert machine.step(Event.UP, 0.0) == (Do.INIT_CONFIGURE, Do.SEND_REQUEST)
    assert due(machine, 2.9) == ()
    assert due(machine, 3.0) == (Do.SEND_REQUEST,)
    assert due(machine, 6.0) == (Do.LAYER_FINISHED,)
    assert machine.timer_at is None


def test_terminate_waits_one_restart_time() -> None:
    machine = Automaton(state=State.OPENED)
    machine.step(Event.TERM_REQUEST, 10.0)
    assert machine.timer_at == 13.0
    machine.step(Event.TERM_REQUEST, 12.0)
    assert machine.timer_at == 13.0, "repetition does not prolong it"
    assert due(machine, 13.0) == (Do.LAYER_FINISHED,)


def test_close_gives_up_after_max_terminate() -> None:
    machine = Automaton(state=State.OPENED, max_terminate=2)
    machine.step(Event.CLOSE, 0.0)
    assert due(machine, 3.0) == (Do.SEND_TERM_REQUEST,)
    assert due(machine, 6.0) == (Do.LAYER_FINISHED,)
