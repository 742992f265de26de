"""`python -m tests.bench.report FILE`: benches' --json lines as Markdown, for RESULTS.md.

FILE holds one object a line, as `python -m tests.bench --json` prints them.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

Found = dict[str, Any]


def number(value: float) -> str:
    """Three or four digits, whatever the size."""
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def machine(found: Iterable[Found]) -> list[str]:
    """One line for each machine that is named."""
    lines: list[str] = []
    for each in found:
        m = each["machine"]
        virtual = ", virtual" if m["virtual"] else ""
        line = f"{m['cpu']}, {m['cpus']} CPUs{virtual}; Linux {m['kernel']}; Python {m['python']}"
        if line not in lines:
            lines.append(line)
    return lines


def goals(found: Iterable[Found]) -> list[str]:
    """All rows that have a goal."""
    lines = ["| bench | row | ratio | goal | |", "| --- | --- | --- | --- | --- |"]
    for each in found:
        for row, goal in each["goals"].items():
            sense, limit = next(iter(goal.items()))
            verdict = "met" if each["met"][row] else "**missed**"
            if not each["valid"]:
                verdict += " (run not valid)"
            wanted = f"{sense.replace('_', ' ')} {limit:g}"
            lines.append(
                f"| {each['bench']} | {row} | {number(each['ratios'][row])} | {wanted}"
                f" | {verdict} |"
            )
    return lines


def figures(each: Found) -> list[str]:
    """A bench's raw figures, and its ratios without a goal."""
    lines = [f"### {each['bench']}", ""]
    for row, values in each["figures"].items():
        words = ", ".join(f"{name} {number(value)}" for name, value in values.items())
        lines.append(f"- {row}: {words}")
    for row, value in each["ratios"].items():
        if row not in each["goals"]:
            lines.append(f"- ratio, {row}: {number(value)}")
    lines += [f"- {text}" for text in (*each["notes"], *each["invalid"])]
    return [*lines, ""]


def report(found: list[Found]) -> str:
    """The whole text."""
    lines = [*machine(found), "", *goals(found), ""]
    for each in found:
        lines += figures(each)
    return "\n".join(lines).rstrip() + "\n"


def main() -> int:
    """The command line."""
    if len(sys.argv) != 2:
        print(__doc__, file=sys.stderr)
        return 2
    text = Path(sys.argv[1]).read_text("utf-8")
    sys.stdout.write(report([json.loads(line) for line in text.splitlines() if line.strip()]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
