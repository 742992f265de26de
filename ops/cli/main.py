"""The command `pptpcon`: finds a command's module when it is asked for.

Keeps `pptpcon show ...` fast and alive: nothing heavy is imported here, and a module
that can't be imported takes away its own command only.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from typing import Final

import click

from ops.version import VERSION

# Command -> module; each has register(group), which adds one command or more.
MODULES: Final[dict[str, str]] = {
    "run": "ops.cli.run",
    "check-config": "ops.cli.check_config",
    "doctor": "ops.cli.doctor",
    "history": "ops.cli.history",
    "config": "ops.cli.config",
    "import-config": "ops.cli.import_config",
    "show": "ops.cli.show",
    "top": "ops.cli.top",
    "terminate": "ops.cli.terminate",
    "trace": "ops.cli.trace",
    "drain": "ops.cli.operate",
    "undrain": "ops.cli.operate",
    "reload": "ops.cli.operate",
    "shutdown": "ops.cli.operate",
    "log-level": "ops.cli.operate",
    "set-rate": "ops.cli.set_rate",
    "unban": "ops.cli.unban",
    "demo": "ops.cli.demo",
    "bench": "ops.cli.bench",
    "snmp": "ops.cli.snmp",
    "completion": "ops.cli.completion",
    "version": "ops.cli.version",
}


class LazyGroup(click.Group):
    """A group whose commands are in modules of their own."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """In the order of MODULES: first what a newcomer needs."""
        return [name for name, module in MODULES.items() if _exists(module)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the command's module on first use."""
        found = super().get_command(ctx, cmd_name)
        module = MODULES.get(cmd_name)
        if found is not None or module is None or not _exists(module):
            return found
        try:
            importlib.import_module(module).register(self)
        except (ImportError, AttributeError) as e:
            return _broken(cmd_name, str(e))
        return super().get_command(ctx, cmd_name)


def _exists(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def _broken(name: str, reason: str) -> click.Command:
    """Stands for a command whose imports failed, so that help and the others go on."""

    @click.command(name, help=f"(unavailable: {reason})", context_settings=_ANY)
    def command() -> None:
        raise click.ClickException(f"{name}: {reason}; is the installation complete?")

    return command


_ANY: Final = {"ignore_unknown_options": True, "allow_extra_args": True}


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(VERSION, "-V", "--version", message="%(prog)s %(version)s")
def cli() -> None:
    """PPTP access concentrator: terminates PPTP sessions of many clients.

    \b
    First steps, as root:
      pptpcon demo                            everything, in namespaces of its own
      pptpcon run                             serve with built-in defaults
      pptpcon import-config pptpd /etc/pptpd.conf > pptpcon.toml
      pptpcon check-config pptpcon.toml
      pptpcon run -c pptpcon.toml
    """


def main() -> None:
    """Entry point of `pptpcon` and of `python -m ops`."""
    try:
        cli(prog_name="pptpcon")
    except BrokenPipeError:  # `pptpcon ... | head`
        sys.stderr.close()
        raise SystemExit(0) from None
