"""Types of fastpath/layout.pyx: the session table as Python sees it.

Fields, their units and the process that writes each of them: layout.pxd.
"""

from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

MAGIC: Final[bytes]
VERSION: Final[int]
PAGE: Final[int]

# D's state of a record
FREE: Final[int]
USED: Final[int]
ENDING: Final[int]
# C's state of a link
STATE_NONE: Final[int]
STATE_STARTING: Final[int]
STATE_ACTIVE: Final[int]
STATE_FINISHING: Final[int]
# T's state of a session
DATA_IS_NONE: Final[int]
DATA_IS_INSTALLED: Final[int]
DATA_IS_UP: Final[int]

STATIC_POOL: Final[int]
BLOB_MAX: Final[int]
NETWORKS_MAX: Final[int]
NAME_MAX: Final[int]
DATA_COUNTERS: Final[tuple[str, ...]]
GRE_WAYS: tuple[str, ...]  # xdp: sending needs no program, so there is no mode
HISTOGRAM_NAMES: Final[tuple[str, ...]]
BUCKET_BOUNDS: Final[tuple[int, ...]]
SETUP_PHASE_NAMES: Final[tuple[str, ...]]
SETUP_BOUNDS: Final[tuple[float, ...]]
DURATION_BOUNDS: Final[tuple[int, ...]]

class Session(NamedTuple):
    index: int  # type: ignore[assignment]  # the record's, not tuple.index
    generation: int
    allot: int
    worker: int
    pool: int
    call_id: int
    peer_call_id: int
    local_address: int
    peer_address: int
    peer_port: int
    peer_window: int
    peer_speed: int
    sid: int
    connection: int
    allotted_ns: int
    granted_address: int
    granted_local: int
    answered: bool
    user_mark: int
    realm_mark: int
    state: int
    auth: int
    mppe_rx_bits: int
    mppe_tx_bits: int
    stateful: int
    framing: int
    mtu: int
    mru: int
    echo_interval_s: int
    echo_failures: int
    address: int
    local: int
    magic: int
    peer_magic: int
    up_ns: int
    name: str
    data_state: int
    rx_packets: int
    rx_bytes: int
    tx_packets: int
    tx_bytes: int
    drops: int
    gre_rx_packets: int
    last_rx_ns: int
    tx_seq: int
    rx_seq: int
    tx_count: int
    rx_count: int
    iid: bytes
    our_iid: bytes
    filter: int
    rate_up: int
    rate_down: int
    burst_up: int
    burst_down: int
    ends_ns: int  # CLOCK_MONOTONIC; 0: never
    idle_s: int
    idle_by: int
    volume_up: int
    volume_down: int
    volume: int
    last_data_ns: int
    gre_lost: int

class Worker(NamedTuple):
    pid: int
    starts: int
    state: int
    cpu: int
    data_tid: int
    control_tid: int
    data_beat_ns: int
    control_beat_ns: int
    poison_sid: int
    kernel: int
    bus_queue: int
    loop_lag_ns: int
    writes: int

class LayoutError(Exception): ...

def table_size(capacity: int, workers: int) -> int: ...

class Table:
    def __init__(self, fd: int, writable: bool = True) -> None: ...
    @staticmethod
    def create(fd: int, capacity: int, workers: int, epoch: int) -> Table: ...
    @staticmethod
    def attach(fd: int, writable: bool = True) -> Table: ...

    # reading, by anyone
    @property
    def writable(self) -> bool: ...
    @property
    def capacity(self) -> int: ...
    @property
    def workers(self) -> int: ...
    @property
    def epoch(self) -> int: ...
    @property
    def started_ns(self) -> int: ...
    @property
    def started_unix(self) -> int: ...
    @property
    def stopping(self) -> bool: ...
    @property
    def draining(self) -> list[int]: ...
    @property
    def pids(self) -> dict[str, int]: ...
    @property
    def config(self) -> tuple[int, bool, int]: ...
    @property
    def dispatcher_beat_ns(self) -> int: ...
    def allot_state(self, index: int) -> tuple[int, int]: ...
    def session(self, index: int) -> Session: ...
    def drops(self, index: int) -> dict[str, int]: ...
    def meters(self) -> bytes: ...
    def sessions(self) -> list[Session]: ...
    def used(self) -> list[int]: ...
    def worker(self, worker: int) -> Worker: ...
    def data_counters(self, worker: int) -> dict[str, int]: ...
    def control_counters(self, worker: int) -> list[int]: ...
    def dispatcher_counters(self) -> list[int]: ...
    def netops_counters(self) -> list[int]: ...
    def histogram(self, worker: int, which: int) -> tuple[list[int], int]: ...
    def setup_times(self, worker: int, phase: int) -> tuple[list[int], float]: ...
    def durations(self) -> tuple[list[int], int]: ...
    def blob(self, index: int) -> bytes: ...
    def nets(self, index: int) -> list[tuple[bytes, int]]: ...
    def net_owner(self, octets: bytes, length: int, but: int) -> int: ...
    def granted6(self, index: int) -> tuple[tuple[bytes, int], ...]: ...

    # K, the keeper
    def set_pid(self, role: str, pid: int) -> None: ...
    def set_worker(self, worker: int, pid: int, up: bool) -> None: ...
    def set_stopping(self, stopping: bool = True) -> None: ...
    def set_config(self, good: bool) -> None: ...
    def set_ways(self, receive: str, send: str) -> None: ...
    @property
    def ways(self) -> tuple[str, str]: ...  # receive, send

    # D, the dispatcher
    def set_draining(self, workers: Iterable[int]) -> None: ...
    def allot(
        self,
        index: int,
        *,
        worker: int,
        call_id: int,
        peer_call_id: int,
        local_address: int,
        peer_address: int,
        peer_port: int,
        peer_window: int,
        peer_speed: int,
        connection: int,
    ) -> tuple[int, int]: ...
    def answered(self, index: int) -> None: ...
    def grant(
        self,
        index: int,
        address: int,
        local: int,
        pool: int,
        user_mark: int = 0,
        realm_mark: int = 0,
    ) -> None: ...
    def set_ending(self, index: int) -> None: ...
    def release(self, index: int) -> None: ...
    def dispatcher_count(self, slot: int, n: int = 1) -> None: ...
    def dispatcher_gauge(self, slot: int, value: int) -> None: ...
    def dispatcher_beat(self) -> None: ...
    def session_lasted(self, seconds: int) -> None: ...
    def bus_queue(self, worker: int, length: int) -> None: ...

    # netops
    def netops_count(self, slot: int, n: int = 1) -> None: ...

    # C, a worker's control thread
    def begin_link(self, index: int, generation: int) -> None: ...
    def set_state(self, index: int, state: int) -> None: ...
    def set_user(self, index: int, name: str, auth: int) -> None: ...
    def set_link(
        self,
        index: int,
        *,
        address: int,
        local: int,
        mtu: int,
        mru: int,
        mppe_rx_bits: int,
        mppe_tx_bits: int,
        stateful: int,
        framing: int,
        magic: int,
        peer_magic: int,
        echo_interval_s: int,
        echo_failures: int,
    ) -> None: ...
    def set_bounds(
        self,
        index: int,
        *,
        ends_ns: int,
        idle_s: int,
        idle_by: int,
        volume_up: int,
        volume_down: int,
        volume: int,
    ) -> None: ...
    def set_six(self, index: int, iid: bytes, our_iid: bytes) -> None: ...
    def set_limits(
        self,
        index: int,
        *,
        rate_up: int,
        rate_down: int,
        burst_up: int,
        burst_down: int,
        filter: int,
    ) -> None: ...
    def grant6(self, index: int, prefixes: tuple[tuple[bytes, int], ...]) -> None: ...
    def set_nets(self, index: int, found: Sequence[tuple[bytes, int]]) -> None: ...
    def write_blob(self, index: int, data: bytes) -> None: ...
    def session_set_up(self, worker: int, phase: int, ns: int) -> None: ...
    def loop_lag(self, worker: int, ns: int) -> None: ...
    def kernel_is(self, worker: int, number: int) -> None: ...
    def control_count(self, worker: int, slot: int, n: int = 1) -> None: ...
    def control_beat(self, worker: int, tid: int = 0) -> None: ...
