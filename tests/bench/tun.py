#!/usr/bin/env python3
"""CPU of the TUN alone: super-packets and coalescing, against one system call a packet.

Writing: the writer of the data thread (checksums verified, TCP segments of a flow joined)
into our TUN, against write() of each packet into a TUN without offload; both are forwarded
to the LAN and dropped there. Reading: super-packets of the LAN, read and taken apart by our
segmenter, against read() of each packet, which the kernel has taken apart. ns of CPU a packet of
1400 octets; `kernel` is what forwarding and queueing cost in the sender's call.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import statistics
import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from dispatcher import descriptors
from fastpath import tun
from ops.client import netns
from ops.client.netns import NetnsError
from ops.client.playground import why_not
from tests.bench import rig
from tests.bench.plain import INNER, STRIDE, SUPER, Burst, Counts, Plain, sessions
from tests.bench.results import BenchError, Result, arguments, cannot
from tests.bench.rig import Wire

PACKETS: Final = 256
FLOWS: Final = (1, 8)
BATCHES: Final = (64, 256)
SEGMENTS: Final = (8, 32)
# ns a packet on the reference machine, the slower end
WRITE_REFERENCE: Final = 3132.0
READ_REFERENCE: Final = 864.0


class Ends:
    """A namespace without sockets, two servers' with a TUN each: a plain one and ours."""

    def __init__(self) -> None:
        self._exits = ExitStack()

    def __enter__(self) -> Ends:
        enter = self._exits.enter_context
        try:
            self.base = enter(Wire(server_drops=True))
            self.plain_wire = enter(Wire())
            self.our_wire = enter(Wire())
            self.plain = self._tun(self.plain_wire, rig.plain_tun, "plain0")
            self.ours = self._tun(self.our_wire, lambda: descriptors.tun(0).fd, "pptp0")
        except BaseException:
            self._exits.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._exits.close()

    def _tun(self, wire: Wire, make: Any, name: str) -> int:
        fd: int = netns.inside(wire.ground.name("server"), make)
        self._exits.callback(os.close, fd)
        wire.set_up(name)
        wire.server("route", "add", rig.POOL, "dev", name)
        return fd


def inner(frames: Sequence[bytes]) -> bytes:
    """The inner packets of frames from clients without MPPE, one behind the other."""
    return b"".join(frame[-INNER:] for frame in frames)


def writing(result: Result, plain: Plain, ends: Ends, bursts: int) -> None:
    """Rows of the way to the LAN."""
    made = sessions(rig.calls(max(FLOWS)))
    burst = Burst.empty(PACKETS, STRIDE, PACKETS)
    starts = (ctypes.c_uint32 * PACKETS)(*(i * INNER for i in range(PACKETS)))
    sizes = (ctypes.c_uint32 * PACKETS)(*([INNER] * PACKETS))
    for flows in FLOWS:
        taken: dict[str, list[float]] = {}
        for _ in range(bursts):
            plain.make_up(
                made, flows, burst, run=1, encrypted=False, ethernet=ends.base.up_ethernet
            )
            packets = inner(burst.frames())
            counts = Counts()
            plain.lib.plain_write_each(
                *(ends.plain, packets, starts, sizes, ctypes.c_uint32(PACKETS)),
                ctypes.byref(counts),
            )
            if counts.packets != PACKETS:
                raise BenchError(f"{counts.packets} of {PACKETS} packets were written")
            taken.setdefault(f"write, write() each, {flows} flows", []).append(counts.cpu_ns)
            for batch in BATCHES:
                begin = plain.cpu_ns()
                writes, delivered = tun.measure_write(packets, INNER, batch, ends.ours)
                spent = plain.cpu_ns() - begin
                if delivered != PACKETS:
                    raise BenchError(f"{delivered} of {PACKETS} packets were delivered")
                row = f"write, ours, batches of {batch}, {flows} flows"
                taken.setdefault(row, []).append(spent)
                result.figure(row, writes_per_packet=writes / PACKETS)
        figures = {row: statistics.median(v) / PACKETS for row, v in taken.items()}
        for row, value in figures.items():
            result.figure(row, total_ns=value)
        plain_row = f"write, write() each, {flows} flows"
        for batch in BATCHES:
            row = f"write, ours, batches of {batch}, {flows} flows"
            result.ratio(row, figures[plain_row] / figures[row])
        result.yardstick(plain_row, figures[plain_row], WRITE_REFERENCE)


def reading(result: Result, plain: Plain, ends: Ends, bursts: int) -> None:
    """Rows of the way from the LAN."""
    made = sessions(rig.calls(1))
    for segments in SEGMENTS:
        burst = Burst.empty(PACKETS // segments, SUPER, PACKETS)
        taken: dict[str, list[float]] = {"base": [], "pk": [], "p": [], "ok": [], "o": []}
        for _ in range(bursts):
            plain.make_down(made, 1, burst, segments=segments, ethernet=ends.base.down_ethernet)
            for wire in (ends.base, ends.plain_wire, ends.our_wire):
                view = memoryview(burst.data).cast("B")
                for at in burst.at:
                    view[at + 10 : at + 24] = wire.down_ethernet
                sent, got = Counts(), Counts()
                with rig.ahead():
                    plain.inject(wire.from_lan.fileno(), burst, sent)
                    if wire is ends.plain_wire:
                        plain.lib.plain_read_each(ends.plain, ctypes.byref(got))
                    elif wire is ends.our_wire:
                        begin = plain.cpu_ns()
                        _, got.packets, _ = tun.measure_read(ends.ours, rig.MTU)
                        got.cpu_ns = plain.cpu_ns() - begin
                if wire is ends.base:
                    taken["base"].append(sent.cpu_ns)
                    continue
                if got.packets != PACKETS:
                    raise BenchError(f"{got.packets} of {PACKETS} packets were read")
                key = "p" if wire is ends.plain_wire else "o"
                taken[key].append(got.cpu_ns)
                taken[key + "k"].append(sent.cpu_ns)
        figure = {key: statistics.median(values) / PACKETS for key, values in taken.items()}
        totals = {}
        for key, label in (("p", "read, read() each"), ("o", "read, ours")):
            row = f"{label}, from {segments} segments"
            kernel = figure[key + "k"] - figure["base"]
            totals[key] = kernel + figure[key]
            result.figure(row, kernel_ns=kernel, read_ns=figure[key], total_ns=totals[key])
        result.ratio(f"read, {segments} segments", totals["p"] / totals["o"])
        result.yardstick(f"read() each, from {segments}", figure["p"], READ_REFERENCE)


def bench(bursts: int) -> Result:
    """All rows."""
    result = Result("tun")
    plain = Plain()
    rig.pin(rig.CPU)
    with Ends() as ends:
        writing(result, plain, ends, bursts)
        reading(result, plain, ends, bursts)
    return result


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--bursts", type=int, default=60, help=f"of {PACKETS} packets each")
    words = arguments("tun", parser)
    lacking = why_not() or rig.why_not()
    if lacking:
        return cannot("tun", lacking)
    try:
        result = bench(words.bursts)
    except (BenchError, NetnsError, OSError, subprocess.SubprocessError) as e:
        print(f"tun: {e}", file=sys.stderr)
        return 1
    return result.finish(as_json=words.json)


if __name__ == "__main__":
    sys.exit(main())
