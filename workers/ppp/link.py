"""One PPP link, RFC 1661 section 3: LCP, then authentication, then CCP and IPCP.

No socket, no clock, no entropy: frames and `now` come in through methods, what is to be
done comes out of `take()`, in order. Both roles, server and client, are here.

Order after authentication: CCP begins and Admission is asked at once. IPCP waits for
both. A Configure-Request of IPCP that comes earlier is kept and answered then; never is
it answered by Terminate-Ack, at which RouterOS hangs up. When MPPE is required, IPCP
waits for CCP to be open; when it is only preferred, for CCP to be settled one way or
the other, but of a peer silent about it no longer than two restart intervals. IPv6CP
begins together with IPCP and waits for the same; whatever becomes of it, IPv4 stays.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from enum import IntEnum
from typing import Any, Final, Literal

from workers.ppp.actions import (
    Action,
    Admission,
    Agreed,
    Authenticate,
    EapRelay,
    Finished,
    Network6Down,
    Network6Up,
    NetworkDown,
    NetworkUp,
    Note,
    Policy,
    Send,
    SetMppe,
    Verdict,
)
from workers.ppp.authentication import Again, Exchange, Failed, Item, Passed, text_of
from workers.ppp.automaton import DEAF, State
from workers.ppp.ccp import Ccp
from workers.ppp.chap import ChapClient, ChapServer
from workers.ppp.control import ControlProtocol, Signal
from workers.ppp.eap import KEYED, EapClient, EapServer
from workers.ppp.errors import LocalError, RemoteError
from workers.ppp.ipcp import Ipcp
from workers.ppp.ipv6cp import Ipv6cp
from workers.ppp.keys import Keys
from workers.ppp.lcp import Lcp
from workers.ppp.mschap import octets
from workers.ppp.packets import (
    CCP,
    CHAP,
    COMPRESSED,
    EAP,
    IP,
    IPCP,
    IPV6,
    IPV6CP,
    LCP,
    PAP,
    Code,
    Packet,
    split_frame,
)
from workers.ppp.pap import PapClient, PapServer

FROZEN_VERSION: Final = 2
MPPE_OVERHEAD: Final = 4  # 2 octets of coherency count and 2 of the inner protocol field
KEYLESS: Final = frozenset({"none", "pap", "chap-md5"})
PATIENCE: Final = 2  # restart intervals that preferred, not required MPPE may hold IPCP up

# What a client does that was told that its password is wrong.
LEAVINGS: Final = frozenset({"user_request", "lost_carrier"})

LinkState = Literal["starting", "active", "finishing"]
Mppe = tuple[int, bool, int, bool]
CLEAR: Final[Mppe] = (0, False, 0, False)


class Phase(IntEnum):
    """RFC 1661 section 3.2, and the end."""

    DEAD = 0
    ESTABLISH = 1
    AUTHENTICATE = 2
    NETWORK = 3
    ENDING = 4
    OVER = 5


NAMES: Final[dict[Phase, str]] = {
    Phase.ESTABLISH: "LCP",
    Phase.AUTHENTICATE: "authentication",
    Phase.NETWORK: "CCP and IPCP",
}


class Link:
    """A link from its first frame to Finished."""

    def __init__(self, policy: Policy, *, magic: int, challenge: bytes) -> None:
        """`challenge`: 16 random octets; all random values of the link are made of them."""
        self.policy = policy
        self._seed = challenge
        self._lcp = Lcp(policy, magic=magic, seed=challenge)
        self._ccp = Ccp(policy)
        self._ipcp = Ipcp(policy)
        self._six = Ipv6cp(policy, challenge)
        self._auth: Exchange | None = None
        self._auths = 0  # exchanges begun: each has its own challenge
        self._actions: list[Action] = []
        self._phase = Phase.DEAD
        self._method = "none"
        self._user = ""
        self._keys = Keys()
        self._verdict = Verdict(False)
        self._outstanding = 0  # Authenticates without a verdict
        self._asked = False  # Admission
        self._admitted = False
        self._address = 0
        self._local = 0
        self._settled = False  # CCP: nothing to wait for any more
        self._mppe: Mppe = CLEAR
        self._up = False
        self._was_up = False
        self._six_up = False
        # Configure-Requests of IPCP and IPv6CP that came too early.
        self._held = b""
        self._held_six = b""
        self._negotiation_at: float | None = None
        self._auth_at: float | None = None
        self._ccp_at: float | None = None
        self._rechallenge_at: float | None = None
        self._cause = ""
        self._reason = ""

    # -- what the owner may ask

    @property
    def state(self) -> LinkState:
        """As the session table has it."""
        if self._phase >= Phase.ENDING:
            return "finishing"
        return "active" if self._up else "starting"

    @property
    def over(self) -> bool:
        """Finished was said."""
        return self._phase is Phase.OVER

    @property
    def user(self) -> str:
        """The account's name, once authenticated."""
        return self._user

    @property
    def method(self) -> str:
        """Authentication method, of ops.metrics.AUTH_METHODS."""
        return self._auth.method if self._auth is not None else self._method

    @property
    def deadline(self) -> float | None:
        """When handle_timer has something to do; None: nothing is awaited."""
        if self._phase in (Phase.DEAD, Phase.OVER):
            return None
        times = [
            self._lcp.deadline,
            self._ccp.deadline,
            self._ipcp.deadline,
            self._six.deadline,
            self._auth.timer_at if self._auth is not None else None,
            self._negotiation_at,
            self._auth_at,
            self._ccp_at,
        ]
        return min((at for at in times if at is not None), default=None)

    @property
    def wake_at(self) -> float | None:
        """When handle_timer has something to do though nothing is awaited: a link that is
        up and at rest is challenged again. None: never."""
        return self._rechallenge_at if self._up else None

    def take(self) -> list[Action]:
        """What is to be done, in order; each is given once."""
        actions, self._actions = self._actions, []
        return actions

    # -- what the owner may say

    def start(self, now: float) -> None:
        """Both sides begin LCP at once."""
        if self._phase is not Phase.DEAD:
            raise LocalError("the link was started before")
        self._phase = Phase.ESTABLISH
        self._negotiation_at = now + self.policy.negotiation_timeout
        self._lcp.open(now)
        self._drain(now)

    def receive(self, frame: bytes, now: float) -> None:
        """Take one frame of the peer. Any octets will do."""
        if self._phase in (Phase.DEAD, Phase.OVER):
            return
        try:
            protocol, payload = split_frame(frame)
            self._dispatch(protocol, payload, now)
        except RemoteError as e:
            self._note("malformed", error=str(e), octets=len(frame))
        self._drain(now)

    def handle_timer(self, now: float) -> None:
        """Do what is due; harmless at any time."""
        if self._phase in (Phase.DEAD, Phase.OVER):
            return
        for protocol in (self._lcp, self._ccp, self._ipcp, self._six):
            protocol.handle_timer(now)
        if self._auth is not None:
            self._auth.handle_timer(now)
        self._drain(now)
        if _due(self._ccp_at, now):
            self._ccp_at = None
            if self._ccp.state is State.REQ_SENT:
                # Half agreed it is worth waiting for the rest: that has its own end.
                self._settled = True
            self._start_ipcp(now)
            self._drain(now)
        if _due(self._auth_at, now):
            self._auth_late(now)
        if _due(self._rechallenge_at, now):
            self._rechallenge(now)
            self._drain(now)
        if _due(self._negotiation_at, now):
            seconds = f"{self.policy.negotiation_timeout:g} s"
            where = NAMES.get(self._phase, "PPP")
            self.close("negotiation_timeout", f"{where} did not finish within {seconds}", now)

    def _auth_late(self, now: float) -> None:
        refusal = self._auth.refusal if self._auth is not None else ""
        if refusal:
            # It could have tried again, and did not.
            self._close("auth_failed", refusal, "Authentication failed", now)
            return
        self._note("auth_timeout", method=self.method)
        seconds = f"{self.policy.auth_timeout:g} s"
        self.close("auth_failed", f"no {self.method} login within {seconds}", now)

    def _rechallenge(self, now: float) -> None:
        if not isinstance(self._auth, ChapServer) or not self.policy.chap_rechallenge:
            self._rechallenge_at = None
        elif not self._up or not self._auth.over:
            self._rechallenge_at = now + self.policy.chap_rechallenge
        else:
            self._rechallenge_at = None
            self._auth_at = now + self.policy.auth_timeout
            self._auth.rechallenge(now)

    @property
    def challenges(self) -> bool:
        """Whether the peer can be asked to log in again: not with PAP, and not with EAP here."""
        return isinstance(self._auth, ChapServer)

    def reauthenticate(self, now: float) -> None:
        """Challenge the peer of an up link once more, unless that is going on already."""
        if isinstance(self._auth, ChapServer) and self._up and self._auth.over:
            self._rechallenge_at = None
            self._auth_at = now + self.policy.auth_timeout
            self._auth.rechallenge(now)
            self._drain(now)

    def authenticated(self, verdict: Verdict, now: float) -> None:
        """The answer to Authenticate. Late ones are of no use and do no harm."""
        if not self._is_awaited():
            return
        assert self._auth is not None
        if self._phase is Phase.NETWORK and verdict.ok and verdict.user != self._user:
            verdict = Verdict(False, reason=f"{verdict.user!r} answered in place of the user")
        if self._phase is Phase.AUTHENTICATE:
            self._verdict = verdict
        self._auth.decide(verdict, now)
        self._drain(now)

    def eap_relayed(self, packet: bytes, verdict: Verdict | None, now: float) -> None:
        """The answer to EapRelay: an EAP-Request for the peer, or the end with a verdict."""
        if not self._is_awaited() or not isinstance(self._auth, EapServer):
            return
        if verdict is not None:
            self._verdict = verdict
        self._auth.relayed(packet, verdict, now)
        self._drain(now)

    def _is_awaited(self) -> bool:
        self._outstanding = max(0, self._outstanding - 1)
        # Of several (LCP began anew in between), only the last one is about this exchange.
        if self._outstanding or self._auth is None:
            return False
        return self._auth.asked and self._phase in (Phase.AUTHENTICATE, Phase.NETWORK)

    def identifier_taken(self, now: float) -> None:
        """The owner cannot have another subscriber with this interface identifier: IPv6CP
        ends, IPv4 goes on."""
        self._six.close("interface identifier in use", now)
        self._drain(now)

    def admitted(self, address: int, local: int, refusal: str, now: float) -> None:
        """The answer to Admission; a refusal ends the link."""
        if not self._asked or self._admitted or self._phase >= Phase.ENDING:
            return
        if refusal:
            self.close("refused", refusal, now)
            return
        self._admitted = True
        self._address, self._local = address, local
        self._start_ipcp(now)
        self._drain(now)

    def name_servers(self, dns: tuple[int, ...], wins: tuple[int, ...]) -> None:
        """Those of this account, before `authenticated`; (): the policy's."""
        if dns or wins:
            self.policy = replace(
                self.policy, dns=dns or self.policy.dns, wins=wins or self.policy.wins
            )
            self._ipcp.policy = self.policy

    def close(self, cause: str, reason: str, now: float) -> None:
        """End it properly: Terminate-Request, then Finished at the Ack or after time."""
        self._close(cause, reason, reason, now)

    def _close(self, cause: str, reason: str, text: str, now: float) -> None:
        """`reason` is for the log, `text` for the peer."""
        if self._phase >= Phase.ENDING:
            return
        self._ending(cause, reason)
        quiet = self._lcp.state in (State.INITIAL, State.CLOSED, State.STOPPED)
        if not quiet:
            self._lcp.close(text, now)
        self._drain(now)
        if quiet:
            self._finish()

    def abort(self, cause: str, reason: str) -> None:
        """End it without another frame: the peer is gone."""
        if self._phase is Phase.OVER:
            return
        if self._phase is not Phase.ENDING:
            self._ending(cause, reason)
        self._finish()

    # -- frames

    def _dispatch(self, protocol: int, payload: bytes, now: float) -> None:
        if protocol == LCP:
            self._receive_lcp(payload, now)
        elif not self._lcp.opened:
            # "Any non-LCP packets received during this phase MUST be silently discarded."
            self._note("too_early", protocol=f"{protocol:04x}")
        elif protocol in (PAP, CHAP, EAP):
            if self._auth is not None and protocol == self._auth.NUMBER:
                self._auth.receive(Packet.decode(payload), now)
        elif protocol == CCP:
            self._implies_success(now)
            self._ccp.receive(payload, now)
        elif protocol == IPCP:
            self._implies_success(now)
            self._receive_ipcp(payload, now)
        elif protocol == IPV6CP and self._has_six:
            self._receive_six(payload, now)
        elif not self._is_data(protocol) and self._lcp.reject_protocol(protocol, payload):
            self._note("protocol_reject_sent", protocol=f"{protocol:04x}")

    def _receive_lcp(self, payload: bytes, now: float) -> None:
        self._lcp.receive(payload, now)
        if payload[0] == Code.TERMINATE_REQUEST and self._lcp.state is State.STOPPING:
            self._ended_by_peer()
        if rejected := self._lcp.take_rejected():
            self._rejected(rejected, now)

    def _ended_by_peer(self) -> None:
        if self._phase >= Phase.ENDING:
            return
        self._ending("user_request", "the peer sent Terminate-Request")

    def _receive_ipcp(self, payload: bytes, now: float) -> None:
        if self._ipcp.state not in DEAF:
            self._ipcp.receive(payload, now)
        elif self._phase is Phase.NETWORK and payload[:1] == bytes([Code.CONFIGURE_REQUEST]):
            self._held = payload

    def _is_data(self, protocol: int) -> bool:
        """Packets that the data path takes once the network is up."""
        return protocol in (IP, COMPRESSED) or (protocol == IPV6 and self._has_six)

    @property
    def _has_six(self) -> bool:
        # A link of the time before a reload may still have it.
        return self.policy.ipv6 or self._six.state is not State.INITIAL

    def _receive_six(self, payload: bytes, now: float) -> None:
        if self._six.state not in DEAF:
            self._six.receive(payload, now)
        elif self._phase is Phase.NETWORK and payload[:1] == bytes([Code.CONFIGURE_REQUEST]):
            self._held_six = payload

    def _implies_success(self, now: float) -> None:
        """Client: EAP's Success is never repeated, what follows it says the same."""
        if isinstance(self._auth, EapClient) and self._phase is Phase.AUTHENTICATE:
            self._auth.indicated()
            self._drain(now)

    def _rejected(self, protocol: int, now: float) -> None:
        """Protocol-Reject, RFC 1661 section 5.7."""
        self._note("protocol_reject_received", protocol=f"{protocol:04x}")
        if protocol == CCP:
            self._ccp.rejected_by_peer(now)
        elif protocol == IPCP:
            self._ipcp.rejected_by_peer(now)
        elif protocol == IPV6CP:
            self._six.rejected_by_peer(now)
        elif protocol == LCP:
            self._lcp.rejected_by_peer(now)
        elif self._phase is Phase.AUTHENTICATE and protocol in (PAP, CHAP, EAP):
            self.close("auth_failed", f"the peer rejects {self.method}", now)

    # -- signals and outcomes

    def _drain(self, now: float) -> None:
        """Carry out what the protocols said, until none has anything more to say."""
        while self._drain_once(now):
            pass
        self._check_network(now)
        while self._drain_once(now):
            pass

    def _drain_once(self, now: float) -> bool:
        for protocol in (self._lcp, self._ccp, self._ipcp, self._six):
            if protocol.out:
                self._take_item(protocol, protocol.out.pop(0), now)
                return True
        if self._lcp.notes:
            self._actions.extend(self._lcp.notes)
            self._lcp.notes.clear()
        if self._auth is not None and self._auth.out:
            self._take_auth(self._auth.out.pop(0), now)
            return True
        return False

    def _take_item(self, protocol: ControlProtocol, item: bytes | Signal, now: float) -> None:
        if self._phase is Phase.OVER:
            return
        if isinstance(item, bytes):
            self._actions.append(Send(item))
        elif protocol is self._lcp:
            self._lcp_signal(item, now)
        elif protocol is self._ccp:
            self._ccp_signal(item, now)
        elif protocol is self._ipcp:
            self._ipcp_signal(item, now)
        else:
            self._six_signal(item, now)

    def _lcp_signal(self, signal: Signal, now: float) -> None:
        match signal:
            case Signal.UP:
                self._lcp_up(now)
            case Signal.DOWN:
                self._lcp_down(now)
            case Signal.FINISHED:
                if self._phase < Phase.ENDING:
                    self._ending("lcp_failed", self._why_lcp_failed())
                self._finish()
            case Signal.ENDED:
                self.close("user_request", "the peer ended the LCP negotiation", now)
            case Signal.FAILED:
                cause = "auth_failed" if self._lcp.auth_refused else "lcp_failed"
                self.close(cause, self._lcp.fatal, now)

    def _why_lcp_failed(self) -> str:
        if not self._lcp.gave_up:
            return "the peer rejects LCP"
        tries = self.policy.max_configure
        if self._lcp.acked:
            return (
                f"the peer sends LCP but never answers ours ({tries} Configure-Requests): GRE to "
                "it is blocked on the way, or goes to another client behind its NAT"
            )
        return f"no agreement after {tries} LCP Configure-Requests without an answer"

    def _lcp_up(self, now: float) -> None:
        if self._phase is not Phase.ESTABLISH:
            return
        server = self.policy.role == "server"
        self._method = (self._lcp.auth if server else self._lcp.peer_auth) or "none"
        required = self.policy.mppe == "require" and not self.policy.mppe_by_user
        if required and (self._method in KEYLESS or not self._eap_gives_keys()):
            why = f"MPPE required, but authentication by {self._method} gives no keys for it"
            self.close("ccp_failed", why, now)
            return
        self._phase = Phase.AUTHENTICATE
        if self._method == "none":
            self._verdict = Verdict(True)
            self._passed(Keys(server), now)
            return
        self._auth_at = now + self.policy.auth_timeout
        self._auth = self._exchange()
        self._auth.start(now)

    def _eap_gives_keys(self) -> bool:
        return self._method != "eap" or bool(KEYED.intersection(self.policy.eap))

    def _exchange(self) -> Exchange:
        """A new exchange with a challenge no other exchange had."""
        self._auths += 1
        seed = hashlib.sha256(b"challenge %d" % self._auths + self._seed).digest()
        server = self.policy.role == "server"
        if self._method == "pap":
            kind = PapServer if server else PapClient
            return kind(self.policy, self._method)
        if self._method == "eap":
            return self._eap(seed, server)
        chap = ChapServer if server else ChapClient
        return chap(self.policy, self._method, challenge=seed)

    def _eap(self, seed: bytes, server: bool) -> Exchange:
        if not server:
            return EapClient(self.policy, self._method, challenge=seed)
        eap = EapServer(self.policy, self._method, challenge=seed)
        if self.policy.mppe == "require" and not self.policy.mppe_by_user:
            eap.proposals = tuple(name for name in eap.proposals if name in KEYED)
        return eap

    def _lcp_down(self, now: float) -> None:
        """LCP closes or begins anew: all that was built on it goes."""
        self._network_down(now)
        self._set_mppe(CLEAR)
        self._ccp = Ccp(self.policy)
        self._ipcp = Ipcp(self.policy)
        self._six = Ipv6cp(self.policy, self._seed)
        self._auth = None
        self._keys = Keys()
        self._held = self._held_six = b""
        self._settled = False
        self._auth_at = self._ccp_at = self._rechallenge_at = None
        if self._phase < Phase.ENDING:
            self._phase = Phase.ESTABLISH
            if self._negotiation_at is None:
                self._negotiation_at = now + self.policy.negotiation_timeout

    def _take_auth(self, item: Item, now: float) -> None:
        if self._phase is Phase.OVER:
            return
        match item:
            case bytes():
                self._actions.append(Send(item))
            case Authenticate() | EapRelay():
                self._outstanding += 1
                self._actions.append(item)
            case Passed():
                self._next_challenge(now)
                if self._phase is Phase.AUTHENTICATE:
                    self._passed(item.keys, now)
                else:
                    self._auth_at = None  # challenged again; the keys stay
            case Again():
                self._auth_at = now + self.policy.auth_timeout
                if self._negotiation_at is not None:
                    self._negotiation_at = now + self.policy.negotiation_timeout
            case Failed():
                # What was wrong is for the log, not for who tries passwords.
                self._close("auth_failed", item.reason, "Authentication failed", now)
            case Note():
                self._actions.append(item)

    def _next_challenge(self, now: float) -> None:
        again = self.policy.chap_rechallenge
        if again and isinstance(self._auth, ChapServer):
            self._rechallenge_at = now + again

    def _passed(self, keys: Keys, now: float) -> None:
        self._phase = Phase.NETWORK
        self._auth_at = None
        self._keys = keys
        mppe = self._verdict.mppe or self.policy.mppe
        required = mppe == "require"
        wanted = self._verdict.mppe_strengths or self.policy.mppe_strengths
        if mppe == "deny":
            wanted = ()
        strengths = tuple(bits for bits in wanted if keys.has(bits))
        if required and not strengths:
            named = " or ".join(str(bits) for bits in wanted)
            why = f"MPPE required, but {self.method} gives no key for {named} bits"
            self.close("ccp_failed", why, now)
            return
        if not self._admission(now):
            return
        if strengths:
            self._ccp.prepare(strengths, required)
            self._ccp.open(now)
            if not required:
                self._ccp_at = now + PATIENCE * self.policy.restart_interval
        else:
            self._ccp.listen()
            self._settled = True
        self._start_ipcp(now)

    def _admission(self, now: float) -> bool:
        if self.policy.role == "client":
            self._admitted = True
            self._user = self.policy.name
            return True
        user = self._verdict.user
        if self._asked and user != self._user:
            self.close("auth_failed", "another user logged in after LCP began anew", now)
            return False
        self._user = user
        if not self._asked:
            self._asked = True
            self._actions.append(Admission(user, self._verdict.address, self._verdict.pool))
        return True

    # -- CCP

    def _ccp_signal(self, signal: Signal, now: float) -> None:
        match signal:
            case Signal.UP:
                self._ccp_up(now)
            case Signal.DOWN:
                if self._mppe != CLEAR:
                    self._network_down(now)
            case Signal.FAILED:
                self.close("ccp_failed", self._ccp.fatal, now)
            case Signal.FINISHED | Signal.ENDED:
                self._ccp_gone(now)

    def _ccp_up(self, now: float) -> None:
        ccp = self._ccp
        self._settled = True
        self._ccp_at = None
        if ccp.required and not (ccp.rx_bits and ccp.tx_bits):
            self.close("ccp_failed", "MPPE required: the peer agrees to one direction only", now)
            return
        agreed = (ccp.rx_bits, ccp.rx_stateful, ccp.tx_bits, ccp.tx_stateful)
        if agreed != CLEAR:
            # Data must not cross a change of keys.
            self._network_down(now)
            self._mppe = CLEAR  # new keys even if the strengths are the same
        self._set_mppe(agreed)
        self._start_ipcp(now)

    def _ccp_gone(self, now: float) -> None:
        if self._ccp.required:
            why = "the peer does not answer CCP" if self._ccp.gave_up else "the peer ended CCP"
            self.close("ccp_failed", f"MPPE required: {why}", now)
            return
        if self._ccp.gave_up and (self._ccp.rx_bits or self._ccp.tx_bits):
            # One half was acknowledged: the peer may be encrypting already.
            self.close("ccp_failed", "the peer agreed to half of CCP, then fell silent", now)
            return
        self._settled = True
        self._ccp_at = None
        if not self._ccp.opened:
            self._set_mppe(CLEAR)
        self._start_ipcp(now)

    def _set_mppe(self, mppe: Mppe) -> None:
        if mppe == self._mppe:
            return
        self._mppe = mppe
        rx_bits, rx_stateful, tx_bits, tx_stateful = mppe
        self._actions.append(
            SetMppe(
                rx_bits,
                self._keys.receive(rx_bits),
                rx_stateful,
                tx_bits,
                self._keys.send(tx_bits),
                tx_stateful,
            )
        )

    # -- IPCP and the network

    def _start_ipcp(self, now: float) -> None:
        ready = self._phase is Phase.NETWORK and self._admitted and self._settled
        if not ready or self._ipcp.state is not State.INITIAL:
            return
        if self.policy.role == "server":
            self._ipcp.prepare(self._address, self._local)
            self._six.prepare(self._address, self._verdict.interface_id)
        self._ipcp.open(now)
        held, self._held = self._held, b""
        self._take_held(self._ipcp, held, now)
        if self.policy.ipv6:
            self._six.open(now)
            held, self._held_six = self._held_six, b""
            self._take_held(self._six, held, now)

    def _take_held(self, protocol: ControlProtocol, held: bytes, now: float) -> None:
        if held:
            try:
                protocol.receive(held, now)
            except RemoteError as e:
                self._note("malformed", error=str(e), octets=len(held))

    def _ipcp_signal(self, signal: Signal, now: float) -> None:
        match signal:
            case Signal.UP:
                pass  # _check_network sees it
            case Signal.DOWN:
                self._network_down(now)
            case Signal.FAILED:
                self.close("ipcp_failed", self._ipcp.fatal, now)
            case Signal.ENDED:
                self.close("ipcp_failed", "the peer ended the IPCP negotiation", now)
            case Signal.FINISHED:
                if self._was_up:
                    self.close("user_request", "the peer ended IPCP", now)
                else:
                    self.close("ipcp_failed", "the peer does not answer or rejects IPCP", now)

    def _six_signal(self, signal: Signal, now: float) -> None:
        """RFC 1661 section 3.7: closing one network protocol is no reason to end the link."""
        match signal:
            case Signal.UP:
                pass  # _check_network sees it
            case Signal.DOWN:
                self._six_down()
            case Signal.FAILED:
                self._note("ipv6cp_failed", reason=self._six.fatal)
                self._six.close(self._six.fatal, now)
            case Signal.ENDED | Signal.FINISHED:
                self._note("ipv6cp_ended")

    def _six_down(self) -> None:
        if self._six_up:
            self._six_up = False
            self._actions.append(Network6Down())

    def _check_network(self, now: float) -> None:
        self._check_four(now)
        if self._up and self._six.opened and not self._six_up:
            self._six_up = True
            self._actions.append(Network6Up(self._six.iid, self._six.our_iid))

    def _check_four(self, now: float) -> None:
        if self._up or self._phase is not Phase.NETWORK or not self._ipcp.opened:
            return
        if (self._ccp.required or self._mppe != CLEAR) and not self._ccp.opened:
            return
        if not self._ipcp.address:
            self.close("ipcp_failed", "the concentrator gave no address", now)
            return
        self._up = self._was_up = True
        self._negotiation_at = None
        self._actions.append(NetworkUp(self._agreed()))

    def _agreed(self) -> Agreed:
        lcp, ipcp = self._lcp, self._ipcp
        rx_bits, rx_stateful, tx_bits, tx_stateful = self._mppe
        # The peer's MRU bounds the information field of the frame. With MPPE that field
        # holds 4 octets more than the inner packet, so the packet must be shorter; a
        # policy.mtu that leaves room for them already is not cut again.
        room = lcp.peer_mru - (MPPE_OVERHEAD if tx_bits else 0)
        return Agreed(
            address=ipcp.address,
            local=ipcp.local,
            dns=ipcp.dns,
            mtu=min(self.policy.mtu, room),
            mru=lcp.mru,
            acfc=lcp.peer_acfc,
            pfc=lcp.peer_pfc,
            magic=lcp.magic,
            peer_magic=lcp.peer_magic,
            mppe_rx_bits=rx_bits,
            mppe_tx_bits=tx_bits,
            stateful=int(rx_stateful) | int(tx_stateful) << 1,
            auth=self.method,
        )

    def _network_down(self, now: float) -> None:
        if not self._up:
            return
        self._six_down()
        self._up = False
        self._actions.append(NetworkDown())
        if self._phase < Phase.ENDING:
            self._negotiation_at = now + self.policy.negotiation_timeout

    # -- the end

    def _ending(self, cause: str, reason: str) -> None:
        refusal = self._auth.refusal if self._auth is not None else ""
        if refusal and self._phase is Phase.AUTHENTICATE and cause in LEAVINGS:
            cause, reason = "auth_failed", refusal  # it could have tried again, and left
        self._phase = Phase.ENDING
        self._cause, self._reason = cause, reason
        self._negotiation_at = self._auth_at = self._ccp_at = self._rechallenge_at = None
        self._network_down(0.0)
        # Nothing but LCP goes on; what is queued of the others is still sent.
        for protocol in (self._ccp, self._ipcp, self._six):
            protocol.automaton.timer_at = None
        if self._auth is not None:
            self._auth.timer_at = None

    def _finish(self) -> None:
        self._phase = Phase.OVER
        self._actions.append(Finished(self._cause, self._reason))

    def _note(self, event: str, **fields: str | int) -> None:
        self._actions.append(Note(event, tuple(fields.items())))

    # -- the frozen form

    def freeze(self) -> dict[str, Any]:
        """Plain values for msgpack: all that a link needs after it is up."""
        keys = self._keys
        return {
            "v": FROZEN_VERSION,
            "seed": self._seed,
            "link": [
                int(self._phase),
                self._method,
                octets(self._user),
                [
                    keys.server,
                    keys.master,
                    keys.start_key,
                    keys.lm_key,
                    keys.send_key,
                    keys.receive_key,
                ],
                self._auths,
                self._outstanding,
                [self._asked, self._admitted, self._address, self._local],
                [self._settled, list(self._mppe), self._up, self._was_up, self._six_up],
                [self._negotiation_at, self._auth_at, self._ccp_at, self._rechallenge_at],
                [self._cause, self._reason],
            ],
            "lcp": self._lcp.freeze(),
            "ccp": self._ccp.freeze(),
            "ipcp": self._ipcp.freeze(),
            "ipv6cp": self._six.freeze() if self._has_six else None,
            "auth": self._auth.freeze() if self._auth is not None else None,
        }

    @classmethod
    def thaw(cls, policy: Policy, data: dict[str, Any]) -> Link:
        """The inverse of `freeze`; LocalError if another version wrote it."""
        if data.get("v") != FROZEN_VERSION:
            raise LocalError(f"frozen link of version {data.get('v')}, not {FROZEN_VERSION}")
        link = cls(policy, magic=0, challenge=data["seed"])
        phase, method, user, keys, auths, outstanding, admission, network, times, end = data["link"]
        link._phase = Phase(phase)
        link._method = method
        link._user = text_of(user)
        link._keys = Keys(*keys)
        link._auths, link._outstanding = auths, outstanding
        link._asked, link._admitted, link._address, link._local = admission
        link._settled, mppe, link._up, link._was_up, link._six_up = network
        link._mppe = tuple(mppe)
        link._negotiation_at, link._auth_at, link._ccp_at, link._rechallenge_at = times
        link._cause, link._reason = end
        link._lcp.thaw(data["lcp"])
        link._ccp.thaw(data["ccp"])
        link._ipcp.thaw(data["ipcp"])
        if data["ipv6cp"] is not None:
            link._six.thaw(data["ipv6cp"])
        if data["auth"] is not None:
            link._auth = link._exchange()
            link._auths = auths
            link._auth.thaw(data["auth"])
        return link


def _due(at: float | None, now: float) -> bool:
    return at is not None and now >= at
