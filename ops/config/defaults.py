"""What `pptpcon run` serves without a file: the defaults and one generated account."""

from __future__ import annotations

import secrets
from dataclasses import replace
from typing import Final

from ops.settings import Settings

USER: Final = "demo"
# Without the letters and digits that are taken for each other when read aloud.
_ALPHABET: Final = "abcdefghjkmnpqrstuvwxyz23456789"
_LENGTH: Final = 16  # 79 bits: MS-CHAPv2 can be tried offline by who sees a login


def embedded() -> tuple[Settings, str]:
    """The settings, and the password of the account `demo` in them."""
    password = "".join(secrets.choice(_ALPHABET) for _ in range(_LENGTH))
    settings = Settings()
    accounts = replace(settings.accounts, users=((USER, password),))
    return replace(settings, accounts=accounts), password
