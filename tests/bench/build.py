"""Are the compiled modules those of these sources? A bench of a stale build measures nothing."""

from __future__ import annotations

import re
from collections.abc import Iterable
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]
FASTPATH: Final = ROOT / "fastpath"
CIMPORT: Final = re.compile(r"^from\s+fastpath\.(\w+)\s+cimport\b", re.MULTILINE)
MEND: Final = ".venv/bin/python setup.py build_ext --inplace"


def compiled_from(source: Path) -> set[Path]:
    """The .pyx, the .pxd files that it takes from, and theirs; every header (as in setup.py)."""
    found: set[Path] = set(source.parent.glob("*.h"))
    left = [source, source.with_suffix(".pxd")]
    while left:
        path = left.pop()
        if path in found or not path.exists():
            continue
        found.add(path)
        for name in CIMPORT.findall(path.read_text("utf-8")):
            left.append(source.parent / f"{name}.pxd")
    return found


def _module_of(source: Path) -> Path | None:
    """What this Python would import."""
    for suffix in EXTENSION_SUFFIXES:
        path = source.parent / f"{source.stem}{suffix}"
        if path.exists():
            return path
    return None


def _stale(source: Path) -> str:
    """What is wrong with one module; empty if nothing is."""
    module = _module_of(source)
    if module is None:
        return f"{source.stem} is not compiled"
    made = module.stat().st_mtime_ns
    newer = sorted(p.name for p in compiled_from(source) if p.stat().st_mtime_ns > made)
    return f"{module.name} is older than {', '.join(newer)}" if newer else ""


def why_stale(sources: Iterable[Path] | None = None) -> str:
    """What, where, and what to do about it; empty if all is built from what stands here."""
    every = sorted(FASTPATH.glob("*.pyx") if sources is None else sources)
    wrong = [text for text in map(_stale, every) if text]
    if not wrong:
        return ""
    more = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
    return (
        f"stale build in {every[0].parent}: {wrong[0]}{more}: run {MEND} in {every[0].parents[1]}"
    )
