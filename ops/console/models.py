"""What each answer of the API is: the source of ops/data/openapi.json.

Only for documents and tests; answers are made as plain dictionaries by View and others,
and the tests hold every one of them against these.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, RootModel

from ops import metrics
from ops.console.columns import COLUMNS
from ops.console.snapshot import STATES

Count = Annotated[int, Field(ge=0)]
Unix = Annotated[float, Field(ge=0, description="Seconds since 1970, UTC.")]
Seconds = Annotated[float, Field(ge=0)]
Rates = Annotated[list[Annotated[float, Field(ge=0)]], Field(description="One for each time.")]
Cell = str | int | float | None


def _enum(name: str, values: tuple[str, ...]) -> type[StrEnum]:
    # Members need names of Python's; what counts, also in the schema, is the value.
    return StrEnum(name, {f"v{at}": value for at, value in enumerate(values)})  # type: ignore[return-value]


EndCause = _enum("EndCause", metrics.END_CAUSES)
Column = _enum("Column", tuple(COLUMNS))


def _dashed(name: str) -> str:
    return name.replace("_", "-")


class Answer(BaseModel):
    """Nothing else is in it."""

    model_config = ConfigDict(extra="forbid")


class Row(Answer):
    """Members have dashes, as the columns of `pptpcon show`."""

    model_config = ConfigDict(extra="forbid", alias_generator=_dashed)


class Worker(Row):
    """A worker process and what its data thread carried."""

    worker: Count
    state: Literal["up", "down", "draining"]
    pid: int | None
    cpu: int | None = Field(description="CPU its data thread is pinned to.")
    sessions: Count
    rx_pkts: Count = Field(description="From subscribers.")
    tx_pkts: Count = Field(description="To subscribers.")
    rx_bytes_raw: Count
    tx_bytes_raw: Count
    drops: Count
    queued: Count
    restarts: Count
    data_cpu_s: Seconds
    control_cpu_s: Seconds
    data_beat_s: Seconds | None = Field(description="Age of its last heartbeat.")
    control_beat_s: Seconds | None


class PoolRow(Row):
    """An address pool; `total` null: fixed addresses outside of all pools."""

    pool: str
    total: Count | None
    used: Count
    available: Count | None
    next: str | None = Field(description="The pool to go on with when it is used up.")


class Config(Answer):
    """The configuration in force."""

    epoch: Count
    good: bool = Field(description="False: the last reload was refused, the old one stays.")
    loaded_unix: float


class Slots(Answer):
    """Rights to one session each."""

    capacity: Count
    used: Count


class Traffic(Answer):
    """Inner packets and octets since the start; rx is from subscribers."""

    rx_packets: Count
    tx_packets: Count
    rx_bytes: Count
    tx_bytes: Count


class Drops(Answer):
    """By reason."""

    receive: dict[str, Count]
    transmit: dict[str, Count]


class Status(Answer):
    """Everything in sums; names nobody."""

    version: str
    name: str = Field(description="server.name")
    ready: bool
    not_ready: list[str]
    started_unix: float
    uptime_s: Count
    cpu_percent: float = Field(ge=0, description="Of one CPU, all processes together.")
    memory_resident: Count
    memory_virtual: Count
    config: Config
    slots: Slots
    sessions: dict[Literal[STATES], Count]  # type: ignore[valid-type]
    connections: dict[str, Count]
    pptp: dict[str, Count]
    refusals: dict[Literal[metrics.REFUSALS], Count]  # type: ignore[valid-type]
    ended: dict[EndCause, Count]  # type: ignore[valid-type]
    authentications: dict[str, dict[Literal[metrics.AUTH_RESULTS], Count]]  # type: ignore[valid-type]
    traffic: Traffic
    drops: Drops
    pools: list[PoolRow]
    workers: list[Worker]


class Workers(RootModel[list[Worker]]):
    """A row for each worker."""


class IpPool(RootModel[list[PoolRow]]):
    """A row for each pool, and one for fixed addresses."""


class RadiusRow(Row):
    """A RADIUS server and what it is asked for."""

    server: str
    address: str | None = Field(description="HOST:PORT; null over TCP.")
    for_: Literal["logins", "accounting"] = Field(alias="for")
    state: str = Field(description='"up", or "dead N s".')
    priority: int
    pending: Count
    sent: Count
    again: Count
    accepted: Count
    rejected: Count
    lost: Count
    late: Count
    bad: Count
    faults: dict[str, Count]
    mean_ms: Seconds | None
    lost_5m: Count
    mean_ms_5m: Seconds | None


class Radius(Answer):
    """RADIUS servers, and accounting that is not delivered yet."""

    servers: list[RadiusRow]
    backlog: Count | None
    journal: str | None = Field(description="Null over TCP.")
    listen: str | None = Field(description="Null over TCP.")
    dynamic: dict[str, Count] | None


class HookFailure(Answer):
    """A program of [hooks] that did not end well."""

    unix: float
    hook: str
    name: str
    sid: str
    user: str
    result: str
    reason: str
    line: str = Field(description="The first that it printed.")


class Hooks(Answer):
    """Programs of [hooks]."""

    running: Count
    waiting: Count
    results: dict[str, Count] = Field(description='By "HOOK:RESULT".')
    failures: list[HookFailure] = Field(description="The newest, at most 20.")


class Version(BaseModel):
    """Versions and process numbers."""

    model_config = ConfigDict(extra="allow")

    version: str
    python: str
    layout: int
    bus: int
    kernel: str
    epoch: str
    pids: dict[str, int]


class WorkerSeries(Answer):
    """Rates of a worker, one for each time."""

    worker: Count
    rx_bits_per_s: Rates
    tx_bits_per_s: Rates
    drops_per_s: Rates


class History(Answer):
    """The last half hour, a value for each of `times`."""

    every_s: Seconds
    times: list[Unix]
    sessions: list[Count]
    cpu_percent: list[float]
    ended_per_s: Rates
    refused_per_s: Rates
    workers: list[WorkerSeries]


class FailureCause(Answer):
    """How often something failed, and what helps."""

    kind: Literal["ended", "refused", "connection"]
    cause: str
    recent: Count = Field(description="In the last window_s seconds.")
    total: Count
    words: str
    advice: str


class Failure(Row):
    """A call that ended for a failure; names nobody."""

    time: Unix
    cause: EndCause  # type: ignore[valid-type]
    words: str
    was_up: bool
    seconds: float


class Failures(Answer):
    """What went wrong of late."""

    window_s: Seconds
    causes: list[FailureCause]
    newest: list[Failure] | None = Field(description="Null: the dispatcher does not answer.")


class Sessions(Answer):
    """Rows of cells in the order of `columns`."""

    columns: list[Column]  # type: ignore[valid-type]
    rows: list[list[Cell]]
    total: Count = Field(description="How many match, without limit and offset.")
    slots_used: list[Count] = Field(description="By worker, at the same moment.")


class Session(BaseModel):
    """All about a session: each column of /api/sessions, and what was negotiated."""

    model_config = ConfigDict(extra="allow", alias_generator=_dashed)

    sid: str = Field(pattern="^[0-9a-f]{16}$")
    type: Literal["pptp"]
    username: str | None
    ip: str | None
    csid: str = Field(description="The subscriber's outer address.")
    called: str
    worker: Count
    state: Literal[STATES]  # type: ignore[valid-type]
    pool: str | None


class FoundSessions(RootModel[Annotated[list[Session], Field(min_length=1)]]):
    """Those of that name: a user may have several."""


class End(Row):
    """A call that ended."""

    time: Unix
    sid: str
    username: str | None
    ip: str | None
    csid: str
    cause: EndCause  # type: ignore[valid-type]
    was_up: bool
    seconds: float
    rx_bytes_raw: Count
    tx_bytes_raw: Count
    reason: str


class Ends(RootModel[list[End]]):
    """Newest first."""


class Ban(Row):
    """A user or source that failed to log in too often."""

    kind: str
    name: str
    seconds_left: float
    in_a_row: int


class Bans(RootModel[list[Ban]]):
    """Those that hold."""
