"""The configuration being made by an import: values, why each is there, and what is lost."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

from pydantic import ValidationError

from ops.config import schema
from ops.config.show import key as toml_key
from ops.config.show import value as toml_value

POOL: Final = "default"


@dataclass(frozen=True, slots=True)
class Origin:
    """A line of one of the files read."""

    path: str
    line: int

    def __str__(self) -> str:
        return f"{self.path}:{self.line}"


@dataclass(frozen=True, slots=True)
class Note:
    """What the reader has to know about a line. `loud`: something is lost or to be done."""

    origin: Origin | None
    text: str
    loud: bool = True

    def __str__(self) -> str:
        return f"{self.origin}: {self.text}" if self.origin else self.text


def printable(text: str, limit: int = 200) -> str:
    """Safe inside a comment and on a terminal: one line, nothing but what prints."""
    shown = "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)
    return shown if len(shown) <= limit else shown[: limit - 3] + "..."


@dataclass(slots=True)
class Draft:
    """Values by section and key, with comments; notes in the order they came."""

    values: dict[tuple[str, str], Any] = field(default_factory=dict)
    comments: dict[tuple[str, str], list[str]] = field(default_factory=dict)
    notes: list[Note] = field(default_factory=list)
    pool: list[str] = field(default_factory=list)
    pool_comments: list[str] = field(default_factory=list)

    def set(
        self, section: str, key: str, value: Any, origin: Origin | None, comment: str = ""
    ) -> bool:
        """Take a value if our schema does; else note why not, and keep what there was."""
        try:
            schema.SECTIONS[section].model_validate({key: value})
        except ValidationError as e:
            error = e.errors(include_url=False)[0]
            reason = str(error.get("ctx", {}).get("text", "")) or str(error["msg"])
            text = f"{section}.{key} can't be {printable(toml_value(value), 60)}: {reason}"
            self.notes.append(Note(origin, printable(text)))
            return False
        self.values[section, key] = value
        lines = [f"{origin}"] if origin else []
        if comment:
            lines = [f"{origin}: {comment}" if origin else comment]
        self.comments[section, key] = [printable(line) for line in lines]
        return True

    def loud(self, origin: Origin | None, text: str) -> None:
        """Something is lost, or the reader has to do something."""
        self.notes.append(Note(origin, printable(text, 400)))

    def quiet(self, origin: Origin | None, text: str) -> None:
        """A line that has no meaning here."""
        self.notes.append(Note(origin, printable(text, 400), loud=False))

    def toml(self, head: list[str]) -> str:
        """The file's text."""
        lines = [f"# {printable(line, 400)}".rstrip() for line in head]
        for name in schema.TOP_ORDER:
            if name == "pools":
                lines += ["", f"[pools.{POOL}]", *(f"# {c}" for c in self.pool_comments)]
                lines += _list("ranges", self.pool)
                continue
            keys = [key for section, key in self.values if section == name]
            if not keys:
                continue
            lines += ["", f"[{name}]"]
            for key in keys:
                lines += [f"# {comment}" for comment in self.comments[name, key]]
                lines.append(f"{toml_key(key)} = {toml_value(self.values[name, key])}")
        for title, loud in (("Not taken over:", True), ("Has no meaning here:", False)):
            chosen = [note for note in self.notes if note.loud is loud]
            if chosen:
                lines += ["", f"# {title}", *(f"#   {note}" for note in chosen)]
        return "\n".join(lines) + "\n"


def _list(key: str, items: list[str]) -> list[str]:
    if len(items) <= 4:
        return [f"{key} = {toml_value(items)}"]
    return [f"{key} = [", *(f"  {toml_value(item)}," for item in items), "]"]
