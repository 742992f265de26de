"""The manual pages, made from what --help and the schema of the configuration say.

`python -m ops.cli.manual` writes ops/data/man/ after a change of either; a test compares
both. Format: man(7).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import click

from ops.cli.main import cli
from ops.config import schema
from ops.config.example import TABLES
from ops.config.show import value
from ops.version import VERSION

FOLDER: Final = Path(__file__).resolve().parents[1] / "data" / "man"
EXIT_CODES: Final = (
    ("0", "Done; of run: ended as it was asked to."),
    ("1", "Usage: unknown command or option, something missing."),
    ("2", "Bad value."),
    ("3", "The running instance can't be reached."),
    ("4", "It did not answer in time."),
    ("5", "Nothing matched."),
    ("69", "Something needed is not there: no TUN, a port is taken."),
    ("70", "A fault of pptpcon's own."),
    ("77", "Permission: serving needs CAP_NET_ADMIN and CAP_NET_RAW."),
    ("78", "The configuration can't be used."),
)
FILES: Final = (
    ("/etc/pptpcon/pptpcon.toml", "The configuration: pptpcon.toml(5)."),
    (
        "/etc/pptpcon/chap-secrets",
        "Accounts in pppd's format, where accounts.chap_secrets says so.",
    ),
    ("/run/pptpcon", "Sockets of the running instance; /run/pptpcon-INODE in another namespace."),
    ("/var/lib/pptpcon", "Accounting records that no RADIUS server has taken yet."),
)
SIGNALS: Final = (
    ("SIGTERM, SIGINT", "End all sessions properly, then end; a second one ends at once."),
    ("SIGHUP, SIGUSR1", "Read configuration and accounts again, as `pptpcon reload`."),
)


def escaped(text: str) -> str:
    """Text of a line: no character of it means anything to troff."""
    text = text.replace("\\", "\\e").replace("-", "\\-").replace("'", "\\(aq")
    text = text.replace("`", "\\(ga").replace("^", "\\(ha").replace("~", "\\(ti")
    return "\\&" + text if text.startswith(".") else text


def _paragraphs(help_text: str) -> Iterator[str]:
    """A command's help as its author wrote it; what follows \\b keeps its lines."""
    for part in re.split(r"\n\s*\n", help_text.strip()):
        lines = part.split("\n")
        if lines[0].strip() == "\b":
            yield ".PP\n.nf"
            for line in lines[1:]:
                yield escaped(line.rstrip()) or "."
            yield ".fi"
        else:
            yield ".PP\n" + escaped(" ".join(line.strip() for line in lines))


def _help(command: click.Command) -> str:
    text = command.help or command.short_help or ""
    return re.sub(r"^[ ]{4}", "", text, flags=re.MULTILINE)


def _options(command: click.Command, ctx: click.Context) -> Iterator[str]:
    for param in command.get_params(ctx):
        if isinstance(param, click.Argument) or "--help" in param.opts:
            continue  # what an argument is, the text above says
        record = param.get_help_record(ctx)
        if record is None:
            continue
        names, text = record
        yield f".TP\n.B {escaped(names)}\n{escaped(' '.join(text.split()))}"


def _commands(group: click.Group, ctx: click.Context) -> Iterator[tuple[str, click.Command]]:
    for name in group.list_commands(ctx):
        command = group.get_command(ctx, name)
        if command is None or command.hidden:
            continue
        if isinstance(command, click.Group):
            inner = click.Context(command, info_name=name, parent=ctx)
            yield from ((f"{name} {word}", found) for word, found in _commands(command, inner))
        else:
            yield name, command


def _listed(title: str, pairs: tuple[tuple[str, str], ...]) -> Iterator[str]:
    yield f".SH {title}"
    for name, text in pairs:
        yield f".TP\n.B {escaped(name)}\n{escaped(text)}"


def _head(title: str, section: int, name: str, summary: str) -> Iterator[str]:
    yield '.\\" Made by `python -m ops.cli.manual`; change what it is made from.'
    yield f'.TH {title} {section} "" "pptpcon {VERSION}" "pptpcon manual"'
    yield ".nh\n.ad l"
    yield f".SH NAME\n{escaped(name)} \\- {escaped(summary)}"


def command_page() -> str:
    """pptpcon(8)."""
    ctx = click.Context(cli, info_name="pptpcon", max_content_width=100)
    lines = [
        *_head("PPTPCON", 8, "pptpcon", "PPTP access concentrator"),
        ".SH SYNOPSIS\n.B pptpcon\n.I COMMAND\n[\\fIOPTIONS\\fR]",
        ".SH DESCRIPTION",
        *_paragraphs(_help(cli)),
        ".SH COMMANDS",
        ".PP\n" + escaped("Each of them tells about itself with --help."),
    ]
    for name, command in _commands(cli, ctx):
        inner = click.Context(command, info_name=name, parent=ctx)
        usage = " ".join(command.collect_usage_pieces(inner))
        lines.append(f".SS {escaped(f'pptpcon {name} {usage}')}")
        lines += _paragraphs(_help(command))
        lines += _options(command, inner)
    lines += _listed("EXIT STATUS", EXIT_CODES)
    lines += _listed("SIGNALS", SIGNALS)
    lines += _listed("FILES", FILES)
    lines.append(".SH SEE ALSO\n.BR pptpcon.toml (5)")
    return "\n".join(lines) + "\n"


def _section(name: str, kind: type[schema.Section], shown: str) -> Iterator[str]:
    yield f".SH {escaped(shown)}"
    yield ".PP\n" + escaped(" ".join((kind.__doc__ or "").split()))
    for key, field in kind.model_fields.items():
        if f"{name}.{key}" in TABLES:
            continue
        text = escaped(" ".join((field.description or "").split()))
        # Of keys without a default, and tables whose names are the reader's, none is told.
        given = not field.is_required() and (name, key) != ("accounts", "users")
        default = f"\nDefault: {escaped(value(field.get_default()))}" if given else ""
        yield f".TP\n.B {escaped(key)}\n{text}{default}"


def configuration_page() -> str:
    """pptpcon.toml(5)."""
    lines = [
        *_head("PPTPCON.TOML", 5, "pptpcon.toml", "configuration of pptpcon(8)"),
        ".SH DESCRIPTION",
        ".PP\n"
        + escaped(
            "The file is TOML, read by `pptpcon run -c FILE`, checked by `pptpcon check-config`"
            " FILE and read again by `pptpcon reload`. Every key has a default; an unknown key is"
            " an error. `pptpcon config show` prints what is in force, `pptpcon config show"
            " --defaults` all there is."
        ),
    ]
    for name in schema.TOP_ORDER:
        if name == "pools":
            lines += _section(name, schema.Pool, "[pools.NAME]")
            continue
        if name == "filters":
            lines += _section(name, schema.Filter, "[filters.NAME]")
            continue
        lines += _section(name, schema.SECTIONS[name], f"[{name}]")
        for table, kind in TABLES.items():
            if table.startswith(f"{name}."):
                lines += _section(table, kind, f"[[{table}]]")
    lines.append(".SH SEE ALSO\n.BR pptpcon (8)")
    return "\n".join(lines) + "\n"


def pages() -> dict[str, str]:
    """File names and what belongs into them."""
    return {"pptpcon.8": command_page(), "pptpcon.toml.5": configuration_page()}


def main() -> None:
    """Write them."""
    FOLDER.mkdir(exist_ok=True)
    for name, text in pages().items():
        (FOLDER / name).write_text(text, "utf-8")


if __name__ == "__main__":
    main()
