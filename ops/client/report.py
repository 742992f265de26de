"""The client's events on standard output: JSON lines, or lines for a person."""

from __future__ import annotations

import json
from typing import TextIO

Value = str | int | float | bool | None | list[str] | dict[str, int]


def quantile(values: list[float], share: float) -> float:
    """The value below or at which a share of them lies; 0 for none."""
    if not values:
        return 0.0
    ranked = sorted(values)
    return ranked[min(len(ranked) - 1, int(share * len(ranked)))]


class Report:
    """Writes events; a reader that went away is no reason to end sessions."""

    def __init__(self, stream: TextIO, *, as_json: bool) -> None:
        self._stream = stream
        self._as_json = as_json

    def event(self, event: str, **fields: Value) -> None:
        """One event, one line."""
        if self._as_json:
            line = json.dumps({"event": event, **fields})
        else:
            words = [event]
            for key, value in fields.items():
                text = f"{value:.3f}" if isinstance(value, float) else str(value)
                words.append(f"{key}={text!r}" if " " in text else f"{key}={text}")
            line = " ".join(words)
        try:
            print(line, file=self._stream, flush=True)
        except (BrokenPipeError, ValueError):
            pass
