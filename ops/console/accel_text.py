"""What accel-ppp 1.14 prints for `show ...`, with our figures: its columns, tables and keys.

Panels and exporters parse that text, so its spaces, words and order are kept. Where we have
no such thing a column is empty and a figure 0. As there, rx is from the subscriber.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from fastpath.layout import Session
from ops.console import columns
from ops.console.snapshot import Snapshot, state
from ops.ranges import format_address

END: Final = "\r\n"
STATES: Final = {"starting": "start", "active": "active", "finishing": "finish"}
DEFAULT: Final = "ifname,username,calling-sid,ip,rate-limit,type,comp,state,uptime"
CELL_MAX: Final = 128

Column = Callable[[Session, int], str]


def _ours(name: str) -> Column:
    column = columns.COLUMNS[name]

    def text(s: Session, now: int) -> str:
        value = column(s, now)
        return "" if value is None else str(value)

    return text


def interface(s: Session) -> str:
    """A name as accel-ppp has for a session's interface; the record's number names it here."""
    return f"ppp{s.index}"


def _since(s: Session, now: int) -> int:
    return max(0, now - (s.up_ns or s.allotted_ns)) // 1_000_000_000


# Name -> (what it is, in the words of `help`; the text of a session's).
COLUMNS: Final[dict[str, tuple[str, Column]]] = {
    "netns": ("network namespace name", lambda s, now: ""),
    "vrf": ("vrf name", lambda s, now: ""),
    "ifname": ("interface name", lambda s, now: interface(s)),
    "username": ("user name", _ours("username")),
    "ip": ("IP address", _ours("ip")),
    "ip6": ("IPv6 address", lambda s, now: ""),
    "ip6-dp": ("IPv6 delegated prefix", lambda s, now: ""),
    "type": ("connection type", lambda s, now: "pptp"),
    "state": ("state of session", lambda s, now: STATES[state(s)]),
    "uptime": ("uptime (human readable)", lambda s, now: columns.duration(_since(s, now))),
    "uptime-raw": ("uptime (in seconds)", lambda s, now: str(_since(s, now))),
    "calling-sid": ("calling station id", lambda s, now: format_address(s.peer_address)),
    "called-sid": ("called station id", lambda s, now: format_address(s.local_address)),
    "sid": ("session id", lambda s, now: columns.sid(s)),
    "comp": (
        "compression/encryption method",
        lambda s, now: "mppe" if s.mppe_rx_bits or s.mppe_tx_bits else "",
    ),
    "rx-bytes": ("received bytes (human readable)", _ours("rx-bytes")),
    "tx-bytes": ("transmitted bytes (human readable)", _ours("tx-bytes")),
    "rx-bytes-raw": ("received bytes", _ours("rx-bytes-raw")),
    "tx-bytes-raw": ("transmitted bytes", _ours("tx-bytes-raw")),
    "rx-pkts": ("received packets", _ours("rx-pkts")),
    "tx-pkts": ("transmitted packets", _ours("tx-pkts")),
    "inbound-if": ("inbound interface", lambda s, now: ""),
    "service-name": ("service name", lambda s, now: ""),
    "rate-limit": ("rate limit down-stream/up-stream (Kbit)", lambda s, now: _rate(s)),
    "worker": ("worker process", _ours("worker")),
}


def _rate(s: Session) -> str:
    if not s.rate_down and not s.rate_up:
        return ""
    return f"{s.rate_down // 1000}/{s.rate_up // 1000}"


def cell(name: str, s: Session, now: int) -> str:
    """One cell: short, and without what would break the table."""
    text = COLUMNS[name][1](s, now)[:CELL_MAX]
    if text.isprintable() and "|" not in text:
        return text
    return "".join(c if c.isprintable() and c != "|" else "?" for c in text)


def cells(snapshot: Snapshot, sessions: Sequence[Session], names: Sequence[str]) -> list[list[str]]:
    """Rows of text."""
    now = snapshot.now_ns
    return [[cell(name, s, now) for name in names] for s in sessions]


def table(names: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Head in the middle, ` | ` between columns, a `-+-` rule."""
    widths = [max(map(len, column)) for column in zip(names, *rows, strict=True)]
    head = "|".join(_middle(n, w) for n, w in zip(names, widths, strict=True))
    rule = "+".join("-" * (width + 2) for width in widths)
    body = ["|".join(f" {c:<{w}} " for c, w in zip(r, widths, strict=True)) for r in rows]
    return END.join([head, rule, *body]) + END


def _middle(name: str, width: int) -> str:
    left = width // 2 - len(name) // 2 if width > len(name) + 1 else 0
    return f" {' ' * left}{name}".ljust(width + 2)


def _section(title: str, figures: Mapping[str, object]) -> list[str]:
    return [f"{title}:", *(f"  {key}: {value}" for key, value in figures.items())]


def uptime(seconds: int) -> str:
    """`days.HH:MM:SS`, the days also when there are none."""
    days, rest = divmod(seconds, 86400)
    return f"{days}.{rest // 3600:02}:{rest // 60 % 60:02}:{rest % 60:02}"


Lately = Mapping[tuple[str, str], tuple[int, float | None]]


def stat(
    status: Mapping[str, Any],
    servers: Sequence[Mapping[str, Any]],
    five: Lately,
    one: Lately,
) -> str:
    """`show stat`. `servers`: as the accounts process tells; `five`, `one`: minutes."""
    sessions = status["sessions"]
    resident, virtual = status["memory_resident"] // 1024, status["memory_virtual"] // 1024
    lines = [
        f"uptime: {uptime(status['uptime_s'])}",
        f"cpu: {round(status['cpu_percent'])}%",
        f"mem(rss/virt): {resident}/{virtual} kB",
        *_section(
            "core",
            {
                "mempool_allocated": 0,
                "mempool_available": 0,
                "thread_count": len(status["workers"]),
                "thread_active": sum(w["state"] != "down" for w in status["workers"]),
                "context_count": status["connections"]["open"],
                "context_sleeping": 0,
                "context_pending": 0,
                "md_handler_count": status["connections"]["open"],
                "md_handler_pending": 0,
                "timer_count": 0,
                "timer_pending": 0,
            },
        ),
        *_section("sessions", {name: sessions[name] for name in STATES}),
        *_section("pptp", {name: sessions[name] for name in ("starting", "active")}),
    ]
    names = dict.fromkeys((line["server"], line["host"]) for line in servers)
    for number, (name, host) in enumerate(names, 1):
        own = {line["kind"]: line for line in servers if line["server"] == name}
        lines += _section(f"radius({number}, {host})", _server(name, own, five, one))
    return END.join(lines) + END


def _server(
    name: str, own: Mapping[str, Mapping[str, Any]], five: Lately, one: Lately
) -> dict[str, object]:
    waiting = sum(line["waiting"] for line in own.values())
    found: dict[str, object] = {
        "state": "active" if all(line["up"] for line in own.values()) else "failed",
        "fail count": sum(line["deaths"] for line in own.values()),
        "request count": waiting,
        "queue length": 0,
    }
    for kind in ("auth", "acct"):
        if kind not in own:
            continue
        line = own[kind]
        lost5, mean5 = five.get((name, kind), (0, None))
        lost1, mean1 = one.get((name, kind), (0, None))
        found[f"{kind} sent"] = line["sent"]
        found[f"{kind} lost(total/5m/1m)"] = f"{line['results'].get('timeout', 0)}/{lost5}/{lost1}"
        found[f"{kind} avg query time(5m/1m)"] = f"{_ms(mean5)}/{_ms(mean1)} ms"
    if "acct" in own:  # interim records are counted with the others here
        found["interim sent"] = 0
        found["interim lost(total/5m/1m)"] = "0/0/0"
        found["interim avg query time(5m/1m)"] = "0/0 ms"
    return found


def _ms(seconds: float | None) -> int:
    return round(1000 * (seconds or 0.0))


def ippool(pools: Sequence[Mapping[str, Any]]) -> str:
    """`show ippool`: a section a pool, and one for all of them where there are several."""
    known = [pool for pool in pools if pool["total"] is not None]
    lines = []
    for pool in known:
        lines += _section(pool["pool"], _use(pool["total"], pool["used"]))
    if len(known) != 1:
        total, used = (sum(pool[key] for pool in known) for key in ("total", "used"))
        lines += _section("total", _use(total, used))
    return END.join(lines) + END


def _use(total: int, used: int) -> dict[str, object]:
    share = 100 * used / total if total else 0.0
    return {
        "total": total,
        "used": used,
        "available": max(0, total - used),
        "usage": f"{share:.1f}%",
    }


HELP: Final = END.join(
    [
        "show sessions [columns] [order <column>] [match <column> <regexp>] - shows sessions",
        "\tcolumns:",
        *(f"\t\t{name} - {words}" for name, (words, _) in COLUMNS.items()),
        "show stat - shows various statistics information",
        "show ippool - shows address pools",
        "show version - shows version of running pptpcon",
        "terminate if <interface> [soft|hard]- terminate session by interface name",
        "\t[match] username <username> [soft|hard]- terminate session by username",
        "\tip <address> [soft|hard]- terminate session by ip address",
        "\tcsid <id> [soft|hard]- terminate session by calling station id",
        "\tsid <id> [soft|hard]- terminate session by session id",
        "\tall [soft|hard]- terminate all sessions",
        "exit - exit cli",
        "",
    ]
)
ORDERS: Final = END.join(
    ["reload - reload config file", "shutdown [soft|hard|cancel]- shutdown daemon", ""]
)
