"""Access-Requests: one set of attributes for each way to log in, and what NAS policies test.

RFC 2865, 2548 (MS-CHAP), 2868 (tunnel), 3579 (EAP). Values that hide behind the secret
are made when a server is chosen, since each has its own: `Login.attributes`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from workers.radius import hidden
from workers.radius.attributes import A, Ms, Vendor, integer, text, vendor
from workers.radius.packets import VALUE_MAX, Attributes

FRAMED: Final = 2
PPP: Final = 1
VIRTUAL: Final = 5  # NAS-Port-Type
TUNNEL_PPTP: Final = 1  # RFC 2868 section 3.1
MEDIUM_IPV4: Final = 1
UNTAGGED: Final = b"\0"


@dataclass(frozen=True, slots=True)
class Nas:
    """Who we say we are, in every request."""

    identifier: str
    address: int = 0  # NAS-IP-Address; 0: none
    port_id: str = "pptp"  # NAS-Port-Id is this and the record's number
    mtu: int = 1400  # Framed-MTU: what an EAP packet may be, RFC 3579 section 2.4


@dataclass(frozen=True, slots=True)
class Caller:
    """The session that a request is about."""

    sid: str
    index: int
    calling: str  # outer address of the client
    called: str  # ours


def identity(nas: Nas) -> Attributes:
    """NAS-Identifier and NAS-IP-Address: all that Accounting-On has."""
    named: Attributes = ((A.NAS_IDENTIFIER, text(nas.identifier)),) if nas.identifier else ()
    if nas.address:
        named += ((A.NAS_IP_ADDRESS, integer(nas.address)),)
    return named


def place(nas: Nas, caller: Caller) -> Attributes:
    """Where the session is, the same in Access- and Accounting-Requests."""
    return (
        *identity(nas),
        (A.NAS_PORT, integer(caller.index)),
        (A.NAS_PORT_ID, text(f"{nas.port_id}{caller.index}")),
        (A.NAS_PORT_TYPE, integer(VIRTUAL)),
        (A.SERVICE_TYPE, integer(FRAMED)),
        (A.FRAMED_PROTOCOL, integer(PPP)),
        (A.CALLING_STATION_ID, text(caller.calling)),
        (A.CALLED_STATION_ID, text(caller.called)),
        (A.ACCT_SESSION_ID, text(caller.sid)),
        (A.TUNNEL_TYPE, UNTAGGED + TUNNEL_PPTP.to_bytes(3, "big")),
        (A.TUNNEL_MEDIUM_TYPE, UNTAGGED + MEDIUM_IPV4.to_bytes(3, "big")),
        (A.TUNNEL_CLIENT_ENDPOINT, text(caller.calling)),
        (A.TUNNEL_SERVER_ENDPOINT, text(caller.called)),
    )


@dataclass(frozen=True, slots=True)
class Login:
    """Credentials as workers.ppp.actions.Authenticate has them, or an EAP packet."""

    method: str
    name: str
    identifier: int = 0
    challenge: bytes = b""
    response: bytes = b""
    eap: bytes = b""
    state: bytes = b""  # of the Access-Challenge before

    def attributes(self, nas: Nas, caller: Caller, secret: bytes, random: bytes) -> Attributes:
        """All of an Access-Request but its Message-Authenticator."""
        return (
            (A.USER_NAME, text(self.name)),
            *self._credentials(secret, random),
            *place(nas, caller),
            *(((A.FRAMED_MTU, integer(nas.mtu)),) if self.eap else ()),
            *(((A.STATE, self.state),) if self.state else ()),
        )

    def _credentials(self, secret: bytes, random: bytes) -> Attributes:
        microsoft = Vendor.MICROSOFT
        match self.method:
            case "pap":
                hid = hidden.hide_password(self.response, secret, random)
                return ((A.USER_PASSWORD, hid),)
            case "chap-md5" | "eap-md5":
                return (
                    (A.CHAP_PASSWORD, bytes((self.identifier,)) + self.response),
                    (A.CHAP_CHALLENGE, self.challenge),
                )
            case "mschap":
                # LM and NT response, and the flag that says which counts, RFC 2548 section 2.1.3.
                answer = bytes((self.identifier, self.response[48])) + self.response[:48]
                return (
                    vendor(microsoft, Ms.CHAP_CHALLENGE, self.challenge),
                    vendor(microsoft, Ms.CHAP_RESPONSE, answer),
                )
            case "mschapv2" | "eap-mschapv2":
                # RFC 2548 section 2.3.2: flags are zero; peer challenge, reserved, response.
                answer = bytes((self.identifier, 0)) + self.response[:48]
                return (
                    vendor(microsoft, Ms.CHAP_CHALLENGE, self.challenge),
                    vendor(microsoft, Ms.CHAP2_RESPONSE, answer),
                )
        parts = range(0, len(self.eap), VALUE_MAX)
        return tuple((A.EAP_MESSAGE, self.eap[at : at + VALUE_MAX]) for at in parts)
