"""RADIUS as a concentrator sees it."""

from __future__ import annotations

from typing import Final

from ops.dashboards.panels import SOURCE, Dashboard, Panel, Query, Row, Variable, graph, stat

AT: Final = 'instance=~"$instance"'
RATE: Final = "[$__rate_interval]"


def _quantile(q: float) -> str:
    name = "pptp_radius_request_duration_seconds_bucket"
    return f"histogram_quantile({q}, sum by (le, server, type) (rate({name}{{{AT}}}{RATE})))"


RADIUS: Final = Dashboard(
    "pptpcon-radius",
    "pptpcon: RADIUS",
    "Servers, their answers and how long they take, and accounting that was not delivered.",
    (
        SOURCE,
        Variable(
            "instance", "Concentrator", "label_values(pptp_radius_server_up, instance)", many=True
        ),
    ),
    (
        Row(
            "Servers",
            (
                Panel(
                    "stat",
                    "Server up",
                    (
                        Query(
                            f"min by (instance, server, type) (pptp_radius_server_up{{{AT}}})",
                            "{{instance}} {{server}} {{type}}",
                        ),
                    ),
                    "none",
                    "It answered last, or was not asked yet.",
                    12,
                    6,
                    words=(("1", "up", "green"), ("0", "down", "red")),
                ),
                stat(
                    "Records not delivered",
                    f"sum(pptp_accounting_backlog{{{AT}}})",
                    "none",
                    "Accounting records no server has taken. They wait in the journal on disk.",
                    steps=((None, "green"), (100, "orange"), (10000, "red")),
                ),
                stat(
                    "Sessions in accounting",
                    f"sum(pptp_accounting_sessions{{{AT}}})",
                    "none",
                    "Sessions with a Start and no Stop yet.",
                ),
                stat(
                    "Given up",
                    f"sum(pptp_radius_server_deaths_total{{{AT}}})",
                    "none",
                    "Times a server was given up for dead.",
                ),
                graph(
                    "Time to an answer",
                    "s",
                    "With repetitions. Over timeout_s: a first try got lost.",
                    (_quantile(0.5), "p50 {{server}} {{type}}"),
                    (_quantile(0.95), "p95 {{server}} {{type}}"),
                ),
                graph(
                    "Requests by result",
                    "reqps",
                    "timeout: the next server was asked.",
                    (
                        "sum by (server, type, result)"
                        f" (rate(pptp_radius_requests_total{{{AT}}}{RATE}))",
                        "{{server}} {{type}} {{result}}",
                    ),
                ),
                graph(
                    "Requests without an answer yet",
                    "none",
                    "Waiting, and held back by radius.in_flight.",
                    (
                        f"sum by (server, type) (pptp_radius_pending{{{AT}}})",
                        "{{server}} {{type}}",
                    ),
                ),
                graph(
                    "Sent again, and answered too late",
                    "reqps",
                    "Loss on the way, or a server that is too slow.",
                    (
                        "sum by (server, type)"
                        f" (rate(pptp_radius_retransmits_total{{{AT}}}{RATE}))",
                        "again {{server}} {{type}}",
                    ),
                    (
                        "sum by (server, type)"
                        f" (rate(pptp_radius_late_answers_total{{{AT}}}{RATE}))",
                        "late {{server}} {{type}}",
                    ),
                ),
                graph(
                    "Answers that were no good",
                    "cps",
                    "wrong_secret: the secrets of server and concentrator differ.",
                    (
                        "sum by (server, reason)"
                        f" (rate(pptp_radius_bad_answers_total{{{AT}}}{RATE}))",
                        "{{server}} {{reason}}",
                    ),
                ),
                graph(
                    "CoA and Disconnect",
                    "reqps",
                    "Requests to us, by our answer.",
                    (
                        "sum by (type, result)"
                        f" (rate(pptp_radius_dynamic_requests_total{{{AT}}}{RATE}))",
                        "{{type}} {{result}}",
                    ),
                ),
                graph(
                    "Logins by result",
                    "cps",
                    "Of all methods.",
                    (
                        f"sum by (result) (rate(pptp_authentications_total{{{AT}}}{RATE}))",
                        "{{result}}",
                    ),
                ),
                graph(
                    "Accounting backlog",
                    "none",
                    "Growing: billing is late, and not lost.",
                    (f"pptp_accounting_backlog{{{AT}}}", "{{instance}}"),
                ),
            ),
        ),
    ),
)
