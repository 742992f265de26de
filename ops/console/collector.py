"""The custom Collector: shared counters become Prometheus families when somebody asks.

Nothing is counted here, so a scrape costs the serving processes nothing. Counter pages
outlive their worker; CPU seconds are carried over by ops.console.usage.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
    UnknownMetricFamily,
)
from prometheus_client.registry import Collector

from fastpath.census import STATES, Census
from fastpath.layout import (
    BUCKET_BOUNDS,
    DATA_COUNTERS,
    DURATION_BOUNDS,
    HISTOGRAM_NAMES,
    SETUP_BOUNDS,
    SETUP_PHASE_NAMES,
    STATE_ACTIVE,
    Table,
)
from ops import metrics
from ops.console.pools import Pools
from ops.console.series import SERIES, Series
from ops.console.top import NO_TOP, Top
from ops.console.usage import Usage
from ops.hook_event import HOOKS
from ops.hook_event import RESULTS as HOOK_RESULTS
from workers.radius.lines import BOUNDS as RADIUS_BOUNDS
from workers.radius.packets import FAULTS as RADIUS_FAULTS

BY_NAME: Final = {s.name: s for s in SERIES}
# Histograms of the data thread that are told, and with how few buckets: what is sent in one
# go follows from what is read in one go, and writes have counters of their own.
HISTOGRAM_DIRECTIONS: Final = {"gre_rx": "receive", "tun_rx": "transmit"}
BATCH_BOUNDS: Final = (1, 8, 64)
RADIUS_KEPT: Final = (0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)

# A worker's data counter -> (series, labels after "worker"). Drops are taken by their prefix.
# A series without the label "worker" is the sum of all workers: see the budget in METRICS.md.
DATA: Final[dict[str, tuple[str, tuple[str, ...]]]] = {
    "gre_rx_packets": ("pptp_gre_packets_total", ("receive",)),
    "gre_tx_packets": ("pptp_gre_packets_total", ("transmit",)),
    "gre_tx_by_hop": ("pptp_gre_packets_by_next_hop_total", ()),
    "gre_tx_by_xdp": ("pptp_gre_packets_by_xdp_total", ("transmit",)),
    "gre_rx_by_xdp": ("pptp_gre_packets_by_xdp_total", ("receive",)),
    "gre_rx_bytes": ("pptp_gre_bytes_total", ("receive",)),
    "gre_tx_bytes": ("pptp_gre_bytes_total", ("transmit",)),
    "rx_ack_only": ("pptp_gre_ack_only_packets_total", ("receive",)),
    "tx_ack_only": ("pptp_gre_ack_only_packets_total", ("transmit",)),
    "rx_control": ("pptp_gre_control_packets_total", ("receive",)),
    "tx_control": ("pptp_gre_control_packets_total", ("transmit",)),
    "rx_data": ("pptp_traffic_packets_total", ("receive",)),
    "tx_data": ("pptp_traffic_packets_total", ("transmit",)),
    "rx_data_bytes": ("pptp_traffic_bytes_total", ("receive",)),
    "tx_data_bytes": ("pptp_traffic_bytes_total", ("transmit",)),
    "tun_rx_packets": ("pptp_tun_packets_total", ()),
    "tun_rx_reads": ("pptp_tun_reads_total", ()),
    "tun_tx_writes": ("pptp_tun_writes_total", ()),
    "reordered": ("pptp_gre_reordered_total", ()),
    "gre_lost": ("pptp_gre_lost_total", ()),
    "mppe_rekeys": ("pptp_mppe_resyncs_total", ()),
    "mppe_resets_sent": ("pptp_mppe_reset_requests_total", ("transmit",)),
    "mppe_resets_received": ("pptp_mppe_reset_requests_total", ("receive",)),
    "lcp_echo_sent": ("pptp_lcp_echo_requests_total", ("transmit",)),
    "lcp_echo_answered": ("pptp_lcp_echo_requests_total", ("receive",)),
    "lcp_echo_timeouts": ("pptp_lcp_echo_timeouts_total", ()),
    "mss_clamped": ("pptp_mss_clamped_total", ()),
    "icmp_too_big": ("pptp_icmp_too_big_total", ()),
    "wakeups": ("pptp_worker_wakeups_total", ()),
    "queued": ("pptp_packets_queued", ("receive",)),
    "tx_queued": ("pptp_packets_queued", ("transmit",)),
}
RADIUS_RESULTS: Final = {
    "auth": ("accept", "reject", "challenge", "timeout"),
    "acct": ("response", "timeout"),
}
DROPS: Final = {"drop_rx_": "receive", "drop_tx_": "transmit"}

# A worker's control counter -> (series, labels after "worker"). auth_* are summed up apart.
CONTROL: Final[dict[str, tuple[str, tuple[str, ...]]]] = {
    "frames_received": ("pptp_ppp_frames_total", ("receive",)),
    "frames_sent": ("pptp_ppp_frames_total", ("transmit",)),
    "frames_malformed": ("pptp_ppp_malformed_frames_total", ()),
    "protocol_rejects_sent": ("pptp_ppp_protocol_rejects_total", ()),
    "netops_requests": ("pptp_worker_route_requests_total", ()),
    "netops_failures": ("pptp_worker_route_failures_total", ()),
    "sessions_resumed": ("pptp_sessions_resumed_total", ()),
    "secrets_loaded": ("pptp_secrets_loads_total", ("good",)),
    "secrets_errors": ("pptp_secrets_loads_total", ("bad",)),
    "kernel_drops_receive": ("pptp_kernel_drops_total", ("receive",)),
    "kernel_drops_transmit": ("pptp_kernel_drops_total", ("transmit",)),
    "networks_refused": ("pptp_networks_refused_total", ()),
    "ipv6_received": ("pptp_ipv6_control_packets_total", ("receive",)),
    "ipv6_sent": ("pptp_ipv6_control_packets_total", ("transmit",)),
    "ipv6_malformed": ("pptp_ipv6_malformed_packets_total", ()),
    "filters_unknown": ("pptp_filters_unknown_total", ()),
}
BUS: Final[dict[str, tuple[str, tuple[str, ...]]]] = {
    "bus_messages_received": ("pptp_bus_messages_total", ("receive",)),
    "bus_messages_sent": ("pptp_bus_messages_total", ("transmit",)),
    "bus_errors": ("pptp_bus_errors_total", ()),
}
# A counter of the dispatcher -> (series, labels).
DISPATCHER: Final[dict[str, tuple[str, tuple[str, ...]]]] = {
    "connections_open": ("pptp_control_connections", ()),
    "calls_requested": ("pptp_calls_requested_total", ()),
    "calls_accepted": ("pptp_calls_accepted_total", ()),
    "control_messages_received": ("pptp_control_messages_total", ("receive",)),
    "control_messages_sent": ("pptp_control_messages_total", ("transmit",)),
    "control_protocol_errors": ("pptp_control_protocol_errors_total", ()),
    "link_info_unmatched": ("pptp_link_info_unmatched_total", ()),
    "wan_errors_received": ("pptp_wan_errors_total", ()),
    "sessions_started": ("pptp_sessions_started_total", ()),
    "bans_user": ("pptp_bans_total", ("user",)),
    "bans_source": ("pptp_bans_total", ("source",)),
    "bans_now": ("pptp_bans", ()),
    "prefixes6_refused": ("pptp_ipv6_prefixes_refused_total", ()),
    "no_gre_seen": ("pptp_calls_without_gre_total", ()),
    **{
        f"connections_{result}": ("pptp_control_connections_total", (result,))
        for result in metrics.CONNECTION_RESULTS
    },
    **{f"refused_{reason}": ("pptp_calls_refused_total", (reason,)) for reason in metrics.REFUSALS},
    **{f"ended_{cause}": ("pptp_sessions_ended_total", (cause,)) for cause in metrics.END_CAUSES},
}
NETOPS: Final[dict[str, tuple[str, tuple[str, ...]]]] = {
    "requests": ("pptp_netops_requests_total", ()),
    "failures": ("pptp_netops_failures_total", ()),
    "routes_added": ("pptp_netops_routes_total", ("add",)),
    "routes_deleted": ("pptp_netops_routes_total", ("delete",)),
    "isolated_packets": ("pptp_isolated_packets_total", ()),
    "proxy_failures": ("pptp_netops_lan_failures_total", ("proxy",)),
    "list_failures": ("pptp_netops_lan_failures_total", ("list",)),
}


def drop_reason(counter: str) -> tuple[str, str] | None:
    """(direction, reason) of a data counter's name; None if it counts no drops."""
    for prefix, direction in DROPS.items():
        if counter.startswith(prefix):
            return direction, counter.removeprefix(prefix)
    return None


def _bus_process(series: str, worker: int) -> tuple[str]:
    """Messages are counted by worker, errors for all of them together."""
    return (f"worker-{worker}" if series == "pptp_bus_messages_total" else "workers",)


def age(now_ns: int, beat_ns: int) -> float:
    """Seconds since a heartbeat; 0 if there never was one."""
    return max(0, now_ns - beat_ns) / 1e9 if beat_ns else 0.0


class _Page:
    """The families of one scrape, filled by name."""

    def __init__(self) -> None:
        self._families: dict[str, Metric] = {s.name: self._family(s) for s in SERIES}
        self._sums: dict[tuple[str, tuple[str, ...]], float] = {}

    @staticmethod
    def _family(series: Series) -> Metric:
        if series.kind == "gauge":
            return GaugeMetricFamily(series.name, series.help, labels=series.labels)
        if series.kind == "counter":
            return CounterMetricFamily(series.name, series.help, labels=series.labels)
        return HistogramMetricFamily(series.name, series.help, labels=series.labels)

    def add(self, name: str, value: float, *labels: str) -> None:
        """A sample; what comes again with the same labels is added up."""
        key = name, labels
        self._sums[key] = self._sums.get(key, 0) + value

    def add_of(self, name: str, value: float, worker: int, *labels: str) -> None:
        """A sample of one worker, or a part of the sum where the series has no such label."""
        if "worker" in BY_NAME[name].labels:
            self.add(name, value, str(worker), *labels)
        else:
            self.add(name, value, *labels)

    def histogram(
        self,
        name: str,
        counts: Sequence[int],
        total: float,
        bounds: Sequence[float],
        *labels: str,
        kept: Sequence[float] = (),
    ) -> None:
        """`counts` has one more than `bounds`; told are those at `kept`, or all bounds."""
        family = self._families[name]
        assert isinstance(family, HistogramMetricFamily)
        buckets: list[tuple[str, float]] = []
        so_far = 0
        for bound, count in zip(bounds, counts, strict=False):
            so_far += count
            if not kept or bound in kept:
                buckets.append((str(float(bound)), so_far))
        buckets.append(("+Inf", so_far + counts[-1]))
        family.add_metric(labels, buckets=buckets, sum_value=total)

    def families(self) -> Iterator[Metric]:
        """All of them, complete."""
        for (name, labels), value in self._sums.items():
            family = self._families[name]
            assert isinstance(family, GaugeMetricFamily | CounterMetricFamily)
            family.add_metric(labels, value)
        yield from self._families.values()


class TableCollector(Collector):
    """Reads the session table at scrape time.

    `capacity`, `pools` and `top` are functions because a reload changes what they say.
    """

    def __init__(
        self,
        table: Table,
        usage: Usage,
        version: str,
        capacity: Callable[[], int],
        pools: Callable[[], Pools],
        accounts: Callable[[], dict[str, Any]] = dict,
        hooks: Callable[[], dict[str, Any]] = dict,
        top: Callable[[], Top] = lambda: NO_TOP,
    ) -> None:
        self._table = table
        self._usage = usage
        self._version = version
        self._capacity = capacity
        self._pools = pools
        self._accounts = accounts
        self._hooks = hooks
        self._top = top
        self._counted: Pools | None = None
        self._census = Census(table, [])

    def describe(self) -> Iterator[Metric]:
        """The families without samples, so that registering reads nothing."""
        return _Page().families()

    def sample(self) -> None:
        """Call every few seconds: who is busiest goes by what came since the last time."""
        if self._top().number:
            self._counting()[1].look()

    def collect(self) -> Iterator[Metric]:
        """All families, from one look at the table."""
        page = _Page()
        self._instance(page)
        self._sessions(page)
        self._dispatcher(page)
        for worker in range(self._table.workers):
            self._worker(page, worker)
            self._data(page, worker)
        self._setups(page)
        self._authentications(page)
        self._radius(page)
        self._hook_programs(page)
        self._busiest(page)
        return page.families()

    def _counting(self) -> tuple[Pools, Census]:
        pools = self._pools()
        if pools is not self._counted:
            self._counted = pools
            self._census = Census(self._table, pools.ranges, pools.nets6)
        return pools, self._census

    def _instance(self, page: _Page) -> None:
        table = self._table
        _, good, loaded = table.config
        page.add("pptp_build_info", 1, self._version)
        page.add("pptp_start_time_seconds", table.started_unix)
        page.add("pptp_stopping", int(table.stopping))
        page.add("pptp_config_reload_success", int(good))
        page.add("pptp_config_last_reload_timestamp_seconds", loaded)
        for role, pid in table.pids.items():
            page.add("pptp_process_up", int(pid != 0), role)
            page.add("pptp_process_cpu_seconds_total", self._usage.process(role, pid), role)

    def _sessions(self, page: _Page) -> None:
        pools, census = self._counting()
        workers, used, outside, used6 = census.take()
        page.add("pptp_slots_capacity", self._capacity())
        for worker, counts in enumerate(workers):
            page.add("pptp_slots_used", sum(counts), str(worker))
            for state, count in zip(STATES, counts, strict=True):
                page.add("pptp_sessions", count, state)
        for pool in pools.told(used, outside, used6):
            page.add("pptp_ip_pool_used", pool.used, pool.name)
            if pool.size is not None:
                page.add("pptp_ip_pool_addresses", pool.size, pool.name)

    def _dispatcher(self, page: _Page) -> None:
        counters = self._table.dispatcher_counters()
        for slot, name in enumerate(metrics.DISPATCHER_COUNTERS):
            if name in DISPATCHER:
                series, labels = DISPATCHER[name]
                page.add(series, counters[slot], *labels)
            elif name in BUS:
                series, labels = BUS[name]
                page.add(series, counters[slot], "dispatcher", *labels)
        page.add(
            "pptp_dispatcher_heartbeat_age_seconds",
            age(time.monotonic_ns(), self._table.dispatcher_beat_ns),
        )
        for name, value in zip(
            metrics.NETOPS_COUNTERS, self._table.netops_counters(), strict=False
        ):
            series, labels = NETOPS[name]
            page.add(series, value, *labels)
        counts, seconds = self._table.durations()
        page.histogram("pptp_session_duration_seconds", counts, seconds, DURATION_BOUNDS)

    def _worker(self, page: _Page, worker: int) -> None:
        label = str(worker)
        seen = self._table.worker(worker)
        now = time.monotonic_ns()
        page.add("pptp_worker_up", int(seen.state == 1), label)
        page.add("pptp_worker_restarts_total", max(0, seen.starts - 1), label)
        page.add("pptp_worker_loop_lag_seconds", seen.loop_lag_ns / 1e9, label)
        page.add("pptp_bus_queue_length", seen.bus_queue, label)
        data, control = self._usage.worker(worker, seen.pid, seen.data_tid)
        page.add("pptp_worker_cpu_seconds_total", data, label, "data")
        page.add("pptp_worker_cpu_seconds_total", control, label, "control")
        for thread, beat in (("data", seen.data_beat_ns), ("control", seen.control_beat_ns)):
            page.add("pptp_worker_heartbeat_age_seconds", age(now, beat), label, thread)
        counters = self._table.control_counters(worker)
        for slot, name in enumerate(metrics.CONTROL_COUNTERS):
            if name in CONTROL:
                series, labels = CONTROL[name]
                page.add_of(series, counters[slot], worker, *labels)
            elif name in BUS:
                series, labels = BUS[name]
                page.add(series, counters[slot], *_bus_process(series, worker), *labels)

    def _data(self, page: _Page, worker: int) -> None:
        counters = self._table.data_counters(worker)
        for name in DATA_COUNTERS:
            drop = drop_reason(name)
            if drop:
                page.add_of("pptp_drops_total", counters[name], worker, *drop)
            elif name in DATA:
                series, labels = DATA[name]
                page.add_of(series, counters[name], worker, *labels)
        for which, name in enumerate(HISTOGRAM_NAMES):
            if name in HISTOGRAM_DIRECTIONS:
                counts, total = self._table.histogram(worker, which)
                page.histogram(
                    "pptp_batch_packets",
                    counts,
                    total,
                    BUCKET_BOUNDS,
                    str(worker),
                    HISTOGRAM_DIRECTIONS[name],
                    kept=BATCH_BOUNDS,
                )

    def _setups(self, page: _Page) -> None:
        workers = range(self._table.workers)
        for place, phase in enumerate(SETUP_PHASE_NAMES):
            found = [self._table.setup_times(worker, place) for worker in workers]
            counts = [sum(column) for column in zip(*(c for c, _ in found), strict=True)]
            seconds = sum(s for _, s in found)
            page.histogram("pptp_session_setup_seconds", counts, seconds, SETUP_BOUNDS, phase)

    def _busiest(self, page: _Page) -> None:
        top = self._top()
        if not top.number:
            return
        for index in self._counting()[1].busiest(top.number):
            session = self._table.session(index)
            if session.state != STATE_ACTIVE:
                continue  # it has ended since
            # Quotes and line ends are escaped where the page is written.
            name = session.name if top.names else ""
            labels = f"{session.sid:016x}", name
            page.add("pptp_session_traffic_bytes_total", session.rx_bytes, *labels, "receive")
            page.add("pptp_session_traffic_bytes_total", session.tx_bytes, *labels, "transmit")

    def _authentications(self, page: _Page) -> None:
        pages = [self._table.control_counters(w) for w in range(self._table.workers)]
        for method in metrics.AUTH_METHODS:
            if method == "none":
                continue  # nobody is asked anything, so nobody answers
            for result in metrics.AUTH_RESULTS:
                slot = metrics.CONTROL_COUNTERS.index(f"auth_{method}_{result}")
                total = sum(counters[slot] for counters in pages)
                page.add("pptp_authentications_total", total, method, result)

    def _hook_programs(self, page: _Page) -> None:
        said = self._hooks()
        if not said:
            return
        for hook in HOOKS:
            for result in HOOK_RESULTS:
                count = said["results"].get(f"{hook}:{result}", 0)
                page.add("pptp_hooks_total", count, hook, result)
            page.add("pptp_hook_seconds_total", said["seconds"].get(hook, 0), hook)
        page.add("pptp_hooks_running", said["running"])
        page.add("pptp_hooks_waiting", said["waiting"])

    def _radius(self, page: _Page) -> None:
        said = self._accounts()
        if not said:
            return
        pid = said["pid"]
        page.add("pptp_process_up", int(os.path.exists(f"/proc/{pid}")), "accounts")
        page.add("pptp_process_cpu_seconds_total", self._usage.process("accounts", pid), "accounts")
        page.add("pptp_accounting_backlog", said["backlog"])
        page.add("pptp_accounting_sessions", said["sessions"])
        for line in said["servers"]:
            labels = (line["server"], line["kind"])
            page.add("pptp_radius_server_up", int(line["up"]), *labels)
            page.add("pptp_radius_pending", line["waiting"], *labels)
            page.add("pptp_radius_retransmits_total", line["retransmits"], *labels)
            page.add("pptp_radius_late_answers_total", line["late"], *labels)
            page.add("pptp_radius_server_deaths_total", line["deaths"], *labels)
            for result in RADIUS_RESULTS[line["kind"]]:
                count = line["results"].get(result, 0)
                page.add("pptp_radius_requests_total", count, *labels, result)
            for fault in RADIUS_FAULTS:
                count = line["faults"].get(fault, 0)
                page.add("pptp_radius_bad_answers_total", count, *labels, fault)
            page.histogram(
                "pptp_radius_request_duration_seconds",
                line["buckets"],
                line["seconds"],
                RADIUS_BOUNDS,
                *labels,
                kept=RADIUS_KEPT,
            )
        for kind in ("coa", "disconnect"):
            for result in ("ack", "nak"):
                count = said["dynamic"].get(f"{kind}:{result}", 0)
                page.add("pptp_radius_dynamic_requests_total", count, kind, result)
        dropped = [
            (*name.split(":"), count)
            for name, count in sorted(said["dynamic"].items())
            if name.split(":")[1] not in ("ack", "nak")
        ]
        for kind, result, count in dropped:
            page.add("pptp_radius_dynamic_requests_total", count, kind, result)


class OpenMetricsCollector(Collector):
    """The same page for OpenMetrics, where a family's name must be its own.

    There the counter pptp_control_connections_total is family pptp_control_connections,
    which is the gauge's name: it goes as a family of unknown type, its samples unchanged.
    """

    GAUGES: Final = frozenset(s.name for s in SERIES if s.kind == "gauge")

    def __init__(self, table: TableCollector) -> None:
        self._table = table

    def collect(self) -> Iterator[Metric]:
        """All families, from one look at the table."""
        for family in self._table.collect():
            if family.type == "counter" and family.name in self.GAUGES:
                other = UnknownMetricFamily(f"{family.name}_total", family.documentation)
                other.samples = family.samples
                yield other
            else:
                yield family
