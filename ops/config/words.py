"""In our own words: what pydantic and tomllib complain about."""

from __future__ import annotations

import difflib
import re
from typing import Any, Final

from ops.config import schema
from ops.config.checks import Path

_WORDS: Final = {
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "finite_number": "must be a finite number",
    "string_type": "must be text in quotes",
    "bool_type": "must be true or false",
    "tuple_type": 'must be a list in brackets, as in ["one", "two"]',
    "dict_type": "must be a section of name = value lines",
    "greater_than_equal": "must be at least {ge}",
    "greater_than": "must be more than {gt}",
    "less_than_equal": "must be at most {le}",
    "too_long": "must have at most {max_length} items",
    "too_short": "must not be empty",
    "literal_error": "must be {expected}",
    "pptpcon": "{text}",
}


def says(error: Any) -> str:
    words = _WORDS.get(error["type"])
    if words is None:
        return str(error["msg"])
    context = dict(error.get("ctx", {}))
    if "expected" in context:
        context["expected"] = str(context["expected"]).replace("'", '"')
    return words.format(**context)


def unknown(key: str, section: Path, is_table: bool) -> str:
    """Unknown key: the name most like it, a section that has it, or all there are."""
    if not section:
        names: tuple[str, ...] = schema.TOP_ORDER
        what = "unknown section" if is_table else "unknown key outside any section"
    else:
        own: dict[str, type[schema.Section]] = {"pools": schema.Pool, "filters": schema.Filter}
        kind = own.get(str(section[0])) or schema.SECTIONS[str(section[0])]
        if section[:2] == ("accounts", "rules"):
            kind = schema.AccountRule
        elif section[:2] == ("ipv6", "pools"):
            kind = schema.Pool6
        elif section[:2] == ("radius", "servers"):
            kind = schema.RadiusServer
        elif section[:2] == ("radius", "clients"):
            kind = schema.RadiusClient
        names = tuple(kind.model_fields)
        what = "unknown key"
    if is_table or section:
        close = difflib.get_close_matches(key, names, n=1, cutoff=0.6)
        if close:
            return f"{what}, did you mean {close[0]}?"
    homes = [name for name, kind in schema.SECTIONS.items() if key in kind.model_fields]
    if key == "ranges":
        homes = ["pools.NAME"]
    if homes:
        return f"{what}, it belongs under {' or '.join(f'[{home}]' for home in homes)}"
    return f"{what}, known are {', '.join(names)}"


def syntax_error(message: str, text: str, where: str) -> str:
    found = re.search(r" \(at line (\d+), column (\d+)\)$", message)
    line = int(found[1]) if found else text.rstrip("\n").count("\n") + 1
    what = message[: found.start()] if found else message.replace(" (at end of document)", "")
    column = f" at column {found[2]}" if found else " at the end of the file"
    hint = ""
    if what in ("Invalid value", "Expected newline or end of document after a statement"):
        hint = '; text must stand in quotes, as in name = "value", and lists in brackets'
    elif what == "Cannot overwrite a value":
        hint = "; the key or section is given twice"
    elif what.startswith("Expected '=' after a key"):
        hint = "; a line must be key = value or [section]"
    return f"{where}:{line}: TOML: {what[:1].lower()}{what[1:]}{column}{hint}"
