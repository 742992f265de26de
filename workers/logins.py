"""Who decides about a login: RADIUS where servers are configured, else the local accounts.

With radius.fallback = "local" the local accounts decide when no server answers; a refusal
of a server is final in any case.
"""

from __future__ import annotations

from ops.settings import Settings
from workers.accounts import Accounts, Login
from workers.live import Handle
from workers.policy import NOTHING_SAID
from workers.ppp.actions import Authenticate, EapRelay, Verdict
from workers.radius import configured
from workers.radius.client import Answer, Client
from workers.secrets_file import NO_ADDRESS


class Logins:
    """One worker's; `client` is None where the keeper gave no way to the accounts process."""

    def __init__(self, client: Client | None) -> None:
        self._client = client

    async def verify(
        self, accounts: Accounts, settings: Settings, handle: Handle, request: Authenticate
    ) -> Login:
        """Check credentials."""
        if self._client is None or not configured.logs_in(settings):
            return await accounts.verify(request, handle[0])
        answer = await self._client.login(handle, request)
        if answer.verdict is not None:
            return accounts.elsewhere(request.method, request.name, answer.verdict, answer.policy)
        if settings.radius.fallback == "local":
            return await accounts.verify(request, handle[0])
        return _nobody(request.name, answer)

    async def relay(
        self, accounts: Accounts, settings: Settings, handle: Handle, request: EapRelay
    ) -> tuple[bytes, Login | None]:
        """Hand an EAP packet on: what the peer gets, and the end if it is one."""
        if self._client is None or not configured.logs_in(settings):
            reason = "this EAP type needs a RADIUS server, and none is configured"
            return b"", Login(Verdict(False, reason=reason), NO_ADDRESS, counted=False)
        answer = await self._client.eap(handle, request)
        if answer.verdict is not None:
            verdict, policy = answer.verdict, answer.policy
            return answer.eap, accounts.elsewhere("eap", request.identity, verdict, policy)
        if answer.eap:
            return answer.eap, None
        return b"", _nobody(request.identity, answer)


def _nobody(name: str, answer: Answer) -> Login:
    verdict = Verdict(False, name, f"no answer to the login: {answer.reason}")
    return Login(verdict, NO_ADDRESS, NOTHING_SAID, counted=False, unanswered=True)
