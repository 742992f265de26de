"""One client session from TCP to TCP, against a server end in memory, in simulated time."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import pytest

from dispatcher.pptp.client import Client, ClientSettings
from dispatcher.pptp.messages import DisconnectNotify
from ops.client.options import Options
from ops.client.session import (
    CLOSE_TIMEOUT,
    Action,
    Activate,
    Deactivate,
    Frame,
    Install,
    Over,
    Phase,
    Remove,
    Session,
    Write,
)
from tests.ops.client.server_end import LOCAL, PASSWORD, ServerEnd
from workers.ppp.actions import SetMppe
from workers.ppp.link import Link

CALL_ID = 4711
OPTIONS = Options("192.0.2.1", "user{i}", PASSWORD, count=3)


@dataclass
class Wire:
    """Both ends; carries what each asks for until nobody asks."""

    server: ServerEnd = field(default_factory=ServerEnd)
    options: Options = OPTIONS
    now: float = 100.0
    done: list[Action] = field(default_factory=list)
    server_sends: bool = True  # whether PPP frames of the server arrive

    def __post_init__(self) -> None:
        self.session = Session(
            Client(ClientSettings(), now=self.now),
            Link(self.options.policy(1), magic=0xC1C1C1C1, challenge=bytes(16)),
            CALL_ID,
            self.now,
        )

    def kinds(self, *wanted: type) -> list[type]:
        return [type(a) for a in self.done if isinstance(a, wanted)]

    def only(self, kind: type[Over]) -> Over:
        found = [a for a in self.done if isinstance(a, kind)]
        assert len(found) == 1, self.done
        return found[0]

    def settle(self) -> None:
        while actions := self.session.take():
            for action in actions:
                self.done.append(action)
                match action:
                    case Write(data):
                        answer = self.server.control(data)
                        if answer:
                            self.session.octets(answer, self.now)
                    case Install():
                        self.session.installed(self.now)
                    case Frame(frame):
                        self.from_server(self.server.frame(frame, self.now))
                    case _:
                        pass

    def from_server(self, frames: list[bytes]) -> None:
        for frame in frames if self.server_sends else ():
            self.session.frame(frame, self.now)

    def log_in(self) -> None:
        self.session.connected(self.now)
        self.settle()

    def wait(self, seconds: float) -> None:
        """Let time pass, timer by timer."""
        until = self.now + seconds
        while (at := self.session.deadline) is not None and at <= until:
            self.now = max(self.now, at)
            self.session.handle_timer(self.now)
            self.settle()
        self.now = until


def test_logs_in_with_keys_that_fit() -> None:
    wire = Wire()
    wire.log_in()
    assert wire.session.phase is Phase.UP
    assert wire.kinds(Install, SetMppe, Activate) == [Install, SetMppe, Activate]
    installed = next(a for a in wire.done if isinstance(a, Install))
    assert installed == Install(CALL_ID, wire.server.call_id)
    keys = next(a for a in wire.done if isinstance(a, SetMppe))
    assert wire.server.mppe is not None
    assert (keys.rx_bits, keys.rx_key) == (wire.server.mppe.tx_bits, wire.server.mppe.tx_key)
    assert (keys.tx_bits, keys.tx_key) == (wire.server.mppe.rx_bits, wire.server.mppe.rx_key)
    assert keys.tx_key != keys.rx_key
    up = next(a for a in wire.done if isinstance(a, Activate)).agreed
    assert (up.address, up.local) == (wire.server.address, LOCAL)
    assert up.dns[:1] == (0x0A630035,)
    assert up.auth == "mschapv2"


def test_closes_in_order() -> None:
    wire = Wire()
    wire.log_in()
    wire.done.clear()
    wire.session.close(wire.now)
    wire.settle()
    kinds = wire.kinds(Deactivate, Remove, Over)
    assert kinds[-2:] == [Remove, Over]
    assert set(kinds[:-2]) == {Deactivate}
    assert wire.server.terminated
    assert wire.server.stopped
    assert wire.only(Over) == Over("closed", "we closed it", True)
    assert wire.session.deadline is None


def test_close_of_a_dead_server_ends_by_time() -> None:
    wire = Wire()
    wire.log_in()
    wire.server.silent = True
    wire.server_sends = False
    wire.session.close(wire.now)
    wire.settle()
    assert wire.session.phase is Phase.CLOSING
    wire.wait(2 * CLOSE_TIMEOUT + 1)
    assert wire.only(Over).cause == "closed"
    assert Remove in wire.kinds(Remove)


def test_wrong_password_is_told_as_such() -> None:
    wire = Wire(options=replace(OPTIONS, password="guess"))
    wire.log_in()
    wire.wait(30)
    over = wire.only(Over)
    assert over.cause == "auth_failed"
    assert not over.was_up
    assert wire.kinds(Activate) == []


def test_refused_call_names_the_result() -> None:
    wire = Wire(ServerEnd(refuse=4))
    wire.log_in()
    over = wire.only(Over)
    assert over.cause == "refused"
    assert "result 4 (busy)" in over.reason
    assert wire.kinds(Install, Remove) == []
    assert wire.server.stopped


def test_silent_server_is_given_up() -> None:
    wire = Wire(ServerEnd(silent=True))
    wire.log_in()
    wire.wait(60)
    over = wire.only(Over)
    assert over.cause == "control_closed"
    assert "Start-Control-Connection-Request" in over.reason


def test_no_tcp_is_given_up() -> None:
    wire = Wire()
    wire.wait(11)
    assert wire.only(Over).cause == "connect_failed"
    assert wire.session.phase is Phase.DONE
    wire.session.connected(wire.now)  # too late: nothing happens
    wire.settle()
    assert wire.session.phase is Phase.DONE


def test_lost_tcp_ends_an_up_session() -> None:
    wire = Wire()
    wire.log_in()
    wire.session.lost("reset", wire.now)
    wire.settle()
    assert wire.only(Over) == Over("lost_carrier", "reset", True)
    assert Remove in wire.kinds(Remove)


def test_disconnect_of_the_server_ends_it_and_stops() -> None:
    wire = Wire()
    wire.log_in()
    notify = DisconnectNotify(wire.server.call_id, result=3).encode()
    wire.session.octets(notify, wire.now)
    wire.settle()
    over = wire.only(Over)
    assert over == Over("call_ended", "the server ended the call: result 3", True)
    assert wire.server.stopped


def test_terminate_of_the_server_ends_it() -> None:
    wire = Wire()
    wire.log_in()
    assert wire.server.link is not None
    wire.server.link.close("admin_reset", "end of the test", wire.now)
    wire.from_server(wire.server.take(wire.now))
    wire.settle()
    wire.wait(20)
    assert wire.only(Over).was_up
    assert wire.server.finished


@pytest.mark.parametrize("mppe", ["require", "deny"])
def test_mppe_as_wished(mppe: str) -> None:
    server = ServerEnd()
    server.policy = replace(server.policy, mppe="prefer")
    wire = Wire(server, options=replace(OPTIONS, mppe=mppe))  # type: ignore[arg-type]
    wire.log_in()
    wire.wait(10)
    assert wire.session.phase is Phase.UP
    agreed = next(a for a in wire.done if isinstance(a, Activate)).agreed
    assert agreed.mppe_tx_bits == (128 if mppe == "require" else 0)


def test_close_while_calling_still_stops() -> None:
    wire = Wire(ServerEnd(silent=True))
    wire.session.connected(wire.now)
    wire.settle()
    wire.session.close(wire.now)
    wire.settle()
    wire.wait(10)
    assert wire.only(Over).cause == "closed"


def test_phases_are_enforced() -> None:
    wire = Wire()
    with pytest.raises(RuntimeError, match="connecting to up"):
        wire.session._go(Phase.UP)
