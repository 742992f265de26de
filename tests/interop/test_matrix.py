"""The lab's variants: each logs in as it should or is refused as it should, and moves data."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.interop import lab
from tests.interop.conftest import fresh_name

pytestmark = [pytest.mark.interop, pytest.mark.timeout(420)]

GROUPS = ("auth", "mppe", "stateful", "stateful2", "mschap1", "comp", "ipv6")


@pytest.mark.parametrize("group", GROUPS)
def test_group(group: str, tmp_path: Path) -> None:
    # Every method of authentication with code that only root can read.
    server = lab.PRIVATE_SERVER if group == "auth" else lab.SERVER
    lines = lab.matrix(fresh_name(), group, tmp_path, server)
    print("\n".join(lines))
    bad = [line for line in lines if line.startswith("FAIL")]
    said = (tmp_path / f"{group}-server.log").read_text(errors="replace")[-3000:]
    assert not bad, "\n".join((*bad, said))
    assert lines[-1].endswith(" 0 failed")
