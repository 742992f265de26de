"""The configuration file: settings, or problems that each name a line."""

from __future__ import annotations

import re

from ops.config.load import load_bytes
from ops.config.problems import ConfigError
from ops.settings import Settings


def one(data: bytes) -> None:
    try:
        loaded = load_bytes(data, "f.toml")
    except ConfigError as e:
        assert e.problems
        for problem in e.problems:
            assert re.match(r"f\.toml:\d+: \S", problem), problem
            assert problem.isprintable(), problem
    else:
        assert isinstance(loaded.settings, Settings)
