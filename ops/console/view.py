"""What the API tells, as plain values for JSON; no HTTP here."""

from __future__ import annotations

import os
import platform
import time
from typing import Any, Final

from fastpath import layout, mppe
from fastpath.layout import Session, Table
from fastpath.tun_queue import WRITES
from ops import messages, metrics
from ops.console import columns, links
from ops.console import snapshot as snapshots
from ops.console.collector import age, drop_reason
from ops.console.meters import METERS
from ops.console.pools import Pools
from ops.console.usage import Usage, memory
from ops.networks import Network
from ops.ranges import format_address
from ops.settings import Settings
from ops.status_page import StatusPage
from ops.version import VERSION
from workers.ipv6.dhcpv6 import Code
from workers.session import BlobError, Saved

STALE_S: Final = 5.0  # without a heartbeat: not ready


def plain(value: str) -> str:
    """A name whose octets are no UTF-8, for JSON."""
    return value.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _said(policy: dict[str, Any]) -> dict[str, Any]:
    """A frozen workers.policy.Policy in words."""

    def word(name: str, value: Any) -> Any:
        if isinstance(value, bytes):
            return value.hex()
        if isinstance(value, tuple | list):
            return [word(name, item) for item in value]
        if isinstance(value, int) and name in ("address", "dns", "wins"):
            return format_address(value)
        return plain(value) if isinstance(value, str) else value

    return {name: word(name, value) for name, value in policy.items()}


def leases(six: dict[str, Any], table: Table, index: int) -> list[dict[str, Any]]:
    """What DHCPv6 has given out: kind, prefix, seconds left."""
    found = []
    for kind, which in ((Code.IA_PD, 1), (Code.IA_NA, 2)):
        binding = six.get("leases", {}).get(int(kind))
        octets, length = table.granted6(index)[which]
        if binding is not None and length:
            left = max(0, int(binding[2] - time.monotonic()))
            found.append({"kind": kind.name, "lease": str(Network(octets, length)), "left-s": left})
    return found


def _by_reason(drops: dict[str, int]) -> dict[str, dict[str, int]]:
    """From the subscriber (receive) and to it, as in `show stat`."""
    found: dict[str, dict[str, int]] = {"receive": {}, "transmit": {}}
    for name, count in drops.items():
        if reason := drop_reason(name):
            found[reason[0]][reason[1]] = count
    return found


class View:
    """The table and settings, ready to be told."""

    def __init__(
        self,
        table: Table,
        settings: Settings,
        usage: Usage,
        page: StatusPage | None = None,
        hooks: StatusPage | None = None,
    ) -> None:
        """`page` and `hooks`: where the accounts and the hooks process write their figures."""
        self.table = table
        self._page = page
        self._hooks = hooks
        self.usage = usage
        self.version = VERSION
        self._cpu_before: tuple[float, float] = (time.monotonic(), 0.0)
        self._cpu_percent = 0.0
        self.apply(settings)

    def apply(self, settings: Settings) -> None:
        """Settings at start, and again after a reload."""
        self.settings = settings
        self._pools = Pools(settings)

    def pools(self) -> Pools:
        """The pools of the settings in force."""
        return self._pools

    def capacity(self) -> int:
        """Slots of the box: a reload may lower them under the table's size, not raise them."""
        return min(self.table.capacity, self.settings.limits.max_sessions)

    # -- CPU between two calls of `sample`

    @property
    def cpu_percent(self) -> float:
        """Of all our processes, of one CPU, between the last two calls of `sample`."""
        return self._cpu_percent

    def sample(self) -> None:
        """Call every few seconds: feeds the CPU figure, and keeps meters near the truth."""
        METERS.sample(self.table)
        total = sum(self.usage.process(role, pid) for role, pid in self.table.pids.items())
        for index in range(self.table.workers):
            worker = self.table.worker(index)
            total += sum(self.usage.worker(index, worker.pid, worker.data_tid))
        now = time.monotonic()
        then, before = self._cpu_before
        if before and now > then:
            self._cpu_percent = 100 * max(0.0, total - before) / (now - then)
        self._cpu_before = (now, total)

    def _pids(self) -> list[int]:
        workers = [self.table.worker(w).pid for w in range(self.table.workers)]
        return [pid for pid in [*self.table.pids.values(), *workers] if pid]

    # -- answers

    def not_ready(self) -> list[str]:
        """Why calls would not be served; [] if they are."""
        now = time.monotonic_ns()
        reasons = []
        if self.table.stopping:
            reasons.append("stopping")
        beat = self.table.dispatcher_beat_ns
        if not self.table.pids["dispatcher"] or not beat:
            reasons.append("no dispatcher")
        elif age(now, beat) > STALE_S:
            reasons.append(f"dispatcher silent for {age(now, beat):.0f} s")
        if not any(self._serves(w, now) for w in range(self.table.workers)):
            reasons.append("no worker up")
        return reasons

    def _serves(self, index: int, now: int) -> bool:
        worker = self.table.worker(index)
        beat = worker.control_beat_ns
        return worker.state == 1 and beat != 0 and age(now, beat) <= STALE_S

    def _kernels(self) -> dict[str, str]:
        """What encrypts: as the first worker chose, if it has."""
        names = list(mppe.KERNELS)
        chosen = self.table.worker(0).kernel
        return mppe.kernels_of(names[chosen - 1] if chosen else self.settings.mppe.kernel)

    def _writes(self) -> str:
        """How the first worker writes to its TUN, if it has begun to."""
        return WRITES[self.table.worker(0).writes]

    def versions(self) -> dict[str, Any]:
        """For `show version`."""
        return {
            "version": self.version,
            "python": platform.python_version(),
            "layout": layout.VERSION,
            "bus": messages.VERSION,
            "kernel": os.uname().release,
            "mppe": self._kernels(),
            "gre": dict(zip(("receive", "send"), self.table.ways, strict=True)),
            "tun_writes": self._writes(),
            "epoch": f"{self.table.epoch:08x}",
            "pids": self.table.pids,
        }

    def workers(self, snapshot: snapshots.Snapshot | None = None) -> list[dict[str, Any]]:
        """A row for each worker."""
        used = (snapshot or snapshots.take(self.table)).used()
        return [self._worker(index, used[index]) for index in range(self.table.workers)]

    def _worker(self, index: int, used: int) -> dict[str, Any]:
        worker = self.table.worker(index)
        counters = self.table.data_counters(index)
        now = time.monotonic_ns()
        data, control = self.usage.worker(index, worker.pid, worker.data_tid)
        return {
            "worker": index,
            "state": self._state(index, worker.state == 1),
            "pid": worker.pid or None,
            "cpu": worker.cpu - 1 if worker.cpu else None,
            "sessions": used,
            "rx-pkts": counters["rx_data"],
            "tx-pkts": counters["tx_data"],
            "rx-bytes-raw": counters["rx_data_bytes"],
            "tx-bytes-raw": counters["tx_data_bytes"],
            "drops": sum(v for name, v in counters.items() if drop_reason(name)),
            "queued": counters["queued"],
            "restarts": max(0, worker.starts - 1),
            "data-cpu-s": round(data, 2),
            "control-cpu-s": round(control, 2),
            "data-beat-s": round(age(now, worker.data_beat_ns), 3) if worker.data_beat_ns else None,
            "control-beat-s": (
                round(age(now, worker.control_beat_ns), 3) if worker.control_beat_ns else None
            ),
        }

    def _state(self, index: int, up: bool) -> str:
        if not up:
            return "down"
        return "draining" if index in self.table.draining else "up"

    def accounts(self) -> dict[str, Any]:
        """The figures of the accounts process; {} if there is none."""
        if self._page is None or not self.settings.needs_accounts:
            return {}
        return self._page.read()

    def hooks(self) -> dict[str, Any]:
        """The figures of the hooks process; {} if there is none."""
        if self._hooks is None or not self.settings.hooks.wanted:
            return {}
        return self._hooks.read()

    def radius(self) -> list[dict[str, Any]]:
        """A row for each server and what it is asked for."""
        rows = []
        for line in self.accounts().get("servers", ()):
            answered = sum(line["buckets"])
            results = line["results"]
            rows.append(
                {
                    "server": line["server"],
                    "address": f"{line['host']}:{line['port']}",
                    "for": "logins" if line["kind"] == "auth" else "accounting",
                    "state": "up" if line["up"] else f"dead {line['dead_s']} s",
                    "priority": line["priority"],
                    "pending": line["waiting"],
                    "sent": line["sent"],
                    "again": line["retransmits"],
                    "accepted": results.get("accept", 0) + results.get("response", 0),
                    "rejected": results.get("reject", 0),
                    "lost": results.get("timeout", 0),
                    "late": line["late"],
                    "bad": sum(line["faults"].values()),
                    "faults": line["faults"],
                    "mean-ms": round(1000 * line["seconds"] / answered, 2) if answered else None,
                }
            )
        return rows

    def ippool(self, snapshot: snapshots.Snapshot | None = None) -> list[dict[str, Any]]:
        """A row for each pool, and one for addresses that accounts name."""
        snapshot = snapshot or snapshots.take(self.table)
        return [
            {
                "pool": pool.name,
                "total": pool.size,
                "used": pool.used,
                "available": None if pool.size is None else max(0, pool.size - pool.used),
                "next": pool.next or None,
            }
            for pool in self._pools.use(snapshot.addresses(), snapshot.prefixes6)
        ]

    def status(self) -> dict[str, Any]:
        """Everything in sums; names nobody."""
        table = self.table
        snapshot = snapshots.take(table)
        dispatcher = dict(
            zip(metrics.DISPATCHER_COUNTERS, table.dispatcher_counters(), strict=False)
        )
        resident, virtual = memory(self._pids())
        epoch, good, loaded = table.config
        reasons = self.not_ready()
        return {
            "version": self.version,
            "name": self.settings.server.name,
            "ready": not reasons,
            "not_ready": reasons,
            "started_unix": table.started_unix,
            "uptime_s": (time.monotonic_ns() - table.started_ns) // 1_000_000_000,
            "cpu_percent": round(self._cpu_percent, 1),
            "memory_resident": resident,
            "memory_virtual": virtual,
            "config": {"epoch": epoch, "good": good, "loaded_unix": loaded},
            "slots": {"capacity": self.capacity(), "used": len(snapshot.sessions)},
            "sessions": snapshot.states(),
            "connections": {
                "open": dispatcher["connections_open"],
                **{r: dispatcher[f"connections_{r}"] for r in metrics.CONNECTION_RESULTS},
            },
            "pptp": {
                name: dispatcher[name]
                for name in (
                    "calls_requested",
                    "calls_accepted",
                    "sessions_started",
                    "control_messages_received",
                    "control_messages_sent",
                    "control_protocol_errors",
                    "no_gre_seen",
                )
            },
            "refusals": {r: dispatcher[f"refused_{r}"] for r in metrics.REFUSALS},
            "ended": {c: dispatcher[f"ended_{c}"] for c in metrics.END_CAUSES},
            "authentications": self._authentications(),
            "traffic": self._traffic(),
            "drops": self._drops(),
            "pools": self.ippool(snapshot),
            "workers": self.workers(snapshot),
        }

    def _authentications(self) -> dict[str, dict[str, int]]:
        pages = [self.table.control_counters(w) for w in range(self.table.workers)]
        slot = {name: i for i, name in enumerate(metrics.CONTROL_COUNTERS)}
        return {
            method: {
                result: sum(page[slot[f"auth_{method}_{result}"]] for page in pages)
                for result in metrics.AUTH_RESULTS
            }
            for method in metrics.AUTH_METHODS
        }

    def _traffic(self) -> dict[str, int]:
        totals = dict.fromkeys(("rx_data", "tx_data", "rx_data_bytes", "tx_data_bytes"), 0)
        for index in range(self.table.workers):
            counters = self.table.data_counters(index)
            for name in totals:
                totals[name] += counters[name]
        return {
            "rx_packets": totals["rx_data"],
            "tx_packets": totals["tx_data"],
            "rx_bytes": totals["rx_data_bytes"],
            "tx_bytes": totals["tx_data_bytes"],
        }

    def _drops(self) -> dict[str, dict[str, int]]:
        found: dict[str, dict[str, int]] = {"receive": {}, "transmit": {}}
        for index in range(self.table.workers):
            for name, value in self.table.data_counters(index).items():
                drop = drop_reason(name)
                if drop:
                    direction, reason = drop
                    found[direction][reason] = found[direction].get(reason, 0) + value
        return found

    def find(self, value: str) -> list[dict[str, Any]]:
        """Sessions with this sid, user name or inner address, in full."""
        snapshot = snapshots.take(self.table)
        lower = value.lower()
        # The record's copy of a long name is cut.
        name = value.encode("utf-8", "replace")[: layout.NAME_MAX - 1].decode("utf-8", "replace")
        return [
            self._session(s, snapshot.now_ns)
            for s in snapshot.sessions
            if columns.sid(s) == lower
            or (s.name and s.name == name)
            or columns.COLUMNS["ip"](s, snapshot.now_ns) == value
        ]

    def _session(self, s: Session, now: int) -> dict[str, Any]:
        found: dict[str, Any] = {name: column(s, now) for name, column in columns.COLUMNS.items()}
        found |= {
            "type": "pptp",
            "record": s.index,
            "generation": s.generation,
            "pool": self._pools.name_of(s.granted_address) if s.granted_address else None,
            "called": format_address(s.local_address),
            "csid-port": s.peer_port,
            "local-ip": format_address(s.local) if s.local else None,
            "ip6": links.identifier(s.iid) if s.iid else None,
            "local-ip6": links.identifier(s.our_iid) if s.our_iid else None,
            "prefix6": self._granted6(s, 0),
            "delegated6": self._granted6(s, 1),
            "address6": self._granted6(s, 2),
            "networks": [str(Network(*net)) for net in self.table.nets(s.index)],
            "mru": s.mru or None,
            "peer-window": s.peer_window,
            "peer-speed": s.peer_speed,
            "data-state": ("none", "installed", "up")[min(s.data_state, 2)],
            "framing": {"acfc": bool(s.framing & 1), "pfc": bool(s.framing & 2)},
            "magic": f"{s.magic:08x}",
            "peer-magic": f"{s.peer_magic:08x}",
            "echo-interval-s": s.echo_interval_s,
            "echo-failures": s.echo_failures,
            "gre-rx-pkts": s.gre_rx_packets,
            "last-rx-s": round(age(now, s.last_rx_ns), 3) if s.last_rx_ns else None,
            "gre-next-tx": s.tx_seq,
            "gre-next-rx": s.rx_seq,
            "mppe-next-tx": s.tx_count,
            "mppe-next-rx": s.rx_count,
            "window": self.settings.gre.window,
            "drops-by": _by_reason(self.table.drops(s.index)),
        }
        return found | self._saved(s)

    def _granted6(self, s: Session, which: int) -> str | None:
        octets, length = self.table.granted6(s.index)[which]
        return str(Network(octets, length)) if length else None

    def _saved(self, s: Session) -> dict[str, Any]:
        """From the blob: what the worker keeps to go on from."""
        data = self.table.blob(s.index)
        if not data:
            return {"saved": None}
        try:
            saved = Saved.unpack(data)
        except BlobError as e:
            return {"saved": f"not readable: {e}"}
        return {
            "username": plain(saved.user) or s.name or None,
            "peer-name": plain(saved.peer_name) or None,
            "dns": [format_address(address) for address in saved.dns],
            "policy": _said(saved.policy),
            "link": links.describe(saved.link),
            "dhcpv6": leases(saved.six, self.table, s.index),
        }
