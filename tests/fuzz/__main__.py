"""Fuzz: `python -m tests.fuzz [--seconds N] [--minimise] [NAME ...]`.

Builds the Cython modules with clang, coverage and AddressSanitizer into build/fuzz, then
runs each target for N seconds (FUZZ_SECONDS, else 600), one after the other. What it finds
stays in build/fuzz/found, what it learns in build/fuzz/corpus; --minimise keeps the least
of both corpora that reaches the same code as the new tests/fuzz/corpus/NAME. Exit code 1:
something was found.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

from tests.fuzz.targets import NEEDS_ROOT, TARGETS

ROOT = Path(__file__).resolve().parents[2]
BUILD = ROOT / "build" / "fuzz"
KEPT = Path(__file__).parent / "corpus"
MAX_INPUT = {"secrets": 2048, "config": 4096, "tun": 4096, "engine": 4096, "link": 2048}
KEEP_OCTETS = 100_000  # of one target's kept corpus
FLAGS = "-fsanitize=fuzzer-no-link,address -fno-omit-frame-pointer -g -Wno-everything"


def preload() -> Path:
    """The sanitizer's run-time with libFuzzer in it, as atheris ships it."""
    found = importlib.util.find_spec("atheris")
    if found is None or found.origin is None:
        sys.exit("fuzz: atheris is missing: pip install atheris==3.0.0")
    return Path(found.origin).parent.parent / "asan_with_fuzzer.so"


def environment(name: str) -> dict[str, str]:
    """For a target's process. The sanitizer is there for compiled code only: it is slow."""
    if TARGETS[name][1]:
        return {**os.environ, "PYTHONPATH": str(ROOT)}
    return {
        **os.environ,
        "LD_PRELOAD": str(preload()),
        # Python keeps its memory to the end; its own allocator would hide small overruns.
        "ASAN_OPTIONS": "detect_leaks=0:allocator_may_return_null=1:quarantine_size_mb=64",
        "PYTHONMALLOC": "malloc",
        "PYTHONPATH": str(ROOT),
        # pycryptodome's way of loading its modules does not go with the sanitizer.
        "PYCRYPTODOME_DISABLE_DEEPBIND": "1",
    }


def build() -> None:
    """Compile the data path for the fuzzer, from a copy: the served modules stay."""
    if shutil.which("clang") is None:
        sys.exit("fuzz: clang is missing: apt-get install clang")
    sources = [ROOT / "setup.py"]
    for kind in ("*.pyx", "*.pxd", "*.h", "*.py"):
        sources += sorted((ROOT / "fastpath").glob(kind))
    digest = hashlib.sha256(FLAGS.encode() + b"".join(p.read_bytes() for p in sources)).hexdigest()
    stamp = BUILD / "stamp"
    if stamp.exists() and stamp.read_text() == digest:
        return
    shutil.rmtree(BUILD / "fastpath", ignore_errors=True)
    (BUILD / "fastpath").mkdir(parents=True)
    for path in sources:
        shutil.copy2(path, BUILD / path.relative_to(ROOT))
    print("fuzz: compiling fastpath with clang's sanitizers", flush=True)
    subprocess.run(
        [sys.executable, "setup.py", "-q", "build_ext", "--inplace"],
        cwd=BUILD,
        env={**os.environ, "CC": "clang", "LDSHARED": "clang -shared", "CFLAGS": FLAGS},
        check=True,
    )
    stamp.write_text(digest)


def command(name: str, *words: str) -> list[str]:
    """libFuzzer's command line for a target."""
    return [
        *(sys.executable, "-m", "tests.fuzz.run", name),
        *(f"-artifact_prefix={BUILD / 'found'}/{name}-", f"-max_len={MAX_INPUT.get(name, 1024)}"),
        *("-timeout=60", "-rss_limit_mb=3000", *words),
    ]


def fuzz(name: str, seconds: int) -> bool:
    """Run one target; True if nothing was found."""
    learnt = BUILD / "corpus" / name
    learnt.mkdir(parents=True, exist_ok=True)
    (BUILD / "found").mkdir(exist_ok=True)
    log = BUILD / f"{name}.log"
    began = time.monotonic()
    words = [f"-max_total_time={seconds}", "-print_final_stats=1", str(learnt)]
    if (KEPT / name).is_dir():
        words.append(str(KEPT / name))
    with log.open("wb") as out:
        done = subprocess.run(
            command(name, *words),
            cwd=ROOT,
            env=environment(name),
            stdout=out,
            stderr=out,
            check=False,
        )
    text = log.read_text("utf-8", "replace")
    runs = re.findall(r"stat::number_of_executed_units: +(\d+)", text)
    code = re.findall(r"cov: (\d+)", text)
    print(
        f"fuzz: {name}: {'nothing found' if not done.returncode else 'FOUND'}, "
        f"{time.monotonic() - began:.0f} s, {runs[-1] if runs else '?'} inputs, "
        f"cov {code[-1] if code else '?'}",
        flush=True,
    )
    if done.returncode:
        print("\n".join(text.splitlines()[-60:]))
        print(f"fuzz: the input is in {BUILD / 'found'}, the whole log is {log}")
    return not done.returncode


def minimise(name: str) -> None:
    """Make corpus/NAME the least set of inputs that reaches all that is known."""
    learnt, new = BUILD / "corpus" / name, BUILD / "least" / name
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(parents=True)
    sources = [str(p) for p in (learnt, KEPT / name) if p.is_dir()]
    again = BUILD / f"again-{name}"
    again.write_text(
        f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m tests.fuzz.run {name} "$@"\n'
    )
    again.chmod(0o755)
    with (BUILD / f"{name}-merge.log").open("wb") as out:
        subprocess.run(
            command(name, "-merge=1", str(new), *sources),
            cwd=ROOT,
            env={**environment(name), "FUZZ_AGAIN": str(again)},
            stdout=out,
            stderr=out,
            check=True,
        )
    if not any(new.iterdir()):
        sys.exit(f"fuzz: {name}: nothing is left; see {BUILD / f'{name}-merge.log'}")
    left = KEEP_OCTETS
    shutil.rmtree(KEPT / name, ignore_errors=True)
    (KEPT / name).mkdir(parents=True)
    # Small ones first: they are most of the code for the least octets.
    for path in sorted(new.iterdir(), key=lambda p: p.stat().st_size):
        left -= path.stat().st_size
        if left < 0:
            break
        (KEPT / name / path.name[:16]).write_bytes(path.read_bytes())


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz")
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(TARGETS))
    parser.add_argument("--seconds", type=int, default=int(os.environ.get("FUZZ_SECONDS", "600")))
    parser.add_argument("--minimise", action="store_true")
    given = parser.parse_args()
    names = given.names or list(TARGETS)
    for name in names:
        if name not in TARGETS:
            parser.error(f"{name}: no target; there are {', '.join(TARGETS)}")
    build()
    failed = []
    for name in names:
        if name in NEEDS_ROOT and os.geteuid() != 0:
            print(f"fuzz: {name}: left out, its raw sockets need root")
        elif given.minimise:
            minimise(name)
        elif not fuzz(name, given.seconds):
            failed.append(name)
    if failed:
        print(f"fuzz: found something in {', '.join(failed)}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
