"""A TOML file becomes ops.settings, or a complete list of what is wrong with it.

Each problem is one line `file:line: key: what, got what`, and all are told at once.
Passwords are never shown. `python -m ops.config.load FILE --out-fd N` is what the
keeper runs at SIGHUP: it parses in a child what the keeper itself must not.
"""

from __future__ import annotations

import difflib
import json
import os
import pwd
import re
import stat
import sys
import tomllib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from pydantic import ValidationError

from ops import settings as settings_module
from ops.config import schema
from ops.config.lines import key_lines
from ops.config.schema import Path, Remark
from ops.settings import Settings

MAX_BYTES: Final = 4 << 20
EX_CONFIG: Final = 78
OVERRIDES_VARIABLE: Final = "PPTPCON_SET"  # JSON list of --set texts, for the reload's child
_BARE_KEY: Final = re.compile(r"[A-Za-z0-9_-]+")
_SETS: Final = "--set"


class ConfigError(Exception):
    """The configuration can't be used; `problems` are lines for the reader."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = list(problems)


@dataclass(frozen=True, slots=True)
class Loaded:
    """Valid settings, and what is unwise about them."""

    settings: Settings
    warnings: tuple[str, ...] = ()


def load_file(path: str, overrides: Iterable[str] = ()) -> Loaded:
    """Read and validate a file; the host is asked for the users and files it names."""
    return load_bytes(read(path), path, overrides, host=True)


def read(path: str) -> bytes:
    """The file's octets; ConfigError for whatever can't be read at once."""
    where = _printable(path)
    try:
        # A FIFO without a writer would block open(); /dev/fd/N (a shell's <(...)) may wait.
        flags = 0 if path.startswith(("/dev/fd/", "/dev/stdin", "/proc/")) else os.O_NONBLOCK
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | flags)
    except (OSError, ValueError) as e:
        raise ConfigError([f"{where}: can't be read: {_reason(e)}"]) from None
    mode = os.fstat(fd).st_mode
    if stat.S_ISDIR(mode) or (flags and not stat.S_ISREG(mode)):
        os.close(fd)
        kind = "a directory" if stat.S_ISDIR(mode) else "not a regular file"
        raise ConfigError([f"{where}: can't be read: it is {kind}"])
    with os.fdopen(fd, "rb") as file:
        try:
            data = file.read(MAX_BYTES + 1)
        except OSError as e:
            raise ConfigError([f"{where}: can't be read: {_reason(e)}"]) from None
    if len(data) > MAX_BYTES:
        raise ConfigError(
            [
                f"{where}: larger than {MAX_BYTES >> 20} MiB; put many accounts into a"
                " chap-secrets file (accounts.chap_secrets)"
            ]
        )
    return data


def load_bytes(
    data: bytes, name: str, overrides: Iterable[str] = (), *, host: bool = False
) -> Loaded:
    """Validate the octets of a file called `name`."""
    where = _printable(name)
    if b"\0" in data:
        line = data.count(b"\n", 0, data.index(b"\0")) + 1
        raise ConfigError([f"{where}:{line}: holds a NUL: this is no text, so no TOML"])
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as e:
        line = data.count(b"\n", 0, e.start) + 1
        raise ConfigError(
            [f"{where}:{line}: is not UTF-8 (octet 0x{data[e.start]:02x}); save it as UTF-8"]
        ) from None
    document = _parse(text, where)
    try:
        lines = key_lines(text.replace("\r\n", "\n"))
    except (ValueError, IndexError, RecursionError):
        lines = {}
    origins = {path: f"{where}:{line}" for path, line in lines.items()}
    return _validate(document, origins, where, name, overrides, host=host)


def load_overrides(overrides: Iterable[str], base: Settings | None = None) -> Loaded:
    """Settings made of defaults and `--set` only; accounts are those of `base`."""
    loaded = _validate({}, {}, _SETS, "", overrides, host=True, told=base is None)
    if base is not None:
        accounts = replace(loaded.settings.accounts, users=base.accounts.users)
        loaded = replace(loaded, settings=replace(loaded.settings, accounts=accounts))
    return loaded


def _parse(text: str, where: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise ConfigError([f"{where}:1: TOML: values are nested too deep"]) from None
    except tomllib.TOMLDecodeError as e:
        raise ConfigError([_syntax_error(str(e), text, where)]) from None
    except ValueError as e:  # int() has a limit of digits
        raise ConfigError([f"{where}:1: TOML: {e}"]) from None


def _syntax_error(message: str, text: str, where: str) -> str:
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


class _Check:
    """One validation: collects remarks and knows where each key stands."""

    def __init__(self, origins: dict[Path, str], where: str) -> None:
        self.origins = origins
        self.where = where
        self.problems: list[tuple[int, str]] = []
        self.warnings: list[str] = []

    def origin(self, path: Path) -> str:
        """`file:line` of the key, or of the closest thing around it."""
        for length in range(len(path), 0, -1):
            found = self.origins.get(path[:length])
            if found is not None:
                return found
        return self.where if self.where == _SETS else f"{self.where}:1"

    def add(self, path: Path, text: str, *, fatal: bool = True) -> None:
        origin = self.origin(path)
        if fatal:
            number = origin.rpartition(":")[2]
            order = int(number) if number.isdigit() else 1 << 40
            self.problems.append((order, f"{origin}: {show_path(path)}: {text}"))
        else:
            self.warnings.append(f"{origin}: warning: {show_path(path)}: {text}")

    def remark(self, remark: Remark, document: dict[str, Any]) -> None:
        got = ""
        if remark.fatal and _has(document, remark.path):
            got = _got(remark.path, _lookup(document, remark.path))
        self.add(remark.path, remark.text + got, fatal=remark.fatal)


def _validate(
    document: dict[str, Any],
    origins: dict[Path, str],
    where: str,
    name: str,
    overrides: Iterable[str],
    *,
    host: bool,
    told: bool = True,
) -> Loaded:
    check = _Check(origins, where)
    set_paths = _apply(document, overrides, check)
    sections, pools = _sections(document, check)
    named = document.get("pools")
    names = [*named] if isinstance(named, dict) else [*pools]
    for remark in schema.cross_check(sections, pools, names):
        if told or remark.path != ("accounts",):
            check.remark(remark, document)
    if check.problems:
        raise ConfigError([text for _, text in sorted(check.problems, key=lambda p: p[0])])
    settings = schema.Config(sections, pools).to_settings()
    secrets = settings.accounts.chap_secrets
    if secrets and not os.path.isabs(secrets):
        # A file moves together with its configuration; --set means the shell's folder.
        beside = name and not name.startswith(("/dev/", "/proc/"))
        if ("accounts", "chap_secrets") in set_paths:
            beside = False
        folder = os.path.dirname(name) if beside else ""
        secrets = os.path.normpath(os.path.join(os.path.abspath(folder), secrets))
        settings = replace(settings, accounts=replace(settings.accounts, chap_secrets=secrets))
    if host:
        for remark in _host_remarks(settings, name):
            check.remark(remark, {})
        if check.problems:
            raise ConfigError([text for _, text in sorted(check.problems, key=lambda p: p[0])])
    return Loaded(settings, tuple(check.warnings))


def _sections(
    document: dict[str, Any], check: _Check
) -> tuple[dict[str, schema.Section], dict[str, schema.Pool]]:
    """The sections that are valid by themselves; the rest is in `check`."""
    for key, value in document.items():
        if key not in schema.TOP_ORDER:
            check.add((key,), _unknown(key, (), isinstance(value, dict)))
    sections: dict[str, schema.Section] = {}
    for name, kind in schema.SECTIONS.items():
        section = _model(kind, document.get(name, {}), (name,), check)
        if section is not None:
            sections[name] = section
    return sections, _pools(document, check)


def _pools(document: dict[str, Any], check: _Check) -> dict[str, schema.Pool]:
    if "pools" not in document:
        return {p.name: schema.Pool(ranges=p.ranges) for p in Settings().pools}
    given = document["pools"]
    if not isinstance(given, dict):
        check.add(("pools",), f"must be sections, as in [pools.default], got {_kind(given)}")
        return {}
    if not given:
        check.add(("pools",), 'is empty: give at least [pools.default] with ranges = ["..."]')
        return {}
    pools: dict[str, schema.Pool] = {}
    for name, value in given.items():
        try:
            schema.check_pool_name(name)
        except ValueError as e:
            check.add(("pools", name), f"{e}, got {_text(name)}")
            continue
        pool = _model(schema.Pool, value, ("pools", name), check)
        if isinstance(pool, schema.Pool):
            pools[name] = pool
    return pools


def _model(
    kind: type[schema.Section], value: Any, path: Path, check: _Check
) -> schema.Section | None:
    if not isinstance(value, dict):
        example = f"[{show_path(path)}]"
        if kind is schema.Pool:
            example += ' with ranges = ["..."]'
        check.add(path, f"must be a section, as in {example}, got {_kind(value)}")
        return None
    try:
        return kind.model_validate(value)
    except ValidationError as e:
        for error in e.errors(include_url=False):
            loc = error["loc"]
            if error["type"] == "too_short" and error["input"]:
                continue  # pydantic counts valid items only; the others have errors of their own
            where: Path = (*path, *(part for part in loc if part != "[key]"))
            if error["type"] == "extra_forbidden":
                known = path if kind is not schema.Pool else ("pools",)
                check.add(where, _unknown(str(loc[-1]), known, isinstance(error["input"], dict)))
            elif error["type"] == "missing":
                check.add(where, "is required")
            elif loc[-1] == "[key]":
                check.add(where, f"{_says(error)}, got {_text(str(loc[-2]))}")
            else:
                check.add(where, _says(error) + _got(where, error["input"]))
        return None


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


def _says(error: Any) -> str:
    words = _WORDS.get(error["type"])
    if words is None:
        return str(error["msg"])
    context = dict(error.get("ctx", {}))
    if "expected" in context:
        context["expected"] = str(context["expected"]).replace("'", '"')
    return words.format(**context)


def _unknown(key: str, section: Path, is_table: bool) -> str:
    """Unknown key: the name most like it, a section that has it, or all there are."""
    if not section:
        names: tuple[str, ...] = schema.TOP_ORDER
        what = "unknown section" if is_table else "unknown key outside any section"
    else:
        kind = schema.Pool if section[0] == "pools" else schema.SECTIONS[str(section[0])]
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


def _apply(document: dict[str, Any], overrides: Iterable[str], check: _Check) -> set[Path]:
    """Put `--set section.key=value` into the document. Returns the paths set."""
    done: set[Path] = set()
    for text in overrides:
        try:
            path, value = _override(text)
        except ValueError as e:
            check.problems.append((1 << 40, f"{_SETS}: {e}"))
            continue
        table = document
        for name in path[:-1]:
            inner = table.setdefault(str(name), {})
            if not isinstance(inner, dict):
                inner = table[str(name)] = {}
            table = inner
        table[str(path[-1])] = value
        for known in [p for p in check.origins if p[: len(path)] == path]:
            del check.origins[known]
        check.origins[path] = _SETS
        done.add(path)
    return done


def _override(text: str) -> tuple[Path, Any]:
    key, equals, raw = text.partition("=")
    names = _dotted(key.strip())
    if not equals or names is None or len(names) < 2:
        raise ValueError(f"must be section.key=value, as in ppp.mtu=1400, got {_text(text)}")
    if names[:2] == ["accounts", "users"]:
        raise ValueError(
            "accounts.users: a password on a command line is seen by everyone on the host; put it"
            " into the configuration file"
        )
    raw = raw.strip()
    wanted = _field_kind(names)
    try:
        parsed = tomllib.loads(f"v = {raw}")
        if list(parsed) != ["v"]:
            raise ValueError
        value = parsed["v"]
    except (ValueError, RecursionError):
        value = raw
    if wanted == "text" and not isinstance(value, str):
        value = raw
    elif wanted == "list" and not isinstance(value, list):
        words = [word.strip() for word in raw.split(",")] if raw else []
        value = [value] if not isinstance(value, str) else [w for w in words if w]
        if isinstance(parsed_list := _numbers(value), list):
            value = parsed_list
    return tuple(names), value


def _numbers(words: list[Any]) -> list[Any]:
    return [int(w) if isinstance(w, str) and re.fullmatch(r"\d{1,9}", w) else w for w in words]


def _dotted(key: str) -> list[str] | None:
    """The names of a dotted key; None when it is none."""
    try:
        value: Any = tomllib.loads(f"{key} = 0")
    except (ValueError, RecursionError):
        return None
    names = []
    while isinstance(value, dict):
        if len(value) != 1:
            return None
        name, value = next(iter(value.items()))
        names.append(name)
    return names


def _field_kind(names: list[str]) -> str:
    """text, list or other: how a bare word for this key is to be taken."""
    if names[0] == "pools":
        kind: type[schema.Section] | None = schema.Pool
    else:
        kind = schema.SECTIONS.get(names[0])
    field = kind.model_fields.get(names[-1]) if kind else None
    if field is None:
        return "other"
    if getattr(field.annotation, "__origin__", None) is tuple:
        return "list"
    default = field.get_default()
    return "text" if isinstance(default, str) else "other"


def _host_remarks(settings: Settings, name: str) -> Iterable[Remark]:
    """What only this host can tell: does it have the user, the file, the CPUs?"""
    user = settings.server.user
    try:
        entry = pwd.getpwnam(user)
    except KeyError:
        yield Remark(("server", "user"), f'this host has no user "{user}"; useradd -r {user}')
    else:
        if entry.pw_uid == 0:
            text = f'"{user}" is root: packets of strangers would be read with all privileges'
            yield Remark(("server", "user"), text, fatal=False)
    missing = sorted(set(settings.workers.cpus) - os.sched_getaffinity(0))
    if missing:
        have = ", ".join(str(cpu) for cpu in sorted(os.sched_getaffinity(0)))
        names = ", ".join(str(cpu) for cpu in missing)
        yield Remark(("workers", "cpus"), f"CPU {names} can't be used here; there is {have}")
    if settings.accounts.chap_secrets:
        yield from _secrets_remarks(settings.accounts.chap_secrets)
    if settings.accounts.users and name:
        try:
            mode = os.stat(name).st_mode
        except (OSError, ValueError):
            mode = 0
        if stat.S_ISREG(mode) and mode & 0o007:
            text = f"others can read these passwords; chmod o= {_printable(name)}"
            yield Remark(("accounts", "users"), text, fatal=False)


def _secrets_remarks(path: str) -> Iterable[Remark]:
    key: Path = ("accounts", "chap_secrets")
    shown = _printable(path)
    try:
        mode = os.stat(path).st_mode
        if not stat.S_ISREG(mode):
            yield Remark(key, f"{shown} is not a regular file")
            return
        os.close(os.open(path, os.O_RDONLY | os.O_CLOEXEC))
    except PermissionError:
        yield Remark(key, f"{shown}: permission denied to this user; root may", fatal=False)
        return
    except (OSError, ValueError) as e:
        yield Remark(key, f"{shown}: {_reason(e)}")
        return
    if mode & 0o007:
        yield Remark(key, f"others can read {shown}; chmod o= {shown}", fatal=False)


def _has(document: Any, path: Path) -> bool:
    return _lookup(document, path) is not None


def _lookup(document: Any, path: Path) -> Any:
    value = document
    for part in path:
        try:
            value = value[part]
        except (KeyError, IndexError, TypeError):
            return None
    return value


def _got(path: Path, value: Any) -> str:
    if path[:2] == ("accounts", "users") and len(path) > 1:
        return ", got ***"
    return f", got {_value(value)}"


def _value(value: Any) -> str:
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value) if value.bit_length() <= 128 else "a very large number"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list | tuple) and 1 <= len(value) <= 8:
        shown = f"[{', '.join(_value(v) if _plain(v) else '...' for v in value)}]"
        return shown if len(shown) <= 100 else _kind(value)
    return _kind(value)


def _plain(value: Any) -> bool:
    return isinstance(value, str | int | float)


def _kind(value: Any) -> str:
    if isinstance(value, dict):
        return "a section"
    if isinstance(value, list | tuple):
        return f"a list of {len(value)}" if value else "an empty list"
    if isinstance(value, str):
        return "text"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return "a number"
    return "a date or time"


def _text(value: str) -> str:
    cut = value if len(value) <= 60 else value[:57] + "..."
    return json.dumps(cut, ensure_ascii=not cut.isprintable())


def _printable(path: str) -> str:
    return path if path.isprintable() else json.dumps(path)


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return str(error)


def show_path(path: Path) -> str:
    """A path as in TOML, items of lists counted from 1 as people do: ppp.auth[1]."""
    shown = ""
    for part in path:
        if isinstance(part, int):
            shown += f"[{part + 1}]"
            continue
        name = part if _BARE_KEY.fullmatch(part) else _text(part)
        shown += f".{name}" if shown else name
    return shown


def environment_overrides() -> list[str]:
    """The --set texts of the `run` that started the keeper."""
    try:
        texts = json.loads(os.environ.get(OVERRIDES_VARIABLE, "[]"))
    except ValueError:
        return []
    return [text for text in texts if isinstance(text, str)] if isinstance(texts, list) else []


def write_memfd(fd: int, settings: Settings) -> None:
    """Make the settings the whole content of memfd `fd`."""
    data = settings_module.dumps(settings)
    os.ftruncate(fd, 0)
    at = 0
    while at < len(data):
        at += os.pwrite(fd, data[at:], at)


def main(argv: Sequence[str] | None = None) -> int:
    """FILE --out-fd N: exit 0 with the settings in memfd N, or 78 with messages on stderr."""
    words = list(sys.argv[1:] if argv is None else argv)
    if len(words) != 3 or words[1] != "--out-fd" or not words[2].isdigit():
        print("usage: python -m ops.config.load FILE --out-fd N", file=sys.stderr)
        return 2
    try:
        loaded = load_file(words[0], environment_overrides())
        write_memfd(int(words[2]), loaded.settings)
    except ConfigError as e:
        print("\n".join(e.problems), file=sys.stderr)
        return EX_CONFIG
    except OSError as e:
        print(f"--out-fd {words[2]}: {_reason(e)}", file=sys.stderr)
        return EX_CONFIG
    for warning in loaded.warnings:
        print(warning, file=sys.stderr)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
