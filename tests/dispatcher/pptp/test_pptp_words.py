"""Control messages in words."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from dispatcher.pptp import messages as m
from dispatcher.pptp.words import NAMES, describe


def test_words() -> None:
    start = m.StartRequest(host_name=m.text_field("pc"), vendor=m.text_field("Microsoft"))
    told = describe(start.encode())
    assert told.startswith("Start-Control-Connection-Request: version 256, framing 3, bearer 3")
    assert told.endswith("host name 'pc', vendor 'Microsoft'")
    reply = m.OutgoingReply(7, 9, result=m.OutgoingResult.GENERAL_ERROR, error=4)
    assert "result 2 (general error), error 4 (no resource)" in describe(reply.encode())
    notify = m.DisconnectNotify(7, result=99)
    assert "result 99 (unknown)" in describe(notify.encode())
    assert describe(m.EchoRequest(5).encode() * 2) == "; ".join(["Echo-Request: identifier 5"] * 2)
    whole = m.ClearRequest(3).encode()
    assert describe(whole[:9]) == "a part of a message, 9 octets"
    assert "16 octets that are no message" in describe(bytes(16))
    assert describe(b"") == "nothing"


def test_every_message_has_a_name() -> None:
    assert set(NAMES) == {kind.__name__ for kind in m.BY_TYPE.values()}


@given(st.binary(max_size=200))
def test_any_octets_give_words(octets: bytes) -> None:
    assert describe(octets).isprintable()
    head = m.EchoRequest(5).encode()
    assert describe(head + octets).isprintable()
