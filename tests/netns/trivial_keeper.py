"""The real keeper and netops with trivial dispatcher, workers and console."""

from __future__ import annotations

import sys

from dispatcher import keeper
from ops import boot, settings

TRIVIAL = "tests.netns.trivial"

if __name__ == "__main__":
    fd, path = int(sys.argv[1]), sys.argv[2]
    sys.exit(
        keeper.serve(
            settings.loads(boot.read_memfd(fd)),
            path,
            {**keeper.MODULES, "dispatcher": TRIVIAL, "worker": TRIVIAL, "console": TRIVIAL},
        )
    )
