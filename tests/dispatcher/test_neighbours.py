"""Proxy entries and isolation when the kernel does not answer; with it: tests/netns."""

from __future__ import annotations

import socket
from types import SimpleNamespace
from typing import Any

import pytest
from pyroute2.netlink.exceptions import NetlinkError

from dispatcher import neighbours, nft
from dispatcher.netops import Netops
from ops.log import Log
from ops.settings import Lan


def test_routes_that_cannot_be_read_cost_a_session_only_its_lan(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refused(*_: Any) -> Any:
        raise NetlinkError(105, "No buffer space available")

    monkeypatch.setattr(neighbours, "Ways", refused)
    found = neighbours.Neighbours(Log("test"), ())
    found._lan = Lan(proxy="on")
    found.follow([(True, (socket.AF_INET, 0x0A630105))])
    assert found.count == 0
    found.leave()


def test_isolation_that_cannot_be_mended_is_told_and_ends_nothing() -> None:
    def refused() -> int:
        raise nft.NftError("no")

    said: list[str] = []
    netops: Any = SimpleNamespace(
        _isolation=SimpleNamespace(dropped=refused),
        _settings=SimpleNamespace(lan=Lan(isolate=True)),
        _count_at=0.0,
        _log=SimpleNamespace(error=lambda text, **_: said.append(text)),
    )
    Netops.tick(netops, 1.0)
    Netops.tick(netops, 2.0)  # not at every turn
    assert said == ["subscribers are not isolated"]
