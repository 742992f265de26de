"""A configuration file's octets, and their TOML."""

from __future__ import annotations

import os
import re
import stat
import tomllib
from typing import Any, Final

from ops.config.lines import key_lines
from ops.config.problems import ConfigError, printable, reason
from ops.config.words import syntax_error

MAX_BYTES: Final = 4 << 20
# A key of a thousand parts takes tomllib minutes; none of ours has more than three.
DOTTED: Final = re.compile(r"^[ \t]*\[*[ \t]*(?:[\w-]+[ \t]*\.[ \t]*){64}", re.MULTILINE)


def read(path: str) -> bytes:
    """The file's octets; ConfigError for whatever can't be read at once."""
    where = printable(path)
    try:
        # A FIFO without a writer would block open(); /dev/fd/N (a shell's <(...)) may wait.
        flags = 0 if path.startswith(("/dev/fd/", "/dev/stdin", "/proc/")) else os.O_NONBLOCK
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | flags)
    except (OSError, ValueError) as e:
        raise ConfigError([f"{where}: can't be read: {reason(e)}"]) from None
    mode = os.fstat(fd).st_mode
    if stat.S_ISDIR(mode) or (flags and not stat.S_ISREG(mode)):
        os.close(fd)
        kind = "a directory" if stat.S_ISDIR(mode) else "not a regular file"
        raise ConfigError([f"{where}: can't be read: it is {kind}"])
    with os.fdopen(fd, "rb") as file:
        try:
            data = file.read(MAX_BYTES + 1)
        except OSError as e:
            raise ConfigError([f"{where}: can't be read: {reason(e)}"]) from None
    if len(data) > MAX_BYTES:
        raise ConfigError(
            [
                f"{where}: larger than {MAX_BYTES >> 20} MiB; put many accounts into a"
                " chap-secrets file (accounts.chap_secrets)"
            ]
        )
    return data


def parse(data: bytes, where: str) -> tuple[dict[str, Any], dict[tuple[str | int, ...], int]]:
    """The document and the line of each of its keys; ConfigError if it is no TOML."""
    if b"\0" in data:
        line = data.count(b"\n", 0, data.index(b"\0")) + 1
        raise ConfigError([f"{where}:{line}: holds a NUL: this is no text, so no TOML"])
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as e:
        line = data.count(b"\n", 0, e.start) + 1
        raise ConfigError(
            [f"{where}:{line}: is not UTF-8 (octet 0x{data[e.start]:02x}); save it as UTF-8"]
        ) from None
    if deep := DOTTED.search(text):
        line = text.count("\n", 0, deep.start()) + 1
        raise ConfigError([f"{where}:{line}: TOML: keys are nested too deep"])
    document = _parse(text, where)
    try:
        return document, key_lines(text.replace("\r\n", "\n"))
    except (ValueError, IndexError, RecursionError):
        return document, {}


def _parse(text: str, where: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise ConfigError([f"{where}:1: TOML: values are nested too deep"]) from None
    except tomllib.TOMLDecodeError as e:
        raise ConfigError([syntax_error(str(e), text, where)]) from None
    except ValueError as e:  # int() has a limit of digits
        raise ConfigError([f"{where}:1: TOML: {e}"]) from None
