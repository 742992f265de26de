"""Files with tokens and passwords: read while we may, and only their SHA-256 goes on.

The console runs as an unprivileged user, so it could not read them after a reload.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Final

from ops.config.checks import Path, Remark
from ops.config.problems import printable, reason
from ops.settings import Settings

TOKEN_MIN: Final = 20  # characters: what nobody guesses online, nor from the digest
TOKENS_MAX: Final = 100
OCTETS_MAX: Final = 65536


def digest(secret: str) -> str:
    """As `ops.settings.Console` keeps it."""
    return hashlib.sha256(secret.encode()).hexdigest()


def with_digests(settings: Settings, report: Callable[[Remark], None]) -> Settings:
    """Settings with the digests of [console]'s files; `report` gets what is wrong with them."""
    console = settings.console
    tokens = tuple(_lines(("console", "token_file"), console.token_file, TOKEN_MIN, report))
    words = [
        *_lines(("console", "accel_cmd_password_file"), console.accel_cmd_password_file, 1, report)
    ]
    if len(words) > 1:
        report(Remark(("console", "accel_cmd_password_file"), "holds more than one line"))
    return replace(
        settings,
        console=replace(
            console,
            token_digests=tuple(map(digest, tokens)),
            accel_cmd_digest=digest(words[0]) if words else "",
        ),
    )


def _lines(key: Path, path: str, least: int, report: Callable[[Remark], None]) -> Iterable[str]:
    """Lines that are neither empty nor comments; [] with a word about why."""
    if not path:
        return []
    shown = printable(path)
    try:
        data, mode = _read(path)
    except PermissionError:
        report(Remark(key, f"{shown}: permission denied to this user; root may", fatal=False))
        return []
    except (OSError, ValueError) as e:
        report(Remark(key, f"{shown}: {reason(e)}"))
        return []
    if mode & 0o007:
        report(Remark(key, f"others can read {shown}; chmod o= {shown}", fatal=False))
    words = [line.strip() for line in data.decode("utf-8", "replace").splitlines()]
    words = [word for word in words if word and not word.startswith("#")]
    for word in words:
        if len(word) < least or not (word.isascii() and word.isprintable()) or " " in word:
            text = f"{shown}: must be {least} or more printable ASCII characters without spaces"
            report(Remark(key, f"{text}, one a line; `openssl rand -hex 32` makes one"))
            return []
    if not words or len(words) > TOKENS_MAX:
        report(Remark(key, f"{shown}: must hold 1 to {TOKENS_MAX} lines, holds {len(words)}"))
        return []
    return words


def _read(path: str) -> tuple[bytes, int]:
    """Content and mode of a regular file."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    with open(fd, "rb") as file:
        mode = os.fstat(fd).st_mode
        if not stat.S_ISREG(mode):
            raise ValueError("is not a regular file")
        return file.read(OCTETS_MAX), mode
