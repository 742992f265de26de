"""A TOML file becomes ops.settings, or a complete list of what is wrong with it.

All problems are told at once. `python -m ops.config.load FILE --out-fd N` is what the
keeper runs at SIGHUP: it parses in a child what the keeper itself must not.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from pydantic import ValidationError

from ops import settings as settings_module
from ops.config import overrides as overrides_module
from ops.config import schema
from ops.config.checks import Path, cross_check, filter_check
from ops.config.digests import with_digests
from ops.config.host import host_remarks
from ops.config.problems import (
    SETS,
    ConfigError,
    Report,
    got,
    kind_of,
    printable,
    quoted,
    reason,
    show_path,
)
from ops.config.source import parse, read
from ops.config.values import check_filter_name, check_pool_name
from ops.config.words import says, unknown
from ops.settings import Settings

EX_CONFIG: Final = 78


@dataclass(frozen=True, slots=True)
class Loaded:
    """Valid settings, and what is unwise about them."""

    settings: Settings
    warnings: tuple[str, ...] = ()


def load_file(path: str, overrides: Iterable[str] = ()) -> Loaded:
    """Read and validate a file; the host is asked for the users and files it names."""
    return load_bytes(read(path), path, overrides, host=True)


def load_bytes(
    data: bytes, name: str, overrides: Iterable[str] = (), *, host: bool = False
) -> Loaded:
    """Validate the octets of a file called `name`."""
    where = printable(name)
    document, lines = parse(data, where)
    origins = {path: f"{where}:{line}" for path, line in lines.items()}
    return _validate(document, origins, where, name, overrides, host=host)


def load_overrides(overrides: Iterable[str], base: Settings | None = None) -> Loaded:
    """Settings made of defaults and `--set` only; accounts are those of `base`."""
    loaded = _validate({}, {}, SETS, "", overrides, host=True, told=base is None)
    if base is not None:
        accounts = replace(loaded.settings.accounts, users=base.accounts.users)
        loaded = replace(loaded, settings=replace(loaded.settings, accounts=accounts))
    return loaded


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
    check = Report(origins, where)
    set_paths = overrides_module.apply(document, overrides, check)
    sections, pools = _sections(document, check)
    filters = _filters(document, check)
    named = document.get("pools")
    names = [*named] if isinstance(named, dict) else [*pools]
    said = document.get("filters")
    known = [*said] if isinstance(said, dict) else []
    for remark in (*cross_check(sections, pools, names), *filter_check(sections, filters, known)):
        if told or remark.path != ("accounts",):
            check.remark(remark, document)
    # What is wrong by itself hides nothing else: the host is asked about the valid sections.
    usable, usable_pools = sections, pools
    if check.problems:
        usable = {key: kind() for key, kind in schema.SECTIONS.items()} | sections
        usable_pools = {}
        filters = {}
    settings = schema.Config(usable, usable_pools, filters).to_settings()
    settings = _beside(settings, name, set_paths)
    if host:
        settings = with_digests(settings, lambda remark: check.remark(remark, {}))
        broken = bool(check.problems)
        for remark in host_remarks(settings, name):
            if not broken or (remark.fatal and remark.path[0] in sections):
                check.remark(remark, {})
    if check.problems:
        raise ConfigError([text for _, text in sorted(check.problems, key=lambda p: p[0])])
    return Loaded(settings, tuple(check.warnings))


FILES: Final = (
    ("accounts", "chap_secrets"),
    ("console", "token_file"),
    ("console", "accel_cmd_password_file"),
)


def _beside(settings: Settings, name: str, set_paths: Collection[Path]) -> Settings:
    """With whole paths of the files that are named."""
    for section, key in FILES:
        part = getattr(settings, section)
        path = getattr(part, key)
        if not path or os.path.isabs(path):
            continue
        # A file moves together with its configuration; --set means the shell's folder.
        by_set = (section, key) in set_paths
        beside = name and not by_set and not name.startswith(("/dev/", "/proc/"))
        folder = os.path.dirname(name) if beside else ""
        whole = os.path.normpath(os.path.join(os.path.abspath(folder), path))
        settings = replace(settings, **{section: replace(part, **{key: whole})})
    return settings


def _sections(
    document: dict[str, Any], check: Report
) -> tuple[dict[str, schema.Section], dict[str, schema.Pool]]:
    """The sections that are valid by themselves; the rest is in `check`."""
    for key, value in document.items():
        if key not in schema.TOP_ORDER:
            check.add((key,), unknown(key, (), isinstance(value, dict)))
    sections: dict[str, schema.Section] = {}
    for name, kind in schema.SECTIONS.items():
        section = _model(kind, document.get(name, {}), (name,), check)
        if section is not None:
            sections[name] = section
    return sections, _pools(document, check)


def _pools(document: dict[str, Any], check: Report) -> dict[str, schema.Pool]:
    if "pools" not in document:
        return {p.name: schema.Pool(ranges=p.ranges, next=p.next) for p in Settings().pools}
    given = document["pools"]
    if not isinstance(given, dict):
        check.add(("pools",), f"must be sections, as in [pools.default], got {kind_of(given)}")
        return {}
    if not given:
        check.add(("pools",), 'is empty: give at least [pools.default] with ranges = ["..."]')
        return {}
    pools: dict[str, schema.Pool] = {}
    for name, value in given.items():
        try:
            check_pool_name(name)
        except ValueError as e:
            check.add(("pools", name), f"{e}, got {quoted(name)}")
            continue
        pool = _model(schema.Pool, value, ("pools", name), check)
        if isinstance(pool, schema.Pool):
            pools[name] = pool
    return pools


def _filters(document: dict[str, Any], check: Report) -> dict[str, schema.Filter]:
    given = document.get("filters", {})
    if not isinstance(given, dict):
        check.add(("filters",), f"must be sections, as in [filters.guest], got {kind_of(given)}")
        return {}
    filters: dict[str, schema.Filter] = {}
    for name, value in given.items():
        try:
            check_filter_name(name)
        except ValueError as e:
            check.add(("filters", name), f"{e}, got {quoted(name)}")
            continue
        found = _model(schema.Filter, value, ("filters", name), check)
        if isinstance(found, schema.Filter):
            filters[name] = found
    return filters


def _model(
    kind: type[schema.Section], value: Any, path: Path, check: Report
) -> schema.Section | None:
    if not isinstance(value, dict):
        example = f"[{show_path(path)}]"
        if kind is schema.Pool:
            example += ' with ranges = ["..."]'
        elif kind is schema.Filter:
            example += ' with rules = ["..."]'
        check.add(path, f"must be a section, as in {example}, got {kind_of(value)}")
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
                listed = loc[0] in ("rules", "servers", "clients", "pools") and len(loc) > 1
                known = (*path, str(loc[0])) if listed else path
                if kind is schema.Pool:
                    known = ("pools",)
                elif kind is schema.Filter:
                    known = ("filters",)
                check.add(where, unknown(str(loc[-1]), known, isinstance(error["input"], dict)))
            elif error["type"] == "missing":
                check.add(where, "is required")
            elif loc[-1] == "[key]":
                check.add(where, f"{says(error)}, got {quoted(str(loc[-2]))}")
            else:
                check.add(where, says(error) + got(where, error["input"]))
        return None


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
        loaded = load_file(words[0], overrides_module.from_environment())
        write_memfd(int(words[2]), loaded.settings)
    except ConfigError as e:
        print("\n".join(e.problems), file=sys.stderr)
        return EX_CONFIG
    except OSError as e:
        print(f"--out-fd {words[2]}: {reason(e)}", file=sys.stderr)
        return EX_CONFIG
    for warning in loaded.warnings:
        print(warning, file=sys.stderr)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
