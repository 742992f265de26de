"""chap-secrets: an index and problems with their lines; expansion loses nothing."""

from __future__ import annotations

from workers.secrets_file import Index, expand, parse


def one(data: bytes) -> None:
    index = parse(data)
    assert isinstance(index, Index)
    for problem in index.problems:
        assert 1 <= problem.line <= data.count(b"\n") + 1
    for name in ("user", "DOMAIN\\user", "*", ""):
        index.find(name, "pptpcon")
    again, _ = expand(data, lambda _path: b"x")
    assert len(parse(again)) >= len(index)
