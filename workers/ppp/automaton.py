"""The option negotiation automaton of RFC 1661 section 4, for LCP, CCP and IPCP alike.

Every transition lives in this file. The automaton knows no packets, no options and no
protocol; it turns an event into a state and actions that its owner carries out in order.
What the RFC's table leaves blank raises LocalError.
"""

from __future__ import annotations

from enum import Enum, IntEnum
from typing import Final

from workers.ppp.errors import LocalError


class State(IntEnum):
    """RFC 1661 section 4.2, with its numbers."""

    INITIAL = 0
    STARTING = 1
    CLOSED = 2
    STOPPED = 3
    CLOSING = 4
    STOPPING = 5
    REQ_SENT = 6
    ACK_RCVD = 7
    ACK_SENT = 8
    OPENED = 9


class Event(Enum):
    """RFC 1661 section 4.3. RXR has two: only an Echo-Request is answered (ser)."""

    UP = "lower layer is up"
    DOWN = "lower layer is down"
    OPEN = "administrative open"
    CLOSE = "administrative close"
    TIMEOUT = "timeout, counter above 0"
    GAVE_UP = "timeout, counter 0"
    REQUEST_GOOD = "acceptable Configure-Request"
    REQUEST_BAD = "other Configure-Request"
    ACK = "Configure-Ack"
    NAK = "Configure-Nak or Reject"
    TERM_REQUEST = "Terminate-Request"
    TERM_ACK = "Terminate-Ack"
    UNKNOWN = "unknown code"
    REJECT_GOOD = "Code- or Protocol-Reject we can live with"
    REJECT_BAD = "Code- or Protocol-Reject that ends it"
    ECHO = "Echo-Request, Echo-Reply or Discard-Request"


class Do(Enum):
    """RFC 1661 section 4.4."""

    LAYER_UP = "tlu"
    LAYER_DOWN = "tld"
    LAYER_STARTED = "tls"
    LAYER_FINISHED = "tlf"
    INIT_CONFIGURE = "irc for scr"
    INIT_TERMINATE = "irc for str"
    ZERO_COUNTER = "zrc"
    SEND_REQUEST = "scr"
    SEND_ACK = "sca"
    SEND_NAK = "scn"
    SEND_TERM_REQUEST = "str"
    SEND_TERM_ACK = "sta"
    SEND_CODE_REJECT = "scj"
    SEND_ECHO_REPLY = "ser"


S = State
E = Event
TLU, TLD, TLS, TLF = Do.LAYER_UP, Do.LAYER_DOWN, Do.LAYER_STARTED, Do.LAYER_FINISHED
# One name in the RFC, two here: how far irc counts depends on what is sent after it.
IRC, IRT, ZRC = Do.INIT_CONFIGURE, Do.INIT_TERMINATE, Do.ZERO_COUNTER
SCR, SCA, SCN, SCJ, SER = (
    Do.SEND_REQUEST,
    Do.SEND_ACK,
    Do.SEND_NAK,
    Do.SEND_CODE_REJECT,
    Do.SEND_ECHO_REPLY,
)
STR, STA = Do.SEND_TERM_REQUEST, Do.SEND_TERM_ACK

# One cell of the RFC's table a line, in its order: events down, states across.
TRANSITIONS: Final[dict[tuple[State, Event], tuple[tuple[Do, ...], State]]] = {
    (S.INITIAL, E.UP): ((), S.CLOSED),
    (S.STARTING, E.UP): ((IRC, SCR), S.REQ_SENT),
    #
    (S.CLOSED, E.DOWN): ((), S.INITIAL),
    (S.STOPPED, E.DOWN): ((TLS,), S.STARTING),
    (S.CLOSING, E.DOWN): ((), S.INITIAL),
    (S.STOPPING, E.DOWN): ((), S.STARTING),
    (S.REQ_SENT, E.DOWN): ((), S.STARTING),
    (S.ACK_RCVD, E.DOWN): ((), S.STARTING),
    (S.ACK_SENT, E.DOWN): ((), S.STARTING),
    (S.OPENED, E.DOWN): ((TLD,), S.STARTING),
    #
    (S.INITIAL, E.OPEN): ((TLS,), S.STARTING),
    (S.STARTING, E.OPEN): ((), S.STARTING),
    (S.CLOSED, E.OPEN): ((IRC, SCR), S.REQ_SENT),
    (S.STOPPED, E.OPEN): ((), S.STOPPED),
    (S.CLOSING, E.OPEN): ((), S.STOPPING),
    (S.STOPPING, E.OPEN): ((), S.STOPPING),
    (S.REQ_SENT, E.OPEN): ((), S.REQ_SENT),
    (S.ACK_RCVD, E.OPEN): ((), S.ACK_RCVD),
    (S.ACK_SENT, E.OPEN): ((), S.ACK_SENT),
    (S.OPENED, E.OPEN): ((), S.OPENED),
    #
    (S.INITIAL, E.CLOSE): ((), S.INITIAL),
    (S.STARTING, E.CLOSE): ((TLF,), S.INITIAL),
    (S.CLOSED, E.CLOSE): ((), S.CLOSED),
    (S.STOPPED, E.CLOSE): ((), S.CLOSED),
    (S.CLOSING, E.CLOSE): ((), S.CLOSING),
    (S.STOPPING, E.CLOSE): ((), S.CLOSING),
    (S.REQ_SENT, E.CLOSE): ((IRT, STR), S.CLOSING),
    (S.ACK_RCVD, E.CLOSE): ((IRT, STR), S.CLOSING),
    (S.ACK_SENT, E.CLOSE): ((IRT, STR), S.CLOSING),
    (S.OPENED, E.CLOSE): ((TLD, IRT, STR), S.CLOSING),
    #
    (S.CLOSING, E.TIMEOUT): ((STR,), S.CLOSING),
    (S.STOPPING, E.TIMEOUT): ((STR,), S.STOPPING),
    (S.REQ_SENT, E.TIMEOUT): ((SCR,), S.REQ_SENT),
    (S.ACK_RCVD, E.TIMEOUT): ((SCR,), S.REQ_SENT),
    (S.ACK_SENT, E.TIMEOUT): ((SCR,), S.ACK_SENT),
    #
    (S.CLOSING, E.GAVE_UP): ((TLF,), S.CLOSED),
    (S.STOPPING, E.GAVE_UP): ((TLF,), S.STOPPED),
    (S.REQ_SENT, E.GAVE_UP): ((TLF,), S.STOPPED),
    (S.ACK_RCVD, E.GAVE_UP): ((TLF,), S.STOPPED),
    (S.ACK_SENT, E.GAVE_UP): ((TLF,), S.STOPPED),
    #
    (S.CLOSED, E.REQUEST_GOOD): ((STA,), S.CLOSED),
    (S.STOPPED, E.REQUEST_GOOD): ((IRC, SCR, SCA), S.ACK_SENT),
    (S.CLOSING, E.REQUEST_GOOD): ((), S.CLOSING),
    (S.STOPPING, E.REQUEST_GOOD): ((), S.STOPPING),
    (S.REQ_SENT, E.REQUEST_GOOD): ((SCA,), S.ACK_SENT),
    (S.ACK_RCVD, E.REQUEST_GOOD): ((SCA, TLU), S.OPENED),
    (S.ACK_SENT, E.REQUEST_GOOD): ((SCA,), S.ACK_SENT),
    (S.OPENED, E.REQUEST_GOOD): ((TLD, SCR, SCA), S.ACK_SENT),
    #
    (S.CLOSED, E.REQUEST_BAD): ((STA,), S.CLOSED),
    (S.STOPPED, E.REQUEST_BAD): ((IRC, SCR, SCN), S.REQ_SENT),
    (S.CLOSING, E.REQUEST_BAD): ((), S.CLOSING),
    (S.STOPPING, E.REQUEST_BAD): ((), S.STOPPING),
    (S.REQ_SENT, E.REQUEST_BAD): ((SCN,), S.REQ_SENT),
    (S.ACK_RCVD, E.REQUEST_BAD): ((SCN,), S.ACK_RCVD),
    (S.ACK_SENT, E.REQUEST_BAD): ((SCN,), S.REQ_SENT),
    (S.OPENED, E.REQUEST_BAD): ((TLD, SCR, SCN), S.REQ_SENT),
    #
    (S.CLOSED, E.ACK): ((STA,), S.CLOSED),
    (S.STOPPED, E.ACK): ((STA,), S.STOPPED),
    (S.CLOSING, E.ACK): ((), S.CLOSING),
    (S.STOPPING, E.ACK): ((), S.STOPPING),
    (S.REQ_SENT, E.ACK): ((IRC,), S.ACK_RCVD),
    (S.ACK_RCVD, E.ACK): ((SCR,), S.REQ_SENT),
    (S.ACK_SENT, E.ACK): ((IRC, TLU), S.OPENED),
    (S.OPENED, E.ACK): ((TLD, SCR), S.REQ_SENT),
    #
    (S.CLOSED, E.NAK): ((STA,), S.CLOSED),
    (S.STOPPED, E.NAK): ((STA,), S.STOPPED),
    (S.CLOSING, E.NAK): ((), S.CLOSING),
    (S.STOPPING, E.NAK): ((), S.STOPPING),
    (S.REQ_SENT, E.NAK): ((IRC, SCR), S.REQ_SENT),
    (S.ACK_RCVD, E.NAK): ((SCR,), S.REQ_SENT),
    (S.ACK_SENT, E.NAK): ((IRC, SCR), S.ACK_SENT),
    (S.OPENED, E.NAK): ((TLD, SCR), S.REQ_SENT),
    #
    (S.CLOSED, E.TERM_REQUEST): ((STA,), S.CLOSED),
    (S.STOPPED, E.TERM_REQUEST): ((STA,), S.STOPPED),
    (S.CLOSING, E.TERM_REQUEST): ((STA,), S.CLOSING),
    (S.STOPPING, E.TERM_REQUEST): ((STA,), S.STOPPING),
    (S.REQ_SENT, E.TERM_REQUEST): ((STA,), S.REQ_SENT),
    (S.ACK_RCVD, E.TERM_REQUEST): ((STA,), S.REQ_SENT),
    (S.ACK_SENT, E.TERM_REQUEST): ((STA,), S.REQ_SENT),
    (S.OPENED, E.TERM_REQUEST): ((TLD, ZRC, STA), S.STOPPING),
    #
    (S.CLOSED, E.TERM_ACK): ((), S.CLOSED),
    (S.STOPPED, E.TERM_ACK): ((), S.STOPPED),
    (S.CLOSING, E.TERM_ACK): ((TLF,), S.CLOSED),
    (S.STOPPING, E.TERM_ACK): ((TLF,), S.STOPPED),
    (S.REQ_SENT, E.TERM_ACK): ((), S.REQ_SENT),
    (S.ACK_RCVD, E.TERM_ACK): ((), S.REQ_SENT),
    (S.ACK_SENT, E.TERM_ACK): ((), S.ACK_SENT),
    (S.OPENED, E.TERM_ACK): ((TLD, SCR), S.REQ_SENT),
    #
    (S.CLOSED, E.UNKNOWN): ((SCJ,), S.CLOSED),
    (S.STOPPED, E.UNKNOWN): ((SCJ,), S.STOPPED),
    (S.CLOSING, E.UNKNOWN): ((SCJ,), S.CLOSING),
    (S.STOPPING, E.UNKNOWN): ((SCJ,), S.STOPPING),
    (S.REQ_SENT, E.UNKNOWN): ((SCJ,), S.REQ_SENT),
    (S.ACK_RCVD, E.UNKNOWN): ((SCJ,), S.ACK_RCVD),
    (S.ACK_SENT, E.UNKNOWN): ((SCJ,), S.ACK_SENT),
    (S.OPENED, E.UNKNOWN): ((SCJ,), S.OPENED),
    #
    (S.CLOSED, E.REJECT_GOOD): ((), S.CLOSED),
    (S.STOPPED, E.REJECT_GOOD): ((), S.STOPPED),
    (S.CLOSING, E.REJECT_GOOD): ((), S.CLOSING),
    (S.STOPPING, E.REJECT_GOOD): ((), S.STOPPING),
    (S.REQ_SENT, E.REJECT_GOOD): ((), S.REQ_SENT),
    (S.ACK_RCVD, E.REJECT_GOOD): ((), S.REQ_SENT),
    (S.ACK_SENT, E.REJECT_GOOD): ((), S.ACK_SENT),
    (S.OPENED, E.REJECT_GOOD): ((), S.OPENED),
    #
    (S.CLOSED, E.REJECT_BAD): ((TLF,), S.CLOSED),
    (S.STOPPED, E.REJECT_BAD): ((TLF,), S.STOPPED),
    (S.CLOSING, E.REJECT_BAD): ((TLF,), S.CLOSED),
    (S.STOPPING, E.REJECT_BAD): ((TLF,), S.STOPPED),
    (S.REQ_SENT, E.REJECT_BAD): ((TLF,), S.STOPPED),
    (S.ACK_RCVD, E.REJECT_BAD): ((TLF,), S.STOPPED),
    (S.ACK_SENT, E.REJECT_BAD): ((TLF,), S.STOPPED),
    (S.OPENED, E.REJECT_BAD): ((TLD, IRT, STR), S.STOPPING),
    #
    (S.CLOSED, E.ECHO): ((), S.CLOSED),
    (S.STOPPED, E.ECHO): ((), S.STOPPED),
    (S.CLOSING, E.ECHO): ((), S.CLOSING),
    (S.STOPPING, E.ECHO): ((), S.STOPPING),
    (S.REQ_SENT, E.ECHO): ((), S.REQ_SENT),
    (S.ACK_RCVD, E.ECHO): ((), S.ACK_RCVD),
    (S.ACK_SENT, E.ECHO): ((), S.ACK_SENT),
    (S.OPENED, E.ECHO): ((SER,), S.OPENED),
}

# States in which the restart timer runs, RFC 1661 section 4.2.
WAITING: Final = frozenset({S.CLOSING, S.STOPPING, S.REQ_SENT, S.ACK_RCVD, S.ACK_SENT})
# States without a lower layer: packets that arrive in them are nobody's.
DEAF: Final = frozenset({S.INITIAL, S.STARTING})
NEGOTIATING: Final = frozenset({S.REQ_SENT, S.ACK_RCVD, S.ACK_SENT})


class Automaton:
    """State, restart timer and restart counter of one protocol on one link."""

    def __init__(
        self,
        *,
        restart_interval: float = 3.0,
        max_configure: int = 10,
        max_terminate: int = 2,
        state: State = State.INITIAL,
    ) -> None:
        self.restart_interval = restart_interval
        self.max_configure = max_configure
        self.max_terminate = max_terminate
        self.state = state
        self.timer_at: float | None = None
        self.left = 0

    def step(self, event: Event, now: float) -> tuple[Do, ...]:
        """Take one event; the actions are the owner's to carry out, in order."""
        try:
            actions, state = TRANSITIONS[self.state, event]
        except KeyError:
            raise LocalError(f"{event.value} in state {self.state.name}") from None
        for action in actions:
            if action is Do.INIT_CONFIGURE:
                self.left = self.max_configure
            elif action is Do.INIT_TERMINATE:
                self.left = self.max_terminate
            elif action is Do.ZERO_COUNTER:
                # "The receiver of a Terminate-Request SHOULD wait for the peer to
                # disconnect, and MUST NOT disconnect until at least one Restart time
                # has passed after sending a Terminate-Ack."
                self.left = 0
                self.timer_at = now + self.restart_interval
            elif action in (Do.SEND_REQUEST, Do.SEND_TERM_REQUEST):
                self.left -= 1
                self.timer_at = now + self.restart_interval
        if state not in WAITING:
            self.timer_at = None
        elif self.timer_at is None:
            # Closing -> Stopping and the like send nothing, yet wait for an end.
            self.timer_at = now + self.restart_interval
        self.state = state
        return actions

    def handle_timer(self, now: float) -> Event | None:
        """The timer event that is due, if one is; the owner steps it."""
        if self.timer_at is None or now < self.timer_at:
            return None
        return Event.TIMEOUT if self.left > 0 else Event.GAVE_UP
