"""Alerts and recording rules: what they name, and each alert firing and quiet."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from tests.ops.monitoring.promql import NAMES, RULES, TARGET, faults, groups, row_labels, templated

ALERTS = groups("pptpcon-alerts.yml")
RECORDED = groups("pptpcon-recording.yml")
WEEK = 7 * 24 * 60  # minutes


@dataclass(frozen=True, slots=True)
class Case:
    """Series as promtool has them, a sample each `step` minutes, and in which to look."""

    at: int
    fires: dict[str, str]
    quiet: tuple[dict[str, str], ...]
    step: int = 1


def _buckets(name: str, labels: str, below: str, bounds: tuple[str, ...]) -> dict[str, str]:
    """One observation a second, all of them between `below`'s bound and the one before."""
    found = {}
    full = False
    for bound in (*bounds, "+Inf"):
        full = full or bound == below
        found[f'{name}_bucket{{{labels}, le="{bound}"}}'] = "0+60x60" if full else "0+0x60"
    return found


SETUP = ("0.5", "2.5", "5.0", "10.0")
RADIUS = ("0.1", "0.5", "1.0", "2.5")
ONE = 'server="r1", type="auth"'
PACKETS = {
    'pptp_gre_packets_total{worker="0", direction="receive"}': "0+6000x60",
    'pptp_tun_packets_total{worker="0"}': "0+6000x60",
}


def _setup(bound: str) -> dict[str, str]:
    return _buckets("pptp_session_setup_seconds", 'phase="total"', bound, SETUP)


def _radius(bound: str) -> dict[str, str]:
    return _buckets("pptp_radius_request_duration_seconds", ONE, bound, RADIUS)


def _slots(used: int) -> dict[str, str]:
    # Of two workers, and 100 places.
    return {
        'pptp_slots_used{worker="0"}': f"{used - 40}+0x60",
        'pptp_slots_used{worker="1"}': "40+0x60",
        "pptp_slots_capacity": "100+0x60",
    }


def _pool(used: int) -> dict[str, str]:
    return {
        'pptp_ip_pool_used{pool="p"}': f"{used}+0x60",
        'pptp_ip_pool_addresses{pool="p"}': "100+0x60",
        'pptp_ip_pool_used{pool="(static)"}': "9+0x60",
    }


def _active(values: str) -> dict[str, str]:
    return {'pptp_sessions{state="active"}': values, 'pptp_sessions{state="starting"}': "0+5x60"}


def _logins(**rates: int) -> dict[str, str]:
    """A minute, of two methods; the other one is silent."""
    return {
        f'pptp_authentications_total{{method="{method}", result="{result}"}}': f"0+{rate}x60"
        for result, each in rates.items()
        for method, rate in (("mschapv2", each), ("pap", 0))
    }


def _data_cpu(*rates: int) -> dict[str, str]:
    busy = {
        f'pptp_worker_cpu_seconds_total{{worker="{at}", thread="data"}}': f"0+{rate}x60"
        for at, rate in enumerate(rates)
    }
    return {**busy, 'pptp_worker_cpu_seconds_total{worker="0", thread="control"}': "0+60x60"}


CASES: dict[str, Case] = {
    "PptpTargetDown": Case(3, {"up": "1 0 0 0"}, ({"up": "1+0x9"}, {"up": "1 1 1 0"})),
    "PptpProcessDown": Case(
        3,
        {'pptp_process_up{process="dispatcher"}': "1 0 0 0"},
        (
            {'pptp_process_up{process="dispatcher"}': "1+0x9"},
            {'pptp_process_up{process="console"}': "1 0 1 0"},
        ),
    ),
    "PptpWorkerDown": Case(
        3,
        {'pptp_worker_up{worker="3"}': "1 1 0 0"},
        ({'pptp_worker_up{worker="3"}': "1+0x9"}, {'pptp_worker_up{worker="3"}': "1 1 1 0"}),
    ),
    "PptpWorkerRestarting": Case(
        6,
        {'pptp_worker_restarts_total{worker="0"}': "2 2 2 3 3 3 3"},
        ({'pptp_worker_restarts_total{worker="0"}': "3+0x60"},),
    ),
    "PptpControlThreadLate": Case(
        6,
        {'pptp_worker_loop_lag_seconds{worker="0"}': "2+0x9"},
        ({'pptp_worker_loop_lag_seconds{worker="0"}': "2 0 2 0 2 0 2 0"},),
    ),
    "PptpConfigReloadFailed": Case(
        3,
        {"pptp_config_reload_success": "1 0 0 0"},
        ({"pptp_config_reload_success": "0 1 1 1"},),
    ),
    "PptpBusNotDraining": Case(
        6,
        {'pptp_bus_queue_length{worker="0"}': "100+0x9"},
        ({'pptp_bus_queue_length{worker="0"}': "100 0 100 0 100 0 100"},),
    ),
    "PptpSlotsHigh": Case(8, _slots(85), (_slots(79), {**_slots(79), **_pool(85)})),
    "PptpSlotsFull": Case(4, _slots(96), (_slots(94),)),
    "PptpPoolHigh": Case(8, _pool(95), (_pool(89), _pool(100))),
    "PptpPoolEmpty": Case(4, _pool(100), (_pool(99),)),
    "PptpMassDisconnect": Case(
        11,
        _active("100+0x9 60 60 60"),
        (
            _active("100+0x9 80 80 80"),
            _active("40+0x9 0 0 0"),
            _active("100 60 60 60 60 60 60 60 60 60 60 60"),
        ),
    ),
    "PptpFewerThanLastWeek": Case(
        WEEK + 90,
        _active(f"100+0x{WEEK // 30} 30+0x20"),
        (
            _active(f"100+0x{WEEK // 30} 60+0x20"),
            _active(f"40+0x{WEEK // 30} 3+0x20"),
            _active(f"1+0x{WEEK // 30 + 20}"),
        ),
        step=30,
    ),
    "PptpSetupSlow": Case(12, _setup("10.0"), (_setup("2.5"), _setup("5.0"))),
    "PptpCallsWithoutGre": Case(
        25,
        {"pptp_calls_without_gre_total": "0+3x60", "pptp_calls_accepted_total": "0+4x60"},
        (
            {"pptp_calls_without_gre_total": "0+3x60", "pptp_calls_accepted_total": "0+100x60"},
            {"pptp_calls_without_gre_total": "0+1x60", "pptp_calls_accepted_total": "0+1x60"},
        ),
    ),
    "PptpLoginsRejected": Case(
        20,
        _logins(accept=10, reject=60, timeout=0),
        (_logins(accept=60, reject=40, timeout=0), _logins(accept=1, reject=6, timeout=0)),
    ),
    "PptpLoginsUnanswered": Case(
        14,
        _logins(accept=12, reject=0, timeout=6),
        (_logins(accept=600, reject=0, timeout=6), _logins(accept=0, reject=60, timeout=0)),
    ),
    "PptpRadiusServerDown": Case(
        3,
        {f"pptp_radius_server_up{{{ONE}}}": "1 0 0 0"},
        ({f"pptp_radius_server_up{{{ONE}}}": "1+0x9"},),
    ),
    "PptpRadiusAllDown": Case(
        3,
        {
            f"pptp_radius_server_up{{{ONE}}}": "1 0 0 0",
            'pptp_radius_server_up{server="r2", type="auth"}': "0+0x9",
            'pptp_radius_server_up{server="r2", type="acct"}': "1+0x9",
        },
        (
            {
                f"pptp_radius_server_up{{{ONE}}}": "1+0x9",
                'pptp_radius_server_up{server="r2", type="auth"}': "0+0x9",
            },
        ),
    ),
    "PptpRadiusSlow": Case(12, _radius("2.5"), (_radius("0.1"), _radius("1.0"))),
    "PptpRadiusRetransmits": Case(
        14,
        {
            f"pptp_radius_retransmits_total{{{ONE}}}": "0+30x60",
            f'pptp_radius_requests_total{{{ONE}, result="accept"}}': "0+120x60",
            f'pptp_radius_requests_total{{{ONE}, result="timeout"}}': "0+10x60",
        },
        (
            {
                f"pptp_radius_retransmits_total{{{ONE}}}": "0+10x60",
                f'pptp_radius_requests_total{{{ONE}, result="accept"}}': "0+120x60",
            },
            {
                f"pptp_radius_retransmits_total{{{ONE}}}": "0+3x60",
                f'pptp_radius_requests_total{{{ONE}, result="accept"}}': "0+3x60",
            },
        ),
    ),
    "PptpAccountingBacklog": Case(
        28,
        {"pptp_accounting_backlog": "200+10x60"},
        (
            {"pptp_accounting_backlog": "900-10x60"},
            {"pptp_accounting_backlog": "200+0x60"},
            {"pptp_accounting_backlog": "0+1x60"},
        ),
    ),
    "PptpDrops": Case(
        20,
        {
            **PACKETS,
            'pptp_drops_total{worker="0", direction="receive", reason="late"}': "0+600x60",
        },
        (
            {
                **PACKETS,
                'pptp_drops_total{worker="0", direction="receive", reason="late"}': "0+60x60",
                'pptp_drops_total{worker="0", direction="transmit", reason="shaped"}': "0+3000x60",
                'pptp_drops_total{worker="0", direction="receive", reason="filtered"}': "0+3000x60",
            },
            {
                'pptp_gre_packets_total{worker="0", direction="receive"}': "0+60x60",
                'pptp_tun_packets_total{worker="0"}': "0+60x60",
                'pptp_drops_total{worker="0", direction="receive", reason="late"}': "0+60x60",
            },
        ),
    ),
    "PptpMppeResyncs": Case(
        20,
        {**PACKETS, 'pptp_mppe_resyncs_total{worker="0"}': "0+1200x60"},
        ({**PACKETS, 'pptp_mppe_resyncs_total{worker="0"}': "0+300x60"},),
    ),
    "PptpKernelDrops": Case(
        14,
        {'pptp_kernel_drops_total{worker="0", direction="receive"}': "0+1200x60"},
        ({'pptp_kernel_drops_total{worker="0", direction="receive"}': "0+300x60"},),
    ),
    "PptpWorkerBusy": Case(20, _data_cpu(55), (_data_cpu(40),)),
    "PptpWorkersUneven": Case(
        25, _data_cpu(40, 10, 10), (_data_cpu(40, 30, 30), _data_cpu(12, 1, 1), _data_cpu(40))
    ),
}


def need(tool: str, package: str) -> None:
    if shutil.which(tool) is None:
        reason = f"{tool} is missing: apt-get install {package}"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)


def run(*words: str) -> str:
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_each_alert_has_its_cases() -> None:
    names = [alert["alert"] for alert in ALERTS]
    assert len(names) == len(set(names))
    assert set(CASES) == set(names)


def test_rules_name_what_there_is() -> None:
    for rule in (*ALERTS, *RECORDED):
        assert not faults(rule["expr"]), (rule, faults(rule["expr"]))
    for rule in RECORDED:
        level = set(rule["record"].partition(":")[0].split("_"))
        # What it keeps is what its name says, and the job.
        if "sum by" in rule["expr"] or "sum without" in rule["expr"]:
            assert row_labels(rule["expr"]) == level | {"job"}, rule
        assert level <= row_labels(rule["expr"]), rule


def test_each_alert_says_what_to_do() -> None:
    for alert in ALERTS:
        assert alert["labels"]["severity"] in ("critical", "warning")
        texts = alert["annotations"]
        assert set(texts) == {"summary", "description", "runbook"}, alert["alert"]
        labels = row_labels(alert["expr"])
        for text in texts.values():
            assert len(text) > 20
            assert templated(text) <= labels, (alert["alert"], text)
        assert "$labels.instance" in texts["summary"], alert["alert"]


def test_series_of_the_cases_exist() -> None:
    for name, case in CASES.items():
        for series in (case.fires, *case.quiet):
            for text in series:
                assert not faults(text), (name, text)


def _series(values: dict[str, str]) -> list[dict[str, str]]:
    found = []
    for name, text in values.items():
        metric, _, labels = name.rstrip("}").partition("{")
        own = f'job="pptpcon", instance="one:9723"{", " if labels else ""}{labels}'
        found.append({"series": f"{metric}{{{own}}}", "values": text})
    return found


def _test(name: str, values: dict[str, str], count: int, note: str) -> dict[str, object]:
    query = f'count(ALERTS{{alertname="{name}", alertstate="firing"}}) or vector(0)'
    wanted = [{"labels": "{}", "value": count}]
    return {
        "name": f"{name} {note}",
        "interval": f"{CASES[name].step}m",
        "input_series": _series(values),
        "promql_expr_test": [
            {"expr": query, "eval_time": f"{CASES[name].at}m", "exp_samples": wanted}
        ],
    }


def promtool(tests: list[dict[str, object]], path: Path, step: int = 1) -> None:
    need("promtool", "prometheus")
    rules = [str(RULES / f"pptpcon-{kind}.yml") for kind in ("recording", "alerts")]
    whole = {"rule_files": rules, "evaluation_interval": f"{step}m", "tests": tests}
    path.write_text(yaml.safe_dump(whole))
    run("promtool", "test", "rules", str(path))


@pytest.mark.parametrize("step", sorted({case.step for case in CASES.values()}))
def test_firing_and_quiet(step: int, tmp_path: Path) -> None:
    tests = []
    for name, case in CASES.items():
        if case.step == step:
            tests.append(_test(name, case.fires, 1, "fires"))
            tests += [_test(name, series, 0, "is quiet") for series in case.quiet]
    promtool(tests, tmp_path / "tests.yml", step)


def test_an_hour_without_anything_wrong_is_quiet(tmp_path: Path) -> None:
    """Everything at once, healthy: no alert at all."""
    calm: dict[str, str] = {}
    for case in CASES.values():
        calm |= case.quiet[0] if case.step == 1 else {}
    calm |= _setup("0.5") | _radius("0.1") | _slots(60) | _pool(50) | PACKETS
    calm |= _active("100+0x60") | _data_cpu(20, 18, 22) | _logins(accept=60, reject=3, timeout=0)
    calm |= {"pptp_calls_accepted_total": "0+100x60"}
    calm |= {'pptp_radius_server_up{server="r2", type="auth"}': "1+0x60"}
    query = 'count(ALERTS{alertstate="firing"}) or vector(0)'
    looks = [
        {"expr": query, "eval_time": f"{at}m", "exp_samples": [{"labels": "{}", "value": 0}]}
        for at in range(2, 60, 6)
    ]
    test: dict[str, object] = {
        "interval": "1m",
        "input_series": _series(calm),
        "promql_expr_test": looks,
    }
    promtool([test], tmp_path / "tests.yml")


def test_sample_configurations_are_good() -> None:
    need("promtool", "prometheus")
    need("amtool", "prometheus-alertmanager")
    run("promtool", "check", "config", str(RULES / "prometheus.yml"))
    said = run("amtool", "check-config", str(RULES / "alertmanager.yml"))
    assert "SUCCESS" in said
    inhibited = yaml.safe_load((RULES / "alertmanager.yml").read_text())["inhibit_rules"]
    names = {alert["alert"] for alert in ALERTS}
    for rule in inhibited:
        for text in (*rule["source_matchers"], *rule["target_matchers"]):
            assert text.split('"')[1] in names
        assert set(rule["equal"]) <= TARGET | {"type"}
    assert len(NAMES) > 90
