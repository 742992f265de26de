"""A login name's two parts, for limits and bans. Leaf module.

Who may log in is not decided here: workers/domains.py is for that.
"""

from __future__ import annotations


def split(name: str) -> tuple[str, str]:
    r"""(realm, user) of `REALM\user` or `user@realm`, without regard to case; "" if there is none.

    Microsoft's clients send the first form, everybody else RFC 7542's second one.
    """
    realm, backslash, user = name.partition("\\")
    if not backslash:
        user, _, realm = name.rpartition("@") if "@" in name else (name, "", "")
    return realm.casefold(), user.casefold()


def user_key(name: str) -> str:
    """Of a login name, for bans: under any realm it is the same password that is guessed."""
    return split(name)[1]
