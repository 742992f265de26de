"""What a link is told to be (Policy) and what it asks its owner to do (Action).

Values only. The owner (a worker's control thread, or the client) carries actions out
in order; answers come back through methods of Link.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Role = Literal["server", "client"]


@dataclass(frozen=True, slots=True)
class Policy:
    """Limits and wishes of one link; times in seconds.

    Server: `auth` is what may be asked for, in order. Client: what it agrees to.
    """

    role: Role = "server"
    name: str = "pptpcon"  # CHAP name of the server; user name of the client
    password: str = ""  # client only
    mtu: int = 1400
    mru: int = 1400
    auth: tuple[str, ...] = ("mschapv2",)
    mppe: Literal["require", "prefer", "deny"] = "require"
    mppe_strengths: tuple[int, ...] = (128,)  # of 128, 56, 40, in order of preference
    dns: tuple[int, ...] = ()  # host-order IPv4
    wins: tuple[int, ...] = ()
    restart_interval: float = 3.0
    max_configure: int = 10
    max_terminate: int = 2
    max_failure: int = 10
    negotiation_timeout: float = 60.0
    auth_timeout: float = 30.0
    mppe_stateful: bool = False  # agree to a peer that asks for it
    mppe_ask_stateful: bool = False  # ask for it ourselves, for what we receive
    mppe_by_user: bool = False  # a Verdict may change `mppe`: decide nothing before there is one
    eap: tuple[str, ...] = ("mschapv2", "md5")  # EAP types in order; "relay": the owner's
    auth_retries: int = 0  # MS-CHAP: Failures that let the user try again (R=1)
    chap_rechallenge: float = 0.0  # seconds between challenges of an up link; 0: none
    ipv6: bool = False
    interface_id: bytes = b""  # the concentrator's, 8 octets (server only)
    subscriber_id: Literal["ipv4", "random"] = "ipv4"  # made for peers that have none
    subscriber_may_choose: bool = True  # an identifier of its own


# -- asked of the owner


@dataclass(frozen=True, slots=True)
class Send:
    """Send this PPP frame: 2-byte protocol and payload, no address and control octets."""

    frame: bytes


@dataclass(frozen=True, slots=True)
class Authenticate:
    """Check these credentials (server only) and call Link.authenticated().

    pap: `response` is the password. chap-md5: `challenge`, `identifier`, 16-octet
    `response`. mschap: 8-octet `challenge`, 49-octet `response` (LM, NT, flag).
    mschapv2: 16-octet `challenge` (ours), 49-octet `response` (peer challenge 16,
    zero 8, NT 24, flags 1). eap-md5 and eap-mschapv2 are like chap-md5 and mschapv2.
    `name` is as received, undecoded octets as surrogates. `state` is what the last
    acceptance wants back (RFC 2865 section 5.24); the link does not know it.
    """

    method: str
    name: str
    identifier: int
    challenge: bytes
    response: bytes
    state: bytes = b""


@dataclass(frozen=True, slots=True)
class Verdict:
    """Answer to Authenticate. Keys are MPPE start keys before the strength is known:

    `master`: for mschapv2 the 16-octet master key of RFC 3079; `start_key` for mschap
    (v1) the 16-octet 128-bit start key material, `lm_key` 8 octets for its 40-bit keys;
    or both start keys as RADIUS gives them (RFC 2548), `send_key` being what we send with.
    b"" if the method gives none. `user` is the account's name for admission and logs.
    """

    ok: bool
    user: str = ""
    reason: str = ""  # real cause of a refusal, for the log only
    message: str = ""  # text for the peer
    authenticator_response: str = ""  # mschapv2: "S=<40 hex>"
    master: bytes = b""
    start_key: bytes = b""
    lm_key: bytes = b""
    address: int = 0  # static address of the account, 0: from a pool
    pool: str = ""
    send_key: bytes = b""
    receive_key: bytes = b""
    mppe: Literal["", "require", "prefer", "deny"] = ""  # of this account; "": the policy's
    mppe_strengths: tuple[int, ...] = ()  # (): the policy's
    interface_id: bytes = b""  # IPv6CP: the subscriber's, and no other
    # What another server said of a refusal (MS-CHAP-Error of RADIUS):
    error: int = 0  # E= of RFC 2433 and 2759; 0: 691
    retry: bool = True  # R=; False: no other try, whatever the policy allows
    challenge: bytes = b""  # C=: what the next try is to answer; b"": one of ours


@dataclass(frozen=True, slots=True)
class EapRelay:
    """Hand an EAP packet on, unread, and call Link.eap_relayed() (RFC 3579 section 2).

    `packet` is a whole EAP-Response; the first one of an exchange is type Identity. The
    answer is the next EAP-Request, or a Verdict with the EAP-Success or EAP-Failure.
    """

    identity: str
    packet: bytes


@dataclass(frozen=True, slots=True)
class Admission:
    """Ask for a slot and an address (server only), then call Link.admitted()."""

    user: str
    address: int
    pool: str


@dataclass(frozen=True, slots=True)
class SetMppe:
    """CCP agreed: install keys. One action for both directions, before data flows.

    Bits 0 mean clear. Keys are the START keys of RFC 3079 (16 octets for 128, 8 for
    40 and 56): each key change of RFC 3078 7.3 needs them. The data path makes the first
    session key itself (7.2, with the salts of 40 and 56) and, when stateless, changes it
    before each packet, the first included.
    """

    rx_bits: int
    rx_key: bytes
    rx_stateful: bool
    tx_bits: int
    tx_key: bytes
    tx_stateful: bool


@dataclass(frozen=True, slots=True)
class Agreed:
    """What LCP, CCP and IPCP settled on. Addresses are host-order IPv4."""

    address: int  # subscriber's
    local: int  # the concentrator's
    dns: tuple[int, ...]
    mtu: int  # largest inner packet we may send (peer's MRU, MPPE, policy)
    mru: int
    acfc: bool  # we may leave out ff03 when sending
    pfc: bool
    magic: int
    peer_magic: int
    mppe_rx_bits: int
    mppe_tx_bits: int
    stateful: int  # bit 0 receive, bit 1 transmit
    auth: str


@dataclass(frozen=True, slots=True)
class NetworkUp:
    """IPCP is open: route the address, let data flow."""

    agreed: Agreed


@dataclass(frozen=True, slots=True)
class NetworkDown:
    """Data must stop (IPCP or CCP left OPENED, or the link is closing)."""


@dataclass(frozen=True, slots=True)
class Network6Up:
    """IPv6CP is open and NetworkUp was said: let IPv6 flow. Identifiers have 8 octets."""

    iid: bytes  # the subscriber's
    our_iid: bytes  # the concentrator's


@dataclass(frozen=True, slots=True)
class Network6Down:
    """IPv6 must stop; IPv4 is not concerned. Always said before NetworkDown."""


@dataclass(frozen=True, slots=True)
class Finished:
    """The link is over (LCP closed, or given up); the last action ever.

    `cause` is of ops.metrics.END_CAUSES, `reason` one sentence for the log.
    """

    cause: str
    reason: str


@dataclass(frozen=True, slots=True)
class Note:
    """Something for the log at debug level: an option refused, an Identification ..."""

    event: str
    fields: tuple[tuple[str, str | int], ...] = ()


Action = (
    Send
    | Authenticate
    | EapRelay
    | Admission
    | SetMppe
    | NetworkUp
    | NetworkDown
    | Network6Up
    | Network6Down
    | Finished
    | Note
)
