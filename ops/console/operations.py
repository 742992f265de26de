"""POST on the control socket that steers the service: drain, reload, shutdown, log, trace."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final

from aiohttp import web

from ops.console.bus import Bus, BusError, BusTimeoutError
from ops.console.keeper import OrderError, Orders
from ops.console.requests import BadRequest, body_of, json_answer, line_answer, peer_uid
from ops.console.tracing import Traces, TracesError
from ops.log import LEVELS, Log
from ops.ranges import format_address, parse_address
from ops.trace import BY

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

SHUTDOWNS: Final = ("now", "soft", "hard", "cancel")
NAME_MAX: Final = 256


class Operations:
    """Handlers, and what they ask."""

    def __init__(self, bus: Bus, orders: Orders, traces: Traces, log: Log, workers: int) -> None:
        self._bus = bus
        self._orders = orders
        self._traces = traces
        self._log = log
        self._workers = workers

    def routes(self) -> list[tuple[str, Handler]]:
        """Paths of POST."""
        return [
            ("/api/drain", self.drain),
            ("/api/reload", self.reload),
            ("/api/shutdown", self.shutdown),
            ("/api/log-level", self.log_level),
            ("/api/trace", self.trace),
        ]

    async def drain(self, request: web.Request) -> web.Response:
        """{"workers": [N, ...], "on": true} -> {"draining": [N, ...], "calls": N}.

        No workers are all of them.
        """
        body = await body_of(request, "workers", "on")
        workers, on = body.get("workers", []), body.get("on", True)
        if not isinstance(on, bool):
            raise BadRequest("on: neither true nor false")
        if not isinstance(workers, list) or not all(type(w) is int for w in workers):
            raise BadRequest("workers: must be a list of numbers")
        for worker in workers:
            if not 0 <= worker < self._workers:
                last = self._workers - 1
                raise BadRequest(f"worker {worker}: there are workers 0 to {last}")
        try:
            drained = await self._bus.drain(tuple(workers), on)
        except BusTimeoutError as e:
            return line_answer(504, str(e))
        except BusError as e:
            return line_answer(502, str(e))
        return json_answer({"draining": list(drained.workers), "calls": drained.calls})

    async def reload(self, request: web.Request) -> web.Response:
        """{} -> {"ok", "file", "applied": [KEY], "kept": [KEY], "said": [LINE]}."""
        await body_of(request)
        self._log.notice("reload", uid=peer_uid(request))
        return await self._ask("reload")

    async def shutdown(self, request: web.Request) -> web.Response:
        """{"how": "now" | "soft" | "hard" | "cancel"} -> {"ok", "sessions", "reason"}."""
        how = (await body_of(request, "how")).get("how", "now")
        if how not in SHUTDOWNS:
            raise BadRequest(f"how: {str(how)[:40]!r} is not one of {', '.join(SHUTDOWNS)}")
        self._log.notice("shutdown", how=how, uid=peer_uid(request))
        return await self._ask("shutdown", how=how)

    async def log_level(self, request: web.Request) -> web.Response:
        """{"level": ..., "name": SID or user} -> {"ok", "level", "debugged": [NAME]}."""
        body = await body_of(request, "level", "name")
        level, name = body.get("level"), body.get("name", "")
        if level not in (*LEVELS, "default"):
            names = ", ".join((*LEVELS, "default"))
            raise BadRequest(f"level: {str(level)[:40]!r} is not one of {names}")
        if not isinstance(name, str) or len(name) > NAME_MAX:
            raise BadRequest("name: must be a sid or a user")
        return await self._ask("log", level=level, name=name)

    async def _ask(self, order: str, **words: Any) -> web.Response:
        try:
            return json_answer(await self._orders.ask(order, **words))
        except OrderError as e:
            return line_answer(504, str(e))

    async def trace(self, request: web.Request) -> web.StreamResponse:
        """{"by": ..., "value": ..., "packets": true} -> lines of JSON until the client goes."""
        body = await body_of(request, "by", "value", "packets")
        by, value, packets = body.get("by"), body.get("value"), body.get("packets", False)
        if by not in BY:
            raise BadRequest(f"by: {str(by)[:40]!r} is not one of {', '.join(BY)}")
        if not isinstance(value, str) or not value or len(value) > NAME_MAX:
            raise BadRequest(f"value: name the {by}")
        if not isinstance(packets, bool):
            raise BadRequest("packets: neither true nor false")
        if by in ("ip", "csid"):
            try:
                value = format_address(parse_address(value))
            except ValueError as e:
                raise BadRequest(f"value: {e}") from None
        if by == "sid":
            value = value.lower().rjust(16, "0")
        self._log.notice("trace", by=by, value=value, packets=packets, uid=peer_uid(request))
        try:
            number, lines, sessions = await self._traces.open(by, value, packets)
        except TracesError as e:
            return line_answer(409, str(e))
        response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
        try:
            await response.prepare(request)
            await self._traces.carry(response, lines, sessions)
        finally:
            await self._traces.close(number)
        return response
