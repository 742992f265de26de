"""One target under atheris: `python -m tests.fuzz.run NAME [words of libFuzzer]`.

Started by `python -m tests.fuzz`, for compiled code with the sanitizer preloaded.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import atheris

from tests.fuzz.targets import TARGETS, load

BUILD = Path(__file__).resolve().parents[2] / "build" / "fuzz"


def main() -> None:
    """Never returns: libFuzzer ends the process."""
    name = sys.argv.pop(1)
    watched = list(TARGETS[name][1])
    if watched:
        with atheris.instrument_imports(include=watched):
            target = load(name)
    else:
        # The compiled modules with coverage and sanitizer, not the ones for serving.
        sys.path.insert(0, str(BUILD))
        target = load(name)
        used = str(sys.modules["fastpath"].__file__)
        assert used.startswith(str(BUILD)), "the sanitizer's build is not used"

    def one(data: bytes) -> None:
        try:
            target(data)
        except BaseException:
            # libFuzzer ends the process at once: what is in Python's buffers would be lost.
            sys.stdout.flush()
            raise

    # For -merge libFuzzer starts itself again and again, by the name it was started with.
    sys.argv[0] = os.environ.get("FUZZ_AGAIN", sys.argv[0])
    atheris.Setup(sys.argv, one)
    atheris.Fuzz()
    os._exit(0)


if __name__ == "__main__":
    main()
