#!/usr/bin/env python3
"""CPU of whole stateless MPPE packets (key change, key schedule, payload), against OpenSSL.

The yardstick is OpenSSL's low-level calls (SHA1_Init ... and RC4) in a C program compiled
on the spot, one packet after the other. Both are measured turn by turn in this run, in CPU
time of one thread; figures are the least and the median of the rounds. Rows of 0 octets are
the keys alone: a change (SHA-1, schedule, 16 octets) and the packet's own schedule. Needs gcc
and libcrypto.so.3.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from fastpath import mppe
from tests.bench.results import Result, arguments, cannot

YARDSTICK: Final = r"""
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
typedef struct { unsigned x, y, data[256]; } rc4;
typedef struct { unsigned h[5], nl, nh, data[16], num; } sha;
extern void RC4_set_key(rc4 *, int, const unsigned char *);
extern void RC4(rc4 *, size_t, const unsigned char *, unsigned char *);
extern int SHA1_Init(sha *), SHA1_Update(sha *, const void *, size_t);
extern int SHA1_Final(unsigned char *, sha *);
static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return t.tv_sec * 1e9 + t.tv_nsec;
}
int main(int argc, char **argv)
{
    int size = atoi(argv[1]), packets = atoi(argv[2]), rounds = atoi(argv[3]);
    int spread = atoi(argv[4]);
    static unsigned char data[256][2304], zeros[40], f2[40], start[16], key[16], fresh[20];
    memset(f2, 0xf2, 40);
    for (int r = 0; r < rounds; r++) {
        double t = now();
        for (int i = 0; i < packets; i++) {
            sha s;
            rc4 c;
            SHA1_Init(&s);
            SHA1_Update(&s, start, 16);
            SHA1_Update(&s, zeros, 40);
            SHA1_Update(&s, key, 16);
            SHA1_Update(&s, f2, 40);
            SHA1_Final(fresh, &s);
            RC4_set_key(&c, 16, fresh);
            RC4(&c, 16, fresh, key);
            RC4_set_key(&c, 16, key);
            RC4(&c, size - i * 7919 % (spread + 1), data[i], data[i]);
        }
        printf("%.1f\n", (now() - t) / packets);
    }
    return argc - 5;
}
"""
PACKETS: Final = 60
ROUNDS: Final = 60
TURNS: Final = 7


@dataclass(frozen=True, slots=True)
class Case:
    """A row: packets of `size` octets, or up to `spread` fewer; 0: no goal, no reference."""

    name: str
    size: int
    sessions: int
    goal: float = 0.0
    spread: int = 0
    reference_ns: float = 0.0  # the yardstick's, on the machine of results.REFERENCE


CASES: Final = (
    Case("mppe 1400 different sessions", 1400, PACKETS, 1.6, reference_ns=2735),
    Case("mppe 1400 one session", 1400, 1, 1.4, reference_ns=2735),
    Case("mppe 576 different sessions", 576, PACKETS, reference_ns=1765),
    Case("mppe 64 different sessions", 64, PACKETS, 2.0, reference_ns=1220),
    Case("mppe 64 one session", 64, 1, reference_ns=1220),
    Case("mppe 0..1400 mixed, different sessions", 1400, PACKETS, spread=1400),
    Case("mppe 0..1400 mixed, one session", 1400, 1, spread=1400),
    Case("mppe 0 different sessions", 0, PACKETS),
    Case("mppe 0 one session", 0, 1),
)


def yardstick(program: Path, case: Case) -> list[float]:
    """ns of each round of the C program."""
    words = (case.size, PACKETS, ROUNDS, case.spread)
    done = subprocess.run(
        [str(program), *map(str, words)], capture_output=True, text=True, check=True
    )
    return sorted(map(float, done.stdout.split()))


def main() -> int:
    """Measure all rows, and say so."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kernel", default="auto", choices=("auto", *mppe.usable()))
    words = arguments("mppe", parser)
    mppe.choose(words.kernel)
    result = Result("mppe")
    with tempfile.TemporaryDirectory() as folder:
        source, program = Path(folder, "yardstick.c"), Path(folder, "yardstick")
        source.write_text(YARDSTICK)
        command = ["gcc", "-O2", str(source), "-o", str(program), "-l:libcrypto.so.3"]
        try:
            subprocess.run(command, check=True, capture_output=True, text=True)
        except FileNotFoundError:
            return cannot("mppe", "no gcc: apt install gcc")
        except subprocess.CalledProcessError as e:
            return cannot("mppe", f"OpenSSL's yardstick can't be built: {e.stderr.strip()}")
        for case in CASES:
            row(result, case, program)
    result.note(f"kernels {mppe.kernels()}; ns of CPU a packet over {TURNS * ROUNDS} rounds")
    return result.finish(as_json=words.json)


def row(result: Result, case: Case, program: Path) -> None:
    """Ours and OpenSSL's, turn by turn; the ratio is the median of the turns'."""
    ours: list[tuple[float, float]] = []
    theirs: list[tuple[float, float]] = []
    for _ in range(TURNS):
        ours.append(mppe.measure(case.size, case.sessions, PACKETS, ROUNDS, case.spread))
        found = yardstick(program, case)
        theirs.append((found[0], statistics.median(found)))
    octets = sum(case.size - i * 7919 % (case.spread + 1) for i in range(PACKETS))
    openssl_ns = statistics.median(t[1] for t in theirs)
    result.figure(
        case.name,
        ns=min(o[0] for o in ours),
        ns_median=statistics.median(o[1] for o in ours),
        openssl_ns=min(t[0] for t in theirs),
        openssl_ns_median=openssl_ns,
        packets=PACKETS,
        octets=octets,
    )
    goal = {"at_least": case.goal} if case.goal else {}
    ratio = statistics.median(t[1] / o[1] for o, t in zip(ours, theirs, strict=True))
    result.ratio(case.name, ratio, **goal)
    if case.reference_ns:
        result.yardstick(f"{case.name}, OpenSSL", openssl_ns, case.reference_ns)


if __name__ == "__main__":
    sys.exit(main())
