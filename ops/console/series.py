"""Every series of /metrics: name, kind, labels, meaning. METRICS.md is the same as a table.

Labels come from closed sets (workers, pools of the settings, names of ops.metrics and of
the data path's counters), never from what a subscriber sends.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

Kind = Literal["gauge", "counter", "histogram"]


@dataclass(frozen=True, slots=True)
class Series:
    """One family. `optional`: only where the configuration asks for it."""

    name: str
    kind: Kind
    labels: tuple[str, ...]
    help: str
    optional: bool = False


def _gauge(name: str, help: str, *labels: str) -> Series:
    return Series(name, "gauge", labels, help)


def _counter(name: str, help: str, *labels: str) -> Series:
    return Series(name, "counter", labels, help)


SERIES: Final[tuple[Series, ...]] = (
    # the concentrator
    _gauge("pptp_build_info", "Always 1; the label names the version running.", "version"),
    _gauge("pptp_start_time_seconds", "When the concentrator started, Unix time."),
    _gauge("pptp_stopping", "1 while the concentrator ends its sessions and takes no calls."),
    _gauge("pptp_config_reload_success", "1 if the last load of the configuration was good."),
    _gauge(
        "pptp_config_last_reload_timestamp_seconds",
        "When a good configuration was last loaded, Unix time.",
    ),
    _gauge("pptp_process_up", "1 if the process runs.", "process"),
    _counter(
        "pptp_process_cpu_seconds_total",
        "CPU seconds, user and system, of the processes that are no workers.",
        "process",
    ),
    # sessions
    _gauge("pptp_slots_capacity", "Sessions the concentrator may hold at once."),
    _gauge(
        "pptp_slots_used",
        "Slots taken, by sessions in any state; the sum is the rows of `show sessions`.",
        "worker",
    ),
    _gauge("pptp_sessions", "Sessions by state.", "state"),
    _counter("pptp_sessions_started_total", "Sessions that came up."),
    _counter("pptp_sessions_ended_total", "Calls and sessions ended, by cause.", "reason"),
    Series(
        "pptp_session_setup_seconds",
        "histogram",
        ("phase",),
        "Of sessions that came up: from the call's request to the reply to it (call), to the "
        "credentials (lcp), to their verdict (auth), to the first packet (network), and total.",
    ),
    Series(
        "pptp_session_duration_seconds",
        "histogram",
        (),
        "How long sessions had been up that have ended.",
    ),
    Series(
        "pptp_session_traffic_bytes_total",
        "counter",
        ("sid", "username", "direction"),
        'Octets of the busiest sessions now, with metrics.sessions = "top:N" only; the '
        "username is empty unless metrics.session_names is set.",
        optional=True,
    ),
    _counter(
        "pptp_sessions_resumed_total",
        "Sessions a worker took over, up, from its dead predecessor.",
    ),
    _gauge("pptp_ip_pool_addresses", "Addresses a pool has to give.", "pool"),
    _gauge(
        "pptp_ip_pool_used",
        'Addresses given to sessions; pool "(static)" are those named by accounts.',
        "pool",
    ),
    # control connections and calls
    _gauge("pptp_control_connections", "Control connections open."),
    _counter(
        "pptp_control_connections_total",
        "Control connections by what became of them: accepted at the start, "
        "refused, or how an accepted one ended.",
        "result",
    ),
    _counter("pptp_control_messages_total", "Control messages, RFC 2637 section 2.", "direction"),
    _counter("pptp_control_protocol_errors_total", "Control messages that broke the protocol."),
    _counter("pptp_calls_requested_total", "Outgoing-Call-Requests received."),
    _counter("pptp_calls_accepted_total", "Outgoing-Call-Replies sent that say connected."),
    _counter("pptp_calls_refused_total", "Calls and connections refused, by reason.", "reason"),
    _counter("pptp_calls_without_gre_total", "Calls that were up and got no GRE at all."),
    _counter("pptp_bans_total", "Bans begun after too many wrong passwords, by kind.", "kind"),
    _gauge("pptp_bans", "Users and source addresses banned now."),
    _counter("pptp_link_info_unmatched_total", "Set-Link-Info messages for a call nobody knows."),
    _counter("pptp_wan_errors_total", "WAN-Error-Notify messages received."),
    _counter(
        "pptp_authentications_total",
        "Answers to authentication: accept, reject, or timeout without any.",
        "method",
        "result",
    ),
    _counter("pptp_secrets_loads_total", "Account files read.", "result"),
    # workers
    _gauge("pptp_worker_up", "1 if the worker process runs.", "worker"),
    _counter("pptp_worker_restarts_total", "Starts of the worker after its first.", "worker"),
    _counter(
        "pptp_worker_cpu_seconds_total",
        "CPU seconds, user and system: the data thread, and all else of the process (control).",
        "worker",
        "thread",
    ),
    _gauge(
        "pptp_worker_heartbeat_age_seconds",
        "Since the thread last showed life; 0 before it ever has.",
        "worker",
        "thread",
    ),
    _gauge(
        "pptp_worker_loop_lag_seconds",
        "By how much the control thread's loop was late, worst of the last 15 seconds.",
        "worker",
    ),
    _counter("pptp_worker_wakeups_total", "Times the data thread woke for work.", "worker"),
    _gauge("pptp_dispatcher_heartbeat_age_seconds", "Since the dispatcher last showed life."),
    _counter(
        "pptp_bus_messages_total",
        "Messages on the bus between dispatcher and workers.",
        "process",
        "direction",
    ),
    _gauge(
        "pptp_bus_queue_length",
        "Messages to a worker that wait in the dispatcher.",
        "worker",
    ),
    _counter("pptp_bus_errors_total", "Bus messages that were no good.", "process"),
    _counter("pptp_netops_requests_total", "Route requests carried out by netops."),
    _counter("pptp_netops_failures_total", "Route requests the kernel refused."),
    _counter("pptp_netops_routes_total", "Routes changed.", "operation"),
    _counter("pptp_isolated_packets_total", "From subscriber to subscriber: lan.isolate."),
    _counter("pptp_netops_lan_failures_total", "Proxy or list entries that failed.", "kind"),
    _counter("pptp_worker_route_requests_total", "Route requests a worker made."),
    _counter(
        "pptp_worker_route_failures_total",
        "Route requests of a worker that failed or got no answer.",
    ),
    # traffic: receive is from subscribers, transmit is to them
    _counter(
        "pptp_traffic_bytes_total",
        "Octets of inner IP packets delivered; receive is from subscribers.",
        "worker",
        "direction",
    ),
    _counter(
        "pptp_traffic_packets_total",
        "Inner IP packets delivered; receive is from subscribers.",
        "worker",
        "direction",
    ),
    _counter("pptp_gre_packets_total", "GRE packets of any kind.", "worker", "direction"),
    _counter(
        "pptp_gre_packets_by_next_hop_total",
        "GRE packets sent by a packet socket to a known next hop, past the routing table.",
    ),
    _counter(
        "pptp_gre_packets_by_xdp_total",
        "GRE packets received or sent by AF_XDP rings.",
        "worker",
        "direction",
    ),
    _counter(
        "pptp_gre_bytes_total",
        "Octets of GRE packets, outer IP header included where the socket shows it.",
        "worker",
        "direction",
    ),
    _counter(
        "pptp_gre_ack_only_packets_total",
        "GRE packets with an acknowledgement and no payload.",
        "direction",
    ),
    _counter(
        "pptp_gre_control_packets_total",
        "GRE packets that carry PPP negotiation or LCP echo.",
        "direction",
    ),
    _counter(
        "pptp_gre_reordered_total", "GRE packets that came late and were put in order.", "worker"
    ),
    _counter("pptp_gre_lost_total", "GRE sequence numbers given up as lost.", "worker"),
    _gauge(
        "pptp_packets_queued",
        "Packets held now: for an earlier one, or by their session's rate.",
        "worker",
        "direction",
    ),
    _counter(
        "pptp_kernel_drops_total",
        "Packets the kernel had no room for: in the GRE socket, in the TUN's queue.",
        "worker",
        "direction",
    ),
    _counter(
        "pptp_drops_total",
        "Packets dropped; receive is from subscribers.",
        "worker",
        "direction",
        "reason",
    ),
    _counter(
        "pptp_mppe_resyncs_total",
        "MPPE key changes made to catch up with lost packets.",
        "worker",
    ),
    _counter(
        "pptp_mppe_reset_requests_total",
        "CCP Reset-Requests of stateful MPPE.",
        "direction",
    ),
    _counter("pptp_tun_packets_total", "Inner packets read from the TUN, as segments.", "worker"),
    _counter("pptp_tun_reads_total", "Reads of the TUN; a super-packet is one."),
    _counter("pptp_tun_writes_total", "Writes to the TUN; a super-packet is one."),
    _counter("pptp_mss_clamped_total", "TCP SYNs whose MSS option was lowered."),
    _counter("pptp_icmp_too_big_total", "ICMP fragmentation-needed messages sent."),
    Series(
        "pptp_batch_packets",
        "histogram",
        ("worker", "direction"),
        "Packets read in one batch: of GRE (receive), of the TUN (transmit).",
    ),
    _counter(
        "pptp_filters_unknown_total",
        "Sessions whose account names a filter that [filters] does not have: they have none.",
    ),
    # IPv6 and networks behind subscribers
    _counter(
        "pptp_networks_refused_total",
        "Routes of accounts that were not made: no network, another session's, or too many.",
        "worker",
    ),
    _counter(
        "pptp_ipv6_prefixes_refused_total",
        "IPv6 prefixes that sessions were not given: in use, pool used up, or wrong.",
    ),
    _counter(
        "pptp_ipv6_control_packets_total",
        "Router solicitations, advertisements and DHCPv6 messages.",
        "worker",
        "direction",
    ),
    _counter(
        "pptp_ipv6_malformed_packets_total",
        "Router solicitations and DHCPv6 messages of subscribers that were no good.",
        "worker",
    ),
    # hooks
    _counter("pptp_hooks_total", "Programs of [hooks], by how they ended.", "hook", "result"),
    _counter("pptp_hook_seconds_total", "Time they ran.", "hook"),
    _gauge("pptp_hooks_running", "Programs that run."),
    _gauge("pptp_hooks_waiting", "Programs that wait for it."),
    # RADIUS
    _gauge(
        "pptp_radius_server_up",
        "1 if the server answered last, or was not asked yet.",
        "server",
        "type",
    ),
    _counter(
        "pptp_radius_requests_total",
        "Requests by what became of them at this server; timeout: the next one was asked.",
        "server",
        "type",
        "result",
    ),
    Series(
        "pptp_radius_request_duration_seconds",
        "histogram",
        ("server", "type"),
        "From a request to its answer, with repetitions and servers that did not answer.",
    ),
    _gauge("pptp_radius_pending", "Requests without an answer yet.", "server", "type"),
    _counter("pptp_radius_retransmits_total", "Requests sent again.", "server", "type"),
    _counter(
        "pptp_radius_server_deaths_total",
        "Times the server was given up because it did not answer.",
        "server",
        "type",
    ),
    _counter("pptp_radius_late_answers_total", "Answers after we had given up.", "server", "type"),
    _counter(
        "pptp_radius_bad_answers_total",
        "Answers, or parts of them, that were no good, by reason.",
        "server",
        "type",
        "reason",
    ),
    _counter(
        "pptp_radius_dynamic_requests_total",
        "CoA- and Disconnect-Requests: ack, nak, or why they were not answered.",
        "type",
        "result",
    ),
    _gauge("pptp_accounting_backlog", "Accounting records that no server has taken yet."),
    _gauge("pptp_accounting_sessions", "Sessions that are up, as accounting knows them."),
    # PPP
    _counter(
        "pptp_ppp_frames_total",
        "PPP frames to and from the control thread.",
        "direction",
    ),
    _counter("pptp_ppp_malformed_frames_total", "PPP frames that were no good."),
    _counter("pptp_ppp_protocol_rejects_total", "LCP Protocol-Rejects sent."),
    _counter("pptp_lcp_echo_requests_total", "LCP Echo-Requests.", "direction"),
    _counter("pptp_lcp_echo_timeouts_total", "Links whose LCP echoes stayed unanswered.", "worker"),
)


def markdown() -> str:
    """METRICS.md."""
    lines = [
        "# Metrics",
        "",
        "Made by `python -m ops.console.series`; a test holds it and the live page together.",
        "`receive` is from subscribers, `transmit` is to them. Octets and packets of",
        "`pptp_traffic_*` are those of inner IP packets. No label ever holds a user's name or",
        "address. A counter outlives the worker that raised it; only `*_cpu_seconds_total` begins",
        "anew when the console itself is restarted, without the workers that had died before.",
        "A page has less than 250 series, 80 more for each worker, 60 for each RADIUS server and 2",
        "for each pool, so what need not be told by worker is the sum of all. Dashboards and",
        "alerts stand in `ops/data`.",
        "",
        "| metric | type | labels | meaning |",
        "| --- | --- | --- | --- |",
    ]
    for s in SERIES:
        labels = ", ".join(f"`{label}`" for label in s.labels)
        lines.append(f"| `{s.name}` | {s.kind} | {labels} | {s.help} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(markdown(), end="")
