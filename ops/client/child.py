"""One child process with its log file; ended by its id, never by its name."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import ops

PR_SET_PDEATHSIG: Final = 1
_libc = ctypes.CDLL(None)
# -P: a folder called `ops` in the working directory is not ours; PYTHONPATH says which is.
PYTHON: Final = (sys.executable, "-P", "-m")
ROOT: Final = str(Path(ops.__file__).resolve().parent.parent)


class ChildError(Exception):
    """A child ended or did not serve in time; the text has the last lines of its log."""


class Child:
    """A program in the background. It is sent SIGTERM when the process that started it dies."""

    def __init__(
        self,
        label: str,
        argv: Sequence[str],
        *,
        log: Path,
        cpus: Sequence[int] = (),
        pass_fds: Sequence[int] = (),
        stdin: int | None = None,
        stdout: int | None = None,
        env: Mapping[str, str] | None = None,
    ) -> None:
        self.label = label
        self.log = log

        def prepare() -> None:
            _libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
            signal.pthread_sigmask(signal.SIG_SETMASK, ())
            if cpus:
                os.sched_setaffinity(0, cpus)

        with open(log, "ab") as complaints:
            self.process = subprocess.Popen(
                list(argv),
                stdin=subprocess.DEVNULL if stdin is None else stdin,
                stdout=complaints if stdout is None else stdout,
                stderr=complaints,
                pass_fds=tuple(pass_fds),
                env={**os.environ, "PYTHONPATH": ROOT, **(env or {})},
                start_new_session=True,  # a terminal's Ctrl-C is for the demo alone
                preexec_fn=prepare,  # noqa: PLW1509 - no thread runs while children start
            )

    @property
    def pid(self) -> int:
        """Its process id; also that of its process group."""
        return self.process.pid

    def alive(self) -> bool:
        """Has it not ended yet?"""
        return self.process.poll() is None

    def tail(self, lines: int = 20) -> str:
        """The last lines it wrote."""
        try:
            text = self.log.read_text("utf-8", "replace")
        except OSError:
            return ""
        return "\n".join(text.splitlines()[-lines:])

    def failure(self, what: str) -> ChildError:
        """An error about this child, with its last words."""
        state = "" if self.alive() else f" (exit status {self.process.returncode})"
        return ChildError(f"{self.label}: {what}{state}\n{self.tail()}".rstrip())

    def signal(self, number: int) -> None:
        """Send a signal, if it is still there."""
        if self.alive():
            self.process.send_signal(number)

    def stop(self, patience: float = 15.0) -> int:
        """SIGTERM, and SIGKILL for its process group after `patience` seconds; exit status."""
        for pipe in (self.process.stdin, self.process.stdout):  # nobody reads any more
            if pipe is not None:
                try:
                    pipe.close()
                except OSError:
                    pass
        self.signal(signal.SIGTERM)
        try:
            self.process.wait(patience)
        except subprocess.TimeoutExpired:
            pass
        if self.alive():
            try:
                os.killpg(self.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            self.process.wait()
        return self.process.returncode
