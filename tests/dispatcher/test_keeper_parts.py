"""What the keeper decides without touching anything: CPUs, waits, poison, advice, names."""

from __future__ import annotations

import errno
import os
import socket
from pathlib import Path

import pytest

from dispatcher import advice, children, cpus, fixed, instance
from dispatcher.children import Poison, Waits
from dispatcher.descriptors import UnavailableError
from dispatcher.notify import Notifier
from ops import log, rundir
from ops.settings import Gre, Limits, Listen, Metrics, Ppp, Server, Settings, Workers


@pytest.mark.parametrize(
    ("usable", "expected"),
    [
        ([0], (0,)),
        ([0, 1], (0, 1)),
        ([0, 1, 2], (0, 1, 2)),
        ([0, 1, 2, 3], (1, 2, 3)),
        ([4, 6, 8, 10], (6, 8, 10)),
        (list(range(8)), tuple(range(1, 8))),
        (list(range(9)), tuple(range(2, 9))),
        (list(range(128)), tuple(range(16, 80))),
    ],
)
def test_automatic_cpus(usable: list[int], expected: tuple[int, ...]) -> None:
    assert cpus.plan(Workers(), usable).cpus == expected


def test_configured_cpus() -> None:
    plan = cpus.plan(Workers(count=5, cpus=(1, 3, 9)), [0, 1, 2, 3])
    assert plan.cpus == (1, 3, 1, 3, 1)
    assert plan.missing == (9,)
    assert [plan.alone(i) for i in range(5)] == [False] * 5
    assert [cpus.plan(Workers(count=3), [0, 1]).alone(i) for i in range(3)] == [False, True, False]
    assert cpus.plan(Workers(count=100), [0]).workers == 64
    assert cpus.plan(Workers(cpus=(9,)), [0, 1]).cpus == (0, 1)


def test_a_first_death_is_answered_at_once_and_a_row_of_them_ever_later() -> None:
    waits = Waits()
    assert [waits.died(0.1) for _ in range(8)] == [0, 0.1, 0.5, 1, 2, 5, 5, 5]
    assert waits.died(60) == 0
    assert [waits.died(0.1) for _ in range(2)] == [0, 0.1]


def test_poison_is_two_deaths_within_a_minute() -> None:
    poison = Poison()
    assert not poison.died(0, 0.0) and not poison.died(0, 1.0)  # nothing in hand
    assert not poison.died(7, 0.0)
    assert not poison.died(8, 1.0)
    assert poison.died(7, 59.0)
    assert poison.named(60.0) == [7]
    assert poison.named(658.0) == [7]
    assert poison.named(660.0) == []
    assert not poison.died(7, 700.0)
    assert not poison.died(7, 761.0)


def test_words_for_an_end() -> None:
    assert children.how_it_ended(3) == "exit status 3"
    assert children.how_it_ended(-9) == "signal SIGKILL"
    assert children.how_it_ended(-250) == "signal 250"


def test_environment_keeps_systemds_words_from_children(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NOTIFY_SOCKET", "WATCHDOG_USEC", "LISTEN_FDS", "JOURNAL_STREAM"):
        monkeypatch.setenv(name, "x")
    found = children.environment()
    assert set(found) & {"NOTIFY_SOCKET", "WATCHDOG_USEC", "LISTEN_FDS"} == set()
    assert found["JOURNAL_STREAM"] == "x"
    assert found["PYTHONPATH"].split(":")[0] == children.ROOT


# -- advice


def proc(root: Path, values: dict[str, int]) -> Path:
    for name, value in values.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(f"{value}\n")
    return root


def test_advice(tmp_path: Path) -> None:
    settings = Settings(limits=Limits(max_sessions=1000), gre=Gre(receive_buffer_bytes=1))
    good = {
        "ipv4/ip_forward": 1,
        "netfilter/nf_conntrack_max": 1000,
        "netfilter/nf_conntrack_count": 0,
    }
    assert advice.remarks(settings, proc(tmp_path, good)) == []
    bad = {"ipv4/ip_forward": 0, "netfilter/nf_conntrack_count": 5}
    found = advice.remarks(settings, proc(tmp_path, bad))
    assert [command.split("=")[0] for _, command in found] == [
        "sysctl -w net.ipv4.ip_forward",
        "sysctl -w net.netfilter.nf_conntrack_max",
    ]
    assert advice.remarks(settings, tmp_path / "nothing") == []


# -- who has a port, who is a process


def test_port_owner_is_found() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert instance.port_owner("127.0.0.1", port) == os.getpid()
        assert instance.port_owner("0.0.0.0", port) == os.getpid()
        assert instance.port_owner("127.0.0.2", port) == 0
        text = instance.address_trouble("127.0.0.1", port, OSError(errno.EADDRINUSE, ""))
        assert f"is taken by {instance.command(os.getpid())} (pid {os.getpid()})" in text
    assert instance.port_owner("127.0.0.1", port) == 0


def test_port_owner_by_an_ipv6_socket() -> None:
    with socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True) as taken:
        assert instance.port_owner("127.0.0.1", taken.getsockname()[1]) == os.getpid()


@pytest.mark.parametrize(
    ("code", "text"),
    [
        (errno.EADDRNOTAVAIL, "not on this host"),
        (errno.EACCES, "needs root"),
        (errno.ENOBUFS, "can't listen"),
        (errno.EADDRINUSE, "can't be seen"),
    ],
)
def test_every_trouble_has_words(code: int, text: str) -> None:
    assert text in instance.address_trouble("203.0.113.9", 1723, OSError(code, os.strerror(code)))


def test_a_process_is_its_number_and_its_start() -> None:
    pid = os.getpid()
    assert instance.Process(pid, instance.start_time(pid)).alive
    assert not instance.Process(pid, instance.start_time(pid) - 1).alive
    assert instance.start_time(2**22 + 1) == 0


# -- the run folder


def make(path: Path) -> instance.Instance:
    return instance.Instance(str(path), log.Log("test", level=log.ERROR))


def test_lock_and_leave(tmp_path: Path) -> None:
    path = tmp_path / "run"
    first, second = make(path), make(path)
    first.enter("")
    with pytest.raises(UnavailableError, match=f"pid {os.getpid()}"):
        second.enter("")
    first.record([os.getpid()], ["pptp0"])
    control = first.control_socket()
    assert (path / "control.sock").stat().st_mode & 0o777 == 0o660
    control.close()
    first.leave()
    assert not path.exists()
    second.enter("")
    second.leave()


def test_folders_of_dead_instances_go(tmp_path: Path) -> None:
    quiet = log.Log("test", level=log.ERROR)
    paths = {name: tmp_path / f"pptpcon-{name}" for name in ("1", "2", "3", "4", "play-x")}
    for path in paths.values():
        make(path)._make("")
        (path / "lock").write_text("1 1\n")
        os.utime(path / "lock", (0, 0))
    os.utime(paths["2"] / "lock")  # just started
    (paths["3"] / "else").write_text("")  # holds something that is not ours
    alive = make(paths["4"])
    alive.enter("")
    os.utime(paths["4"] / "lock", (0, 0))
    instance.sweep_siblings(str(tmp_path / "pptpcon"), quiet)
    assert {name for name, path in paths.items() if path.exists()} == {"2", "3", "4", "play-x"}
    alive.leave()


def test_other_peoples_folder_is_not_taken(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("x")
    mode = tmp_path.stat().st_mode
    with pytest.raises(UnavailableError, match="holds other files"):
        make(tmp_path).enter("nobody")
    assert tmp_path.stat().st_mode == mode


def test_a_link_in_the_place_of_the_lock(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_text("keep")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "lock").symlink_to(target)
    with pytest.raises(UnavailableError, match="remove that file"):
        make(tmp_path / "run").enter("")
    assert target.read_text() == "keep"


def test_a_folder_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UnavailableError, match=r"server\.run_dir"):
        make(tmp_path / "file" / "run").enter("")


def test_run_dir_of_a_namespace(monkeypatch: pytest.MonkeyPatch) -> None:
    inodes: dict[str, int | None] = {"self": 5, "1": 5}
    monkeypatch.setattr(rundir, "netns_inode", lambda pid="self": inodes[pid])
    assert rundir.default_run_dir() == "/run/pptpcon"
    inodes["self"] = 7
    assert rundir.default_run_dir() == "/run/pptpcon-7"
    inodes.update(self=rundir.FIRST_NETNS, **{"1": None})
    assert rundir.default_run_dir() == "/run/pptpcon"


def test_run_dir_of_a_unit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUNTIME_DIRECTORY", "/run/pptpcon:/run/more")
    assert rundir.serving_run_dir() == "/run/pptpcon"
    monkeypatch.setenv("RUNTIME_DIRECTORY", "/run/some-other-unit")
    assert rundir.serving_run_dir() == rundir.default_run_dir()


# -- systemd


def test_notify(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind("\0pptpcon-test-" + str(os.getpid()))
        monkeypatch.setenv("NOTIFY_SOCKET", "@pptpcon-test-" + str(os.getpid()))
        monkeypatch.setenv("WATCHDOG_USEC", "30000000")
        notifier = Notifier()
        assert notifier.watchdog_s == 30.0
        notifier.send(READY="1", STATUS="serving")
        assert sock.recv(100) == b"READY=1\nSTATUS=serving"
    notifier.send(READY="1")  # nobody there any more: no error
    assert "NOTIFY_SOCKET" not in os.environ
    Notifier().send(READY="1")


def test_a_reload_leaves_what_holds_from_start_to_end() -> None:
    running = Settings()
    new = Settings(
        server=Server(name="other", user="pptp"),
        listen=Listen(port=1724, echo_interval_s=5.0),
        workers=Workers(count=3),
        gre=Gre(window=4),
        ppp=Ppp(mtu=1300, mss_clamp=False),
        metrics=Metrics(listen=""),
    )
    held, kept = fixed.hold(new, running)
    assert kept == ["server.user", "listen.port", "workers.count", "gre.window", "ppp.mss_clamp"]
    assert held == Settings(
        server=Server(name="other"),
        listen=Listen(echo_interval_s=5.0),
        ppp=Ppp(mtu=1300),
        metrics=Metrics(listen=""),
    )
    assert fixed.hold(running, running) == (running, [])
