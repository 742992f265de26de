"""Ways of GRE in and out that a bench can be run with, by name: `--ways`."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal

Way = Literal["auto", "xdp", "packet", "raw"]


@dataclass(frozen=True, slots=True)
class Ways:
    """gre.mode, gre.send and gre.xdp_mode; gre.interface is named unless all is raw."""

    receive: Way = "auto"
    send: Way = "auto"
    xdp_mode: Literal["auto", "native", "generic"] = "auto"

    def section(self) -> dict[str, str | int | bool | float | list[str]]:
        """The configuration's [gre]."""
        return {
            "mode": self.receive,
            "send": self.send,
            "xdp_mode": self.xdp_mode,
            "interface": self.interface,
        }

    @property
    def interface(self) -> str:
        """The playground's device towards the clients."""
        return "" if self.receive == "raw" else "wan"


WAYS: Final = {
    "auto": Ways(),
    "xdp": Ways("xdp", "xdp"),
    "native": Ways("xdp", "xdp", "native"),
    "packet": Ways("packet", "packet"),
    "send": Ways("packet", "xdp"),
    "raw": Ways("raw", "raw"),
}


def argument(parser: argparse.ArgumentParser) -> None:
    """`--ways NAME`, a `Ways` in `words.ways`."""
    parser.add_argument(
        "--ways",
        default=Ways(),
        type=named,
        help=f"of GRE in and out: {', '.join(WAYS)}; else auto",
    )


named: Callable[[str], Ways] = WAYS.__getitem__
