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


@dataclass(frozen=True, slots=True)
class Imported:
    """What came out of an import."""

    toml: str
    notes: list[str]  # for stderr: what is lost or to be done


def printable(text: str, limit: int = 200) -> str:
    """Safe inside a comment and on a terminal: one line, nothing but what prints."""
    shown = "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)
    return shown if len(shown) <= limit else shown[: limit - 3] + "..."


@dataclass(slots=True)
class PoolDraft:
    """One [pools.NAME] in the making."""

    ranges: list[str] = field(default_factory=list)
    comments: list[str] = field(default_factory=list)
    next: str = ""


@dataclass(frozen=True, slots=True)
class Row:
    """One [[section.key]], and where it comes from."""

    values: dict[str, Any]
    comments: list[str]


@dataclass(slots=True)
class Draft:
    """Values by section and key, with comments; notes in the order they came."""

    values: dict[tuple[str, str], Any] = field(default_factory=dict)
    comments: dict[tuple[str, str], list[str]] = field(default_factory=dict)
    notes: list[Note] = field(default_factory=list)
    pools: dict[str, PoolDraft] = field(default_factory=dict)
    rows: dict[tuple[str, str], list[Row]] = field(default_factory=dict)

    def set(
        self, section: str, key: str, value: Any, origin: Origin | None, comment: str = ""
    ) -> bool:
        """Take a value if our schema does; else note why not, and keep what there was."""
        error = _error(schema.SECTIONS[section], {key: value})
        if error is not None:
            text = f"{section}.{key} can't be {printable(toml_value(value), 60)}: {error[1]}"
            self.notes.append(Note(origin, printable(text)))
            return False
        self.values[section, key] = value
        self.comments[section, key] = _comments(origin, comment)
        return True

    def add(
        self, section: str, key: str, values: dict[str, Any], origin: Origin, comment: str = ""
    ) -> bool:
        """Take a [[section.key]] if our schema does; else note why not. Values aren't quoted in
        the note: there may be a secret among them.
        """
        error = _error(schema.SECTIONS[section], {key: (values,)})
        if error is not None:
            self.notes.append(
                Note(origin, printable(f"[[{section}.{key}]] {error[0]}: {error[1]}"))
            )
            return False
        row = Row(values, _comments(origin, comment))
        self.rows.setdefault((section, key), []).append(row)
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
                for pool, draft in self.pools.items():
                    lines += ["", f"[pools.{toml_key(pool)}]"]
                    lines += [f"# {comment}" for comment in draft.comments]
                    lines += _list("ranges", draft.ranges)
                    lines += [f"next = {toml_value(draft.next)}"] if draft.next else []
                continue
            keys = [key for section, key in self.values if section == name]
            if keys:
                lines += ["", f"[{name}]"]
            for key in keys:
                lines += [f"# {comment}" for comment in self.comments[name, key]]
                lines.append(f"{toml_key(key)} = {toml_value(self.values[name, key])}")
            for (section, key), rows in self.rows.items():
                if section != name:
                    continue
                for row in rows:
                    lines += ["", f"[[{name}.{key}]]", *(f"# {c}" for c in row.comments)]
                    lines += [f"{toml_key(k)} = {toml_value(v)}" for k, v in row.values.items()]
        for title, loud in (("Not taken over:", True), ("Has no meaning here:", False)):
            chosen = [note for note in self.notes if note.loud is loud]
            if chosen:
                lines += ["", f"# {title}", *(f"#   {note}" for note in chosen)]
        return "\n".join(lines) + "\n"


def _error(model: type[schema.Section], values: dict[str, Any]) -> tuple[str, str] | None:
    """Which key our schema refuses, and why; None if it takes them."""
    try:
        model.model_validate(values)
    except ValidationError as e:
        error = e.errors(include_url=False)[0]
        reason = str(error.get("ctx", {}).get("text", "")) or str(error["msg"])
        return ".".join(str(part) for part in error["loc"] if isinstance(part, str)), reason
    return None


def _comments(origin: Origin | None, comment: str) -> list[str]:
    lines = [f"{origin}"] if origin else []
    if comment:
        lines = [f"{origin}: {comment}" if origin else comment]
    return [printable(line) for line in lines]


def _list(key: str, items: list[str]) -> list[str]:
    if len(items) <= 4:
        return [f"{key} = {toml_value(items)}"]
    return [f"{key} = [", *(f"  {toml_value(item)}," for item in items), "]"]
