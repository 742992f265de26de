"""The lab of real clients as the tests use it: topologies, a concentrator in one, clients.

The lab itself (namespaces, User Mode Linux guests) lies beside the checkout in
shared/lab; PPTP_LAB names another place.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from ops.client import netns

ROOT: Final = Path(__file__).resolve().parents[2]
LAB: Final = Path(os.environ.get("PPTP_LAB") or ROOT.parent / "shared" / "lab")
SERVER: Final = ROOT / "tests" / "interop" / "lab-server"
PRIVATE_SERVER: Final = ROOT / "tests" / "interop" / "private-server"
WAN_SERVER: Final = "198.18.0.1"
WAN_CLIENTS: Final = "198.18.0.254"  # of the clients' bridge, to send odd things from
LAN_HOST: Final = "198.19.0.10"
HTTP_PORT: Final = 8080
# Of all concentrators here, as lab-server takes them: to run all tests with one way of I/O.
WAY: Final = [f"--set={each}" for each in os.environ.get("PPTPCON_WAY", "").split()]


class LabError(Exception):
    """The lab, not the concentrator, did not work."""


def python_command() -> list[str]:
    """`pptpcon` of this checkout."""
    script = ROOT / ".venv" / "bin" / "pptpcon"
    return [str(script)] if script.exists() else [str(ROOT / ".venv/bin/python"), "-m", "ops"]


class ControlConnection(http.client.HTTPConnection):
    """HTTP on a concentrator's control socket: quicker than the command that does the same."""

    def __init__(self, path: Path) -> None:
        super().__init__("control", timeout=10)
        self._path = str(path)

    def connect(self) -> None:
        """By Unix socket."""
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def missing() -> str:
    """Why the lab can't run here; "" if it can."""
    if os.geteuid() != 0:
        return "needs root"
    if not (LAB / "matrix").exists():
        return f"no lab of clients at {LAB} (PPTP_LAB names another place)"
    if not os.path.exists("/usr/bin/linux.uml"):
        return "user-mode-linux is not installed (ops/test does that)"
    return ""


def run(*words: str, timeout: float = 60) -> str:
    """A command's output; LabError with what it said if it fails."""
    done = subprocess.run(words, capture_output=True, text=True, timeout=timeout, check=False)
    if done.returncode != 0:
        said = f"{done.stderr.strip()[-2000:]} {done.stdout.strip()[-500:]}"
        raise LabError(f"{' '.join(words)}: {said}")
    return done.stdout


@dataclass
class Topology:
    """Three namespaces of the lab: NAME-a clients, NAME-s server, NAME-l LAN."""

    name: str

    def up(self) -> None:
        """Make it."""
        run(str(LAB / "topo"), "up", self.name)

    def down(self) -> None:
        """End what runs in it and remove it."""
        run(str(LAB / "topo"), "down", self.name)

    def namespace(self, letter: str) -> str:
        """Name of one of its namespaces: a, s or l."""
        return f"{self.name}-{letter}"

    def inside(self, letter: str, *words: str) -> list[str]:
        """The command line that runs `words` in a namespace."""
        return ["nsenter", f"--net=/run/netns/{self.namespace(letter)}", "--", *words]

    def run(self, letter: str, *words: str, timeout: float = 60) -> str:
        """Run a command in a namespace."""
        return run(*self.inside(letter, *words), timeout=timeout)

    def processes(self) -> dict[int, str]:
        """What lives in the server's namespace: pid to command line."""
        found = {}
        for pid in netns.processes(self.namespace("s")):
            try:
                words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            found[pid] = b" ".join(words).decode("utf-8", "replace").strip()
        return found

    def run_dir(self) -> Path:
        """Where a concentrator of that namespace keeps its sockets."""
        inode = os.stat(f"/run/netns/{self.namespace('s')}").st_ino
        return Path(f"/run/pptpcon-{inode}")

    def state(self) -> dict[str, str]:
        """All of the server's network that a concentrator might change."""
        return {
            "links": self.run("s", "ip", "-o", "-br", "link"),
            "addresses": self.run("s", "ip", "-o", "-br", "addr"),
            "routes": self.run("s", "ip", "-4", "route", "show", "table", "all"),
            "rules": self.run("s", "ip", "rule"),
            "nft": self.run("s", "nft", "list", "ruleset"),
            "forward": self.run("s", "sysctl", "net.ipv4.ip_forward"),
            "processes": "\n".join(self.processes().values()),
            "run folder": "there" if self.run_dir().exists() else "",
        }


class Client:
    """One run of uml-client in the background: one guest or several."""

    def __init__(self, topology: Topology, *options: str, log: Path) -> None:
        self._out = log.with_suffix(".json")
        self._err = log
        with open(self._out, "wb") as out, open(self._err, "wb") as err:
            self.process = subprocess.Popen(
                [str(LAB / "uml-client"), "--topo", topology.name, *options],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
            )

    def result(self, timeout: float = 240) -> dict[str, Any]:
        """What it printed, when it has ended."""
        self.process.wait(timeout)
        try:
            found: dict[str, Any] = json.loads(self._out.read_text())
        except ValueError:
            raise LabError(f"uml-client: {self._err.read_text()[-2000:]}") from None
        return found

    def stop(self) -> None:
        """Disconnect, if that has not happened."""
        if self.process.poll() is None:
            self.process.terminate()
            self.process.wait(60)


def failures(result: dict[str, Any]) -> list[str]:
    """What is wrong with a client's result; [] if it passed."""
    if "clients" in result:
        return [f"{r.get('user')}: {why}" for r in result["clients"] for why in failures(r)]
    if result.get("passed"):
        return []
    found = [str(result[key]) for key in ("lab_error", "error", "timed_out") if result.get(key)]
    if not result["connected"]:
        remarks = "; ".join(result.get("remarks", []))[:500]
        found.append(f"not connected: {result.get('exit_text')} {remarks}")
    found += [f"{k}: {c}" for k, c in result["checks"].items() if not c["ok"]]
    found += [str(c) for c in result.get("commands", []) if c["exit_status"] != 0]
    if result["connected"] and not result.get("clean_disconnect"):
        found.append("no clean disconnect")
    return found or ["not passed"]


@dataclass
class Concentrator:
    """`lab-server`, or `pptpcon run` with a configuration of the test, in a topology."""

    topology: Topology
    log: Path
    process: subprocess.Popen[bytes] = field(init=False)

    def start(
        self,
        *arguments: str,
        config: Path | None = None,
        timeout: float = 20,
        **environment: str,
    ) -> None:
        """Start and wait until it serves; `environment` holds LAB_AUTH and the like."""
        if config is None:
            command = [str(SERVER), *arguments]
        else:
            command = [*python_command(), "run", "-c", str(config), *WAY, *arguments]
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                self.topology.inside("s", *command),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=os.environ | environment,
                cwd=ROOT,
            )
        until = time.monotonic() + timeout
        while not self._serves():
            if self.process.poll() is not None:
                raise AssertionError(f"the concentrator ended:\n{self.text()[-3000:]}")
            if time.monotonic() > until:
                self.stop()
                raise AssertionError(f"it does not serve after {timeout} s:\n{self.text()[-3000:]}")
            time.sleep(0.05)

    def _serves(self) -> bool:
        try:
            self.api("/readyz")
        except (OSError, http.client.HTTPException):
            return False
        return all(row["state"] == "up" for row in self.workers())

    def stop(self, *, expect: int | None = 0, timeout: float = 20) -> None:
        """SIGTERM and wait; the exit status has to be `expect` (None: any)."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            code = self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"no end {timeout} s after SIGTERM:\n{self.tail()}") from None
        assert expect is None or code == expect, f"exit status {code}:\n{self.tail()}"

    def kill(self) -> None:
        """SIGKILL to all of it at once, as a machine's OOM killer or a bad operator would."""
        for pid in [*self.topology.processes(), self.process.pid]:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        self.process.wait(10)

    def text(self) -> str:
        """The log so far."""
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def tail(self) -> str:
        """The end of the log, for messages."""
        return self.text()[-4000:]

    def wait_for(self, pattern: str, timeout: float = 10) -> re.Match[str]:
        """The first match in the log, waiting for it."""
        until = time.monotonic() + timeout
        while True:
            found = re.search(pattern, self.text())
            if found:
                return found
            if time.monotonic() > until:
                raise AssertionError(f"{pattern!r} is not in the log:\n{self.tail()}")
            time.sleep(0.05)

    def command(self, *words: str) -> str:
        """`pptpcon WORDS` beside it."""
        return self.topology.run("s", *python_command(), *words)

    def json(self, *words: str) -> Any:
        """`pptpcon WORDS --json`, decoded."""
        return json.loads(self.command(*words, "--json"))

    def api(self, path: str) -> str:
        """A page of the control socket; OSError if it is not there or says no."""
        connection = ControlConnection(self.topology.run_dir() / "control.sock")
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            text = answer.read().decode()
        finally:
            connection.close()
        if answer.status != 200:
            raise OSError(f"{path}: {answer.status} {text}")
        return text

    def sessions(self) -> list[dict[str, Any]]:
        """What `show sessions` shows, one dict a session."""
        found = json.loads(self.api("/api/sessions"))
        return [dict(zip(found["columns"], row, strict=True)) for row in found["rows"]]

    def workers(self) -> list[dict[str, Any]]:
        """What `show workers` shows."""
        rows: list[dict[str, Any]] = json.loads(self.api("/api/workers"))
        return rows

    def wait_sessions(self, count: int, timeout: float = 60) -> list[dict[str, Any]]:
        """`show sessions`, once there are `count` that are up."""
        until = time.monotonic() + timeout
        while True:
            rows = [row for row in self.sessions() if row["state"] == "active"]
            if len(rows) == count:
                return rows
            if time.monotonic() > until:
                raise AssertionError(f"{len(rows)} sessions, not {count}:\n{self.tail()}")
            time.sleep(0.1)

    def wait_traffic(self, packets: int, timeout: float = 60) -> dict[str, Any]:
        """The row of the one session, once so many packets came from its client."""
        until = time.monotonic() + timeout
        while True:
            rows = self.sessions()
            if len(rows) == 1 and rows[0]["rx-pkts"] >= packets:
                return rows[0]
            if time.monotonic() > until:
                raise AssertionError(f"no traffic in {timeout} s, {rows}:\n{self.tail()}")
            time.sleep(0.05)

    def metrics(self) -> dict[str, float]:
        """/metrics: series with labels, as printed, to value."""
        found = {}
        for line in self.api("/metrics").splitlines():
            if line and not line.startswith("#"):
                name, _, value = line.rpartition(" ")
                found[name] = float(value)
        return found


def matrix(topology: str, group: str, logs: Path, server: Path = SERVER) -> list[str]:
    """Run a group of the lab's variants; returns its lines, LabError if it could not."""
    words = [str(LAB / "matrix"), "--no-compression", "--group", group, "--topo", topology]
    words += ["--logs", str(logs), "--server-command", f"'{server}'"]
    with open(logs / f"{group}-server.log", "wb") as log:
        done = subprocess.run(
            words,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            timeout=400,
            check=False,
        )
    lines = done.stdout.splitlines()
    if done.returncode not in (0, 1) or not lines:
        raise LabError((logs / f"{group}-server.log").read_text(errors="replace")[-3000:])
    return lines
