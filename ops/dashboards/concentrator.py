"""One concentrator: slots, throughput, set-ups, failures by cause, workers, GRE and MPPE."""

from __future__ import annotations

from typing import Final

from ops.dashboards.panels import SOURCE, Dashboard, Panel, Query, Row, Variable, gauge, graph, stat

AT: Final = 'instance="$instance"'
RATE: Final = "[$__rate_interval]"


def _rate(name: str, by: str, more: str = "") -> str:
    return f"sum by ({by}) (rate({name}{{{AT}{more}}}{RATE}))"


def _quantile(q: float, name: str, by: str = "", more: str = "") -> str:
    labels = f"le, {by}" if by else "le"
    return f"histogram_quantile({q}, {_rate(name + '_bucket', labels, more)})"


def _sessions() -> Row:
    return Row(
        "Sessions",
        (
            gauge(
                "Slots in use",
                f"sum(pptp_slots_used{{{AT}}}) / sum(pptp_slots_capacity{{{AT}}})",
                "At 1 calls are refused (no_slot): raise limits.max_sessions.",
            ),
            stat("Sessions up", f'pptp_sessions{{{AT}, state="active"}}', "none", "Online now."),
            stat(
                "Starting",
                f'pptp_sessions{{{AT}, state="starting"}}',
                "none",
                "Calls that negotiate.",
            ),
            stat(
                "Set-up time, p95",
                _quantile(0.95, "pptp_session_setup_seconds", more=', phase="total"'),
                "s",
                "From the call's request to the first packet.",
                steps=((None, "green"), (2, "orange"), (5, "red")),
            ),
            stat(
                "Control connections",
                f"pptp_control_connections{{{AT}}}",
                "none",
                "TCP connections that are open.",
            ),
            stat(
                "Running for",
                f"time() - pptp_start_time_seconds{{{AT}}}",
                "s",
                "Since the service started.",
            ),
            graph(
                "Slots",
                "none",
                "Used by state, under the capacity.",
                (f"pptp_sessions{{{AT}}}", "{{state}}"),
                (f"pptp_slots_capacity{{{AT}}}", "capacity"),
            ),
            graph(
                "Pools",
                "none",
                'Addresses in use. "(static)" are those outside of every pool.',
                (f"pptp_ip_pool_used{{{AT}}}", "{{pool}}"),
                (f"pptp_ip_pool_addresses{{{AT}}}", "{{pool}} size"),
            ),
            graph(
                "Throughput",
                "bps",
                "Inner IP octets: receive is from subscribers.",
                (f"8 * {_rate('pptp_traffic_bytes_total', 'direction')}", "{{direction}}"),
            ),
            graph(
                "Packets",
                "pps",
                "Inner IP packets.",
                (_rate("pptp_traffic_packets_total", "direction"), "{{direction}}"),
            ),
            graph(
                "Length of sessions that ended",
                "s",
                "Half of them were shorter than p50.",
                (_quantile(0.5, "pptp_session_duration_seconds"), "p50"),
                (_quantile(0.9, "pptp_session_duration_seconds"), "p90"),
            ),
        ),
    )


def _setups() -> Row:
    return Row(
        "Set-up and failures",
        (
            graph(
                "Set-ups",
                "cps",
                "Calls requested, accepted, and sessions that came up.",
                (f"rate(pptp_calls_requested_total{{{AT}}}{RATE})", "requested"),
                (f"rate(pptp_calls_accepted_total{{{AT}}}{RATE})", "accepted"),
                (f"rate(pptp_sessions_started_total{{{AT}}}{RATE})", "up"),
            ),
            graph(
                "Set-up time by phase, p95",
                "s",
                "call: the reply to the call; lcp: until there are credentials; auth: their "
                "verdict, RADIUS included; network: address, encryption, route.",
                (_quantile(0.95, "pptp_session_setup_seconds", "phase"), "{{phase}}"),
            ),
            graph(
                "Ends by cause",
                "cps",
                "no_gre: a firewall eats protocol 47. auth_failed: error 691 at the client.",
                (_rate("pptp_sessions_ended_total", "reason"), "{{reason}}"),
            ),
            graph(
                "Refused by reason",
                "cps",
                "Calls and connections that were told no.",
                (_rate("pptp_calls_refused_total", "reason"), "{{reason}}"),
            ),
            graph(
                "Logins by method and result",
                "cps",
                "timeout: nobody answered.",
                (_rate("pptp_authentications_total", "method, result"), "{{method}} {{result}}"),
            ),
            graph(
                "Control connections by result",
                "cps",
                "How they ended, or why they were refused.",
                (_rate("pptp_control_connections_total", "result"), "{{result}}"),
            ),
            graph(
                "Calls that got no GRE",
                "cps",
                "The control connection stands and no GRE comes: errors 619 and 806.",
                (f"rate(pptp_calls_without_gre_total{{{AT}}}{RATE})", "without GRE"),
            ),
            graph(
                "Bans",
                "none",
                "Users and sources that are banned now.",
                (f"pptp_bans{{{AT}}}", "banned"),
            ),
        ),
    )


def _workers() -> Row:
    return Row(
        "Workers",
        (
            Panel(
                "stat",
                "Version",
                (Query(f"pptp_build_info{{{AT}}}", "{{version}}"),),
                "none",
                "Of pptpcon.",
                4,
                4,
                by_name=True,
            ),
            stat(
                "Workers up",
                f"sum(pptp_worker_up{{{AT}}})",
                "none",
                "Processes that carry traffic.",
            ),
            stat(
                "Restarts",
                f"sum(pptp_worker_restarts_total{{{AT}}})",
                "none",
                "Of workers, since the service started. Sessions outlive them.",
                steps=((None, "green"), (1, "orange")),
            ),
            stat(
                "Last reload",
                f"pptp_config_reload_success{{{AT}}}",
                "none",
                "Of the configuration.",
                words=(("1", "good", "green"), ("0", "refused", "red")),
            ),
            stat(
                "Route errors",
                f"pptp_netops_failures_total{{{AT}}}",
                "none",
                "Route requests the kernel refused.",
                steps=((None, "green"), (1, "orange")),
            ),
            stat(
                "Bus errors",
                f"sum(pptp_bus_errors_total{{{AT}}})",
                "none",
                "Messages between our processes that were no good.",
                steps=((None, "green"), (1, "orange")),
            ),
            graph(
                "CPU of data threads",
                "percentunit",
                "1 is one core. Spread worse than 2 to 1: a few sessions send most.",
                (_rate("pptp_worker_cpu_seconds_total", "worker", ', thread="data"'), "{{worker}}"),
            ),
            graph(
                "CPU of all else",
                "percentunit",
                "Control threads, and the processes that are no workers.",
                (
                    _rate("pptp_worker_cpu_seconds_total", "worker", ', thread="control"'),
                    "worker {{worker}}",
                ),
                (_rate("pptp_process_cpu_seconds_total", "process"), "{{process}}"),
            ),
            graph(
                "Sessions by worker",
                "none",
                "New calls go to the worker with the fewest.",
                (f"pptp_slots_used{{{AT}}}", "{{worker}}"),
            ),
            graph(
                "Throughput by worker",
                "bps",
                "Inner IP octets, both ways.",
                (f"8 * {_rate('pptp_traffic_bytes_total', 'worker')}", "{{worker}}"),
            ),
            graph(
                "Late loops and heartbeats",
                "s",
                "A control thread that is late answers LCP late; silent for 5 s it is replaced.",
                (f"pptp_worker_loop_lag_seconds{{{AT}}}", "loop {{worker}}"),
                (f"pptp_worker_heartbeat_age_seconds{{{AT}}}", "beat {{worker}} {{thread}}"),
                (f"pptp_dispatcher_heartbeat_age_seconds{{{AT}}}", "dispatcher"),
            ),
            graph(
                "Bus",
                "none",
                "Messages to workers that wait in the dispatcher.",
                (f"pptp_bus_queue_length{{{AT}}}", "{{worker}}"),
            ),
            graph(
                "Packets a batch, mean",
                "none",
                "receive is of GRE, transmit of the TUN. Large batches are cheap packets.",
                (
                    f"{_rate('pptp_batch_packets_sum', 'worker, direction')}"
                    f" / {_rate('pptp_batch_packets_count', 'worker, direction')}",
                    "{{worker}} {{direction}}",
                ),
            ),
            graph(
                "PPP frames",
                "pps",
                "Negotiation and echoes at the control threads.",
                (_rate("pptp_ppp_frames_total", "direction"), "{{direction}}"),
            ),
        ),
    )


def _health() -> Row:
    return Row(
        "GRE and MPPE",
        (
            graph(
                "Drops by reason",
                "pps",
                "out_of_window, duplicate, late: the way reorders. mppe_*: keys do not fit.",
                (_rate("pptp_drops_total", "direction, reason"), "{{direction}} {{reason}}"),
            ),
            graph(
                "Lost and put in order",
                "pps",
                "GRE sequence numbers given up, and packets that came late.",
                (_rate("pptp_gre_lost_total", "job"), "lost"),
                (_rate("pptp_gre_reordered_total", "job"), "reordered"),
            ),
            graph(
                "MPPE",
                "cps",
                "Key changes to catch up with losses; resets are stateful MPPE's.",
                (_rate("pptp_mppe_resyncs_total", "job"), "resyncs"),
                (_rate("pptp_mppe_reset_requests_total", "direction"), "resets {{direction}}"),
            ),
            graph(
                "No room in the kernel",
                "pps",
                "Raise gre.receive_buffer_bytes or workers.count.",
                (_rate("pptp_kernel_drops_total", "worker, direction"), "{{worker}} {{direction}}"),
            ),
            graph(
                "Waiting packets",
                "none",
                "For an earlier one, or by their session's rate.",
                (f"pptp_packets_queued{{{AT}}}", "{{worker}} {{direction}}"),
            ),
            graph(
                "LCP echoes unanswered",
                "cps",
                "Links that ended because nobody answered.",
                (_rate("pptp_lcp_echo_timeouts_total", "job"), "timeouts"),
            ),
            graph(
                "Size",
                "pps",
                "SYNs whose MSS was lowered, and ICMP that a packet is too big.",
                (_rate("pptp_mss_clamped_total", "job"), "MSS lowered"),
                (_rate("pptp_icmp_too_big_total", "job"), "too big"),
            ),
            graph(
                "GRE without payload",
                "pps",
                "Acknowledgements alone.",
                (_rate("pptp_gre_ack_only_packets_total", "direction"), "{{direction}}"),
            ),
        ),
    )


CONCENTRATOR: Final = Dashboard(
    "pptpcon-one",
    "pptpcon: concentrator",
    "One concentrator in full.",
    (SOURCE, Variable("instance", "Concentrator", "label_values(pptp_build_info, instance)")),
    (_sessions(), _setups(), _workers(), _health()),
)
