"""The objects of PPTPCON-MIB: their numbers, types and where their values come from.

Nobody has given us an enterprise number, so they stand in net-snmp's own place for
experiments (netSnmpPlaypen); `pptpcon snmp --base` serves them elsewhere. The MIB file is
made from this: `python -m ops.cli.mib > ops/data/PPTPCON-MIB.txt`; a test compares both.
Numbers are for ever: new objects get new ones.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Mapping
from typing import Any, Final, Literal, NamedTuple

from ops.console.causes import WANTED
from ops.metrics import END_CAUSES, REFUSALS

BASE: Final = (1, 3, 6, 1, 4, 1, 8072, 9999, 9999, 1723)
COUNTER_MAX: Final = 1 << 64
GAUGE_MAX: Final = (1 << 32) - 1
NAME_MAX: Final = 255

Kind = Literal["gauge", "counter64", "timeticks", "string", "truth"]
Oid = tuple[int, ...]
Value = tuple[str, str]  # type and value of net-snmp's pass_persist
Status = Mapping[str, Any]


class Object(NamedTuple):
    """A leaf; `of` takes the status and gives a number or a text."""

    name: str
    kind: Kind
    text: str
    of: Callable[[Any], Any]


class Table(NamedTuple):
    """Rows, numbered from 1 in their order; `of` gives them."""

    name: str
    text: str
    of: Callable[[Any], list[Any]]
    columns: tuple[Object, ...]


def _sum(status: Status, result: str) -> int:
    return sum(method[result] for method in status["authentications"].values())


def _failed(status: Status) -> int:
    return sum(n for cause, n in status["ended"].items() if cause not in WANTED)


def _radius(status: Status, up: bool) -> int:
    return sum((row["state"] == "up") is up for row in status["radius"]["servers"])


SCALARS: Final[tuple[Object, ...]] = (
    Object("pptpconVersion", "string", "Version of pptpcon.", lambda s: s["version"]),
    Object("pptpconReady", "truth", "Whether calls are served.", lambda s: s["ready"]),
    Object("pptpconUptime", "timeticks", "Since its start.", lambda s: 100 * s["uptime_s"]),
    Object(
        "pptpconSlotsCapacity", "gauge", "Sessions it may have.", lambda s: s["slots"]["capacity"]
    ),
    Object("pptpconSlotsUsed", "gauge", "Sessions it has.", lambda s: s["slots"]["used"]),
    Object(
        "pptpconSessionsStarting",
        "gauge",
        "Sessions being set up.",
        lambda s: s["sessions"]["starting"],
    ),
    Object(
        "pptpconSessionsActive", "gauge", "Sessions that are up.", lambda s: s["sessions"]["active"]
    ),
    Object(
        "pptpconSessionsFinishing",
        "gauge",
        "Sessions being ended.",
        lambda s: s["sessions"]["finishing"],
    ),
    Object("pptpconCpuPercent", "gauge", "Of one CPU, all processes.", lambda s: s["cpu_percent"]),
    Object(
        "pptpconMemoryKBytes",
        "gauge",
        "Resident memory, 1024 octets each.",
        lambda s: s["memory_resident"] // 1024,
    ),
    Object(
        "pptpconSessionsStarted",
        "counter64",
        "Sessions that came up.",
        lambda s: s["pptp"]["sessions_started"],
    ),
    Object(
        "pptpconSessionsEnded",
        "counter64",
        "Calls that ended, for any cause.",
        lambda s: sum(s["ended"].values()),
    ),
    Object("pptpconSessionsFailed", "counter64", "Calls that ended for a failure.", _failed),
    Object(
        "pptpconCallsRefused", "counter64", "Calls refused.", lambda s: sum(s["refusals"].values())
    ),
    Object("pptpconAuthAccepts", "counter64", "Logins.", lambda s: _sum(s, "accept")),
    Object("pptpconAuthRejects", "counter64", "Logins refused.", lambda s: _sum(s, "reject")),
    Object("pptpconAuthTimeouts", "counter64", "Logins not ended.", lambda s: _sum(s, "timeout")),
    Object(
        "pptpconControlConnections",
        "gauge",
        "Open control connections (TCP).",
        lambda s: s["connections"]["open"],
    ),
    Object(
        "pptpconInOctets",
        "counter64",
        "Octets of inner packets from subscribers.",
        lambda s: s["traffic"]["rx_bytes"],
    ),
    Object(
        "pptpconOutOctets",
        "counter64",
        "Octets of inner packets to subscribers.",
        lambda s: s["traffic"]["tx_bytes"],
    ),
    Object(
        "pptpconInPackets",
        "counter64",
        "Inner packets from subscribers.",
        lambda s: s["traffic"]["rx_packets"],
    ),
    Object(
        "pptpconOutPackets",
        "counter64",
        "Inner packets to subscribers.",
        lambda s: s["traffic"]["tx_packets"],
    ),
    Object(
        "pptpconDrops",
        "counter64",
        "Packets dropped, for any reason.",
        lambda s: sum(sum(way.values()) for way in s["drops"].values()),
    ),
    Object(
        "pptpconAccountingBacklog",
        "gauge",
        "RADIUS accounting records not delivered yet.",
        lambda s: s["radius"]["backlog"] or 0,
    ),
    Object(
        "pptpconRadiusUp", "gauge", "RADIUS servers that answer.", lambda s: _radius(s, up=True)
    ),
    Object(
        "pptpconRadiusDown", "gauge", "RADIUS servers that do not.", lambda s: _radius(s, up=False)
    ),
)

TABLES: Final[tuple[Table, ...]] = (
    Table(
        "pptpconWorker",
        "Worker processes, which carry the packets.",
        lambda s: s["workers"],
        (
            Object("pptpconWorkerNumber", "gauge", "As in the log, from 0.", lambda r: r["worker"]),
            Object("pptpconWorkerUp", "truth", "It runs.", lambda r: r["state"] != "down"),
            Object("pptpconWorkerSessions", "gauge", "Its sessions.", lambda r: r["sessions"]),
            Object(
                "pptpconWorkerInOctets",
                "counter64",
                "Octets from subscribers.",
                lambda r: r["rx-bytes-raw"],
            ),
            Object(
                "pptpconWorkerOutOctets",
                "counter64",
                "Octets to subscribers.",
                lambda r: r["tx-bytes-raw"],
            ),
            Object(
                "pptpconWorkerInPackets",
                "counter64",
                "Packets from subscribers.",
                lambda r: r["rx-pkts"],
            ),
            Object(
                "pptpconWorkerOutPackets",
                "counter64",
                "Packets to subscribers.",
                lambda r: r["tx-pkts"],
            ),
            Object("pptpconWorkerDrops", "counter64", "Packets dropped.", lambda r: r["drops"]),
            Object(
                "pptpconWorkerRestarts",
                "counter64",
                "How often it was replaced.",
                lambda r: r["restarts"],
            ),
        ),
    ),
    Table(
        "pptpconRadius",
        "RADIUS servers, once for logins and once for accounting.",
        lambda s: s["radius"]["servers"],
        (
            Object("pptpconRadiusName", "string", "Its name.", lambda r: r["server"]),
            Object("pptpconRadiusFor", "string", "logins or accounting.", lambda r: r["for"]),
            Object("pptpconRadiusAnswers", "truth", "It answers.", lambda r: r["state"] == "up"),
            Object(
                "pptpconRadiusPending", "gauge", "Requests without answer.", lambda r: r["pending"]
            ),
            Object("pptpconRadiusSent", "counter64", "Requests sent.", lambda r: r["sent"]),
            Object("pptpconRadiusAccepts", "counter64", "Answered well.", lambda r: r["accepted"]),
            Object("pptpconRadiusRejects", "counter64", "Rejected.", lambda r: r["rejected"]),
            Object("pptpconRadiusLost", "counter64", "Never answered.", lambda r: r["lost"]),
            Object(
                "pptpconRadiusMeanMicros",
                "gauge",
                "Mean time of an answer in the last 5 minutes, microseconds.",
                lambda r: 1000 * (r["mean-ms-5m"] or 0),
            ),
        ),
    ),
    Table(
        "pptpconPool",
        "Address pools.",
        lambda s: [row for row in s["pools"] if row["total"] is not None],
        (
            Object("pptpconPoolName", "string", "Its name.", lambda r: r["pool"]),
            Object("pptpconPoolTotal", "gauge", "Addresses in it.", lambda r: r["total"]),
            Object("pptpconPoolUsed", "gauge", "Addresses given out.", lambda r: r["used"]),
        ),
    ),
    Table(
        "pptpconEnd",
        "Why calls ended; the row of a cause is always the same.",
        lambda s: [(cause, s["ended"].get(cause, 0)) for cause in END_CAUSES],
        (
            Object("pptpconEndCause", "string", "As in the log.", lambda r: r[0]),
            Object("pptpconEndCount", "counter64", "How often.", lambda r: r[1]),
        ),
    ),
    Table(
        "pptpconRefusal",
        "Why calls were refused; the row of a reason is always the same.",
        lambda s: [(reason, s["refusals"].get(reason, 0)) for reason in REFUSALS],
        (
            Object("pptpconRefusalReason", "string", "As in the log.", lambda r: r[0]),
            Object("pptpconRefusalCount", "counter64", "How often.", lambda r: r[1]),
        ),
    ),
)


def _value(kind: Kind, value: Any) -> Value:
    if kind == "string":
        text = "".join(c if c.isascii() and c.isprintable() else "?" for c in str(value))
        return kind, text[:NAME_MAX]
    if kind == "truth":
        return "integer", "1" if value else "2"
    if kind == "counter64":
        return kind, str(int(value) % COUNTER_MAX)
    if kind == "timeticks":
        return kind, str(int(value) & GAUGE_MAX)
    return kind, str(min(max(0, round(value)), GAUGE_MAX))


def leaves(status: Status) -> dict[Oid, Value]:
    """Everything under the base, in the order of its numbers.

    Scalars are 1.N.0; tables (1+N).1.COLUMN.ROW; `status` is /api/status with `radius`.
    """
    found: dict[Oid, Value] = {}
    for number, leaf in enumerate(SCALARS, 1):
        found[1, number, 0] = _value(leaf.kind, leaf.of(status))
    for at, table in enumerate(TABLES, 2):
        rows = table.of(status)
        for column, leaf in enumerate(table.columns, 2):  # 1 is the index, not readable
            for row, what in enumerate(rows, 1):
                found[at, 1, column, row] = _value(leaf.kind, leaf.of(what))
    return found


# -- the MIB file

_SYNTAX: Final[dict[Kind, str]] = {
    "gauge": "Gauge32",
    "counter64": "Counter64",
    "timeticks": "TimeTicks",
    "string": "DisplayString (SIZE (0..255))",
    "truth": "TruthValue",
}
_HEAD: Final = """\
PPTPCON-MIB DEFINITIONS ::= BEGIN

IMPORTS
    MODULE-IDENTITY, OBJECT-TYPE, Integer32, Gauge32, Counter64, TimeTicks
        FROM SNMPv2-SMI
    DisplayString, TruthValue
        FROM SNMPv2-TC
    netSnmpPlaypen
        FROM NET-SNMP-MIB;

pptpcon MODULE-IDENTITY
    LAST-UPDATED "202611270000Z"
    ORGANIZATION "pptpcon"
    CONTACT-INFO "see the project's README"
    DESCRIPTION
        "What `pptpcon snmp` tells through snmpd: a PPTP access concentrator in sums.
         No enterprise number is ours, so this stands where net-snmp has its place for
         experiments; pptpcon snmp --base serves the same objects elsewhere."
    REVISION "202611270000Z"
    DESCRIPTION "First version."
    ::= { netSnmpPlaypen 1723 }

pptpconScalars OBJECT IDENTIFIER ::= { pptpcon 1 }
"""


def _described(text: str) -> str:
    return textwrap.indent(textwrap.fill(f'"{text}"', 80), " " * 8)


def _object(leaf: Object, place: str) -> str:
    return (
        f"{leaf.name} OBJECT-TYPE\n"
        f"    SYNTAX      {_SYNTAX[leaf.kind]}\n"
        "    MAX-ACCESS  read-only\n"
        "    STATUS      current\n"
        f"    DESCRIPTION\n{_described(leaf.text)}\n"
        f"    ::= {{ {place} }}\n"
    )


def _table(table: Table, number: int) -> list[str]:
    name, entry = table.name, f"{table.name[0].upper()}{table.name[1:]}Entry"
    members = [f"    {name}Index Integer32"]
    members += [f"    {leaf.name} {_SYNTAX[leaf.kind].split(' ')[0]}" for leaf in table.columns]
    body = ",\n".join(members)
    return [
        f"{name}Table OBJECT-TYPE\n"
        f"    SYNTAX      SEQUENCE OF {entry}\n"
        "    MAX-ACCESS  not-accessible\n"
        "    STATUS      current\n"
        f"    DESCRIPTION\n{_described(table.text)}\n"
        f"    ::= {{ pptpcon {number} }}\n",
        f"{name}Entry OBJECT-TYPE\n"
        f"    SYNTAX      {entry}\n"
        "    MAX-ACCESS  not-accessible\n"
        "    STATUS      current\n"
        '    DESCRIPTION\n        "A row."\n'
        f"    INDEX       {{ {name}Index }}\n"
        f"    ::= {{ {name}Table 1 }}\n",
        f"{entry} ::= SEQUENCE {{\n{body}\n}}\n",
        f"{name}Index OBJECT-TYPE\n"
        "    SYNTAX      Integer32 (1..2147483647)\n"
        "    MAX-ACCESS  not-accessible\n"
        "    STATUS      current\n"
        '    DESCRIPTION\n        "Number of the row."\n'
        f"    ::= {{ {name}Entry 1 }}\n",
        *(_object(leaf, f"{name}Entry {at}") for at, leaf in enumerate(table.columns, 2)),
    ]


def text() -> str:
    """As the file holds it."""
    parts = [_HEAD]
    parts += [_object(leaf, f"pptpconScalars {at}") for at, leaf in enumerate(SCALARS, 1)]
    for number, table in enumerate(TABLES, 2):
        parts += _table(table, number)
    return "\n".join([*parts, "END\n"])


if __name__ == "__main__":
    print(text(), end="")
