#!/usr/bin/env python3
"""CPU of whole stateless MPPE packets (key change, key schedule, payload), against OpenSSL.

The yardstick is OpenSSL's low-level calls (SHA1_Init ... and RC4) in a C program compiled
on the spot, one packet after the other. Both are measured turn by turn in this run, in CPU
time of one thread; figures are the least and the median of the rounds. Needs gcc and
libcrypto.so.3.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from fastpath import mppe

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
            RC4(&c, size, data[i], data[i]);
        }
        printf("%.1f\n", (now() - t) / packets);
    }
    return argc - 4;
}
"""
PACKETS: Final = 60
ROUNDS: Final = 60
TURNS: Final = 7
CASES: Final = (
    ("1400 octets, different sessions", 1400, PACKETS, 1.6),
    ("1400 octets, one session", 1400, 1, 1.4),
    ("576 octets, different sessions", 576, PACKETS, 0.0),
    ("64 octets, different sessions", 64, PACKETS, 2.0),
)


def yardstick(program: Path, size: int) -> list[float]:
    """ns of each round of the C program."""
    done = subprocess.run(
        [str(program), str(size), str(PACKETS), str(ROUNDS)],
        capture_output=True,
        text=True,
        check=True,
    )
    return sorted(map(float, done.stdout.split()))


def main() -> int:
    """Print the table; exit 1 if a goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    figures: dict[str, dict[str, float]] = {}
    ratios: dict[str, float] = {}
    met: dict[str, bool] = {}
    with tempfile.TemporaryDirectory() as folder:
        source, program = Path(folder, "yardstick.c"), Path(folder, "yardstick")
        source.write_text(YARDSTICK)
        subprocess.run(
            ["gcc", "-O2", str(source), "-o", str(program), "-l:libcrypto.so.3"], check=True
        )
        for name, size, sessions, goal in CASES:
            ours: list[tuple[float, float]] = []
            theirs: list[tuple[float, float]] = []
            for _ in range(TURNS):
                ours.append(mppe.measure(size, sessions, PACKETS, ROUNDS))
                found = yardstick(program, size)
                theirs.append((found[0], statistics.median(found)))
            best = min(o[0] for o in ours), min(t[0] for t in theirs)
            middle = statistics.median(o[1] for o in ours), statistics.median(t[1] for t in theirs)
            ratio = statistics.median(t[1] / o[1] for o, t in zip(ours, theirs, strict=True))
            figures[name] = {"ns": best[0], "ns_median": middle[0], "openssl_ns": best[1]}
            figures[name]["openssl_ns_median"] = middle[1]
            ratios[name] = ratio
            if goal:
                met[name] = ratio >= goal
            if not args.json:
                print(
                    f"{name:34} {best[0]:6.0f} ({middle[0]:6.0f}) ns  OpenSSL {best[1]:6.0f}"
                    f" ({middle[1]:6.0f}) ns  {ratio:.2f} x faster"
                    + (f"  goal {goal}" if goal else "")
                )
    if args.json:
        goals = {name: goal for name, _, _, goal in CASES if goal}
        result: dict[str, object] = {"kernels": mppe.kernels(), "figures": figures}
        result |= {"ratios": ratios, "goals": goals, "met": met}
        print(json.dumps(result))
    else:
        print(f"kernels: {mppe.kernels()}; least (median) of {TURNS * ROUNDS} rounds")
    return 0 if all(met.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
