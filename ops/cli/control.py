"""The client's end of the control socket, and what the client commands share.

Starts fast: nothing outside the standard library and click. Exit codes: 0 done, 1 usage,
2 bad value, 3 cannot connect, 4 timeout, 5 nothing matched.
"""

from __future__ import annotations

import contextlib
import errno
import glob
import http.client
import json
import os
import socket
from collections.abc import Callable, Generator
from typing import Any, Final, NoReturn, TypeVar

import click

from ops.rundir import BASE, default_run_dir

EXIT_USAGE: Final = 1
EXIT_VALUE: Final = 2
EXIT_CONNECT: Final = 3
EXIT_TIMEOUT: Final = 4
EXIT_NOTHING: Final = 5
TIMEOUT_S: Final = 10.0
SOCKET: Final = "control.sock"
LISTED: Final = 4

F = TypeVar("F", bound=Callable[..., Any])


class ClientError(click.ClickException):
    """Ends the command with this sentence and exit code."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.exit_code = code  # type: ignore[misc]  # click reads it here, too


class ClientCommand(click.Command):
    """A command whose usage errors end with 1, and bad values with 2."""

    def make_context(self, *args: Any, **words: Any) -> click.Context:
        """As click does, with our exit codes."""
        try:
            return super().make_context(*args, **words)
        except click.UsageError as e:
            raise _coded(e) from None

    def invoke(self, ctx: click.Context) -> Any:
        """As click does, with our exit codes."""
        try:
            return super().invoke(ctx)
        except click.UsageError as e:
            raise _coded(e) from None


class ClientGroup(ClientCommand, click.Group):
    """The same for a group: a word that is no command is a usage error."""


def _coded(error: click.UsageError) -> click.UsageError:
    bad = isinstance(error, click.BadParameter) and not isinstance(error, click.MissingParameter)
    error.exit_code = EXIT_VALUE if bad else EXIT_USAGE  # type: ignore[misc]
    return error


def run_dir_option(command: F) -> F:
    """--run-dir."""
    return click.option(
        "--run-dir",
        metavar="DIR",
        help=f"Of the instance to ask. Default: the one of this network namespace ({BASE}...).",
    )(command)


class _Connection(http.client.HTTPConnection):
    """HTTP over a Unix stream socket."""

    def __init__(self, path: str, timeout_s: float) -> None:
        super().__init__("localhost", timeout=timeout_s)
        self._path = path

    def connect(self) -> None:
        """Open the socket."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class Control:
    """The console of one instance."""

    def __init__(self, run_dir: str | None, timeout_s: float = TIMEOUT_S) -> None:
        self._timeout_s = timeout_s
        self._named = bool(run_dir)
        self._run_dir = run_dir or default_run_dir()
        self._path = os.path.join(self._run_dir, SOCKET)

    def get(self, path: str) -> Any:
        """The JSON at `path`; None if there is nothing (404)."""
        return self._ask("GET", path, None)

    def post(self, path: str, value: dict[str, Any]) -> Any:
        """The JSON answer."""
        return self._ask("POST", path, json.dumps(value).encode())

    def lines(self, path: str, value: dict[str, Any]) -> Generator[dict[str, Any], None, None]:
        """JSON, line by line, for as long as there are any; an empty dict: nothing new, but
        it lives."""
        connection = _Connection(self._path, self._timeout_s)
        try:
            connection.request("POST", path, body=json.dumps(value).encode())
            answer = connection.getresponse()
            if answer.status != 200:
                _refused(answer.status, answer.read())
            while line := answer.readline():
                yield json.loads(line) if line.strip() else {}
        except TimeoutError:
            raise ClientError(f"{self._path}: it has fallen silent", EXIT_TIMEOUT) from None
        except (OSError, http.client.HTTPException, ValueError) as e:
            if isinstance(e, ValueError):
                raise ClientError(f"{self._path}: not understood: {e}", EXIT_CONNECT) from None
            self._unreachable(e)
        finally:
            connection.close()

    def _ask(self, method: str, path: str, body: bytes | None) -> Any:
        connection = _Connection(self._path, self._timeout_s)
        try:
            connection.request(method, path, body=body)
            answer = connection.getresponse()
            data = answer.read()
        except TimeoutError:
            raise ClientError(
                f"{self._path}: no answer within {self._timeout_s:g} s; is the console process "
                "stuck? The log of `pptpcon run` tells",
                EXIT_TIMEOUT,
            ) from None
        except (OSError, http.client.HTTPException) as e:
            self._unreachable(e)
        finally:
            connection.close()
        if answer.status == 404:
            return None
        if answer.status != 200:
            _refused(answer.status, data)
        try:
            return json.loads(data)
        except ValueError:
            raise ClientError(f"{self._path}: the answer is no JSON", EXIT_CONNECT) from None

    def _unreachable(self, error: OSError | http.client.HTTPException) -> NoReturn:
        number = error.errno if isinstance(error, OSError) else None
        if number == errno.ENOENT:
            where = "with this --run-dir" if self._named else "in this network namespace"
            text = f"no such socket; pptpcon does not run {where}"
            others = _instances()
            if others:
                text += f". What runs: {', or '.join(f'--run-dir {other}' for other in others)}"
            elif self._named:
                text += "; start it with `pptpcon run`, or leave --run-dir out"
            else:
                text += "; start it with `pptpcon run`, or say --run-dir"
        elif number == errno.ECONNREFUSED:
            text = "nobody listens; pptpcon has ended and left it. Start it with `pptpcon run`"
        elif number in (errno.EACCES, errno.EPERM):
            text = "permission denied; only root and the socket's group may: try sudo"
        elif isinstance(error, ConnectionError | http.client.HTTPException):
            text = "the connection broke; the console process may be restarting: try again"
        else:
            text = str(error)
        raise ClientError(f"{self._path}: {text}", EXIT_CONNECT) from None


def _instances() -> list[str]:
    """Run folders whose socket somebody listens on, a few."""
    found = []
    for path in sorted(glob.glob(f"{BASE}*/{SOCKET}")):
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as probe:
            probe.settimeout(1)
            probe.connect(path)
            found.append(os.path.dirname(path))
        if len(found) == LISTED:
            break
    return found


def _refused(status: int, data: bytes) -> NoReturn:
    lines = data.decode("utf-8", "replace").splitlines() or [f"HTTP status {status}"]
    of_server = EXIT_TIMEOUT if status == 504 else EXIT_CONNECT
    code = of_server if status >= 500 else EXIT_VALUE
    raise ClientError(lines[0], code)
