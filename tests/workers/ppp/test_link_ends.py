"""Server and client links against each other over a simulated wire."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.workers.ppp.ends import ADDRESS, LOCAL, End, Wire, freeze_and_thaw, pair
from workers.ppp.actions import NetworkUp, Policy, SetMppe, Verdict
from workers.ppp.link import Link
from workers.ppp.mppe_twin import Decryptor, Encryptor

METHODS = ("pap", "chap-md5", "mschap", "mschapv2")
DNS = (0xC6130035, 0xC6130036)


def policies(
    method: str = "mschapv2",
    mppe: str = "require",
    strengths: tuple[int, ...] = (128,),
    *,
    name: str = "user",
    password: str = "secret",  # noqa: S107
    client_mppe: str | None = None,
) -> tuple[Policy, Policy]:
    server = Policy(auth=(method,), mppe=mppe, mppe_strengths=strengths, dns=DNS)  # type: ignore[arg-type]
    client = Policy(
        role="client",
        name=name,
        password=password,
        auth=METHODS,
        mppe=client_mppe or mppe,  # type: ignore[arg-type]
        mppe_strengths=strengths,
    )
    return server, client


def both_up(one: End, two: End) -> bool:
    return one.up is not None and two.up is not None


def check_up(one: End, two: End, method: str, bits: int) -> None:
    assert one.up is not None and two.up is not None
    for end in (one, two):
        agreed = end.up.agreed  # type: ignore[union-attr]
        assert (agreed.address, agreed.local) == (ADDRESS, LOCAL)
        assert agreed.dns == DNS and agreed.auth == method
        assert agreed.mppe_rx_bits == agreed.mppe_tx_bits == bits
        assert agreed.mtu == 1400 - (4 if bits else 0) and agreed.acfc and agreed.pfc
    if bits:
        check_keys(one, two)


def check_keys(one: End, two: End) -> None:
    assert one.mppe is not None and two.mppe is not None
    for a, b in ((one.mppe, two.mppe), (two.mppe, one.mppe)):
        assert a.tx_key == b.rx_key and a.tx_bits == b.rx_bits
        packet = Encryptor(a.tx_key, a.tx_bits, a.tx_stateful).encrypt(b"\x00\x21data")
        twin = Decryptor(b.rx_key, b.rx_bits, b.rx_stateful)
        assert twin.decrypt(packet).plain == b"\x00\x21data"


@pytest.mark.parametrize("freezing", [False, True])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("mppe", ["128", "40", "prefer", "none"])
def test_every_method(method: str, mppe: str, freezing: bool) -> None:
    keys = method in ("mschap", "mschapv2")
    policy = {"128": "require", "40": "require", "prefer": "prefer", "none": "deny"}[mppe]
    bits = {"128": 128, "40": 40, "prefer": 128, "none": 0}[mppe]
    one, two, wire = pair(*policies(method, policy, (bits or 128,)))
    one.freezing = two.freezing = freezing
    wire.start()
    wire.run(wire.now + 5, lambda: both_up(one, two))
    if policy == "require" and not keys:
        wire.run(wire.now + 30)
        assert one.finished is not None and two.finished is not None
        assert one.finished.cause == "ccp_failed"
        assert "gives no key" in one.finished.reason and method in one.finished.reason
        return
    check_up(one, two, method, bits if keys else 0)
    assert wire.now < 1000.5, "no retransmission was needed"
    assert one.authentications == 1 and one.admissions == 1
    one.link.close("admin_reset", "test", wire.now)
    wire.carry(0)
    wire.run(wire.now + 30)
    assert one.finished is not None and one.finished.cause == "admin_reset"
    assert two.finished is not None and two.finished.cause == "user_request"


@given(
    st.sampled_from(METHODS),
    st.sampled_from(["require", "prefer", "deny"]),
    st.integers(0, 2**32),
    st.sampled_from([0.001, 0.5, 2.0]),
    st.sampled_from([0.0, 0.1, 0.3]),
    st.booleans(),
    st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_lossy_wire_ends_in_agreement_or_an_end(
    method: str, mppe: str, seed: int, delay: float, loss: float, twice: bool, freezing: bool
) -> None:
    one, two, wire = pair(
        *policies(method, mppe), delay=delay, loss=loss, duplicate=0.2 * twice, seed=seed
    )
    one.freezing = two.freezing = freezing
    wire.start()
    wire.run(wire.now + 200, lambda: both_up(one, two))
    if one.up and two.up and mppe == "require":
        check_up(one, two, method, 128)
    wire.run(wire.now + 200)  # let all settle: preferred MPPE may come late
    if one.up and two.up:
        check_up(one, two, method, one.up.agreed.mppe_rx_bits)
    assert all(e.finished or e.link.state == "active" for e in (one, two))
    assert one.admissions <= 1


@pytest.mark.parametrize("method", METHODS)
def test_wrong_password(method: str) -> None:
    mppe = "require" if method.startswith("ms") else "deny"
    one, two, wire = pair(*policies(method, mppe, password="wrong"))
    wire.start()
    wire.run(wire.now + 30)
    assert one.finished is not None and two.finished is not None
    assert one.finished.cause == two.finished.cause == "auth_failed"
    assert one.finished.reason == "wrong password"
    assert one.authentications == 1 and one.admissions == 0 and one.up is None
    if method == "mschapv2":
        failure = next(f for f in one.sent if f[:3] == b"\xc2\x23\x04")
        assert failure[6:17] == b"E=691 R=0 C" and b" V=3 M=" in failure
        assert "wrong user name or password" in two.finished.reason
    assert not any(b"wrong password" in frame for frame in one.sent)


@pytest.mark.parametrize("name", ["BIGCO\\johndoe", "ü@realm", "x" * 250])
def test_domain_and_odd_names(name: str) -> None:
    one, two, wire = pair(*policies(name=name))
    wire.start()
    wire.run(wire.now + 5, lambda: both_up(one, two))
    check_up(one, two, "mschapv2", 128)
    assert one.link.user == name
    freeze_and_thaw(one.link)


def test_refused_by_admission() -> None:
    one, two, wire = pair(*policies())
    one.refusal = "pool default is empty"
    wire.start()
    wire.run(wire.now + 30)
    assert one.finished is not None and one.finished.cause == "refused"
    assert one.finished.reason == "pool default is empty"
    assert two.finished is not None and two.up is None
    assert any(b"pool default is empty" in frame for frame in one.sent)


@pytest.mark.parametrize(
    ("server", "client", "bits"),
    [
        ("require", "deny", None),
        ("deny", "require", None),
        ("prefer", "deny", 0),
        ("deny", "prefer", 0),
        ("prefer", "require", 128),
        ("require", "prefer", 128),
    ],
)
def test_mppe_policies(server: str, client: str, bits: int | None) -> None:
    one, two, wire = pair(*policies(mppe=server, client_mppe=client))
    wire.start()
    wire.run(wire.now + 60, lambda: both_up(one, two))
    if bits is None:
        wire.run(wire.now + 30)
        assert one.finished and two.finished and not one.up
        who = one if server == "require" else two
        assert who.finished is not None
        assert who.finished.cause == "ccp_failed"
        assert who.finished.reason.startswith("MPPE required")
    else:
        check_up(one, two, "mschapv2", bits)
        assert wire.now < 1008


def test_strength_walks_down() -> None:
    server, client = policies(strengths=(128, 40))
    one, two, wire = pair(server, replace(client, mppe_strengths=(40,)))
    wire.start()
    wire.run(wire.now + 5, lambda: both_up(one, two))
    check_up(one, two, "mschapv2", 40)


def test_auth_list_walks_down() -> None:
    server = Policy(auth=("mschapv2", "chap-md5", "pap"), mppe="deny")
    client = Policy(role="client", name="u", password="secret", auth=("pap",), mppe="deny")
    one, two, wire = pair(server, client)
    wire.start()
    wire.run(wire.now + 5, lambda: both_up(one, two))
    assert one.up is not None and one.up.agreed.auth == "pap"


def test_auth_list_exhausted() -> None:
    server = Policy(auth=("mschapv2", "mschap"))
    client = Policy(role="client", name="u", password="secret", auth=("pap",))
    one, two, wire = pair(server, client)
    wire.start()
    wire.run(wire.now + 30)
    assert one.finished is not None and two.finished is not None
    assert one.finished.cause == "auth_failed"
    assert "mschapv2, mschap" in one.finished.reason
    assert wire.now < 1040


def test_keys_come_before_the_network() -> None:
    one, two, wire = pair(*policies())
    wire.start()
    wire.run(wire.now + 5, lambda: both_up(one, two))
    for end in (one, two):
        kinds = [type(a) for a in end.log]
        assert kinds.index(SetMppe) < kinds.index(NetworkUp)


def test_server_does_not_know_the_password() -> None:
    """The client checks S= of version 2."""
    one, two, wire = pair(*policies())

    honest = one.link.authenticated

    def dishonest(verdict: Verdict, now: float) -> None:
        honest(replace(verdict, authenticator_response="S=" + "0" * 40), now)

    one.link.authenticated = dishonest  # type: ignore[method-assign]
    wire.start()
    wire.run(wire.now + 30)
    assert two.finished is not None and "wrong S=" in two.finished.reason
    assert two.up is None


def test_silent_peer_is_given_up() -> None:
    server, client = policies()
    one, two, wire = pair(server, client, loss=1.0)
    wire.start()
    wire.run(wire.now + 100)
    for end in (one, two):
        assert end.finished is not None and end.finished.cause == "lcp_failed"
    assert sum(frame[2] == 1 for frame in one.sent) == 10
    assert wire.now >= 1030


@pytest.mark.parametrize("moment", range(0, 40, 2))
def test_silence_at_any_moment_ends_the_link(moment: int) -> None:
    """A client that falls silent after n frames: the server ends within its deadlines."""
    one, two, wire = pair(*policies())
    wire.start()
    count = 0

    def stop() -> bool:
        nonlocal count
        count += 1
        return count > moment or both_up(one, two)

    wire.run(wire.now + 60, stop)
    if one.up:
        return
    wire.loss = 1.0
    wire.queue.clear()
    wire.run(wire.now + 200)
    assert one.finished is not None
    assert wire.now <= 1201


@pytest.mark.parametrize("side", [0, 1])
@pytest.mark.parametrize("freezing", [False, True])
def test_lcp_begins_anew_on_an_up_link(side: int, freezing: bool) -> None:
    one, two, wire = pair(*policies())
    one.freezing = two.freezing = freezing
    wire.start()
    wire.run(wire.now + 5, lambda: both_up(one, two))
    renew = End(Link(wire.ends[side].link.policy, magic=0x33333333, challenge=bytes(range(32, 48))))
    ends = (renew, two) if side == 0 else (one, renew)
    again = Wire(ends, now=wire.now)
    renew.link.start(again.now)
    again.carry(side)
    again.run(again.now + 10, lambda: both_up(*ends))
    check_up(*ends, "mschapv2", 128)
    assert one.admissions == 1, "the address that was granted stays"


@given(st.integers(0, 2**32))
@settings(max_examples=15, deadline=None)
def test_thawed_links_behave_the_same(seed: int) -> None:
    """Frozen and thawed after every event, or not at all: the same frames come out."""
    runs = []
    for freezing in (False, True):
        one, two, wire = pair(*policies(), loss=0.2, duplicate=0.1, seed=seed, delay=0.3)
        one.freezing = two.freezing = freezing
        wire.start()
        wire.run(wire.now + 100, lambda o=one, t=two: both_up(o, t))  # type: ignore[misc]
        if both_up(one, two):
            two.link.close("user_request", "bye", wire.now)
            wire.carry(1)
        wire.run(wire.now + 60)
        runs.append((one.sent, two.sent, one.finished, two.finished))
    assert runs[0] == runs[1]
