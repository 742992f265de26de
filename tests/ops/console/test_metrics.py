"""/metrics of a real console: names, values, formats, and what must hold during churn."""

from __future__ import annotations

import gzip
import os
import random
import shutil
import socket
import subprocess
import threading
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_open
from prometheus_client.parser import text_string_to_metric_families as parse_text

from fastpath.layout import DATA_COUNTERS, HISTOGRAM_NAMES, SETUP_PHASE_NAMES
from ops import metrics
from ops.console import collector
from ops.console.series import SERIES, markdown
from ops.hook_event import HOOKS
from ops.hook_event import RESULTS as HOOK_RESULTS
from ops.version import VERSION
from tests.ops.console.rig import ROOT, Console, Shared, console, free_port, settings
from workers.radius.packets import FAULTS

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def samples(text: str) -> Samples:
    return {
        (s.name, tuple(sorted(s.labels.items()))): s.value
        for family in parse_text(text)
        for s in family.samples
    }


def total(found: Samples, name: str, **labels: str) -> float:
    wanted = set(labels.items())
    return sum(v for (n, has), v in found.items() if n == name and wanted <= set(has))


def test_every_name_of_the_list_is_on_the_page_and_no_other(running: Console) -> None:
    text = running.metrics()
    kinds = {
        line.split()[2]: line.split()[3] for line in text.splitlines() if line.startswith("# TYPE")
    }
    assert kinds == {s.name: s.kind for s in SERIES}
    present: dict[str, set[str]] = {}
    for family in parse_text(text):
        for s in family.samples:
            name = s.name if family.type != "histogram" else family.name
            present.setdefault(name, set()).update(set(s.labels) - {"le"})
    assert present == {s.name: set(s.labels) for s in SERIES if not s.optional}


def test_radius(running: Console) -> None:
    found = samples(running.metrics())
    labels = {"server": "one", "type": "auth"}
    assert total(found, "pptp_radius_server_up", **labels) == 1
    assert total(found, "pptp_radius_server_up") == 1  # accounting's is dead
    assert total(found, "pptp_radius_requests_total", **labels, result="accept") == 15
    assert total(found, "pptp_radius_bad_answers_total", **labels, reason="wrong_secret") == 1
    assert total(found, "pptp_radius_request_duration_seconds_count", **labels) == 17
    assert total(found, "pptp_radius_dynamic_requests_total", type="coa", result="ack") == 2
    assert total(found, "pptp_accounting_backlog") == 3
    said = running.json("/api/radius")
    assert said["backlog"] == 3 and [row["state"] for row in said["servers"]] == ["up", "dead 7 s"]
    assert said["servers"][0]["mean-ms"] == 29.41
    assert "testing123" not in running.log()


def test_the_document_says_the_same() -> None:
    assert (ROOT / "ops/console/METRICS.md").read_text() == markdown()


def test_every_counter_is_told() -> None:
    drops = {name for name in DATA_COUNTERS if collector.drop_reason(name)}
    assert set(collector.DATA) | drops == set(DATA_COUNTERS)
    assert len(drops) == sum(name.startswith("drop_") for name in DATA_COUNTERS)
    dispatcher = set(collector.DISPATCHER) | set(collector.BUS)
    assert dispatcher == set(metrics.DISPATCHER_COUNTERS)
    control = {name for name in metrics.CONTROL_COUNTERS if not name.startswith("auth_")}
    assert set(collector.CONTROL) | set(collector.BUS) == control
    assert tuple(collector.NETOPS) == metrics.NETOPS_COUNTERS
    # What is sent in one go follows from what is read in one go.
    untold = {"gre_tx", "tun_tx"}
    assert set(collector.HISTOGRAM_DIRECTIONS) | untold == set(HISTOGRAM_NAMES)
    told = collector.DATA, collector.CONTROL, collector.DISPATCHER, collector.BUS, collector.NETOPS
    for name, labels in (target for table in told for target in table.values()):
        series = collector.BY_NAME[name]
        own = [label for label in series.labels if label not in ("worker", "process")]
        assert len(labels) == len(own), name


def test_promtool_finds_nothing_to_say(running: Console) -> None:
    if shutil.which("promtool") is None:
        if os.environ.get("CI") == "true":
            pytest.fail("promtool is missing: apt-get install prometheus")
        pytest.skip("promtool is missing: apt-get install prometheus")
    page = running.metrics(tcp=True).encode()
    result = subprocess.run(
        ["promtool", "check", "metrics"], input=page, capture_output=True, check=False
    )
    assert (result.returncode, result.stdout, result.stderr) == (0, b"", b"")


def test_values(running: Console) -> None:
    found = samples(running.metrics(tcp=True))
    assert found["pptp_slots_capacity", ()] == 64
    assert found["pptp_slots_used", (("worker", "0"),)] == 1
    assert found["pptp_slots_used", (("worker", "1"),)] == 2
    states = {
        s: total(found, "pptp_sessions", state=s) for s in ("starting", "active", "finishing")
    }
    assert states == {"starting": 1, "active": 1, "finishing": 1}
    assert found["pptp_control_connections", ()] == 3
    assert total(found, "pptp_control_connections_total", result="accepted") == 7
    assert total(found, "pptp_calls_refused_total", reason="no_slot") == 2
    assert total(found, "pptp_sessions_ended_total", reason="user_request") == 4
    assert found["pptp_sessions_started_total", ()] == 6
    assert total(found, "pptp_bus_messages_total", process="dispatcher", direction="transmit") == 11
    assert total(found, "pptp_authentications_total", method="mschapv2", result="accept") == 11
    assert total(found, "pptp_authentications_total") == 11
    assert total(found, "pptp_secrets_loads_total", result="bad") == 1
    assert total(found, "pptp_netops_routes_total", operation="add") == 9
    assert total(found, "pptp_traffic_packets_total", worker="0", direction="receive") == 100
    assert total(found, "pptp_traffic_bytes_total", worker="0", direction="receive") == 64000
    assert total(found, "pptp_traffic_bytes_total", worker="1", direction="transmit") == 700
    assert total(found, "pptp_drops_total", direction="receive", reason="duplicate") == 4
    assert total(found, "pptp_drops_total", direction="transmit", reason="too_big") == 1
    assert total(found, "pptp_drops_total") == 5
    assert total(found, "pptp_packets_queued") == 2
    assert total(found, "pptp_mppe_resyncs_total", worker="1") == 8
    assert found["pptp_config_reload_success", ()] == 1
    # 10.99.0.1 is ours; the /30 has two hosts.
    assert total(found, "pptp_ip_pool_addresses", pool="default") == 511
    assert total(found, "pptp_ip_pool_addresses", pool="vip") == 2
    assert total(found, "pptp_ip_pool_used", pool="default") == 1
    assert total(found, "pptp_ip_pool_used", pool="vip") == 1


def test_histogram_is_summed_up(running: Console) -> None:
    found = samples(running.metrics())
    one = {"worker": "0", "direction": "receive"}
    buckets = [
        total(found, "pptp_batch_packets_bucket", le=le, **one)
        for le in ("1.0", "8.0", "64.0", "+Inf")
    ]
    assert buckets == [5, 8, 8, 9]
    assert total(found, "pptp_batch_packets_count", **one) == 9
    assert total(found, "pptp_batch_packets_sum", **one) == 400


def test_openmetrics_by_accept_header(running: Console) -> None:
    accept = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
    status, headers, body = running.request("/metrics", tcp=True, headers={"Accept": accept})
    assert status == 200
    assert headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
    assert body.endswith(b"# EOF\n")
    families = {f.name: f for f in parse_open(body.decode())}  # type: ignore[no-untyped-call]
    assert families["pptp_traffic_bytes"].type == "counter"
    # Both keep their samples' names, though one family's name would be the other's.
    assert families["pptp_control_connections"].samples[0].value == 3
    both = families["pptp_control_connections_total"]
    assert {s.name for s in both.samples} == {"pptp_control_connections_total"}
    names = {s.name for f in families.values() for s in f.samples}
    assert names == {n for n, _ in samples(running.metrics())}


def test_text_format_without_accept_header(running: Console) -> None:
    _, headers, _ = running.request("/metrics", tcp=True)
    assert headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"


def test_gzip(running: Console) -> None:
    _, headers, body = running.request("/metrics", tcp=True, headers={"Accept-Encoding": "gzip"})
    assert headers["content-encoding"] == "gzip"
    assert int(headers["content-length"]) == len(body)
    text = gzip.decompress(body).decode()
    assert "pptp_slots_capacity 64.0\n" in text
    assert len(body) < len(text) / 4
    _, headers, _ = running.request("/metrics", tcp=True)
    assert "content-encoding" not in headers


def test_a_scrape_on_a_kept_connection_waits_for_no_delayed_ack(running: Console) -> None:
    times = []
    with socket.create_connection(("127.0.0.1", running.port)) as s:
        for _ in range(15):
            begin = time.perf_counter()
            s.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
            data = b""
            while b"\r\n\r\n" not in data:
                data += s.recv(1 << 20)
            head, _, rest = data.partition(b"\r\n\r\n")
            length = int(head.lower().split(b"content-length:")[1].split()[0])
            while len(rest) < length:
                rest += s.recv(1 << 20)
            times.append(time.perf_counter() - begin)
    # The trap costs 40 ms every time; a busy machine costs most of them something.
    assert min(times) < 0.035, times


def test_no_name_or_address_of_a_subscriber(running: Console) -> None:
    for tcp in (False, True):
        page = running.metrics(tcp=tcp)
        for secret in ("alice", "bob", "10.99.1.5", "192.0.2.", "6500000100"):
            assert secret not in page


def test_budget_of_series(running: Console) -> None:
    """Less than 250, 80 for each worker, 60 for each RADIUS server, and 2 for each pool."""
    workers: Counter[str] = Counter()
    servers: Counter[str] = Counter()
    pools = rest = 0
    for _, labels in samples(running.metrics()):
        own = dict(labels)
        process = own.get("process", "")
        if "worker" in own or process.startswith("worker-"):
            workers[own.get("worker") or process.removeprefix("worker-")] += 1
        elif "server" in own:
            servers[own["server"]] += 1
        elif "pool" in own:
            pools += 1
        else:
            rest += 1
    print(f"series: {rest}, a worker {workers}, a server {servers}, pools {pools}")
    assert rest < 250
    assert set(workers) == {"0", "1"} and max(workers.values()) < 80
    assert set(servers) == {"one"} and max(servers.values()) < 60
    assert pools <= 2 * (len(running.settings.pools) + 1)


def test_labels_come_from_closed_sets(running: Console) -> None:
    """Whatever the sessions are called, the page's words are known before they come."""
    drops = {collector.drop_reason(name) for name in DATA_COUNTERS}
    closed = {
        "version": {VERSION},
        "worker": {"0", "1"},
        "process": {"keeper", "netops", "dispatcher", "console", "accounts", "workers"}
        | {"worker-0", "worker-1"},
        "thread": {"data", "control"},
        "state": {"starting", "active", "finishing"},
        "phase": set(SETUP_PHASE_NAMES),
        "pool": {pool.name for pool in running.settings.pools} | {"(static)"},
        "method": set(metrics.AUTH_METHODS),
        "kind": {"user", "source", "proxy", "list"},
        "hook": set(HOOKS),
        "operation": {"add", "delete"},
        "direction": {"receive", "transmit"},
        "server": {"one"},
        "type": {"auth", "acct", "coa", "disconnect", "other"},
        "reason": {drop[1] for drop in drops if drop}
        | set(metrics.REFUSALS)
        | set(metrics.END_CAUSES)
        | set(FAULTS),
        "result": set(metrics.CONNECTION_RESULTS)
        | set(metrics.AUTH_RESULTS)
        | set(HOOK_RESULTS)
        | {"good", "bad", "challenge", "response", "ack", "nak", "not_allowed"},
    }
    for name, labels in samples(running.metrics(tcp=True)):
        for label, value in labels:
            if label != "le":
                assert value in closed[label], (name, label, value)


def test_the_busiest_sessions_if_asked_for(tmp_path: Path) -> None:
    shared = Shared()
    hostile = 'a"b\\c\nd{e="f"} 1'
    sids = [f"{shared.up(i, f'u{i}', '10.99.1.5'):016x}" for i in range(5)]
    sids.append(f"{shared.up(5, hostile, '10.99.1.6'):016x}")
    for i in range(6):
        shared.set_traffic(i, (1, 100 * i), (1, i), 0)
    chosen = settings(free_port())
    top = replace(chosen, metrics=replace(chosen.metrics, sessions="top:2"))
    named = replace(chosen, metrics=replace(top.metrics, session_names=True))
    name = "pptp_session_traffic_bytes_total"
    with console(shared, tmp_path, top) as rig:

        def found() -> dict[tuple[str, str, str], float]:
            page = {k: v for k, v in samples(rig.metrics(tcp=True)).items() if k[0] == name}
            return {
                (dict(k[1])["sid"], dict(k[1])["username"], dict(k[1])["direction"]): v
                for k, v in page.items()
            }

        assert found() == {
            (sids[5], "", "receive"): 500,
            (sids[5], "", "transmit"): 5,
            (sids[4], "", "receive"): 400,
            (sids[4], "", "transmit"): 4,
        }
        rig.reload(named)
        until = time.monotonic() + 10
        while (sids[5], hostile, "receive") not in found() and time.monotonic() < until:
            time.sleep(0.02)
        assert {user for _, user, _ in found()} == {hostile, "u4"}
        rig.reload(chosen)
        while found() and time.monotonic() < until:
            time.sleep(0.02)
        assert found() == {}


def test_slots_used_equals_show_sessions_during_churn(tmp_path: Path) -> None:
    shared = Shared(400)
    done = threading.Event()

    def churn() -> None:
        rng = random.Random(1)
        while not done.is_set():
            for _ in range(50):
                index = rng.randrange(400)
                if shared.table.allot_state(index)[1]:
                    shared.table.release(index)
                elif rng.random() < 0.5:
                    shared.call(index, worker=rng.randrange(2))
                else:
                    shared.up(index, f"u{index}", "10.99.1.7", worker=rng.randrange(2))
            time.sleep(0)

    thread = threading.Thread(target=churn)
    with console(shared, tmp_path) as rig:
        thread.start()
        try:
            seen = set()
            for i in range(10):
                found = samples(rig.metrics(tcp=bool(i % 2)))
                used = total(found, "pptp_slots_used")
                assert used == total(found, "pptp_sessions")
                listed = rig.json("/api/sessions")
                assert len(listed["rows"]) == sum(listed["slots_used"])
                seen.add(used)
            assert len(seen) > 3, "nothing changed meanwhile"
        finally:
            done.set()
            thread.join()
        found = samples(rig.metrics(tcp=True))
        rows = rig.json("/api/sessions?columns=sid")["rows"]
        assert total(found, "pptp_slots_used") == len(rows) == len(shared.table.sessions())


def test_worker_cpu_and_restarts_go_up_only(tmp_path: Path) -> None:
    """Two lives of a worker, each burning some CPU."""
    burn = (
        "import time\nwhile time.process_time() < 0.15: pass\nprint('burnt', flush=True)\ninput()"
    )
    shared = Shared()
    with console(shared, tmp_path) as rig:
        values = []
        for life in range(2):
            worker = subprocess.Popen(
                ["python3", "-c", burn], stdin=subprocess.PIPE, stdout=subprocess.PIPE
            )
            assert worker.stdin and worker.stdout
            shared.table.set_worker(0, worker.pid, True)
            worker.stdout.readline()
            found = samples(rig.metrics())
            assert total(found, "pptp_worker_up", worker="0") == 1
            assert total(found, "pptp_worker_restarts_total", worker="0") == life
            values.append(total(found, "pptp_worker_cpu_seconds_total", worker="0"))
            worker.kill()
            worker.wait()
            worker.stdin.close()
            worker.stdout.close()
            shared.table.set_worker(0, 0, False)
            found = samples(rig.metrics())
            assert total(found, "pptp_worker_up", worker="0") == 0
            values.append(total(found, "pptp_worker_cpu_seconds_total", worker="0"))
    assert values == sorted(values)
    assert values[0] >= 0.14
    assert values[3] >= 0.28
