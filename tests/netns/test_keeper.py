"""The keeper's life: start, children that die, reload, stop, and what a SIGKILL leaves.

netops is real; dispatcher, workers and console are trivial (tests/netns/trivial.py).
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from ops.settings import Accounts, Limits, Server, Settings, Workers
from tests.netns import spaces
from tests.netns.spaces import Keeper, Space, wait_for

pytestmark = pytest.mark.netns

Start = Callable[..., Keeper]
CONF = Settings(workers=Workers(count=2), limits=Limits(max_sessions=64))
TRIVIAL = "tests.netns.trivial"


def test_start_says_what_a_first_user_needs(space: Space, start_keeper: Start) -> None:
    keeper = start_keeper(space, CONF).ready()
    for text in (
        "listening on 0.0.0.0:1723 (TCP) and for GRE",
        "built-in defaults",
        "2 on CPU",
        "64 slots",
        "http://127.0.0.1:9723/metrics",
        "pptpcon show sessions",
        "ip_forward is 0",
        "sysctl -w net.ipv4.ip_forward=1",
    ):
        assert text in keeper.text
    assert keeper.stop() == 0


def test_children_have_what_they_are_to_have_and_no_more(space: Space, start_keeper: Start) -> None:
    keeper = start_keeper(space, CONF).ready()
    seen = 0
    for pid in keeper.children().values():
        status = Path(f"/proc/{pid}/status").read_text()
        links = [os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")]
        boots = [link for link in links if "memfd:boot" in link]
        assert boots == []
        if "Uid:\t65534" not in status:
            continue
        seen += 1
        assert "NoNewPrivs:\t1" in status
        assert "Groups:\t \n" in status
        assert sum("/dev/net/tun" in link for link in links) <= 1
        assert not any("/lock" in link for link in links)
    assert seen == 5
    assert keeper.stop() == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_stop_leaves_nothing(number: int, space: Space, start_keeper: Start) -> None:
    before = space.ours()
    keeper = start_keeper(space, CONF).ready()
    children = list(keeper.children().values())
    assert len(children) == 6
    during = space.ours()
    assert {"link pptp0", "link pptp1", "route 10.99.1.0/24", space.run_dir} <= set(during)
    assert keeper.stop(number) == 0
    assert space.ours() == before == []
    assert not any(os.path.exists(f"/proc/{pid}") for pid in children)
    # the dispatcher hears of it first, netops last
    heard = re.findall(r"heard role=(\w+) type=stop", keeper.text)
    assert heard == ["dispatcher", "vault", "worker", "worker", "console"]


def test_a_second_signal_stops_at_once(space: Space, start_keeper: Start) -> None:
    keeper = start_keeper(space, CONF).ready()
    dispatcher = deaf(keeper)
    keeper.process.send_signal(signal.SIGTERM)
    keeper.heard("keeper: stopping")
    began = time.monotonic()
    assert keeper.stop() == 0
    assert time.monotonic() - began < 3
    assert not os.path.exists(f"/proc/{dispatcher}")
    assert space.ours() == []


def deaf(keeper: Keeper) -> int:
    """Make the dispatcher, which is started second, stand still; its process number."""
    pid = list(keeper.children().values())[1]
    os.kill(pid, signal.SIGSTOP)
    return pid


def test_a_stop_is_bounded(space: Space, start_keeper: Start) -> None:
    environment = {"KEEPER_SET": "STOP_S=1"}
    keeper = start_keeper(space, CONF, environment=environment).ready()
    deaf(keeper)
    began = time.monotonic()
    assert keeper.stop() == 0
    assert time.monotonic() - began < 10
    assert "does not end; killed name=dispatcher" in keeper.text
    assert space.ours() == []


def test_after_sigkill_of_all_the_next_start_sweeps(space: Space, start_keeper: Start) -> None:
    first = start_keeper(space, CONF).ready()
    first.kill_all()
    left = space.ours()
    assert "route 10.99.1.0/24" in left and space.run_dir in left
    assert not any(item.startswith(("link", "table", "LISTEN")) for item in left)
    # other pools now: the old blackhole routes must go all the same
    other = replace(CONF, pools=(replace(CONF.pools[0], ranges=("10.77.0.0-255",)),))
    second = start_keeper(space, other).ready()
    assert "predecessor swept" in second.text
    assert [item for item in space.ours() if "route" in item] == ["route 10.77.0.0/24"]
    assert second.stop() == 0
    assert space.ours() == []


def test_after_sigkill_of_the_keeper_alone_its_children_go(
    space: Space, start_keeper: Start
) -> None:
    keeper = start_keeper(space, CONF).ready()
    children = list(keeper.children().values())
    keeper.process.kill()
    keeper.process.wait()
    wait_for(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in children))
    assert [item for item in space.ours() if item != space.run_dir] == []
    again = start_keeper(space, CONF).ready()
    assert again.stop() == 0


def test_a_left_over_child_is_ended_and_a_stranger_with_its_number_is_not(
    space: Space, start_keeper: Start
) -> None:
    first = start_keeper(space, CONF).ready()
    first.kill_all()
    path = Path(space.run_dir) / "state.json"
    state = json.loads(path.read_text())
    with (
        subprocess.Popen(["sleep", "60"]) as ours,
        subprocess.Popen(["sleep", "60"]) as stranger,
    ):
        words = Path(f"/proc/{ours.pid}/stat").read_text().rpartition(")")[2].split()
        state["children"] = [
            {"pid": ours.pid, "started": int(words[19])},
            {"pid": stranger.pid, "started": int(words[19]) - 100},
        ]
        path.write_text(json.dumps(state))
        second = start_keeper(space, CONF).ready()
        assert wait_for(ours.poll) == -signal.SIGKILL
        assert stranger.poll() is None
        stranger.kill()
    assert second.stop() == 0


@pytest.mark.parametrize("content", ["", "{", "[]", '{"boot": 1}', "\0" * 100])
def test_a_broken_state_file_is_no_obstacle(
    content: str, space: Space, start_keeper: Start
) -> None:
    run_dir = Path(space.run_dir)
    run_dir.mkdir()
    (run_dir / "lock").write_text("x")
    (run_dir / "state.json").write_text(content)
    keeper = start_keeper(space, CONF).ready()
    assert "state file unreadable" in keeper.text
    assert keeper.stop() == 0
    assert space.ours() == []


def test_second_instance_is_told_who_has_the_address(space: Space, start_keeper: Start) -> None:
    first = start_keeper(space, CONF).ready()
    second = start_keeper(space, CONF)
    assert second.process.wait(10) == 69
    pid = first.process.pid
    assert f"address 0.0.0.0:1723 is taken by another pptpcon (pid {pid})" in second.text
    assert "Traceback" not in second.text
    assert first.process.poll() is None
    assert first.stop() == 0


def test_second_instance_in_one_run_folder(space: Space, start_keeper: Start) -> None:
    first = start_keeper(space, CONF).ready()
    moved = replace(CONF, listen=replace(CONF.listen, port=1724))
    second = start_keeper(space, moved)
    assert second.process.wait(10) == 69
    assert f"is in use by pptpcon (pid {first.process.pid})" in second.text
    assert first.stop() == 0


def test_another_program_on_the_port_is_named(space: Space, start_keeper: Start) -> None:
    with space.inside():
        taken = socket.create_server(("127.0.0.1", 1723))
    keeper = start_keeper(space, CONF)
    assert keeper.process.wait(10) == 69
    assert f"(pid {os.getpid()})" in keeper.text and "stop it" in keeper.text
    taken.close()


def test_an_address_not_here(space: Space, start_keeper: Start) -> None:
    keeper = start_keeper(space, replace(CONF, listen=replace(CONF.listen, address="192.0.2.9")))
    assert keeper.process.wait(10) == 69
    assert "192.0.2.9 is not on this host" in keeper.text


def test_no_tun(space: Space, start_keeper: Start) -> None:
    hide = ("unshare", "-m", "sh", "-c", 'mount -t tmpfs none /dev/net && exec "$@"', "sh")
    keeper = start_keeper(space, CONF, wrap=hide)
    assert keeper.process.wait(10) == 69
    assert "modprobe tun" in keeper.text and "Traceback" not in keeper.text
    assert space.ours() == []


def test_no_privilege(space: Space, start_keeper: Start) -> None:
    keeper = start_keeper(space, CONF, wrap=("setpriv", "--bounding-set=-all"))
    assert keeper.process.wait(10) == 77
    assert "CAP_NET_ADMIN" in keeper.text and "sudo" in keeper.text


def test_the_units_capabilities_are_enough(
    space: Space, start_keeper: Start, tmp_path: Path
) -> None:
    unit = (spaces.ROOT / "ops/data/pptpcon.service").read_text()
    (line,) = (line for line in unit.splitlines() if line.startswith("CapabilityBoundingSet="))
    names = [word.removeprefix("CAP_").lower() for word in line.partition("=")[2].split()]
    bounding = ",".join(["-all", *(f"+{name}" for name in names)])
    folder = tmp_path / "pptpcon"
    folder.mkdir(mode=0o755)
    keeper = start_keeper(
        space,
        CONF,
        wrap=("setpriv", f"--bounding-set={bounding}", "--no-new-privs"),
        environment={"RUNTIME_DIRECTORY": str(folder)},
    ).ready()
    assert (folder / "control.sock").exists()
    assert "/run/" not in "".join(item for item in space.ours())
    os.kill(list(keeper.children().values())[3], signal.SIGKILL)
    keeper.heard("process replaced name=worker-0")
    deaf(keeper)  # what is to be killed belongs to another user
    keeper.process.send_signal(signal.SIGTERM)
    keeper.heard("keeper: stopping")
    assert keeper.stop() == 0
    assert "error" not in keeper.text.replace("error keeper: process died", "")
    assert space.ours() == []


def test_a_child_that_never_starts_ends_the_start(space: Space, start_keeper: Start) -> None:
    environment = {"KEEPER_MODULES": "worker=tests.netns.no_such_module"}
    keeper = start_keeper(space, CONF, environment=environment)
    assert keeper.process.wait(20) == 69
    assert re.search(r"worker-\d ended 3 times while starting \(exit status 1\)", keeper.text)
    assert space.ours() == []


def test_without_a_console_there_is_service(space: Space, start_keeper: Start) -> None:
    environment = {"KEEPER_MODULES": "console=tests.netns.no_such_module"}
    keeper = start_keeper(space, CONF, environment=environment).ready()
    assert keeper.stop() == 0


def test_a_killed_worker_is_replaced_at_once_by_one_with_the_same_sockets(
    space: Space, start_keeper: Start
) -> None:
    keeper = start_keeper(space, CONF).ready()

    def workers() -> dict[int, set[str]]:
        found = {}
        for pid in keeper.children().values():
            with contextlib.suppress(OSError):
                links = {
                    os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")
                }
                if "/dev/net/tun" in links:
                    found[pid] = links
        return found

    before = workers()
    victim = min(before)
    os.kill(victim, signal.SIGKILL)
    keeper.heard("process replaced name=worker-0")
    assert f'process died name=worker-0 pid={victim} how="signal SIGKILL"' in keeper.text
    after = workers()
    (new,) = set(after) - set(before)

    def lasting(links: set[str]) -> set[str]:
        return {link for link in links if "socket" in link or "memfd:sessions" in link}

    # all but the socket to the keeper, which is new
    assert len(lasting(before[victim]) - lasting(after[new])) == 1
    took = re.search(r"process replaced name=worker-0 pid=\d+ took_ms=(\d+)", keeper.text)
    assert took is not None and int(took.group(1)) < 2000
    assert keeper.stop() == 0


def test_netops_is_replaced_and_the_table_is_back(space: Space, start_keeper: Start) -> None:
    keeper = start_keeper(space, CONF).ready()
    netops = next(pid for name, pid in keeper.children().items() if "netops" in name)
    os.kill(netops, signal.SIGKILL)
    keeper.heard("process replaced name=netops")
    left = space.ours()
    assert any("pptpcon_" in item for item in left) and "route 10.99.1.0/24" in left
    assert keeper.stop() == 0
    assert space.ours() == []


def test_a_netops_that_stands_still_is_replaced(space: Space, start_keeper: Start) -> None:
    environment = {"KEEPER_SET": "answer=2 grace=3 silence=60"}
    keeper = start_keeper(space, CONF, environment=environment).ready()
    netops = next(pid for name, pid in keeper.children().items() if "netops" in name)
    os.kill(netops, signal.SIGSTOP)
    keeper.heard(f"process does not answer; killed name=netops pid={netops}")
    keeper.heard("process replaced name=netops")
    assert keeper.stop() == 0
    assert space.ours() == []


def test_a_thread_that_stands_still_is_ended(space: Space, start_keeper: Start) -> None:
    environment = {"KEEPER_SET": "grace=1 silence=1"}
    # the trivial worker has no data thread: it is taken for one that stands still
    keeper = start_keeper(space, CONF, environment=environment).ready()
    keeper.heard("thread stands still; process killed name=worker-0")
    keeper.heard("process replaced name=worker-0")
    assert "thread=data" in keeper.text
    pid = deaf(keeper)
    keeper.heard("thread stands still; process killed name=dispatcher")
    wait_for(lambda: not os.path.exists(f"/proc/{pid}"))
    keeper.heard("process replaced name=dispatcher")
    assert keeper.stop() == 0


def test_reload(space: Space, start_keeper: Start, tmp_path: Path) -> None:
    file = tmp_path / "pptpcon.toml"
    file.write_text("[ppp]\nmtu = 1400\n")
    keeper = start_keeper(space, CONF, config_path=str(file)).ready()
    file.write_text("[ppp]\nmtu = 1300\n")
    keeper.process.send_signal(signal.SIGHUP)
    keeper.heard("configuration loaded")
    keeper.heard("heard role=worker type=settings")
    wait_for(lambda: "mtu 1300" in space.sh("ip link show pptp0"))
    file.write_text("[ppp]\nmtu = many\n[nonsense]\n")
    keeper.process.send_signal(signal.SIGUSR1)
    keeper.heard("configuration refused; the old one stays")
    assert "mtu 1300" in space.sh("ip link show pptp0")
    assert keeper.stop() == 0


def test_secrets_are_read_for_the_workers_and_again_when_they_change(
    space: Space, start_keeper: Start, tmp_path: Path
) -> None:
    inner, file = tmp_path / "inner", tmp_path / "chap-secrets"
    inner.write_text("hidden-in-file\n")
    file.write_text(f"bob * @{inner} *\n")
    for path in (inner, file):
        path.chmod(0o600)
    conf = replace(CONF, accounts=Accounts(chap_secrets=str(file)))
    keeper = start_keeper(space, conf).ready()
    keeper.heard("secrets read")
    file.write_text("bob * hidden *\nalice * also-hidden *\n")
    keeper.heard(f"heard role=worker type=secrets octets={file.stat().st_size}")
    count = keeper.text.count("type=secrets")
    file.unlink()  # an editor between two steps: what was read before stays
    keeper.heard("secrets not read")
    file.write_text(f"bob * @{inner} *\n")
    wait_for(lambda: keeper.text.count("type=secrets") >= count + 2)
    inner.write_text("hidden-in-file-changed\n")
    wait_for(lambda: keeper.text.count("type=secrets") >= count + 4)
    assert "hidden" not in keeper.text
    assert keeper.stop() == 0


def test_a_missing_secrets_file_is_said_and_awaited(
    space: Space, start_keeper: Start, tmp_path: Path
) -> None:
    file = tmp_path / "chap-secrets"
    keeper = start_keeper(space, replace(CONF, accounts=Accounts(chap_secrets=str(file)))).ready()
    assert "chap-secrets: No such file" in keeper.text
    file.write_text("bob * x *\n")
    keeper.heard("heard role=worker type=secrets")
    assert keeper.stop() == 0


def test_systemd_is_told(space: Space, start_keeper: Start, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(tmp_path / "notify"))
        sock.settimeout(10)
        environment = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "3000000"}
        keeper = start_keeper(space, CONF, environment=environment).ready()
        assert b"READY=1" in sock.recv(4096)
        assert sock.recv(4096) == b"WATCHDOG=1"
        assert keeper.stop() == 0
        assert b"STOPPING=1" in sock.recv(4096)


def test_two_namespaces_are_two_services(
    make_space: Callable[[], Space], start_keeper: Start
) -> None:
    a, b = make_space(), make_space()
    first, second = start_keeper(a, CONF).ready(), start_keeper(b, CONF).ready()
    assert a.run_dir != b.run_dir
    assert first.stop() == 0
    assert second.process.poll() is None and "link pptp1" in b.ours()
    assert second.stop() == 0


def test_two_services_in_one_namespace(space: Space, start_keeper: Start, tmp_path: Path) -> None:
    """Each with its own address, run folder and pool; one's end leaves the other whole."""
    space.sh("ip addr add 10.1.0.1/32 dev lo && ip addr add 10.1.0.2/32 dev lo")

    def conf(number: int) -> Settings:
        return replace(
            CONF,
            server=Server(run_dir=str(tmp_path / f"run{number}")),
            listen=replace(CONF.listen, address=f"10.1.0.{number}"),
            ip=replace(CONF.ip, local=f"10.98.{number}.1"),
            pools=(replace(CONF.pools[0], ranges=(f"10.99.{number}.0-255",)),),
        )

    first = start_keeper(space, conf(1)).ready()
    second = start_keeper(space, conf(2)).ready()
    assert {"route 10.99.1.0/24", "route 10.99.2.0/24", "link pptp3"} <= set(space.ours())
    assert second.stop() == 0
    assert {"route 10.99.1.0/24", "link pptp1"} <= set(space.ours())
    assert first.stop() == 0
    assert space.ours() == []
    spaces.wait_for(lambda: not (tmp_path / "run1").exists())
