"""At which line of a TOML text each key and each item of an array stands.

tomllib reads values but keeps no positions. This reads the same text a second time and
keeps only positions. It is meant for text that tomllib has accepted, and relies on that
wherever it makes things simple; on other text it raises ValueError or finds nonsense,
but always ends, since every step moves forward. tests/ops/config compares both.

Paths are those of the value tomllib gives: names of keys, numbers of array items.
"""

from __future__ import annotations

import re
import tomllib
from typing import Final

Path = tuple[str | int, ...]

_SPACE: Final = re.compile(r"[ \t]*")
_BLANK: Final = re.compile(r"(?:[ \t\r\n]+|#[^\n]*)*")
_BARE: Final = re.compile(r"[A-Za-z0-9_-]+")
_BASIC: Final = re.compile(r'"(?:[^"\\\n]|\\.)*"')
_LITERAL: Final = re.compile(r"'[^'\n]*'")
# Up to two quotes may stand before the three that end a multi-line string.
_LONG_BASIC: Final = re.compile(r'"""(?:[^"\\]|\\[\s\S]|"(?!""))*"{3,5}')
_LONG_LITERAL: Final = re.compile(r"'''(?:[^']|'(?!''))*'{3,5}")
_SCALAR: Final = re.compile(r"[^,\]}#\r\n]+")


def key_lines(text: str) -> dict[Path, int]:
    """Line numbers from 1. A table named twice in headers counts where it came first."""
    return _Reader(text).read()


class _Reader:
    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.lines: dict[Path, int] = {}
        self._counted = 0  # offset up to which newlines are counted
        self._line = 1
        self._arrays: dict[Path, int] = {}  # arrays of tables: number of the last one

    def read(self) -> dict[Path, int]:
        table: Path = ()
        while True:
            self._skip(_BLANK)
            if self.at >= len(self.text):
                return self.lines
            if self.text[self.at] == "[":
                table = self._header()
            else:
                self._pair(table)

    def _here(self) -> int:
        self._line += self.text.count("\n", self._counted, self.at)
        self._counted = self.at
        return self._line

    def _skip(self, pattern: re.Pattern[str]) -> str:
        match = pattern.match(self.text, self.at)
        if match is None:
            raise ValueError(f"offset {self.at}: no TOML")
        self.at = match.end()
        return match.group()

    def _note(self, path: Path, line: int) -> None:
        for length in range(1, len(path) + 1):
            self.lines.setdefault(path[:length], line)

    def _name(self) -> str:
        if self.text[self.at] == '"':
            name = self._skip(_BASIC)
        elif self.text[self.at] == "'":
            name = self._skip(_LITERAL)
        else:
            return self._skip(_BARE)
        # The escapes of a key are those of a string: tomllib knows them.
        value: str = tomllib.loads(f"k = {name}")["k"]
        return value

    def _key(self) -> list[str]:
        names: list[str] = []
        while True:
            self._skip(_SPACE)
            names.append(self._name())
            self._skip(_SPACE)
            if not self.text.startswith(".", self.at):
                return names
            self.at += 1

    def _expect(self, token: str) -> None:
        if not self.text.startswith(token, self.at):
            raise ValueError(f"offset {self.at}: no {token}")
        self.at += len(token)

    def _header(self) -> Path:
        line = self._here()
        several = self.text.startswith("[[", self.at)
        self.at += 2 if several else 1
        names = self._key()
        self._expect("]]" if several else "]")
        path: Path = ()
        for name in names[:-1]:
            path = self._inside((*path, name))
        path = (*path, names[-1])
        if several:
            number = self._arrays.get(path, -1) + 1
            self._arrays[path] = number
            self._note(path, line)
            path = (*path, number)
        self._note(path, line)
        return path

    def _inside(self, path: Path) -> Path:
        """A header's key through an array of tables means its last table."""
        number = self._arrays.get(path)
        return path if number is None else (*path, number)

    def _pair(self, table: Path) -> None:
        line = self._here()
        path = (*table, *self._key())
        self._expect("=")
        self._note(path, line)
        self._skip(_SPACE)
        self._value(path)

    def _value(self, path: Path) -> None:
        text, at = self.text, self.at
        if text.startswith('"""', at):
            self._skip(_LONG_BASIC)
        elif text.startswith("'''", at):
            self._skip(_LONG_LITERAL)
        elif text.startswith('"', at):
            self._skip(_BASIC)
        elif text.startswith("'", at):
            self._skip(_LITERAL)
        elif text.startswith("[", at):
            self._array(path)
        elif text.startswith("{", at):
            self._inline(path)
        else:
            self._skip(_SCALAR)

    def _array(self, path: Path) -> None:
        self.at += 1
        number = 0
        while True:
            self._skip(_BLANK)
            if self.text.startswith("]", self.at):
                self.at += 1
                return
            item = (*path, number)
            self._note(item, self._here())
            self._value(item)
            number += 1
            self._skip(_BLANK)
            if self.text.startswith(",", self.at):
                self.at += 1

    def _inline(self, path: Path) -> None:
        self.at += 1
        while True:
            # TOML 1.0 has no newlines here, 1.1 has.
            self._skip(_BLANK)
            if self.text.startswith("}", self.at):
                self.at += 1
                return
            self._pair(path)
            self._skip(_BLANK)
            if self.text.startswith(",", self.at):
                self.at += 1
