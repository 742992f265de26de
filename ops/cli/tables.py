"""Tables for people: accel-ppp's plain form, or rich's on a terminal when they are short."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any, Final

import click

RICH_ROWS: Final = 50  # rich takes 1 ms a row: longer lists are printed plainly


def clean(value: object) -> str:
    """One cell: nothing for None, and nothing in it that moves a terminal's cursor."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    text = str(value)
    if text.isprintable():
        return text
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text
    )


def _numeric(rows: Sequence[Sequence[Any]], column: int) -> bool:
    cells = [row[column] for row in rows if row[column] is not None]
    return bool(cells) and all(isinstance(c, int | float) for c in cells)


def plain(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[str]:
    """Lines with ` | ` between columns and a `-+-` rule under the names."""
    cells = [[clean(c) for c in row] for row in rows]
    widths = [max([len(name), *(len(row[i]) for row in cells)]) for i, name in enumerate(head)]
    right = [_numeric(rows, i) for i in range(len(head))]

    def line(row: Sequence[str]) -> str:
        parts = [
            cell.rjust(width) if at_right else cell.ljust(width)
            for cell, width, at_right in zip(row, widths, right, strict=True)
        ]
        return " | ".join(parts).rstrip()

    return [line(head), "-+-".join("-" * width for width in widths), *map(line, cells)]


def show(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Print a table."""
    if not sys.stdout.isatty() or len(rows) > RICH_ROWS:
        click.echo("\n".join(plain(head, rows)))
        return
    _rich(head, rows)


def _rich(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    # Imported here: a tenth of a second that plain output need not wait.
    from rich import box  # noqa: PLC0415
    from rich.console import Console  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for i, name in enumerate(head):
        table.add_column(name, justify="right" if _numeric(rows, i) else "left")
    for row in rows:
        # Text, not str: a user name is no markup.
        table.add_row(*(Text(clean(c)) for c in row))
    console = Console()
    needed = len(plain(head, rows)[1])
    # Cells cut with an ellipsis are worth less than a wrapped line.
    if needed > console.width:
        click.echo("\n".join(plain(head, rows)))
    else:
        console.print(table)
