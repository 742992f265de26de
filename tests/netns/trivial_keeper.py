"""The real keeper and netops with trivial dispatcher, vault, workers and console.

KEEPER_SET="NAME=NUMBER ..." changes the keeper's times (small letters: of WATCH),
KEEPER_MODULES="role=module ..." what it starts.
"""

from __future__ import annotations

import os
import sys
from dataclasses import replace

from dispatcher import keeper
from ops import boot, settings

TRIVIAL = "tests.netns.trivial"


def pairs(variable: str) -> dict[str, str]:
    """The words of an environment variable, as name=value."""
    words = os.environ.get(variable, "").split()
    return {name: value for name, _, value in (word.partition("=") for word in words)}


if __name__ == "__main__":
    for name, value in pairs("KEEPER_SET").items():
        if name.islower():
            keeper.WATCH = replace(keeper.WATCH, **{name: float(value)})  # type: ignore[misc]
        else:
            assert hasattr(keeper, name), name
            setattr(keeper, name, float(value))
    modules = dict.fromkeys(("dispatcher", "vault", "worker", "console"), TRIVIAL)
    sys.exit(
        keeper.serve(
            settings.loads(boot.read_memfd(int(sys.argv[1]))),
            sys.argv[2],
            {**keeper.MODULES, **modules, **pairs("KEEPER_MODULES")},
        )
    )
