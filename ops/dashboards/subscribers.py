"""Who is online: the list of sessions from our API, and the busiest from Prometheus.

Names are no labels of metrics, so the lists come from the API by the Infinity datasource
(yesoreyeram-infinity-datasource 3.0 or later), whose URL and token the operator sets.
"""

from __future__ import annotations

from typing import Final

from ops.dashboards.panels import SOURCE, Dashboard, Panel, Row, Rows, Variable, graph, stat

AT: Final = 'instance=~"$instance"'
RATE: Final = "[$__rate_interval]"
# column of /api/sessions -> (heading, unit)
COLUMNS: Final = {
    "username": ("user", ""),
    "ip": ("address", ""),
    "csid": ("calling from", ""),
    "state": ("state", ""),
    "uptime-raw": ("online for", "s"),
    "rx-bytes-raw": ("sent by them", "bytes"),
    "tx-bytes-raw": ("sent to them", "bytes"),
    "drops": ("drops", "none"),
    "auth": ("login", ""),
    "mppe": ("encryption", ""),
    "rate-limit": ("rate", ""),
    "worker": ("worker", ""),
    "sid": ("sid", ""),
}
MOST: Final = 1000  # rows; the search finds the others
PATH: Final = (
    f"/api/sessions?columns={','.join(COLUMNS)}&order=-tx-bytes&limit={MOST}&search=${{search}}"
)
SELECTOR: Final = (
    ".rows[] | {" + ", ".join(f'"{name}": .[{at}]' for at, name in enumerate(COLUMNS)) + "}"
)

SUBSCRIBERS: Final = Dashboard(
    "pptpcon-subscribers",
    "pptpcon: subscribers",
    "Who is online. The lists need the Infinity datasource with the concentrator's URL and token.",
    (
        SOURCE,
        Variable("api", "API", "yesoreyeram-infinity-datasource", datasource=True),
        Variable("instance", "Concentrator", "label_values(pptp_build_info, instance)", many=True),
        Variable("search", "User, address or sid", "", words=True),
    ),
    (
        Row(
            "Sums",
            (
                stat("Online", f'sum(pptp_sessions{{{AT}, state="active"}})', "none", "Sessions."),
                stat(
                    "Came in the last hour",
                    f"sum(increase(pptp_sessions_started_total{{{AT}}}[1h]))",
                    "none",
                    "Sessions that came up.",
                ),
                stat(
                    "Refused logins in the last hour",
                    f'sum(increase(pptp_authentications_total{{{AT}, result="reject"}}[1h]))',
                    "none",
                    "Wrong passwords, for the most part.",
                ),
                graph(
                    "Busiest",
                    "bps",
                    'Only with metrics.sessions = "top:N"; with names only where '
                    "metrics.session_names is set.",
                    (
                        "8 * topk(10, sum by (instance, sid, username)"
                        f" (rate(pptp_session_traffic_bytes_total{{{AT}}}{RATE})))",
                        "{{username}} {{sid}}",
                    ),
                ),
            ),
        ),
        Row(
            "List",
            (
                Panel(
                    "table",
                    "Sessions",
                    (Rows(PATH, SELECTOR),),
                    "none",
                    f"Of the concentrator behind the API: the {MOST} with most traffic.",
                    24,
                    16,
                    columns=tuple((name, head, unit) for name, (head, unit) in COLUMNS.items()),
                ),
            ),
        ),
    ),
)
