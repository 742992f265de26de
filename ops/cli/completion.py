"""`pptpcon completion SHELL`: what a shell needs to complete our commands."""

from __future__ import annotations

import re
from typing import Final

import click
from click.shell_completion import BashComplete, FishComplete, ShellComplete, ZshComplete

VARIABLE: Final = "_PPTPCON_COMPLETE"  # looked at by click when prog_name is pptpcon
SHELLS: Final[dict[str, type[ShellComplete]]] = {
    "bash": BashComplete,
    "zsh": ZshComplete,
    "fish": FishComplete,
}


@click.command(short_help="Print what a shell needs to complete our commands.")
@click.argument("shell", type=click.Choice(list(SHELLS)))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print what a shell needs to complete our commands and options.

    \b
      pptpcon completion bash > /usr/share/bash-completion/completions/pptpcon
      pptpcon completion zsh > /usr/share/zsh/vendor-completions/_pptpcon
      pptpcon completion fish > /usr/share/fish/vendor_completions.d/pptpcon.fish

    For this shell only: eval "$(pptpcon completion bash)"
    """
    click.echo(script(ctx.find_root().command, shell))


def script(command: click.Command, shell: str) -> str:
    """The same text whichever shells are installed where it is made."""
    kind = SHELLS[shell]
    template = kind.source_template
    words = kind(command, {}, "pptpcon", VARIABLE).source_vars()
    # click's own `source` runs bash first, to look at its version.
    return re.sub(r"[ \t]+$", "", template % words, flags=re.MULTILINE).strip()


def register(group: click.Group) -> None:
    """Add the command."""
    group.add_command(completion)
