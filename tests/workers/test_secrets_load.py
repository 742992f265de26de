"""The root helper that reads secrets files: what it hands on, and what it says."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ops import boot
from workers import secrets_load


def load(path: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, bytes, str, str]:
    """(exit status, memfd, stdout, stderr) of one call."""
    fd = os.memfd_create("out")
    try:
        code = secrets_load.main([str(path), "--out-fd", str(fd)])
        data = boot.read_memfd(fd)
    finally:
        os.close(fd)
    printed = capsys.readouterr()
    return code, data, printed.out, printed.err


def test_reads_and_expands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    inner, file = tmp_path / "inner", tmp_path / "chap-secrets"
    inner.write_text("inner-word\n")
    file.write_text(f"bob * @{inner} *\nalice * plain *\neve * @{tmp_path}/none *\n")
    file.chmod(0o600)
    code, data, out, err = load(file, capsys)
    assert code == 0
    assert b"inner-word" in data and b"alice * plain *" in data
    assert out == f"{inner}\n{tmp_path}/none\n"
    assert "chap-secrets:3:" in err and "No such file" in err
    assert "inner-word" not in err and "plain" not in err


def test_open_to_others_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "chap-secrets"
    file.write_text("a * b *\n")
    file.chmod(0o644)
    code, _, _, err = load(file, capsys)
    assert code == 0 and f"chmod 600 {file}" in err


@pytest.mark.parametrize("kind", ["missing", "folder", "fifo"])
def test_what_is_no_file(kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "chap-secrets"
    if kind == "folder":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(path)
    code, data, _, err = load(path, capsys)
    assert (code, data) == (66, b"")
    assert str(path) in err and "Traceback" not in err


def test_called_by_hand(capsys: pytest.CaptureFixture[str]) -> None:
    assert secrets_load.main([]) == 64
    assert "pptpcon run" in capsys.readouterr().err
