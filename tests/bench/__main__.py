"""`python -m tests.bench [NAME ...] [--json]`: the benches one after the other.

Each is a program of its own in this folder and can be run alone, with more options. The
machine must do nothing else meanwhile. Exit status: 0 all goals are met, 1 some are not,
3 a yardstick was too slow for the run to count, 77 something is lacking.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from typing import Final

from tests.bench import build
from tests.bench.results import cannot

BENCHES: Final = (
    "mppe",
    "tun",
    "gre",
    "whole",
    "imix",
    "scaling",
    "latency",
    "datapath",
    "numbered",
    "guest",
    "shaping",
    "scrape",
    "routes",
    "radius",
)


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(BENCHES)}")
    parser.add_argument("--json", action="store_true", help="one object a bench, one a line")
    words = parser.parse_args()
    for name in words.names:
        if name not in BENCHES:
            parser.error(f"no bench called {name}: there are {', '.join(BENCHES)}")
    if stale := build.why_stale():
        return cannot("bench", stale)
    worst = 0
    for name in words.names or BENCHES:
        if not words.json:
            print(f"\n-- {name}", flush=True)
        argv = [sys.executable, "-m", f"tests.bench.{name}", *(["--json"] if words.json else [])]
        worst = max(worst, abs(subprocess.run(argv, check=False, cwd=build.ROOT).returncode))
    return worst


if __name__ == "__main__":
    sys.exit(main())
