"""All concentrators of a Prometheus at a glance."""

from __future__ import annotations

from typing import Final

from ops.dashboards.panels import SOURCE, Dashboard, Panel, Query, Row, Variable, graph, stat

AT: Final = 'instance=~"$instance"'
BY: Final = "sum by (instance)"
RATE: Final = "[$__rate_interval]"

FLEET: Final = Dashboard(
    "pptpcon-fleet",
    "pptpcon: fleet",
    "All concentrators: who is up, how full, how much goes through, and where it goes wrong.",
    (
        SOURCE,
        Variable("instance", "Concentrator", "label_values(pptp_build_info, instance)", many=True),
    ),
    (
        Row(
            "Now",
            (
                stat(
                    "Concentrators up",
                    f'sum(pptp_process_up{{{AT}, process="dispatcher"}})',
                    "none",
                    "Whose dispatcher runs.",
                ),
                stat(
                    "Sessions up",
                    f'sum(pptp_sessions{{{AT}, state="active"}})',
                    "none",
                    "Subscribers that are online.",
                ),
                stat(
                    "Slots in use",
                    f"sum(pptp_slots_used{{{AT}}}) / sum(pptp_slots_capacity{{{AT}}})",
                    "percentunit",
                    "Of the slots of all concentrators.",
                    steps=((None, "green"), (0.8, "orange"), (0.95, "red")),
                ),
                stat(
                    "From subscribers",
                    f'8 * sum(rate(pptp_traffic_bytes_total{{{AT}, direction="receive"}}{RATE}))',
                    "bps",
                    "Inner IP octets.",
                ),
                stat(
                    "To subscribers",
                    f'8 * sum(rate(pptp_traffic_bytes_total{{{AT}, direction="transmit"}}{RATE}))',
                    "bps",
                    "Inner IP octets.",
                ),
                stat(
                    "Workers down",
                    f"count(pptp_worker_up{{{AT}}}) - sum(pptp_worker_up{{{AT}}})",
                    "none",
                    "Their sessions go on with the successor.",
                    steps=((None, "green"), (1, "red")),
                ),
                Panel(
                    "table",
                    "Concentrators",
                    (
                        Query(f"{BY} (pptp_slots_capacity{{{AT}}})", instant=True),
                        Query(f"{BY} (pptp_slots_used{{{AT}}})", instant=True),
                        Query(
                            f"{BY} (pptp_slots_used{{{AT}}}) / {BY} (pptp_slots_capacity{{{AT}}})",
                            instant=True,
                        ),
                        Query(
                            f"8 * {BY} (rate(pptp_traffic_bytes_total{{{AT}}}{RATE}))",
                            instant=True,
                        ),
                        Query(
                            f"time() - max by (instance) (pptp_start_time_seconds{{{AT}}})",
                            instant=True,
                        ),
                    ),
                    "none",
                    "A line a concentrator.",
                    24,
                    columns=(
                        ("instance", "concentrator", ""),
                        ("Value #A", "slots", "none"),
                        ("Value #B", "used", "none"),
                        ("Value #C", "share", "percentunit"),
                        ("Value #D", "both ways", "bps"),
                        ("Value #E", "up for", "s"),
                    ),
                ),
            ),
        ),
        Row(
            "Over time",
            (
                graph(
                    "Sessions up",
                    "none",
                    "A fall of all at once is a mass disconnect.",
                    (f'{BY} (pptp_sessions{{{AT}, state="active"}})', "{{instance}}"),
                    stack=True,
                ),
                graph(
                    "Traffic, both ways",
                    "bps",
                    "Inner IP octets.",
                    (f"8 * {BY} (rate(pptp_traffic_bytes_total{{{AT}}}{RATE}))", "{{instance}}"),
                    stack=True,
                ),
                graph(
                    "Sessions that ended, by cause",
                    "cps",
                    "All concentrators. user_request is what subscribers did themselves.",
                    (
                        f"sum by (reason) (rate(pptp_sessions_ended_total{{{AT}}}{RATE}))",
                        "{{reason}}",
                    ),
                ),
                graph(
                    "Logins by result",
                    "cps",
                    "timeout: nobody answered, which is RADIUS's fault and not the subscriber's.",
                    (
                        f"sum by (result) (rate(pptp_authentications_total{{{AT}}}{RATE}))",
                        "{{result}}",
                    ),
                ),
                graph(
                    "Share of packets dropped",
                    "percentunit",
                    "Of packets from and to subscribers, without those over a rate or filtered.",
                    (
                        f'{BY} (rate(pptp_drops_total{{{AT}, reason!~"shaped|filtered"}}{RATE}))'
                        f" / ({BY} (rate("
                        f'pptp_gre_packets_total{{{AT}, direction="receive"}}{RATE}))'
                        f" + {BY} (rate(pptp_tun_packets_total{{{AT}}}{RATE})))",
                        "{{instance}}",
                    ),
                ),
                graph(
                    "Pools, share in use",
                    "percentunit",
                    "At 1 newcomers are refused, unless the pool names a next one.",
                    (
                        f"pptp_ip_pool_used{{{AT}}} / pptp_ip_pool_addresses{{{AT}}}",
                        "{{instance}} {{pool}}",
                    ),
                    maximum=1,
                ),
            ),
        ),
    ),
)
