"""The HTTP side: which path answers what, on which listener.

`public` is for the TCP listener of [metrics]: sums for all, names and addresses of
subscribers for who brings a token (ops.console.guard). `control` is for the Unix socket,
which only root and our group can open: also the power to end sessions. What each answers
stands in ops.console.models, from which the OpenAPI document is made.
"""

from __future__ import annotations

import gzip
import time
from collections.abc import Awaitable, Callable
from importlib import resources
from typing import Any, Final

from aiohttp import web
from prometheus_client.exposition import choose_encoder

from ops.console import failures, listing, past, samples
from ops.console import snapshot as snapshots
from ops.console.bus import Bus, BusError, BusTimeoutError
from ops.console.collector import OpenMetricsCollector, TableCollector
from ops.console.guard import Guard
from ops.console.history import History
from ops.console.listing import ListingError
from ops.console.operations import Operations
from ops.console.page import Page
from ops.console.requests import (
    API_HEADERS,
    BadRequest,
    body_of,
    json_answer,
    line_answer,
    peer_uid,
    query_of,
)
from ops.console.view import View, plain
from ops.log import Log
from ops.ranges import format_address, parse_address
from workers.policy import NOTHING_SAID, PolicyError, pack_changes

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

BODY_MAX: Final = 4096
VALUE_MAX: Final = 512
SID_DIGITS: Final = 16
NUMBER_DIGITS: Final = 6
HEXADECIMAL: Final = frozenset("0123456789abcdef")
GZIP_LEVEL: Final = 3  # a scrape page shrinks to a tenth at any level
SELECTORS: Final = ("sid", "username", "ip", "csid", "if", "all", "sids")
SIDS_MAX: Final = 200  # in one request
CONTROL_ONLY: Final = "only on the control socket; use `pptpcon`"
NO_TOKENS: Final = (
    "names subscribers: only on the control socket (`pptpcon show`), or with a token once"
    " console.token_file is set"
)
WANTED: Final = "wants `Authorization: Bearer TOKEN`, with one of console.token_file"
UNKNOWN_HOST: Final = (
    "asked by a name that is not ours; use the address, or add the name to console.hosts"
)
LATELY_S: Final = 300.0
RECENT_FOR_S: Final = 5.0  # how long one answer of the dispatcher does for all who ask
# Checked by who asks them, told by any name: Prometheus and balancers have their own.
ANY_HOST: Final = frozenset({"/metrics", "/healthz", "/readyz"})


def selector(by: object, value: object) -> tuple[str, str]:
    """What Terminate is to name, in the one form the dispatcher compares with."""
    if by not in SELECTORS:
        raise BadRequest(f"by: {str(by)[:40]!r} is not one of {', '.join(SELECTORS)}")
    if not isinstance(value, str):
        raise BadRequest("value: not a string")
    if by == "all":
        if value:
            raise BadRequest("value: must be empty for all")
        return "all", ""
    if not value:
        raise BadRequest(f"value: empty; name the {by}")
    if by == "sids":
        sids = value.split(",")
        if len(sids) > SIDS_MAX:
            raise BadRequest(f"value: more than {SIDS_MAX} sids")
        return "sids", ",".join(selector("sid", sid)[1] for sid in sids)
    if not value.isprintable() or len(value) > VALUE_MAX:
        raise BadRequest("value: too long, or not printable; name the sid instead")
    if by == "sid":
        if not 1 <= len(value) <= 16 or set(value.lower()) - set("0123456789abcdef"):
            raise BadRequest(f"value: {value[:40]!r} is no sid of up to 16 hexadecimal digits")
        return "sid", f"{int(value, 16):016x}"
    if by in ("ip", "csid"):
        try:
            return str(by), format_address(parse_address(value))
        except ValueError as e:
            raise BadRequest(f"value: {e}") from None
    if by == "if":
        number = value[len(value.rstrip("0123456789")) :]
        if not number or not value.isascii() or len(number) > NUMBER_DIGITS:
            raise BadRequest(f"value: {value[:40]!r} is no interface of `show sessions ifname`")
        return "if", str(int(number))
    return str(by), value


class Api:
    """Both applications."""

    def __init__(
        self,
        view: View,
        collector: TableCollector,
        bus: Bus,
        log: Log,
        guard: Guard,
        history: History,
    ) -> None:
        self._view = view
        self._collector = collector
        self._bus = bus
        self._log = log
        self._guard = guard
        self._history = history
        self._page = Page((resources.files("ops.console") / "page.html").read_text("utf-8"))
        self._openapi = (resources.files("ops") / "data" / "openapi.json").read_bytes()
        self._recent: tuple[float, list[dict[str, Any]] | None] = (0.0, None)

    def public(self) -> web.Application:
        """For the TCP listener."""
        app = self._application([self._errors, self._strangers])
        app.router.add_get("/", self.page)
        app.router.add_get("/api/radius", self.radius_sums)
        for path, handler in self._naming():
            app.router.add_get(path, self._with_token(handler))
        app.router.add_route("*", "/api/{rest:.*}", self.control_only)
        return app

    def control(self, operations: Operations) -> web.Application:
        """For the control socket."""
        app = self._application([self._errors])
        for path, handler in self._naming():
            app.router.add_get(path, handler)
        app.router.add_get("/api/radius", self.radius)
        app.router.add_post("/api/terminate", self.terminate)
        app.router.add_post("/api/change", self.change)
        app.router.add_post("/api/unban", self.unban)
        for path, handler in operations.routes():
            app.router.add_post(path, handler)
        return app

    def _naming(self) -> list[tuple[str, Handler]]:
        """What names subscribers."""
        return [
            ("/api/sessions", self.sessions),
            ("/api/session/{name:.+}", self.session),
            ("/api/ends", self.ends),
            ("/api/bans", self.bans),
            ("/api/hooks", self.hooks),
        ]

    def _application(self, middlewares: list[Any]) -> web.Application:
        app = web.Application(middlewares=middlewares, client_max_size=BODY_MAX)
        app.router.add_get("/metrics", self.metrics)
        app.router.add_get("/healthz", self.healthz)
        app.router.add_get("/readyz", self.readyz)
        app.router.add_get("/api/status", self.status)
        app.router.add_get("/api/stat", self.status)
        app.router.add_get("/api/workers", self.workers)
        app.router.add_get("/api/ippool", self.ippool)
        app.router.add_get("/api/version", self.version)
        app.router.add_get("/api/history", self.history)
        app.router.add_get("/api/failures", self.failures)
        app.router.add_get("/api/openapi.json", self.openapi)
        return app

    @web.middleware
    async def _strangers(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Rate and Host of what comes by TCP."""
        source, now = request.remote or "", time.monotonic()
        wait = self._guard.requests.wait_s(source, now)
        if wait:
            return line_answer(429, "too many requests", {"Retry-After": str(int(wait) + 1)})
        self._guard.requests.take(source, now)
        if request.path not in ANY_HOST and not self._guard.knows_host(request.host):
            return line_answer(421, UNKNOWN_HOST)
        return await handler(request)

    def _with_token(self, handler: Handler) -> Handler:
        async def checked(request: web.Request) -> web.StreamResponse:
            if not self._guard.has_tokens:
                return line_answer(403, NO_TOKENS)
            source, now = request.remote or "", time.monotonic()
            wait = self._guard.wrong.wait_s(source, now)
            if wait:
                return line_answer(
                    429, "too many wrong tokens", {"Retry-After": str(int(wait) + 1)}
                )
            said = request.headers.get("Authorization", "")
            if self._guard.knows_token(said):
                return await handler(request)
            if said:
                self._guard.wrong.take(source, now)
                self._log.notice("wrong token", source=source, path=request.path[:80])
            return line_answer(401, WANTED, {"WWW-Authenticate": 'Bearer realm="pptpcon"'})

        return checked

    @web.middleware
    async def _errors(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            return await handler(request)
        except (BadRequest, ListingError) as e:
            return line_answer(400, str(e))
        except web.HTTPNotFound:
            return line_answer(404, "no such page; see / or ARCHITECTURE.md")
        except web.HTTPMethodNotAllowed as e:
            allowed = ", ".join(sorted(e.allowed_methods))
            return line_answer(405, f"method not allowed here; use {allowed}", {"Allow": allowed})
        except web.HTTPException as e:
            return line_answer(e.status, e.reason)
        except ConnectionError:
            raise
        except Exception as e:
            self._log.error("request failed", path=request.path[:80], error=repr(e)[:200])
            return line_answer(500, "internal error; the log has more")

    async def page(self, request: web.Request) -> web.Response:
        """The status page."""
        return web.Response(
            body=self._page.body, content_type="text/html", headers=self._page.headers
        )

    async def control_only(self, request: web.Request) -> web.Response:
        """What the TCP listener does not tell."""
        return line_answer(403, CONTROL_ONLY)

    async def metrics(self, request: web.Request) -> web.Response:
        """The scrape: made whole, so that it leaves in one piece."""
        encode, content_type = choose_encoder(request.headers.get("Accept", ""))
        is_open = content_type.startswith("application/openmetrics-text")
        body = encode(OpenMetricsCollector(self._collector) if is_open else self._collector)
        headers = {"Content-Type": content_type, "Vary": "Accept, Accept-Encoding"}
        if "gzip" in request.headers.get("Accept-Encoding", ""):
            headers["Content-Encoding"] = "gzip"
            body = gzip.compress(body, GZIP_LEVEL)
        return web.Response(body=body, headers=headers)

    async def healthz(self, request: web.Request) -> web.Response:
        """Alive: the console answers and has the table."""
        return line_answer(200, "ok")

    async def readyz(self, request: web.Request) -> web.Response:
        """Whether calls are served."""
        reasons = self._view.not_ready()
        return (
            line_answer(503, "not ready: " + ", ".join(reasons))
            if reasons
            else line_answer(200, "ready")
        )

    async def status(self, request: web.Request) -> web.Response:
        """Sums."""
        query_of(request)
        return json_answer(self._view.status())

    async def workers(self, request: web.Request) -> web.Response:
        """A row a worker."""
        query_of(request)
        return json_answer(self._view.workers())

    async def radius(self, request: web.Request) -> web.Response:
        """RADIUS servers, and what accounting has not delivered."""
        query_of(request)
        return json_answer(self._radius())

    async def hooks(self, request: web.Request) -> web.Response:
        """Programs of [hooks]."""
        query_of(request)
        said = self._view.hooks()
        return json_answer(
            {
                "running": said.get("running", 0),
                "waiting": said.get("waiting", 0),
                "results": said.get("results", {}),
                "failures": said.get("failures", []),
            }
        )

    async def radius_sums(self, request: web.Request) -> web.Response:
        """The same without addresses and paths."""
        query_of(request)
        found = self._radius()
        for row in found["servers"]:
            row["address"] = None
        return json_answer({**found, "journal": None, "listen": None})

    def _radius(self) -> dict[str, Any]:
        said = self._view.accounts()
        known = {name: said.get(name) for name in ("backlog", "journal", "listen", "dynamic")}
        rows = self._view.radius()
        lately = self._history.lines(LATELY_S)
        for row in rows:
            kind = "auth" if row["for"] == "logins" else "acct"
            lost, mean_s = lately.get((row["server"], kind), (0, None))
            row["lost-5m"] = lost
            row["mean-ms-5m"] = None if mean_s is None else round(1000 * mean_s, 2)
        return {"servers": rows, **known}

    async def history(self, request: web.Request) -> web.Response:
        """The last half hour, for graphs."""
        query_of(request)
        return json_answer(self._history.series())

    async def failures(self, request: web.Request) -> web.Response:
        """What went wrong of late; `newest` is null where the dispatcher does not tell."""
        query_of(request)
        found = failures.by_cause(self._history, samples.counts(self._view))
        return json_answer({**found, "newest": await self._newest()})

    async def _newest(self) -> list[dict[str, Any]] | None:
        """However many pages are open, the dispatcher is asked once in a while."""
        until, rows = self._recent
        now = time.monotonic()
        if now >= until:
            self._recent = (now + RECENT_FOR_S, rows)
            try:
                rows = failures.newest(await self._bus.ends("", failures.ASKED))
            except BusError:
                rows = None
            self._recent = (now + RECENT_FOR_S, rows)
        return rows

    async def openapi(self, request: web.Request) -> web.Response:
        """What this API is, for programs."""
        query_of(request)
        return web.Response(
            body=self._openapi, content_type="application/json", headers=API_HEADERS
        )

    async def ippool(self, request: web.Request) -> web.Response:
        """A row a pool."""
        query_of(request)
        return json_answer(self._view.ippool())

    async def version(self, request: web.Request) -> web.Response:
        """Versions and process numbers."""
        query_of(request)
        return json_answer(self._view.versions())

    async def sessions(self, request: web.Request) -> web.Response:
        """Rows; see ops.console.listing."""
        query = listing.parse(query_of(request, *listing.PARAMETERS))
        return json_answer(query.answer(snapshots.take(self._view.table)))

    async def session(self, request: web.Request) -> web.Response:
        """All about the sessions with this sid, user name or address."""
        query_of(request)
        found = self._view.find(request.match_info["name"])
        return json_answer(found) if found else line_answer(404, "no such session")

    async def ends(self, request: web.Request) -> web.Response:
        """Calls that ended, newest first: `name` a sid, user or address, at most `limit`."""
        query = query_of(request, "name", "limit")
        limit = listing.number("limit", query.get("limit", "0"))
        name = query.get("name", "")
        if len(name) > VALUE_MAX:
            raise BadRequest("name: too long")
        if name and len(name) <= SID_DIGITS and not set(name.lower()) - HEXADECIMAL:
            # A user may be called so, too.
            sid = name.lower().rjust(SID_DIGITS, "0")
        else:
            sid = name
        try:
            calls = await self._bus.ends(name, limit)
            if not calls and sid != name:
                calls = await self._bus.ends(sid, limit)
        except BusTimeoutError as e:
            return line_answer(504, str(e))
        except BusError as e:
            return line_answer(502, str(e))
        return json_answer([past.row(call) for call in calls])

    async def terminate(self, request: web.Request) -> web.Response:
        """{"by": ..., "value": ..., "soft": ...} -> {"count": N}."""
        body = await body_of(request, "by", "value", "soft")
        soft = body.get("soft", True)
        if not isinstance(soft, bool):
            raise BadRequest("soft: neither true nor false")
        by, value = selector(body.get("by"), body.get("value", ""))
        try:
            count = await self._bus.terminate(by, value, soft)
        except BusTimeoutError as e:
            return line_answer(504, str(e))
        except BusError as e:
            return line_answer(502, str(e))
        self._log.notice(
            "terminate", by=by, value=value, soft=soft, sessions=count, uid=peer_uid(request)
        )
        return json_answer({"count": count})

    async def change(self, request: web.Request) -> web.Response:
        """{"by": ..., "value": ..., "changes": {FIELD: VALUE}} -> {"count": N, "errors": [...]}.

        Fields and types are those of workers.policy.Policy.
        """
        body = await body_of(request, "by", "value", "changes")
        by, value = selector(body.get("by"), body.get("value", ""))
        changes = body.get("changes")
        if not isinstance(changes, dict) or not changes:
            raise BadRequest("changes: must be {FIELD: VALUE, ...}")
        try:
            NOTHING_SAID.changed(changes)
        except PolicyError as e:
            raise BadRequest(f"changes: {e}") from None
        try:
            count, errors = await self._bus.change(by, value, pack_changes(changes))
        except BusTimeoutError as e:
            return line_answer(504, str(e))
        except BusError as e:
            return line_answer(502, str(e))
        self._log.notice(
            "change",
            by=by,
            value=value,
            fields=",".join(sorted(changes)),
            sessions=count,
            uid=peer_uid(request),
        )
        return json_answer({"count": count, "errors": errors})

    async def bans(self, request: web.Request) -> web.Response:
        """A row a ban."""
        query_of(request)
        try:
            bans = await self._bus.bans()
        except BusTimeoutError as e:
            return line_answer(504, str(e))
        except BusError as e:
            return line_answer(502, str(e))
        return json_answer(
            [
                {"kind": kind, "name": plain(name), "seconds-left": left, "in-a-row": level}
                for kind, name, left, level in bans
            ]
        )

    async def unban(self, request: web.Request) -> web.Response:
        """{"kind": "user" | "source" | "all", "name": ...} -> {"count": N}."""
        body = await body_of(request, "kind", "name")
        kind, name = body.get("kind"), body.get("name", "")
        if kind not in ("user", "source", "all"):
            raise BadRequest("kind: must be user, source or all")
        if not isinstance(name, str) or len(name) > VALUE_MAX or bool(name) == (kind == "all"):
            raise BadRequest("name: must be empty for all, else the user or the address")
        try:
            count = await self._bus.unban(kind, name)
        except BusTimeoutError as e:
            return line_answer(504, str(e))
        except BusError as e:
            return line_answer(502, str(e))
        self._log.notice("unban", kind=kind, name=name, count=count, uid=peer_uid(request))
        return json_answer({"count": count})
