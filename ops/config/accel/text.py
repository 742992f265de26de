"""How accel-ppp splits its file: sections of `name`, `name=value` and bare words. No file is
opened here.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

_SPACE = " \t\r\v\f"


@dataclass(frozen=True, slots=True)
class Line:
    """One line: `key` is all of it where no = stands in it, and `value` is empty then."""

    number: int
    section: str
    key: str
    value: str

    @property
    def bare(self) -> str:
        """The line as it stands there: lists such as [ip-pool] have a = inside an item."""
        return f"{self.key}={self.value}" if self.value else self.key


def conf_lines(text: str) -> Iterator[Line]:
    """The lines that say something; a line before the first section has section ""."""
    section = ""
    for number, raw in enumerate(text.split("\n"), 1):
        line = _without_comment(raw).strip(_SPACE)
        if not line:
            continue
        if line.startswith("[") and line.endswith("]"):
            # Both spellings of the manual are one section.
            section = line[1:-1].strip(_SPACE).replace("_", "-")
            continue
        key, _, value = line.partition("=")
        yield Line(number, section, key.strip(_SPACE), value.strip(_SPACE))


def _without_comment(line: str) -> str:
    """# and ; begin a comment at the start of a line, # also behind white space: a secret may
    hold one.
    """
    stripped = line.lstrip(_SPACE)
    if stripped.startswith(("#", ";")):
        return ""
    for at, c in enumerate(line):
        if c == "#" and at and line[at - 1] in _SPACE:
            return line[:at]
    return line
