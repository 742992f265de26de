"""ARCHITECTURE.md, "Folders and who may import whom", for .py and .pyx alike.

import-linter checks what it can see of this (pyproject.toml); it sees neither
compiled modules nor cimports, nor which outside library a folder may use.
"""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
OURS = {"dispatcher", "workers", "fastpath", "ops", "tests"}
LEAVES = tuple(
    f"ops.{path.stem}" for path in (ROOT / "ops").glob("*.py") if not path.stem.startswith("_")
)
FRONT = ("ops.config", "ops.cli", "ops.console", "ops.client", "ops.doctor", "ops.dashboards")
SYSTEM = ("zmq", "msgpack", "pyroute2")

# Folder (the longest that fits counts): what it may import beside the standard library and
# itself. A name allows its submodules too.
RULES: dict[str, tuple[str, ...]] = {
    "dispatcher": (*LEAVES, "fastpath.layout", *SYSTEM),
    "dispatcher/pptp": (),
    "workers": (*LEAVES, "fastpath", *SYSTEM),
    "workers/ppp": ("Crypto",),
    "workers/ipv6": (),
    "fastpath": ("libc", "cpython", "cython"),
    "ops": ("msgpack",),
    "ops/config": ("*",),
    "ops/cli": ("*",),
    "ops/console": ("*",),
    "ops/client": ("*",),
    "ops/doctor": ("*",),
    "ops/dashboards": (),
}
# `python -m ops` is the command
EXEMPT = {"ops/__main__.py": FRONT}

CIMPORT = re.compile(r"^\s*(?:from\s+([\w.]+)\s+)?(?:cimport|import)\s+([\w.*, ()]+)", re.M)


def sources() -> list[Path]:
    """Every file of the product that imports."""
    return sorted(
        path
        for folder in ("dispatcher", "workers", "fastpath", "ops")
        for kind in ("*.py", "*.pyx", "*.pxd", "*.pyi")
        for path in (ROOT / folder).rglob(kind)
    )


def imports(path: Path) -> set[str]:
    """Dotted names that a file imports; `from a import b` counts as a.b."""
    text = path.read_text()
    names: set[str] = set()
    package = path.relative_to(ROOT).parent.parts
    if path.suffix in (".pyx", ".pxd"):
        for origin, what in CIMPORT.findall(text):
            if origin.startswith("."):
                origin = ".".join((*package, origin.lstrip(".")))
            items = [w.split(" as ")[0].strip(" ()") for w in what.split(",")]
            names |= {f"{origin}.{w}" if origin else w for w in items if w}
        return names
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                up = package[: len(package) - node.level + 1]
                base = ".".join((*up, base)).rstrip(".")
            names |= {f"{base}.{alias.name}" for alias in node.names}
    return names


def folder_of(path: Path) -> str:
    """The rule that fits best."""
    parts = path.relative_to(ROOT).parent.parts
    for n in range(len(parts), 0, -1):
        if "/".join(parts[:n]) in RULES:
            return "/".join(parts[:n])
    raise AssertionError(f"{path}: its folder is not in the table")


def allowed(name: str, folder: str, extra: tuple[str, ...] = ()) -> bool:
    """May a file of `folder` import `name`?"""
    top = name.partition(".")[0]
    if top == "__future__" or (top in sys.stdlib_module_names and top not in OURS):
        return True
    if within(name, extra) or "*" in RULES[folder]:
        return True
    if folder == "ops" and within(name, FRONT):
        return False
    # A folder may use what lies in it: dispatcher uses dispatcher.pptp.
    return within(name, (folder.replace("/", "."), *RULES[folder]))


def within(name: str, modules: tuple[str, ...]) -> bool:
    """Is it one of these, or something in one?"""
    return any(name == module or name.startswith(module + ".") for module in modules)


@pytest.mark.parametrize("path", sources(), ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_keep_to_the_table(path: Path) -> None:
    folder = folder_of(path)
    extra = EXEMPT.get(str(path.relative_to(ROOT)), ())
    if path.suffix == ".pyi":  # read by type checkers only
        extra = (*extra, "typing_extensions")
    bad = sorted(name for name in imports(path) if not allowed(name, folder, extra))
    assert not bad, f"{path.relative_to(ROOT)} may not import {', '.join(bad)}"


def test_the_check_sees_what_it_is_for() -> None:
    assert not allowed("workers.session", "dispatcher")
    assert not allowed("fastpath.engine.Engine", "dispatcher")
    assert not allowed("ops.cli.main", "workers")
    assert not allowed("ops.console.process", "ops")
    assert not allowed("ops.log.Log", "workers/ppp")
    assert not allowed("scapy.all", "dispatcher/pptp")
    assert allowed("dispatcher.pptp.messages", "dispatcher")
    assert allowed("ops.log.Log", "dispatcher")
    assert "libc.stdint.uint8_t" in imports(ROOT / "fastpath/layout.pxd")


def test_shipped_code_takes_nothing_under_gpl() -> None:
    using = [str(p.relative_to(ROOT)) for p in sources() if "scapy" in p.read_text()]
    assert not using, f"scapy (GPL-2.0) is for tests only: {using}"


def test_the_table_is_the_one_of_the_architecture() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text()
    for folder, names in RULES.items():
        label = "`ops` leaves" if folder == "ops" else f"`{folder}/`"
        row = next(
            (r for r in text.splitlines() if r.startswith("|") and label in r.split("|")[1]), ""
        )
        assert row, f"{folder} has no row"
        outside = [name for name in names if "." not in name and name not in (*OURS, "*")]
        assert all(name in row for name in outside), f"{folder}: {names} and {row}"
