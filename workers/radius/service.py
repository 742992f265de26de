"""The accounts process: sockets, clock and entropy around exchange, book and dynamic.

Order of each turn: what arrived is worked through, the journal is committed, and only then
datagrams and answers go out: nothing is known outside that a successor would not know.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import socket
import time
from collections import Counter, OrderedDict
from dataclasses import dataclass, replace
from typing import Any, Final

from fastpath import layout
from fastpath.layout import Table
from ops import settings as settings_module
from ops.boot import Boot
from ops.log import LEVELS, Log
from ops.ranges import format_address
from ops.settings import Settings
from ops.status_page import StatusPage
from workers.ppp.actions import Verdict
from workers.radius import configured, replies, wire
from workers.radius.accounting import Counters, Facts, timed, unpack, up_unix
from workers.radius.attributes import A
from workers.radius.book import LOOK_S, Book
from workers.radius.dynamic import Cause, Dynamic, Order, fits
from workers.radius.exchange import Answered, Changed, Exchange, Faulty, Send, Unanswered
from workers.radius.journal import MEMORY, Journal, JournalError, Record
from workers.radius.lines import Line
from workers.radius.logbook import Logbook
from workers.radius.orders import OrderError, Orders
from workers.radius.packets import Code, RemoteError
from workers.radius.requests import Caller, Login
from workers.radius.sockets import Sockets
from workers.session import BlobError, Saved

TICK_S: Final = 1.0
SCAN_S: Final = 30.0  # between looks whether table and book agree
LOG_S: Final = 10.0  # between lines about the same fault of the same server
STOP_S: Final = 1.0  # for servers to take the last records
BATCH: Final = 256
MISSED: Final = 8192
DATAGRAM: Final = 8192
KEEPER_DATAGRAM: Final = 4 << 20
JOURNAL: Final = "accounting.db"


@dataclass(slots=True)
class _Asked:
    """A login that waits for a server."""

    worker: int
    seq: int
    login: Login
    caller: Caller
    pinned: int


class Service:
    """The process."""

    def __init__(
        self, started: Boot, table: Table, loop: asyncio.AbstractEventLoop, log: Log
    ) -> None:
        self._table = table
        self._loop = loop
        self._log = log
        self._settings = started.settings
        self._page = StatusPage(started.fds["status"], writable=True)
        self._workers = list(started.fds["workers"])
        self._keeper = socket.socket(fileno=started.fds["keeper"])
        self._keeper.setblocking(False)
        self._bus = started.bus_address
        self._random = random.SystemRandom()
        self._logins: dict[int, _Asked] = {}  # by token of the exchange
        self._doubles: set[tuple[int, int]] = set()  # (worker, seq) that wait already
        self._records: dict[int, Record] = {}
        self._missed: OrderedDict[int, Record] = OrderedDict()  # whose answer may come late
        self._replies: list[tuple[int, bytes]] = []  # to workers, after the commit
        self._sends: list[Send] = []
        self._missing: set[str] = set()  # sessions without a record at the last scan
        self._quiet: dict[tuple[str, str], tuple[float, int]] = {}
        self._dynamics: Counter[str] = Counter()
        self._tasks: set[asyncio.Task[None]] = set()
        self._soon = False
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        self._stop_at: float | None = None
        self._scan_at = 0.0
        self._udp: socket.socket | None = None
        self._listening = ""

        self._nas = configured.nas(self._settings)
        self._exchange = self._make_exchange(self._figures_before())
        self._sockets = self._make_sockets()
        self._book = Book(
            self._open_journal(str(started.extra.get("state_dir", ""))),
            self._nas,
            table.epoch,
            self._settings.radius.interim_s,
            self._random.random,
        )
        self._folder = str(started.extra.get("state_dir", ""))
        self._logbook = Logbook(self._settings.records, self._folder, table.epoch, log)
        self._logbook.begin()
        self._orders = Orders(self._bus)
        self._dynamic = self._make_dynamic()
        if configured.records(self._settings):
            closed, kept = self._book.begin(self._now(), time.time())
            if closed:
                log.warning("sessions of a dead instance closed", sessions=closed)
            if kept:
                log.notice("accounting records kept from before", records=kept)
        self._listen()
        self._scan()
        for at, fd in enumerate(self._workers):
            os.set_blocking(fd, False)
            loop.add_reader(fd, self._worker_says, at)
            self._replies.append((at, wire.pack([0, wire.HELLO, os.getpid()])))
        loop.add_reader(self._keeper.fileno(), self._keeper_says)
        self._after()
        self._tick()
        self._tell_keeper({"type": "ready"})

    def _now(self) -> float:
        return self._loop.time()

    # -- parts made of settings

    def _make_exchange(self, before: dict[tuple[str, str], dict[str, Any]]) -> Exchange:
        exchange = Exchange(configured.addresses(self._settings), os.urandom, self._random.random)
        for line in exchange.lines:
            said = before.get((line.address.server, line.address.kind), {})
            for name, value in said.items():
                if hasattr(line.figures, name):
                    setattr(line.figures, name, value)
        return exchange

    def _figures_before(self) -> dict[tuple[str, str], dict[str, Any]]:
        """What a predecessor counted."""
        page = self._page.read()
        self._dynamics = Counter(page.get("dynamic", {}))
        return {(row["server"], row["kind"]): row for row in page.get("servers", ())}

    def _make_sockets(self) -> Sockets:
        return Sockets(self._loop, self._settings.radius.source, self._datagram, self._refused)

    def _make_dynamic(self) -> Dynamic:
        radius = self._settings.radius
        return Dynamic(configured.clients(self._settings), self._nas, radius.event_window_s)

    def _open_journal(self, folder: str) -> Journal:
        path = os.path.join(folder, JOURNAL) if folder else ""
        why = "no folder to write to"
        if path:
            try:
                return Journal(path)
            except JournalError as e:
                why = str(e)
        self._log.error(
            "accounting journal not kept",
            path=path or "-",
            reason=why,
            hint="records not delivered are lost if this process ends; see server.state_dir",
        )
        return Journal(MEMORY)

    def _listen(self) -> None:
        wanted = self._settings.radius.listen
        if wanted == self._listening and (self._udp is not None or not wanted):
            return
        if self._udp is not None:
            self._loop.remove_reader(self._udp)
            self._udp.close()
            self._udp = None
        self._listening = wanted
        if not wanted:
            return
        host, _, port = wanted.rpartition(":")
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        try:
            sock.setblocking(False)
            sock.bind((host, int(port)))
        except OSError as e:
            sock.close()
            self._log.error("no CoA: cannot listen", listen=wanted, reason=e.strerror or str(e))
            self._listening = "-"  # tried again at the next tick
            return
        self._udp = sock
        self._loop.add_reader(sock, self._ordered)
        self._log.notice("CoA and Disconnect heard", listen=wanted)

    # -- turns

    def _after(self) -> None:
        """Something happened: work it through once in this turn of the loop."""
        if not self._soon:
            self._soon = True
            self._loop.call_soon(self._pump)

    def _pump(self) -> None:
        self._soon = False
        now = self._now()
        self._exchange.handle_timer(now)
        recording = configured.records(self._settings)
        while True:
            if recording:
                for record in self._book.ready(now):
                    self._send_record(record, now)
            events = self._exchange.take()
            if not events:
                break
            for event in events:
                match event:
                    case Send():
                        self._sends.append(event)
                    case Answered():
                        self._answered(event, now)
                    case Unanswered():
                        self._unanswered(event, now)
                    case Faulty():
                        self._faulty(event, now)
                    case Changed():
                        self._changed(event)
        self._commit()
        sends, self._sends = self._sends, []
        for send in sends:
            line = self._exchange.lines[send.line]
            self._sockets.send(send.line, line, send.channel, send.data)
        replies, self._replies = self._replies, []
        for at, data in replies:
            self._reply(at, data)
        self._arm(now)

    def _commit(self) -> None:
        self._logbook.commit()
        journal = self._book.journal
        journal.commit()
        if journal.failure:
            self._log.error(
                "accounting journal given up: records are kept in memory",
                reason=journal.failure,
                hint="make room or mend the disk, then restart",
            )
            journal.failure = ""

    def _arm(self, now: float) -> None:
        deadlines = [self._exchange.deadline(), self._book.wake_at(now)]
        due = min((at for at in deadlines if at is not None), default=None)
        if due is None:
            return
        if self._timer is None or due < self._timer_at or self._timer.cancelled():
            if self._timer is not None:
                self._timer.cancel()
            self._timer_at = due
            self._timer = self._loop.call_at(due, self._woken)

    def _woken(self) -> None:
        self._timer = None
        self._after()

    def _reply(self, at: int, data: bytes) -> None:
        try:
            os.write(self._workers[at], data)
        except BlockingIOError:
            # Its worker does not read: it stands still, and the keeper will see to that.
            self._loop.call_later(0.05, self._reply_later, at, data)
        except OSError as e:
            self._log.error("worker not told", worker=at, reason=e.strerror)

    def _reply_later(self, at: int, data: bytes) -> None:
        self._replies.append((at, data))
        self._after()

    # -- workers

    def _worker_says(self, at: int) -> None:
        for _ in range(BATCH):
            try:
                data = os.read(self._workers[at], wire.DATAGRAM)
            except (BlockingIOError, InterruptedError):
                break
            except OSError:
                data = b""
            if not data:
                self._loop.remove_reader(self._workers[at])
                return
            try:
                self._worker_said(at, wire.unpack(data))
            except (ValueError, TypeError, IndexError) as e:
                self._log.error("message of a worker not understood", worker=at, reason=str(e))
        self._after()

    def _worker_said(self, at: int, message: tuple[Any, ...]) -> None:
        seq, kind, *values = message
        now = self._now()
        match kind:
            case wire.LOGIN:
                index, generation, *credentials, state = values
                login = replace(Login(*credentials), state=state)
                self._begin_login(at, seq, (index, generation), login, -1, now)
            case wire.EAP:
                index, generation, identity, packet, token = values
                pinned, state = _unpack_token(token, self._exchange.lines)
                login = Login("eap", identity, eap=packet, state=state)
                self._begin_login(at, seq, (index, generation), login, pinned, now)
            case wire.START:
                self._started(Facts.unpack(values[0]), now)
                self._replies.append((at, wire.pack([seq, wire.DONE])))
            case wire.STOP:
                sid, counters, cause, unix = values
                self._stopped(sid, Counters(*counters), cause, unix)
                self._replies.append((at, wire.pack([seq, wire.DONE])))
            case _:
                raise ValueError(f"kind {kind}")

    def _begin_login(
        self,
        at: int,
        seq: int,
        handle: tuple[int, int],
        login: Login,
        pinned: int,
        now: float,
    ) -> None:
        if (at, seq) in self._doubles:
            return
        session = self._table.session(handle[0])
        if session.generation != handle[1]:
            return  # it is gone, and nobody waits for this
        caller = Caller(
            f"{session.sid:016x}",
            session.index,
            format_address(session.peer_address),
            format_address(session.local_address),
        )
        self._doubles.add((at, seq))
        self._ask_login(_Asked(at, seq, login, caller, pinned), now)

    def _ask_login(self, asked: _Asked, now: float) -> None:
        nas = self._nas
        token = self._exchange.ask(
            "auth",
            Code.ACCESS_REQUEST,
            lambda secret, random: asked.login.attributes(nas, asked.caller, secret, random),
            now,
            pinned=asked.pinned,
            strict=bool(asked.login.eap),
        )
        self._logins[token] = asked

    # -- answers of servers

    def _datagram(self, at: int, channel: int, data: bytes) -> None:
        self._exchange.receive(at, channel, data, self._now())
        self._after()

    def _refused(self, at: int, reason: str) -> None:
        if at < len(self._exchange.lines):
            self._exchange.refused(at, self._now(), reason)
        self._after()

    def _answered(self, event: Answered, now: float) -> None:
        asked = self._logins.pop(event.token, None)
        if asked is not None:
            self._doubles.discard((asked.worker, asked.seq))
            self._judge(asked, event)
            return
        record = self._records.pop(event.token, None) or self._missed.pop(event.token, None)
        if record is not None:
            self._book.taken(record)
            if record.sid and replies.drops_user(event.packet):
                self._task(self._drop(record.sid))

    def _judge(self, asked: _Asked, event: Answered) -> None:
        line = self._exchange.lines[event.line]
        login, packet = asked.login, event.packet
        said = replies.Asked(login.method, login.name, login.challenge, login.identifier)
        faults: list[RemoteError] = []
        eap = b"".join(packet.all(A.EAP_MESSAGE))
        match packet.code:
            case Code.ACCESS_ACCEPT:
                found = replies.accepted(
                    packet, said, line.address.secret, event.authenticator, faults
                )
                verdict = wire.pack_verdict(found.verdict)
                answer = [asked.seq, wire.ACCEPT, verdict, found.policy.freeze(), eap]
            case Code.ACCESS_CHALLENGE if login.eap and eap:
                token = _pack_token(line, packet.get(A.STATE) or b"")
                answer = [asked.seq, wire.CHALLENGE, eap, token]
            case Code.ACCESS_CHALLENGE:
                why = f"RADIUS server {line.address.server} asks a question that {login.method}"
                refusal = Verdict(False, login.name, f"{why} cannot carry")
                answer = [asked.seq, wire.REJECT, wire.pack_verdict(refusal), eap]
            case _:
                verdict = wire.pack_verdict(replies.rejected(packet, said, faults))
                answer = [asked.seq, wire.REJECT, verdict, eap]
        for fault in faults:
            self._exchange.note(event.line, fault)
        self._replies.append((asked.worker, wire.pack(answer)))

    def _unanswered(self, event: Unanswered, now: float) -> None:
        asked = self._logins.pop(event.token, None)
        if asked is not None:
            self._doubles.discard((asked.worker, asked.seq))
            answer = wire.pack([asked.seq, wire.NONE, event.reason])
            self._replies.append((asked.worker, answer))
            self._limited("unanswered", "", "login without an answer", event.reason)
            return
        record = self._records.pop(event.token, None)
        if record is not None:
            self._missed[event.token] = record
            while len(self._missed) > MISSED:
                self._missed.popitem(last=False)
            self._book.missed(record, now)
            self._limited(
                "kept", "", "accounting record kept", event.reason, backlog=self._book.backlog
            )

    def _faulty(self, event: Faulty, now: float) -> None:
        address = self._exchange.lines[event.line].address
        self._limited(
            f"{event.error.fault}/{address.kind}",
            address.server,
            "bad answer of a RADIUS server",
            str(event.error),
            server=address.server,
            port=address.port,
            kind=event.error.fault,
        )

    def _changed(self, event: Changed) -> None:
        line = self._exchange.lines[event.line]
        say = self._log.notice if event.alive else self._log.error
        say(
            "RADIUS server answers" if event.alive else "RADIUS server dead",
            server=line.address.server,
            port=line.address.port,
            reason=event.reason,
        )
        if event.alive and line.address.kind == "acct":
            self._book.hurry()

    def _limited(self, what: str, whose: str, event: str, reason: str, **fields: str | int) -> None:
        """One line for many of a kind, with how many were not told."""
        now = self._now()
        at, more = self._quiet.get((what, whose), (-LOG_S, 0))
        if now < at + LOG_S:
            self._quiet[what, whose] = at, more + 1
            return
        self._quiet[what, whose] = now, 0
        if more:
            fields["not_told"] = more
        self._log.warning(event, reason=reason, **fields)

    # -- accounting

    def _started(self, facts: Facts, now: float) -> None:
        self._logbook.started(facts)
        self._book.start(facts, now, time.time(), recording=configured.records(self._settings))

    def _stopped(self, sid: str, counters: Counters, cause: str, unix: float) -> None:
        recording = configured.records(self._settings)
        self._logbook.stopped(sid, counters, cause, unix)
        self._book.stop(sid, counters, cause, unix, recording=recording)
        self._missing.discard(sid)

    def _send_record(self, record: Record, now: float) -> None:
        attributes = unpack(record.attributes)
        event = record.event or time.time()
        token = self._exchange.ask(
            "acct",
            Code.ACCOUNTING_REQUEST,
            lambda _secret, _random: timed(attributes, event, time.time()),
            now,
        )
        self._records[token] = record

    def _tick(self) -> None:
        self._loop.call_later(TICK_S, self._tick)
        now, unix = self._now(), time.time()
        if self._listening == "-":
            self._listen()
        book = self._book
        looked = []
        for session in book.look(TICK_S / LOOK_S):
            self._count(session.facts, session)
            looked.append((session.facts.sid, session.counters))
        self._logbook.seen(looked, unix)
        self._logbook.tick()
        if configured.records(self._settings):
            book.journal.seen(looked, unix)
            for session in book.interims(now):
                self._count(session.facts, session)
                book.journal.seen([(session.facts.sid, session.counters)], unix)
                record = book.interim(session)
                if record is not None and self._exchange.alive("acct"):
                    self._send_record(record, now)
        if now >= self._scan_at:
            self._scan()
        self._write_page()
        self._after()

    def _count(self, facts: Facts, session: Any) -> None:
        """The counters of a session as its record has them now."""
        record = self._table.session(facts.index)
        if record.generation == facts.generation and record.state == layout.STATE_ACTIVE:
            session.counters = Counters.of(record, time.monotonic_ns())

    def _scan(self) -> None:
        """Make book and table agree: hints of workers that died are lost with them."""
        now, unix = self._now(), time.time()
        self._scan_at = now + SCAN_S
        seen: set[str] = set()
        for session in self._table.sessions():
            if session.state == layout.STATE_NONE:
                continue
            sid = f"{session.sid:016x}"
            seen.add(sid)
            if session.state == layout.STATE_ACTIVE and sid not in self._book.sessions:
                try:
                    saved = Saved.unpack(self._table.blob(session.index))
                except BlobError:
                    continue
                granted = self._table.granted6(session.index)
                facts = Facts.of(session, saved, up_unix(session.up_ns), granted)
                self._started(facts, now)
        absent = (set(self._book.sessions) | self._logbook.open) - seen
        # Twice in a row: its Stop may be on the way to us.
        for sid in absent & self._missing:
            if sid not in self._book.sessions:  # a predecessor of ours knew its counters
                self._logbook.stopped(sid, None, "worker_lost", unix)
                continue
            counters = self._book.sessions[sid].counters
            self._log.warning("session ended without a word of its worker", sid=sid)
            self._stopped(sid, counters, "worker_lost", unix)
        self._missing = absent

    # -- CoA and Disconnect

    def _ordered(self) -> None:
        assert self._udp is not None
        for _ in range(BATCH):
            try:
                data, source = self._udp.recvfrom(DATAGRAM)
            except (BlockingIOError, InterruptedError):
                break
            except OSError:
                continue
            answer = self._dynamic.receive(data, source, self._now(), time.time())
            if isinstance(answer, bytes):
                self._answer_order(answer, source)
            elif answer is not None:
                self._task(self._carry_out(answer))
        self._note_orders()

    async def _carry_out(self, order: Order) -> None:
        source = self._dynamic.source(order.number)
        meant = self._meant(order)
        error, cause = "", int(Cause.NO_SESSION)
        if not meant:
            error = "no such session"
        for sid in meant:
            try:
                if order.changes is None:
                    await self._orders.end(sid)
                else:
                    await self._orders.change(sid, order.changes)
                    self._book.change(sid, order.changes, self._now())
                    self._after()
            except OrderError as e:
                error = str(e)
                cause = Cause.INVALID_VALUE if order.changes is not None else Cause.RESOURCES
        answer = self._dynamic.done(order.number, error, cause)
        if answer is not None:
            self._answer_order(answer, source)
        self._log.info(
            "Disconnect-Request" if order.changes is None else "CoA-Request",
            source=str(source[0]),
            sessions=len(meant),
            fields=",".join(sorted(order.changes or ())),
            error=error,
        )
        self._note_orders()

    def _meant(self, order: Order) -> list[str]:
        keys, sessions = order.keys, self._book.sessions
        if keys.sid:
            found = sessions.get(keys.sid)
            return [keys.sid] if found and fits(keys, found.facts, self._nas) else []
        return [sid for sid, s in sessions.items() if fits(keys, s.facts, self._nas)]

    async def _drop(self, sid: str) -> None:
        try:
            await self._orders.end(sid)
            self._log.notice("session ended by an accounting answer", sid=sid)
        except OrderError as e:
            self._log.warning("session not ended", sid=sid, reason=str(e))

    def _answer_order(self, answer: bytes, source: tuple[Any, ...]) -> None:
        if self._udp is not None:
            try:
                self._udp.sendto(answer, source)
            except OSError as e:
                self._log.warning("CoA answer not sent", reason=e.strerror or str(e))

    def _note_orders(self) -> None:
        outcomes, self._dynamic.outcomes = self._dynamic.outcomes, []
        for outcome in outcomes:
            self._dynamics[f"{outcome.kind}:{outcome.result}"] += 1
            if outcome.text:
                self._limited(
                    f"dynamic/{outcome.result}",
                    "",
                    "CoA or Disconnect refused",
                    outcome.text,
                    type=outcome.kind,
                    result=outcome.result,
                )

    def _task(self, work: Any) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # -- figures

    def _write_page(self) -> None:
        rows = [_row(line, self._now()) for line in self._exchange.lines]
        self._page.write(
            {
                "pid": os.getpid(),
                "servers": rows,
                "dynamic": dict(self._dynamics),
                "backlog": self._book.backlog,
                "sessions": len(self._book.sessions),
                "journal": self._book.journal.path,
                "listen": self._listening,
                "unix": time.time(),
            }
        )

    # -- the keeper

    def _keeper_says(self) -> None:
        while True:
            try:
                data = self._keeper.recv(KEEPER_DATAGRAM)
            except (BlockingIOError, InterruptedError):
                return
            except OSError:
                data = b""
            if not data:
                self._commit()
                self._loop.stop()
                return
            order = json.loads(data)
            match order.get("type"):
                case "log":
                    self._log.order(order)
                case "stop":
                    self._stop()
                case "settings":
                    text = json.dumps(order["settings"]).encode()
                    self._configure(settings_module.loads(text))
                case "ping":
                    self._tell_keeper({"type": "pong"})

    def _tell_keeper(self, message: dict[str, str]) -> None:
        try:
            self._keeper.send(json.dumps(message).encode())
        except OSError as e:
            self._log.error("keeper does not listen", reason=str(e))

    def _configure(self, settings: Settings) -> None:
        """After a reload: what waits is asked of the new servers."""
        before, self._settings = self._settings, settings
        self._log.level = LEVELS[settings.log.level]
        self._log.style = settings.log.format
        self._book.interim_s = settings.radius.interim_s
        self._nas = self._book.nas = configured.nas(settings)
        if settings.records != before.records:
            self._commit()
            self._logbook.close()
            self._logbook = Logbook(settings.records, self._folder, self._table.epoch, self._log)
            self._logbook.begin()
            for session in self._book.sessions.values():
                self._logbook.started(session.facts)
            self._after()
        if settings.radius == before.radius and settings.server == before.server:
            return
        now = self._now()
        self._dynamic = self._make_dynamic()
        self._listen()
        self._write_page()
        self._sockets.close()
        old = self._exchange
        self._exchange = self._make_exchange(self._figures_before())
        alive = {line.address: line for line in old.lines}
        for line in self._exchange.lines:
            if line.address in alive:
                line.signs = alive[line.address].signs
        self._sockets = self._make_sockets()
        self._sends = []
        logins, self._logins = self._logins, {}
        records, self._records = self._records, {}
        self._missed.clear()
        for record in records.values():
            self._book.missed(record, now)
        self._book.hurry()
        for asked in logins.values():
            if asked.pinned >= 0:
                name = old.lines[asked.pinned].address.server
                asked.pinned = _line_of(name, self._exchange.lines)
            self._ask_login(asked, now)
        self._after()

    def _stop(self) -> None:
        """The workers are gone: what they did not tell is told for them."""
        if self._stop_at is not None:
            return
        self._stop_at = self._now() + STOP_S
        unix = time.time()
        for fd in range(len(self._workers)):
            self._worker_says(fd)
        for sid, session in list(self._book.sessions.items()):
            self._count(session.facts, session)
            self._stopped(sid, session.counters, "admin_reboot", unix)
        for sid in self._logbook.open:
            self._logbook.stopped(sid, None, "admin_reboot", unix)
        if configured.records(self._settings):
            self._book.off(unix)
            self._book.hurry()
        self._after()
        self._loop.call_later(0.05, self._stopping)

    def _stopping(self) -> None:
        assert self._stop_at is not None
        alive = self._exchange.alive("acct")
        if not self._book.backlog or not alive or self._now() >= self._stop_at:
            if self._book.backlog:
                self._log.warning("accounting records kept for later", records=self._book.backlog)
            self._loop.stop()
            return
        self._loop.call_later(0.05, self._stopping)

    def close(self) -> None:
        """At the end of the process."""
        self._commit()
        self._logbook.close()
        self._write_page()
        self._orders.close()
        self._sockets.close()
        self._book.journal.close()


def _row(line: Line, now: float) -> dict[str, Any]:
    figures = line.figures
    return {
        "server": line.address.server,
        "kind": line.address.kind,
        "host": line.address.host,
        "port": line.address.port,
        "priority": line.address.priority,
        "up": line.alive,
        "dead_s": 0 if line.dead_since is None else int(now - line.dead_since),
        "waiting": line.waiting + len(line.held),
        "sent": figures.sent,
        "retransmits": figures.retransmits,
        "results": figures.results,
        "faults": figures.faults,
        "deaths": figures.deaths,
        "late": figures.late,
        "seconds": figures.seconds,
        "buckets": figures.buckets,
    }


def _pack_token(line: Line, state: bytes) -> bytes:
    name = line.address.server.encode()
    return bytes((len(name),)) + name + state


def _unpack_token(token: bytes, lines: list[Line]) -> tuple[int, bytes]:
    """The line that began a conversation (-1: any), and its State."""
    if not token:
        return -1, b""
    size = token[0]
    return _line_of(token[1 : 1 + size].decode(), lines), token[1 + size :]


def _line_of(name: str, lines: list[Line]) -> int:
    for at, line in enumerate(lines):
        if line.address.server == name and line.address.kind == "auth":
            return at
    return -1
