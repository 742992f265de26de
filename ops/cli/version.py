"""`pptpcon version`."""

from __future__ import annotations

import json
import os
import platform
from importlib import metadata

import click

from ops.version import VERSION

LIBRARIES = (
    "pyzmq",
    "msgpack",
    "pyroute2",
    "prometheus-client",
    "click",
    "pydantic",
    "aiohttp",
    "pycryptodome",
    "rich",
)


@click.command(short_help="Print the versions of everything in use.")
@click.option("--json", "as_json", is_flag=True, help="As one JSON object.")
def version(as_json: bool) -> None:
    """Print the versions of pptpcon, Python, the kernel and the libraries in use."""
    uname = os.uname()
    libraries = {}
    for name in LIBRARIES:
        try:
            libraries[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            libraries[name] = "missing"
    if as_json:
        parts = {
            "pptpcon": VERSION,
            "python": platform.python_version(),
            "kernel": uname.release,
            "machine": uname.machine,
            "libraries": libraries,
        }
        click.echo(json.dumps(parts))
        return
    click.echo(f"pptpcon {VERSION}")
    click.echo(
        f"python {platform.python_version()}, {uname.sysname} {uname.release} {uname.machine}"
    )
    click.echo(", ".join(f"{name} {number}" for name, number in libraries.items()))


def register(group: click.Group) -> None:
    """Add the command."""
    group.add_command(version)
