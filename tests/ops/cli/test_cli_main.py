"""The command line's base: what it finds, what it says, how it exits."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from ops import settings
from ops.boot import read_memfd
from ops.cli import configuration
from ops.cli import run as run_module
from ops.cli.main import MODULES, cli
from ops.config.example import example
from ops.config.overrides import VARIABLE
from ops.version import VERSION

ROOT = Path(__file__).parents[3]


@pytest.fixture(autouse=True)
def _no_system_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(configuration, "SYSTEM_FILE", str(tmp_path / "system.toml"))


def call(*words: str) -> Result:
    return CliRunner().invoke(cli, words, prog_name="pptpcon", catch_exceptions=False)


def test_version_is_that_of_the_package() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["version"] == VERSION
    assert call("version").stdout.startswith(f"pptpcon {VERSION}\n")
    parts = json.loads(call("version", "--json").stdout)
    assert parts["pptpcon"] == VERSION
    assert "missing" not in parts["libraries"].values()


@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_help_names_every_command_that_exists(flag: str) -> None:
    result = call(flag)
    assert result.exit_code == 0
    for name in ("run", "check-config", "config", "import-config", "version"):
        assert f"\n  {name} " in result.stdout


@pytest.mark.parametrize("words", [[], ["config"], ["import-config"], ["show"]])
def test_no_line_of_a_list_of_commands_is_cut(words: list[str]) -> None:
    assert "..." not in call(*words, "--help").stdout.partition("Commands:")[2]


@pytest.mark.parametrize(
    "words", [["run"], ["check-config"], ["config", "show"], ["import-config", "pptpd"]]
)
def test_every_command_explains_itself(words: list[str]) -> None:
    result = call(*words, "--help")
    assert result.exit_code == 0
    assert len(result.stdout.splitlines()) > 8


def test_a_command_that_cannot_be_imported_harms_no_other(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "broken_command.py").write_text("import no_such_library\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setitem(MODULES, "broken", "broken_command")
    monkeypatch.setitem(MODULES, "absent", "no_such_command")
    result = call("--help")
    assert "(unavailable: No module named 'no_such_library')" in result.stdout
    assert "absent" not in result.stdout
    result = call("broken", "--any", "thing")
    assert result.exit_code == 1
    assert "no_such_library" in result.stderr
    assert call("absent").exit_code == 2
    assert call("version").exit_code == 0


def test_nothing_heavy_is_imported_before_a_command_is_known() -> None:
    code = (
        "import sys, ops.cli.main;"
        "print([m for m in ('pydantic', 'zmq', 'rich', 'aiohttp') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"


def test_check_config(tmp_path: Path) -> None:
    file = tmp_path / "c.toml"
    file.write_text("[ppp]\nmtu = 1\nmru = 2\n")
    result = call("check-config", str(file))
    assert result.exit_code == 78
    assert result.stdout == ""
    assert result.stderr.splitlines() == [
        f"{file}:2: ppp.mtu: must be at least 576, got 1",
        f"{file}:3: ppp.mru: must be at least 576, got 2",
        "pptpcon: 2 problems, nothing done",
    ]
    result = call("check-config", str(file), "--set", "ppp.mtu=1300", "--set", "ppp.mru=1300")
    assert result.exit_code == 0
    assert result.stdout.startswith(f"ok: {file}\n")
    assert "nobody can log in" in result.stderr


def test_without_a_file_the_system_s_then_the_defaults(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pptpcon.toml").write_text("[ppp]\nmtu = 1\n")  # lies about: not taken
    result = call("check-config")
    assert result.exit_code == 0
    assert "built-in defaults" in result.stdout
    (tmp_path / "system.toml").write_text("[ppp]\nmtu = 1\n")
    assert call("check-config").exit_code == 78


def test_config_show(tmp_path: Path) -> None:
    file = tmp_path / "c.toml"
    file.write_text("[accounts.users]\nbob = 'geheim'\n[ip]\nlocal = '10.99.1.1'\n")
    file.chmod(0o600)
    result = call("config", "show", "-c", str(file), "--set", "ppp.mtu=1300")
    assert result.exit_code == 0
    shown = tomllib.loads(result.stdout)
    assert shown["ppp"]["mtu"] == 1300
    assert shown["accounts"]["users"] == {"bob": "***"}
    assert '10.99.1.1"' not in json.dumps(shown["pools"])
    assert "geheim" not in result.output
    assert call("config", "show", "--defaults").stdout == example()
    assert 'demo = "***"' in call("config", "show").stdout


def test_import_config(tmp_path: Path) -> None:
    conf = tmp_path / "pptpd.conf"
    conf.write_text("localip 10.0.0.1\nremoteip 10.0.0.2-9\n")
    result = call("import-config", "pptpd", str(conf), "--secrets", str(tmp_path / "none"))
    assert result.exit_code == 0
    assert tomllib.loads(result.stdout)["pools"]["default"]["ranges"] == ["10.0.0.2-9"]
    assert "no such file" in result.stderr
    result = call("import-config", "pptpd", str(tmp_path))
    assert result.exit_code == 78
    assert result.stdout == ""


class Became(Exception):  # noqa: N818 - no error: the process would be another one now
    def __init__(self, argv: list[str], environment: dict[str, str]) -> None:
        self.argv = argv
        self.environment = environment


@pytest.fixture
def _execve(monkeypatch: pytest.MonkeyPatch) -> None:
    def become(_: str, argv: list[str], environment: dict[str, str]) -> None:
        raise Became(argv, environment)

    monkeypatch.setattr(run_module, "_require_privilege", lambda: None)
    monkeypatch.setattr(os, "execve", become)


@pytest.mark.usefixtures("_execve")
def test_run_becomes_the_keeper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("c.toml").write_text("[accounts.users]\nbob = 'geheim'\n")
    with pytest.raises(Became) as caught:
        call("run", "-c", "c.toml", "--set", "ppp.mtu=1300")
    argv = caught.value.argv
    fd = int(argv[4])
    try:
        assert argv == [
            sys.executable, "-m", "dispatcher.keeper", "--config-fd", str(fd),
            "--config-path", str(tmp_path / "c.toml"),
        ]  # fmt: skip
        assert os.get_inheritable(fd)
        handed = settings.loads(read_memfd(fd))
    finally:
        os.close(fd)
    assert (handed.ppp.mtu, handed.accounts.users) == (1300, (("bob", "geheim"),))
    assert caught.value.environment[VARIABLE] == '["ppp.mtu=1300"]'
    assert "geheim" not in str(caught.value.environment)


@pytest.mark.usefixtures("_execve")
def test_run_without_a_file_has_one_account() -> None:
    with pytest.raises(Became) as caught:
        call("run")
    fd = int(caught.value.argv[4])
    try:
        handed = settings.loads(read_memfd(fd))
    finally:
        os.close(fd)
    assert "--config-path" not in caught.value.argv
    assert VARIABLE not in caught.value.environment
    [(name, password)] = handed.accounts.users
    assert name == "demo"
    assert len(password) == 16


def test_run_with_a_bad_file_starts_nothing(tmp_path: Path) -> None:
    file = tmp_path / "c.toml"
    file.write_text("[ppp]\nmtu = 1\n")
    assert call("run", "-c", str(file)).exit_code == 78


def test_run_without_privilege() -> None:
    """As nobody, if this is root; else as who we are."""
    if os.geteuid() == 0 and not os.access(ROOT, os.X_OK):
        pytest.skip("the checkout can't be reached")
    code = (
        "import os, sys;"
        "from ops.cli import run;"
        "os.geteuid() == 0 and os.setuid(65534);"
        "run._require_privilege()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 77
    assert "run it as root" in done.stderr


def test_python_m_ops() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "ops", "version"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith(f"pptpcon {VERSION}\n")
