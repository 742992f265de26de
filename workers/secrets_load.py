"""Reads a secrets file and the files it names, for processes that may not.

`python -m workers.secrets_load PATH --out-fd N`, started by the keeper as root: the
text, with each `@/path` secret put in, goes to memfd N; the paths of those files go to
standard output, one a line, to be watched. Exit 0, or 66 if PATH can't be read.
"""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path
from typing import Final

from workers.secrets_file import expand

LIMIT: Final = 256 << 20  # octets of the main file; some 5 million accounts
SECRET_LIMIT: Final = 65536
NO_INPUT: Final = 66  # EX_NOINPUT of sysexits.h


def _read(path: str, limit: int) -> bytes:
    # O_NONBLOCK: a FIFO in the place of a file must not hold us up.
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    with os.fdopen(fd, "rb") as file:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode):
            raise OSError(0, "is no regular file")
        if found.st_size > limit:
            raise OSError(0, f"has more than {limit} octets")
        return file.read(limit)


def load(path: str) -> tuple[bytes, list[str], list[str]]:
    """(text, secret files read, complaints); OSError if `path` itself can't be read."""
    complaints = []
    named: list[str] = []

    def read(name: str) -> bytes:
        named.append(name)
        return _read(name, SECRET_LIMIT)

    data = _read(path, LIMIT)
    mode = Path(path).stat().st_mode
    if mode & (stat.S_IRWXO | stat.S_IWGRP):
        complaints.append(
            f"{path}: mode {stat.S_IMODE(mode):04o} lets others read or change it; "
            f"`chmod 600 {path}`"
        )
    text, problems = expand(data, read)
    complaints += [f"{path}:{problem.line}: {problem.text}" for problem in problems]
    return text, named, complaints


def main(words: list[str]) -> int:
    """Command line of the keeper's call."""
    if len(words) != 3 or words[1] != "--out-fd" or not words[2].isdigit():
        print("pptpcon: this module is started by the keeper; use `pptpcon run`", file=sys.stderr)
        return 64
    path = words[0]
    try:
        text, named, complaints = load(path)
    except OSError as e:
        print(f"pptpcon: accounts.chap_secrets: {path}: {e.strerror}", file=sys.stderr)
        return NO_INPUT
    for complaint in complaints:
        print(f"pptpcon: accounts.chap_secrets: {complaint}", file=sys.stderr)
    view = memoryview(text)
    while view:
        view = view[os.write(int(words[2]), view) :]
    for name in named:
        if "\n" not in name:
            print(name)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
