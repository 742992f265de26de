"""How pptpd and pppd split their files: no file is opened here."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

_SPACE: Final = " \t\r\n\v\f"
# isspace() of C: str.split() takes more, and would see no word in "\x1c".
_GAP: Final = re.compile(f"[{_SPACE}]+")
_ESCAPES: Final = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "s": " ", "t": "\t"}
_OCTAL: Final = "01234567"
_HEX: Final = "0123456789abcdefABCDEF"


@dataclass(frozen=True, slots=True)
class Line:
    """One setting of pptpd.conf."""

    number: int
    key: str
    value: str  # the rest, without comment


@dataclass(frozen=True, slots=True)
class Word:
    """One word of an options file; `bare` if no quote was used."""

    number: int
    text: str
    bare: bool = True


def decode(data: bytes) -> str:
    """UTF-8, or what people wrote before it."""
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("latin-1")


def conf_lines(text: str) -> Iterator[Line]:
    """The settings of pptpd.conf: a word, white space, and the rest of the line."""
    for number, line in enumerate(text.split("\n"), 1):
        content = line.partition("#")[0].strip(_SPACE)
        if content:
            key, *rest = _GAP.split(content, 1)
            yield Line(number, key, rest[0] if rest else "")


def option_words(text: str) -> Iterator[Word]:
    """The words of an options file by pppd's rules: quotes, backslashes, # to the line's end.

    A backslash at the end of a line joins the next one to the word; a quote may hold newlines.
    """
    at, number = 0, 1
    while at < len(text):
        c = text[at]
        if c == "\n":
            number += 1
        if c in _SPACE:
            at += 1
        elif text.startswith("\\\n", at):
            at += 2
            number += 1
        elif c == "#":
            end = text.find("\n", at)
            at = len(text) if end < 0 else end
        else:
            word, at, number = _word(text, at, number)
            yield word


def _word(text: str, at: int, number: int) -> tuple[Word, int, int]:
    start = number
    value: list[str] = []
    quote = ""
    bare = True
    while at < len(text):
        c = text[at]
        if c == "\\" and at + 1 < len(text):
            number += text[at + 1] == "\n"
            piece, at = _escape(text, at + 1)
            value.append(piece)
            continue
        if quote:
            if c == quote:
                quote = ""
            else:
                number += c == "\n"
                value.append(c)
        elif c in "\"'":
            quote, bare = c, False
        elif c in _SPACE or c == "#":
            break
        else:
            value.append(c)
        at += 1
    return Word(start, "".join(value), bare), at, number


def _escape(text: str, at: int) -> tuple[str, int]:
    """The character that a backslash before `at` makes, and where to go on."""
    c = text[at]
    if c == "\n":
        return "", at + 1
    if c in _OCTAL:
        end = at + 1
        while end < min(at + 3, len(text)) and text[end] in _OCTAL:
            end += 1
        return chr(int(text[at:end], 8) & 0xFF), end
    if c == "x" and at + 1 < len(text) and text[at + 1] in _HEX:
        end = at + 2
        if end < len(text) and text[end] in _HEX:
            end += 1
        return chr(int(text[at + 1 : end], 16)), end
    return _ESCAPES.get(c, c), at + 1
