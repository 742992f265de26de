"""A second try at the password, a challenge to a link that is up, and a new password."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.workers.ppp.ends import freeze_and_thaw, pair
from tests.workers.ppp.test_link_ends import both_up, check_up, policies
from tests.workers.ppp.test_traps import BASE, Peer, h, packet
from workers.ppp import mschap
from workers.ppp.actions import Admission, Authenticate, Finished, NetworkDown, Send, SetMppe
from workers.ppp.chap import respond_v2

CHAP = 0xC223


def challenge_of(failure: bytes) -> bytes:
    """C= of a Failure."""
    text = failure[6:].decode()
    return bytes.fromhex(text.split(" C=")[1].split(" ")[0])


def answer(peer: Peer, identifier: int, challenge: bytes, password: str) -> list[bytes]:
    value, peer.expected, _ = respond_v2(challenge, b"Q" * 16, "user", password)  # type: ignore[attr-defined]
    assert peer.tell(packet(CHAP, 2, identifier, b"\x31" + value + b"user")) == []
    return peer.verdict()


def refused(policy_retries: int = 1) -> tuple[Peer, bytes]:
    peer = Peer(replace(BASE, auth_retries=policy_retries))
    peer.lcp_up()
    failure = peer.log_in(password="typo")[0]
    return peer, failure


def test_windows_asks_its_user_again() -> None:
    """4.12: R=1, the challenge to answer in C=, the next identifier (RFC 2759 9.1.3)."""
    peer, failure = refused()
    assert failure[:4] == h("c2230401") and failure[6:].startswith(b"E=691 R=1 C=")
    assert b" V=3 M=" in failure
    assert peer.wait(25) == [], "no short timeout while a person types"
    frames = answer(peer, 2, challenge_of(failure), "secret")
    assert frames[0][:4] == h("c2230302")
    assert frames[0][6:48].decode() == peer.expected  # type: ignore[attr-defined]
    peer.admit()
    peer.ccp_up()
    peer.ipcp_up()
    assert peer.link.state == "active"


def test_tries_are_bounded_and_each_has_its_challenge() -> None:
    peer, failure = refused(2)
    seen = [challenge_of(failure)]
    for identifier, retry in ((2, b"R=1"), (3, b"R=0")):
        failure = answer(peer, identifier, seen[-1], "typo")[0]
        assert failure[3] == identifier and retry in failure
        seen.append(challenge_of(failure))
    assert len(set(seen)) == 3
    peer.wait(10)
    assert peer.finished == Finished("auth_failed", "wrong password")
    assert peer.had(Authenticate) == 3


def test_the_old_challenge_does_not_do_twice() -> None:
    peer, _ = refused()
    frames = answer(peer, 2, bytes(range(16)), "secret")
    assert b"R=0" in frames[0]


def test_repeated_response_gets_the_same_failure() -> None:
    peer, failure = refused()
    assert peer.tell(peer.response) == [failure] and peer.had(Authenticate) == 1


@pytest.mark.parametrize("how", ["terminates", "is silent"])
def test_try_that_is_not_made(how: str) -> None:
    """The cause is the password, however the link ends then."""
    peer, _ = refused()
    if how == "terminates":
        peer.tell(packet(0xC021, 5, 9, b"User cancelled"))
    peer.wait(70)
    assert peer.finished == Finished("auth_failed", "wrong password")
    assert not any(isinstance(a, Send) and b"wrong" in a.frame for a in peer.log)


def test_version_1_has_its_own_shape() -> None:
    peer = Peer(replace(BASE, auth=("mschap",), auth_retries=1))
    peer.lcp_up()
    peer.tell(packet(CHAP, 2, 1, b"\x31" + bytes(48) + b"\x01user"))
    (failure,) = peer.verdict()
    assert failure[6:].startswith(b"E=691 R=1 C=") and failure[6:].endswith(b" V=2")
    challenge = challenge_of(failure)
    assert len(challenge) == 8
    response = bytes(24) + mschap.nt_challenge_response(challenge, "secret") + b"\x01"
    peer.tell(packet(CHAP, 2, 2, b"\x31" + response + b"user"))
    assert peer.verdict()[0][:4] == h("c2230302")


def test_plain_chap_has_no_second_try() -> None:
    peer = Peer(replace(BASE, auth=("chap-md5",), mppe="deny", auth_retries=3))
    peer.lcp_up()
    peer.tell(packet(CHAP, 2, 1, b"\x10" + bytes(16) + b"user"))
    failure, terminate = peer.verdict()
    assert failure == packet(CHAP, 4, 1, b"Access denied") and terminate[:3] == h("c02105")


@pytest.mark.parametrize("code", [5, 6, 7])
def test_change_of_password_gets_a_clear_no(code: int) -> None:
    peer, _ = refused()
    frames = peer.tell(packet(CHAP, code, 2, bytes(582)))
    assert frames[0][:4] == h("c22304") + b"\x02"
    assert frames[0][6:].startswith(b"E=709 R=0 C=") and b"not changed here" in frames[0]
    peer.wait(10)
    assert peer.finished.cause == "auth_failed" and "change its password" in peer.finished.reason


# -- a link that is up

AGAIN = replace(BASE, chap_rechallenge=600.0)


def up() -> Peer:
    peer = Peer(AGAIN)
    peer.all_up()
    return peer


def wake(peer: Peer) -> list[bytes]:
    """Sleep till the next challenge, as the session table keeps a link at rest."""
    assert peer.link.deadline is None and peer.link.wake_at is not None
    peer.link = freeze_and_thaw(peer.link)
    assert peer.link.deadline is None and peer.link.wake_at is not None
    peer.now = peer.link.wake_at
    mark = len(peer.log)
    peer.link.handle_timer(peer.now)
    peer.pump()
    return [a.frame for a in peer.log[mark:] if isinstance(a, Send)]


def test_no_rechallenge_unless_asked_for() -> None:
    peer = Peer()
    peer.all_up()
    assert peer.link.wake_at is None


def test_rechallenge() -> None:
    peer = up()
    began = peer.now
    assert peer.link.wake_at == began + 600
    seen = {bytes(range(16))}
    for number in (2, 3):
        (challenge,) = wake(peer)
        assert challenge[:4] == h("c22301") + bytes([number])
        assert challenge[7:23] not in seen
        seen.add(challenge[7:23])
        assert peer.link.deadline is not None, "an answer is awaited"
        assert peer.wait(3) == [challenge]
        peer.link = freeze_and_thaw(peer.link)
        (success,) = answer(peer, number, challenge[7:23], "secret")
        assert success[:4] == h("c22303") + bytes([number])
        assert peer.expected.encode() in success[6:]  # type: ignore[attr-defined]
    assert peer.link.state == "active" and peer.had(NetworkDown) == 0
    assert peer.had(Admission) == 1 and peer.had(SetMppe) == 1, "the keys stay"
    assert peer.link.wake_at == peer.now + 600


def test_rechallenge_with_a_changed_password() -> None:
    peer = up()
    (challenge,) = wake(peer)
    frames = answer(peer, 2, challenge[7:23], "old")
    assert b"E=691 R=0" in frames[0] and frames[1][:3] == h("c02105")
    peer.wait(10)
    assert peer.finished == Finished("auth_failed", "wrong password")


def test_rechallenge_is_not_answered() -> None:
    peer = up()
    wake(peer)
    peer.wait(60)
    assert peer.finished.cause == "auth_failed" and "no mschapv2 login" in peer.finished.reason


def test_another_user_answers() -> None:
    peer = up()
    (challenge,) = wake(peer)
    value, _, _ = respond_v2(challenge[7:23], b"Q" * 16, "other", "secret")
    peer.tell(packet(CHAP, 2, 2, b"\x31" + value + b"other"))
    peer.verdict()
    peer.wait(10)
    assert peer.finished.cause == "auth_failed"
    assert "'other' answered in place of the user" in peer.finished.reason


@pytest.mark.parametrize("method", ["chap-md5", "mschap", "mschapv2"])
def test_real_clients_prove_it_again(method: str) -> None:
    mppe = "deny" if method == "chap-md5" else "require"
    server, client = policies(method, mppe)
    one, two, wire = pair(replace(server, chap_rechallenge=100.0), client)
    one.freezing = two.freezing = True
    wire.start()
    wire.run(wire.now + 350)
    assert both_up(one, two) and one.authentications == 4
    check_up(one, two, method, 0 if mppe == "deny" else 128)


def test_switched_off_by_a_reload() -> None:
    peer = up()
    peer.link.policy = BASE
    assert wake(peer) == [] and peer.link.wake_at is None
