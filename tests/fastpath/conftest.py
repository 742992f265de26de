"""Engines in every way they can be run: each way to write to the TUN, each kernel of MPPE."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from fastpath import mppe
from tests.fastpath import peer


@pytest.fixture(params=["plain", "io_uring"])
def each_way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """gre.tun_writes of the engines that `peer.running` makes."""
    monkeypatch.setattr(peer, "writes", request.param)


@pytest.fixture(params=mppe.usable())
def each_kernel(request: pytest.FixtureRequest) -> Iterator[None]:
    """mppe.kernel, one after the other of those that this CPU has."""
    was = mppe.kernels()
    mppe.choose(request.param)
    yield
    mppe.use_kernels(**was)
