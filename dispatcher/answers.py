"""What a client is told: RFC 2637's result and error codes for our reasons and causes.

Where the RFC leaves a choice: what passes by itself (slots, calls being set up) is
Busy, so that clients redial; what an operator decided (limits, a stop) is Do Not
Accept; what is broken on our side is General Error with its code.
"""

from __future__ import annotations

from typing import Final

from dispatcher.pptp.messages import DisconnectResult, GeneralError, OutgoingResult
from ops.metrics import END_CAUSES, REFUSALS

_O = OutgoingResult
_E = GeneralError

# Outgoing-Call-Reply for a reason of ops.metrics.REFUSALS. Those about the user come
# after authentication, when the call is up: they end by Call-Disconnect-Notify and
# stand here for completeness.
REFUSED: Final[dict[str, tuple[OutgoingResult, GeneralError]]] = {
    "no_slot": (_O.BUSY, _E.NONE),
    "no_address": (_O.BUSY, _E.NONE),
    "starting_limit": (_O.BUSY, _E.NONE),
    "per_ip_limit": (_O.DO_NOT_ACCEPT, _E.NONE),
    "per_user_limit": (_O.DO_NOT_ACCEPT, _E.NONE),
    "connection_limit": (_O.DO_NOT_ACCEPT, _E.NONE),
    "shutting_down": (_O.DO_NOT_ACCEPT, _E.NONE),
    "address_not_allowed": (_O.DO_NOT_ACCEPT, _E.NONE),
    "per_realm_limit": (_O.DO_NOT_ACCEPT, _E.NONE),
    "start_rate": (_O.BUSY, _E.NONE),
    "banned": (_O.DO_NOT_ACCEPT, _E.NONE),
    "incoming_call": (_O.DO_NOT_ACCEPT, _E.NONE),
    "address_in_use": (_O.BUSY, _E.NONE),
    "no_worker": (_O.GENERAL_ERROR, _E.NO_RESOURCE),
    "worker_failed": (_O.GENERAL_ERROR, _E.PAC_ERROR),
    "bad_request": (_O.GENERAL_ERROR, _E.BAD_VALUE),
}

_D = DisconnectResult
# Call-Disconnect-Notify for a cause of ops.metrics.END_CAUSES.
DISCONNECTED: Final[dict[str, tuple[DisconnectResult, GeneralError]]] = {
    "user_request": (_D.REQUEST, _E.NONE),
    "lost_carrier": (_D.LOST_CARRIER, _E.NONE),
    "lost_service": (_D.LOST_CARRIER, _E.NONE),
    "echo_timeout": (_D.LOST_CARRIER, _E.NONE),
    "no_gre": (_D.LOST_CARRIER, _E.NONE),
    "idle_timeout": (_D.ADMIN_SHUTDOWN, _E.NONE),
    "session_timeout": (_D.ADMIN_SHUTDOWN, _E.NONE),
    "admin_reset": (_D.ADMIN_SHUTDOWN, _E.NONE),
    "volume_limit": (_D.ADMIN_SHUTDOWN, _E.NONE),
    "replaced": (_D.ADMIN_SHUTDOWN, _E.NONE),
    "admin_reboot": (_D.ADMIN_SHUTDOWN, _E.NONE),
    "refused": (_D.GENERAL_ERROR, _E.NO_RESOURCE),
    "auth_failed": (_D.GENERAL_ERROR, _E.BAD_VALUE),
    "lcp_failed": (_D.GENERAL_ERROR, _E.BAD_VALUE),
    "ccp_failed": (_D.GENERAL_ERROR, _E.BAD_VALUE),
    "ipcp_failed": (_D.GENERAL_ERROR, _E.BAD_VALUE),
    "negotiation_timeout": (_D.GENERAL_ERROR, _E.NONE),
    "protocol_error": (_D.GENERAL_ERROR, _E.BAD_FORMAT),
    "worker_lost": (_D.GENERAL_ERROR, _E.PAC_ERROR),
    "poison": (_D.GENERAL_ERROR, _E.PAC_ERROR),
    "internal_error": (_D.GENERAL_ERROR, _E.PAC_ERROR),
}

if set(REFUSED) != set(REFUSALS) or set(DISCONNECTED) != set(END_CAUSES):
    raise RuntimeError("dispatcher.answers and ops.metrics name different things")
