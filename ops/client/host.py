"""This host as a ground for clients: programs run where we are, beside a folder for files."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from ops.client.child import Child


class Ground(Protocol):
    """Where programs are started: a playground, or this host."""

    def start(
        self,
        place: str,
        label: str,
        argv: Sequence[str],
        *,
        cpus: Sequence[int] = (),
        pass_fds: Sequence[int] = (),
        stdin: int | None = None,
        stdout: int | None = None,
        env: Mapping[str, str] | None = None,
    ) -> Child: ...


class Host:
    """No namespaces; a context manager as a playground is."""

    def __init__(self) -> None:
        self.children: list[Child] = []
        self.folder = Path()

    def __enter__(self) -> Self:
        self.folder = Path(tempfile.mkdtemp(prefix="pptpcon-bench-"))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for child in reversed(self.children):
            child.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def start(
        self,
        place: str,
        label: str,
        argv: Sequence[str],
        *,
        cpus: Sequence[int] = (),
        pass_fds: Sequence[int] = (),
        stdin: int | None = None,
        stdout: int | None = None,
        env: Mapping[str, str] | None = None,
    ) -> Child:
        """Start a program; `place` is a word for its log only."""
        child = Child(
            label,
            argv,
            log=self.folder / f"{place}-{label}-{len(self.children)}.log",
            cpus=cpus,
            pass_fds=pass_fds,
            stdin=stdin,
            stdout=stdout,
            env=env,
        )
        self.children.append(child)
        return child
