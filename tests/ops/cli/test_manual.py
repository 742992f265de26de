"""Manual pages and completion: current, and as man and the shells want them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys

import click
import pytest

from ops.cli.completion import SHELLS, script
from ops.cli.main import cli
from ops.cli.manual import FOLDER, pages

PAGES = pages()


@pytest.mark.parametrize("name", list(PAGES))
def test_the_page_is_current(name: str) -> None:
    assert (FOLDER / name).read_text("utf-8") == PAGES[name], "run: python -m ops.cli.manual"


@pytest.mark.parametrize("name", list(PAGES))
def test_man_renders_it_without_warnings(name: str) -> None:
    if shutil.which("groff") is None:
        pytest.fail("groff is missing: apt-get install groff-base")
    done = subprocess.run(
        ["groff", "-man", "-Tutf8", "-ww", "-Kutf8", str(FOLDER / name)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0
    assert done.stderr == ""
    assert "SEE ALSO" in re.sub(r".\x08|\x1b\[\d*m", "", done.stdout)


def test_every_command_and_option_is_in_the_page() -> None:
    text = PAGES["pptpcon.8"].replace("\\-", "-")
    ctx = click.Context(cli, info_name="pptpcon")
    for name in cli.list_commands(ctx):
        assert f"pptpcon {name}" in text
    for word in ("--pcap", "show sessions", "EXIT STATUS", "SIGHUP"):
        assert word in text


@pytest.mark.parametrize("shell", list(SHELLS))
def test_completion(shell: str) -> None:
    text = script(cli, shell)
    assert "_PPTPCON_COMPLETE" in text
    if shutil.which(shell) is not None:
        done = subprocess.run(
            [shell, "-n"], input=text, text=True, capture_output=True, check=False
        )
        assert done.returncode == 0, done.stderr


def test_a_shell_asks_us() -> None:
    words = {"COMP_WORDS": "pptpcon show se", "COMP_CWORD": "2"}
    environment = {**os.environ, **words, "_PPTPCON_COMPLETE": "bash_complete"}
    done = subprocess.run(
        [sys.executable, "-c", "from ops.cli.main import main; main()"],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )
    assert sorted(done.stdout.split()) == ["plain,session", "plain,sessions"], done.stderr
