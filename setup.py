"""Builds the compiled data path; all else is in pyproject.toml."""

from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup

MODULES = sorted(path.stem for path in Path("fastpath").glob("*.pyx"))
ARGS = ["-O3", "-fno-strict-aliasing", "-fno-tree-vectorize", "-Wall", "-Wno-unused-function"]

setup(
    ext_modules=cythonize(
        [
            Extension(
                f"fastpath.{name}",
                [f"fastpath/{name}.pyx"],
                include_dirs=["fastpath"],
                extra_compile_args=ARGS,
            )
            for name in MODULES
        ],
        compiler_directives={
            "language_level": "3",
            "boundscheck": False,
            "wraparound": False,
            "cdivision": True,
        },
    )
)
