"""What every bench says in the end: figures, ratios, goals, and whether the run counts.

A yardstick is measured beside ours in each run. Where the machine is of the kind that the
reference figures were taken on, a yardstick over 25 % slower than those makes the run
invalid: something else was running, and our own figures mean as little as the yardstick's.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from tests.bench import build

SLACK: Final = 1.25
# Zen 4 under KVM, two CPUs: family and model as in /proc/cpuinfo.
REFERENCE: Final = ("AuthenticAMD", "25", "17")
REFERENCE_NAME: Final = "an AMD EPYC (family 25 model 17, virtual)"
NOT_VALID: Final = 3  # exit status of a run whose yardstick was too slow
NOT_MET: Final = 1
CANNOT: Final = 77


class BenchError(Exception):
    """A run can't be made; says why."""


def processor() -> dict[str, str]:
    """The first CPU's lines of /proc/cpuinfo."""
    found: dict[str, str] = {}
    for line in Path("/proc/cpuinfo").read_text("utf-8", "replace").splitlines():
        name, _, value = line.partition(":")
        if not name.strip():
            break
        found[name.strip()] = value.strip()
    return found


def like_reference() -> bool:
    """Is this the kind of machine that the yardsticks' reference figures are of?"""
    cpu = processor()
    same = tuple(cpu.get(k, "") for k in ("vendor_id", "cpu family", "model")) == REFERENCE
    return same and "hypervisor" in cpu.get("flags", "").split()


def cpu_name() -> str:
    """The CPU by name; virtual ones are told apart by family and model only."""
    cpu = processor()
    name = cpu.get("model name", platform.machine())
    if "cpu family" in cpu:
        name += f" (family {cpu['cpu family']} model {cpu.get('model', '?')})"
    return name


def machine() -> dict[str, str | int | float]:
    """The machine by name, so that a result can be told from another machine's."""
    cpu = processor()
    return {
        "cpu": cpu_name(),
        "cpus": os.cpu_count() or 1,
        "virtual": "hypervisor" in cpu.get("flags", "").split(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "load": round(os.getloadavg()[0], 2),
    }


@dataclass(slots=True)
class Result:
    """One bench's outcome, gathered row by row. Times in ns of CPU unless a name says else."""

    bench: str
    figures: dict[str, dict[str, float]] = field(default_factory=dict)
    ratios: dict[str, float] = field(default_factory=dict)
    goals: dict[str, dict[str, float]] = field(default_factory=dict)
    met: dict[str, bool] = field(default_factory=dict)
    invalid: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def figure(self, row: str, **values: float) -> None:
        """Raw values of a row; more may be added to it."""
        self.figures.setdefault(row, {}).update(values)

    def ratio(self, row: str, value: float, **goal: float) -> None:
        """A ratio, and with `at_least` or `at_most` the goal it is held against."""
        self.ratios[row] = value
        if goal:
            self.goals[row] = goal
            self.met[row] = value >= goal.get("at_least", value) and value <= goal.get(
                "at_most", value
            )

    def yardstick(self, name: str, value: float, reference: float) -> None:
        """Hold a yardstick against what such a machine gives; both in the same unit."""
        if not like_reference():
            text = (
                f"yardsticks are not judged: the reference figures of LIMITS.md are of "
                f"{REFERENCE_NAME}, this CPU is another, {cpu_name()}"
            )
            if text not in self.notes:
                self.notes.append(text)
        elif value > reference * SLACK:
            self.invalid.append(
                f"yardstick {name}: {value:.4g}, more than 25 % slower than the {reference:g} of "
                "such a machine: let nothing else run, and repeat"
            )

    def note(self, text: str) -> None:
        """A line for people."""
        self.notes.append(text)

    def as_dict(self) -> dict[str, Any]:
        """The object that --json prints."""
        return {
            "bench": self.bench,
            "machine": machine(),
            "figures": self.figures,
            "ratios": self.ratios,
            "goals": self.goals,
            "met": self.met,
            "valid": not self.invalid,
            "invalid": self.invalid,
            "notes": self.notes,
        }

    def table(self, *, figures: bool = True) -> str:
        """The same for a person, with or without the raw figures."""
        lines = []
        wide = max((len(row) for row in (*self.figures, *self.ratios)), default=0)
        for row, values in self.figures.items() if figures else ():
            words = "  ".join(f"{name} {value:,.5g}" for name, value in values.items())
            lines.append(f"{row:{wide}}  {words}")
        for row, value in self.ratios.items():
            goal = self.goals.get(row)
            text = ""
            if goal:
                sense, limit = next(iter(goal.items()))
                verdict = "met" if self.met[row] else "MISSED"
                text = f"  goal {sense.replace('_', ' ')} {limit:g}: {verdict}"
            lines.append(f"{row:{wide}}  ratio {value:.3g}{text}")
        lines += self.notes
        lines += [f"INVALID: {text}" for text in self.invalid]
        return "\n".join(lines)

    def finish(self, *, as_json: bool, figures: bool = True) -> int:
        """Print, and the exit status: 0, 1 a goal was missed, 3 the run does not count."""
        if stale := build.why_stale():
            self.invalid.append(stale)
        print(json.dumps(self.as_dict()) if as_json else self.table(figures=figures), flush=True)
        if self.invalid:
            return NOT_VALID
        return 0 if all(self.met.values()) else NOT_MET


def arguments(bench: str, parser: argparse.ArgumentParser) -> argparse.Namespace:
    """The command line of every bench, `--json` with it; no return where the compiled modules
    are not those of the sources: what would be measured is something else."""
    parser.add_argument("--json", action="store_true", help="one object, on one line")
    words = parser.parse_args()
    if stale := build.why_stale():
        sys.exit(cannot(bench, stale))
    return words


def cannot(bench: str, why: str) -> int:
    """Say what is lacking; the exit status for that."""
    print(f"{bench}: {why}", file=sys.stderr)
    return CANNOT
