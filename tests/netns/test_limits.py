"""Every limit, ban and list turns a real client away, says so, and lets the next good one in."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from ops.config.show import to_toml
from ops.settings import (
    AccountRule,
    Accounts,
    Bans,
    Limits,
    Listen,
    Mppe,
    Pool,
    Ppp,
    Settings,
)
from tests.netns.spaces import ROOT, Keeper, Space, wait_for
from tests.netns.test_worker import CONF

pytestmark = pytest.mark.netns

Pair = tuple[Space, Space]
PASSWORD = "right"
NAMES = ["anna", "bert", "eve", "mary", "mute", "pool1", "pool2", "spare"]
NAMES += [f"{letter}{n}" for letter in "cstw" for n in range(1, 8)]


@dataclass(frozen=True)
class Login:
    """One or several clients; `last` octet of their address."""

    user: str
    last: int
    password: str = PASSWORD
    count: int = 1
    more: tuple[str, ...] = ()


@dataclass(frozen=True)
class Row:
    """`held` are up, `spent` have been; then `bad` is refused for `why`, and `good` comes in."""

    name: str
    bad: Login
    why: str
    good: Login
    held: Login | None = None
    spent: Login | None = None


ROWS = (
    Row("user", Login("anna", 11), "cause=per_user_limit", Login("bert", 11), Login("anna", 11)),
    Row("address", Login("c6", 12), "per_ip_limit", Login("c6", 32), Login("c{i}", 12, count=4)),
    Row(
        "realm",
        Login(r"ISP\two", 13),
        "cause=per_realm_limit",
        Login(r"OTHER\two", 13),
        Login(r"ISP\one", 13),
    ),
    Row(
        "starts",
        Login("s{i}", 14, count=3),  # one comes back in a quarter of a minute
        "start_rate",
        Login("s7", 34),
        spent=Login("t{i}", 14, count=4),
    ),
    Row(
        "user ban",
        Login("eve", 35),
        "the user is banned after too many wrong passwords",
        Login("spare", 35),
        spent=Login("eve", 15, "wrong", 2),
    ),
    Row(
        "source ban",
        Login("w5", 16),
        "control connection refused peer=192.0.2.16",
        Login("w5", 36),
        spent=Login("w{i}", 16, "wrong", 3),
    ),
    Row(
        "denied", Login("mary", 17), "control connection refused peer=192.0.2.17", Login("mary", 37)
    ),
    Row("pool", Login("pool2", 18), "cause=no_address", Login("w6", 18), Login("pool1", 18)),
    Row(
        "method",
        Login("mute", 19, more=("--auth", "chap-md5", "--mppe", "deny")),
        "chap-md5 is not allowed for this account",
        Login("mute", 39),
    ),
)

CHANGED = replace(
    CONF,
    listen=Listen(address="192.0.2.2", deny=("192.0.2.17/32",)),
    ppp=Ppp(auth=("mschapv2", "chap-md5")),
    mppe=Mppe(policy="prefer"),
    pools=(Pool("default", ("10.99.1.1-60",)), Pool("tiny", ("10.99.2.1",))),
    limits=Limits(
        max_sessions=64,
        per_user_sessions=1,
        per_ip_sessions=4,
        per_realm_sessions=1,
        per_ip_starts_per_minute=4,
    ),
    bans=Bans(user_failures=2, source_failures=3),
    accounts=Accounts(
        users=tuple((name, PASSWORD) for name in (*NAMES, "one", "two")),
        domain="strip",
        rules=(
            AccountRule("pool*", pool="tiny"),
            AccountRule("mute", auth=("mschapv2",)),
        ),
    ),
)


def start(space: Space, login: Login, *more: str) -> subprocess.Popen[str]:
    """Clients that try once."""
    words = ["-m", "ops.client", "--server", "192.0.2.2", "--user", login.user, "--json"]
    words += ["--count", str(login.count), "--source", f"192.0.2.{login.last}"]
    words += ["--password-file", "/dev/stdin", "--mppe", "prefer", *login.more, *more]
    process = subprocess.Popen(
        space.argv(sys.executable, *words),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        cwd=ROOT,
        text=True,
    )
    assert process.stdin is not None
    process.stdin.write(login.password + "\n")
    process.stdin.close()
    return process


def results(space: Space, logins: list[Login]) -> list[tuple[int, str]]:
    """All of them at once: exit code and output of each."""
    running = [start(space, login, "--hold", "0.2") for login in logins]
    found = []
    for process in running:
        assert process.stdout is not None
        text = process.stdout.read()
        found.append((process.wait(30), text))
        process.stdout.close()
    return found


@contextlib.contextmanager
def holding(space: Space, logins: list[Login]) -> Iterator[list[subprocess.Popen[str]]]:
    """All of them up till the end."""
    running = [start(space, login) for login in logins]
    try:
        yield running
    finally:
        for process in running:
            process.send_signal(signal.SIGTERM)
        for process in running:
            process.wait(20)
            if process.stdout is not None:
                process.stdout.close()


def ups(keeper: Keeper) -> int:
    """Sessions that have come up."""
    return keeper.text.count("session up")


@pytest.fixture
def config() -> Iterator[Path]:
    """A file that the keeper's helper may read as anybody."""
    with tempfile.TemporaryDirectory(prefix="pptpcon-limits-") as name:
        Path(name).chmod(0o755)
        yield Path(name) / "pptpcon.toml"


def test_the_table(pair: Pair, start_keeper: Callable[..., Keeper], config: Path) -> None:
    for last in (*range(11, 20), *range(31, 40)):
        pair[0].sh(f"ip addr add 192.0.2.{last}/24 dev {device(pair[0])}")
    write(config, CHANGED)
    keeper = start_keeper(
        pair[1], CHANGED, module="dispatcher.keeper", config_path=str(config)
    ).ready()
    held = [row.held for row in ROWS if row.held]
    with holding(pair[0], held) as running:
        total = sum(login.count for login in held)
        wait_for(lambda: ups(keeper) >= total, 30)
        spent = results(pair[0], [row.spent for row in ROWS if row.spent])
        assert [code for code, _ in spent] == [0, 1, 1], spent
        before = keeper.text
        for row, (code, text) in zip(
            ROWS, results(pair[0], [row.bad for row in ROWS]), strict=True
        ):
            assert code == 1, (row.name, text)
            assert row.why in keeper.text[len(before) :], (row.name, keeper.text[len(before) :])
        for row, (code, text) in zip(
            ROWS, results(pair[0], [row.good for row in ROWS]), strict=True
        ):
            assert code == 0, (row.name, text, keeper.text[-3000:])
        # Bans are lifted by hand, too.
        for kind, name in (("user", "eve"), ("source", "192.0.2.16")):
            words = (sys.executable, "-P", "-m", "ops", "unban", kind, name)
            subprocess.run(pair[1].argv(*words), check=True, cwd=ROOT)
        free = [Login("eve", 35), Login("w5", 16)]
        assert [code for code, _ in results(pair[0], free)] == [0, 0], keeper.text[-3000:]
        assert all(process.poll() is None for process in running)
        # A reload: no more slots than are taken; and a user's newest session wins.
        limits = replace(CHANGED.limits, max_sessions=total, over_user_limit="replace")
        reload(keeper, config, replace(CHANGED, limits=limits, listen=CONF.listen))
        assert results(pair[0], [Login("mary", 17)])[0][0] == 1
        assert "no_slot" in keeper.text
        limits = replace(limits, max_sessions=64)
        reload(keeper, config, replace(CHANGED, limits=limits, listen=CONF.listen))
        again = results(pair[0], [Login("mary", 17), Login("anna", 31)])
        assert [code for code, _ in again] == [0, 0], again
        assert "user=anna" in keeper.text and "cause=replaced" in keeper.text
    assert keeper.stop() == 0


def device(space: Space) -> str:
    """Where the client's address is."""
    return space.sh("ip -o addr show to 192.0.2.1").split()[1]


def write(config: Path, settings: Settings) -> None:
    """As a person would have it."""
    config.write_text(to_toml(settings, secrets=True))


def reload(keeper: Keeper, config: Path, settings: Settings) -> None:
    """Other settings for the running one."""
    times = keeper.text.count("configuration loaded")
    write(config, settings)
    keeper.process.send_signal(signal.SIGHUP)
    wait_for(lambda: keeper.text.count("configuration loaded") > times)
