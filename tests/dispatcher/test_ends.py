"""Every end has one cause and a sentence: in the log, in the counter, in the history."""

from __future__ import annotations

import pytest

from dispatcher.ends import LEFT, REMEMBERED, TEXT_MAX, WAITED, History, explained, sentence
from dispatcher.pptp.messages import ClearRequest, OutgoingRequest, StopRequest
from ops import messages as bus
from ops.messages import PastCall
from ops.metrics import END_CAUSES
from tests.dispatcher.test_exchange import Box, box

__all__ = ["box"]


def why(
    cause: str, *, gre: bool = True, waited: float = 60.0, shared: int | None = None
) -> tuple[str, str]:
    return explained(cause, "so it was", gre=gre, waited=waited, patience=10.0, shared=shared)


@pytest.mark.parametrize("cause", END_CAUSES)
def test_no_gre_is_the_cause_of_what_follows_from_it(cause: str) -> None:
    found, reason = why(cause, gre=False)
    assert found == ("no_gre" if cause in LEFT | WAITED else cause)
    assert ("IP protocol 47" in reason) == (cause in LEFT | WAITED)
    assert reason.endswith("so it was")
    # A port scanner that goes at once had no time to send any.
    hasty, _ = why(cause, gre=False, waited=1.0)
    assert hasty == ("no_gre" if cause in WAITED else cause)


@pytest.mark.parametrize("cause", END_CAUSES)
def test_a_shared_call_id_is_named(cause: str) -> None:
    found, reason = why(cause, shared=0)
    assert found == cause
    assert ("call ID 0 too" in reason) == (cause in LEFT | WAITED)
    assert why(cause) == (cause, "so it was")


def test_a_sentence_is_a_line_of_bounded_length() -> None:
    assert sentence("a\nb\t c ") == "a b c"
    assert len(sentence("x" * 1000)) == TEXT_MAX


def past(n: int, user: str = "ann", inner: int = 0x0A630101) -> PastCall:
    return n, n, user, inner, 0xC0000207, "user_request", "bye", True, 1, 2, 3


def test_the_newest_are_remembered() -> None:
    history = History()
    for n in range(REMEMBERED + 5):
        history.add(past(n, f"u{n % 3}", 0 if n % 3 else 0x0A630101))
    assert [c[0] for c in history.newest("", 2)] == [REMEMBERED + 4, REMEMBERED + 3]
    assert len(history.newest("", 0)) == REMEMBERED
    assert {c[2] for c in history.newest("u1", 0)} == {"u1"}
    assert [c[1] for c in history.newest(f"{77:016x}", 0)] == [77]
    assert {c[2] for c in history.newest("10.99.1.1", 0)} == {"u0"}
    assert len(history.newest("192.0.2.7", 10)) == 10
    assert history.newest("0.0.0.0", 0) == ()
    assert history.newest("nobody", 0) == ()


def ends(box: Box, value: str = "") -> list[PastCall]:
    """As the console asks."""
    box.exchange.message(b"console-1", bus.Ends(7, value, 0), box.now)
    (answer,) = box.sent.pop(b"console-1")
    assert isinstance(answer, bus.PastCalls)
    assert answer.request == 7
    return list(answer.calls)


def test_no_gre_when_the_link_gives_up(box: Box) -> None:
    call = box.started(box.connect())
    box.pass_time(60)
    box.say(call.worker, bus.Down(*call.handle, "negotiation_timeout", "LCP took too long"))
    box.say(call.worker, bus.Ended(*call.handle))
    ((_, sid, user, inner, outer, cause, reason, up, *_),) = ends(box)
    assert (sid, user, inner, outer, up) == (call.sid, "", 0, 0x7F000001, False)
    assert cause == "no_gre"
    assert "came in 60 s" in reason
    assert "NAT without PPTP helper; then LCP took too long" in reason
    assert box.count("ended_no_gre") == 1
    assert "cause='no_gre'" in box.log.lines[-1]
    assert "protocol 47" in box.log.lines[-1]


@pytest.mark.parametrize(("seconds", "cause"), [(2, "user_request"), (31, "no_gre")])
def test_no_gre_when_the_client_gives_up(box: Box, seconds: int, cause: str) -> None:
    control = box.connect()
    call = box.started(control)
    box.pass_time(seconds)
    box.speak(control, ClearRequest(0))
    box.say(call.worker, bus.Ended(*call.handle))
    assert [(c[5], c[1]) for c in ends(box)] == [(cause, call.sid)]


def test_the_links_own_cause_wins_over_the_clients_leaving(box: Box) -> None:
    control = box.connect()
    call = box.started(control)
    box.speak(control, ClearRequest(0))
    box.say(call.worker, bus.Down(*call.handle, "auth_failed", "wrong password"))
    box.say(call.worker, bus.Ended(*call.handle))
    assert [c[5:7] for c in ends(box)] == [("auth_failed", "wrong password")]
    assert box.count("ended_auth_failed") == 1
    assert box.count("ended_user_request") == 0


def test_and_not_over_an_operators(box: Box) -> None:
    call = box.up(box.connect())
    box.exchange.message(b"console-1", bus.Terminate(1, "all", "", True), box.now)
    box.sent.pop(b"console-1")
    box.say(call.worker, bus.Down(*call.handle, "user_request", "Terminate-Request"))
    box.say(call.worker, bus.Ended(*call.handle))
    assert [c[5:7] for c in ends(box)] == [("admin_reset", "terminate by all")]


def test_every_call_that_was_not_refused_has_an_end(box: Box) -> None:
    """requested = refused + ended + there."""
    control = box.connect()
    box.up(control, 1, "ann")
    box.started(control, 2)
    box.call(control, 3)
    there = box.connect()
    box.started(there, 4)
    lost = box.call(there, 5)
    box.say(lost.worker, bus.Installed(*lost.handle, False, "no room"))  # refused
    for n in range(20):  # and so is most of these
        box.speak(there, OutgoingRequest(100 + n))
    box.speak(control, StopRequest())
    for call in list(box.exchange.calls.values()):
        if call.control is None:
            box.say(call.worker, bus.Ended(*call.handle))
    refused = box.count("refused_worker_failed") + box.count("refused_no_slot")
    ended = sum(box.count(f"ended_{cause}") for cause in END_CAUSES)
    assert ended == 3 == len(ends(box))
    assert refused > 1
    assert box.count("calls_requested") == refused + ended + len(box.exchange.calls)
    assert {c[5] for c in ends(box)} == {"user_request"}
    assert {c[6] for c in ends(box)} == {ends(box)[0][6]}
    assert ends(box)[0][6].startswith("control connection: ")
    assert [c[2] for c in ends(box, "ann")] == ["ann"]


def test_a_worker_that_forgets_a_call(box: Box) -> None:
    control = box.connect()
    call = box.up(control)
    box.say(call.worker, bus.Ended(*call.handle))
    assert [c[5:7] for c in ends(box)] == [("internal_error", "its worker forgot it")]
