"""A sample for ops.console.history, read from the table and the accounts process's page."""

from __future__ import annotations

import time

from ops import metrics
from ops.console import snapshot as snapshots
from ops.console.collector import drop_reason
from ops.console.history import Line, Sample
from ops.console.view import View


def counts(view: View) -> dict[tuple[str, str], int]:
    """How often each cause occurred so far; kinds: ended, refused, connection."""
    counters = dict(
        zip(metrics.DISPATCHER_COUNTERS, view.table.dispatcher_counters(), strict=False)
    )
    return {
        **{("ended", name): counters[f"ended_{name}"] for name in metrics.END_CAUSES},
        **{("refused", name): counters[f"refused_{name}"] for name in metrics.REFUSALS},
        **{
            ("connection", name): counters[f"connections_{name}"]
            for name in metrics.CONNECTION_RESULTS
        },
    }


def lines(view: View) -> tuple[Line, ...]:
    """The RADIUS servers' figures."""
    return tuple(
        Line(
            server=line["server"],
            kind=line["kind"],
            sent=line["sent"],
            lost=line["results"].get("timeout", 0),
            answered=sum(line["buckets"]),
            seconds=line["seconds"],
        )
        for line in view.accounts().get("servers", ())
    )


def take(view: View) -> Sample:
    """Now."""
    workers = []
    for index in range(view.table.workers):
        counters = view.table.data_counters(index)
        drops = sum(n for name, n in counters.items() if drop_reason(name))
        workers.append((counters["rx_data_bytes"], counters["tx_data_bytes"], drops))
    return Sample(
        at=time.monotonic(),
        unix=time.time(),
        sessions=snapshots.take(view.table).states(),
        cpu_percent=view.cpu_percent,
        workers=tuple(workers),
        counts=counts(view),
        radius=lines(view),
    )
