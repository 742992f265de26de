"""Builds the compiled data path: every fastpath/*.pyx. All else is in pyproject.toml."""

import os
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup

FOLDER = Path("fastpath")  # setuptools runs this file in its folder
# Portable: one build serves every CPU of the architecture. What a CPU can do
# beyond that is looked up at run time, function by function. The vectoriser only
# makes the loops here (tens of octets) longer; aliasing rules do not fit a memory
# that is read as octets and as records.
ARGS = ["-O3", "-fno-strict-aliasing", "-fno-tree-vectorize", "-Wall"]
ARGS += ["-fno-tree-slp-vectorize", "-Wno-unused-function"]
# Who cimports what, cythonize finds out by itself.
HEADERS = sorted(str(path) for path in FOLDER.glob("*.h"))

setup(
    ext_modules=cythonize(
        [
            Extension(
                f"fastpath.{source.stem}",
                [str(source)],
                include_dirs=[str(FOLDER)],
                depends=HEADERS,
                extra_compile_args=ARGS,
            )
            for source in sorted(FOLDER.glob("*.pyx"))
        ],
        compiler_directives={
            "language_level": "3",
            "boundscheck": False,
            "wraparound": False,
            "cdivision": True,
        },
    ),
    options={"build_ext": {"parallel": str(os.cpu_count() or 1)}},
)
