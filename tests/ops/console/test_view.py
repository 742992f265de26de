"""Columns, pools, CPU meters and frozen links, without a process."""

from __future__ import annotations

import json
import os
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastpath import layout, mppe
from ops.console import columns, snapshot
from ops.console.links import describe
from ops.console.pools import STATIC, Pools
from ops.console.usage import Meter, Usage, memory, read_stat
from ops.console.view import View
from ops.ranges import parse_address
from ops.settings import Ip, Pool, Settings
from tests.ops.console.rig import Shared, settings
from workers.ppp.actions import Policy
from workers.ppp.link import Link
from workers.session import Saved


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "00:00:00"), (-3, "00:00:00"), (3661, "01:01:01"), (90061, "1.01:01:01")],
)
def test_duration(seconds: int, text: str) -> None:
    assert columns.duration(seconds) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (5 << 30, "5.0 GiB"), (2**60, "1024.0 PiB")],
)
def test_octets(count: int, text: str) -> None:
    assert columns.octets(count) == text


@given(st.integers(0, 2**64 - 1))
def test_octets_of_any_counter_is_short(count: int) -> None:
    assert len(columns.octets(count)) <= 12


def test_mppe_column() -> None:
    shared = Shared()
    shared.up(0, "u", "10.99.1.5")
    s = shared.table.session(0)
    cell = columns.COLUMNS["mppe"]
    assert cell(s, 0) == "128 stateless"
    assert cell(s._replace(stateful=3), 0) == "128 stateful"
    assert cell(s._replace(mppe_rx_bits=0, mppe_tx_bits=0), 0) == "none"
    assert cell(s._replace(mppe_rx_bits=0), 0) == "rx none, tx 128 stateless"


def test_a_new_generation_shows_nothing_of_the_old() -> None:
    shared = Shared()
    shared.up(0, "alice", "10.99.1.5")
    shared.set_traffic(0, (1, 1), (1, 1), 1)
    shared.table.write_blob(0, b"\x90")
    shared.table.release(0)
    shared.table.allot(
        0,
        worker=1,
        call_id=1,
        peer_call_id=1,
        local_address=1,
        peer_address=2,
        peer_port=3,
        peer_window=4,
        peer_speed=5,
        connection=6,
    )
    view = View(shared.table, settings(), Usage())
    (row,) = columns.rows(snapshot.take(shared.table), ["username", "ip", "rx-bytes-raw", "state"])
    assert row == [None, None, 0, "starting"]
    assert view.find("alice") == []
    assert view.find(f"{shared.table.session(0).sid:x}")[0]["saved"] is None


def test_states_follow_dispatcher_and_worker() -> None:
    shared = Shared()
    shared.call(0)
    states = []
    for state in (layout.STATE_STARTING, layout.STATE_ACTIVE, layout.STATE_FINISHING):
        shared.table.set_state(0, state)
        states.append(snapshot.state(shared.table.session(0)))
    shared.table.set_state(0, layout.STATE_ACTIVE)
    shared.table.set_ending(0)
    states.append(snapshot.state(shared.table.session(0)))
    assert states == ["starting", "active", "finishing", "finishing"]


def test_pools_count_as_admission_does() -> None:
    chosen = replace(
        Settings(),
        ip=Ip(local="10.0.0.1,10.0.0.200-201"),
        pools=(Pool("a", ("10.0.0.0-255",)), Pool("b", ("10.1.0.0/29", "10.1.0.2"))),
    )
    pools = Pools(chosen)
    given_out = [parse_address(a) for a in ("10.0.0.7", "10.1.0.2", "203.0.113.5")]
    use = {p.name: (p.size, p.used) for p in pools.use(given_out)}
    assert use == {"a": (253, 1), "b": (6, 1), STATIC: (None, 1)}
    assert pools.name_of(parse_address("10.1.0.2")) == "b"
    assert pools.name_of(parse_address("203.0.113.5")) == STATIC


def test_meter_never_goes_back() -> None:
    meter = Meter()
    readings = [
        meter.read((10, 1), 1.0),
        meter.read((10, 1), 0.99),  # a tick in the wrong direction
        meter.read(None, 0.0),  # dead
        meter.read((11, 2), 0.1),  # its successor
        meter.read((11, 3), 0.2),  # the same number, another process
        meter.read(None, 0.0),
    ]
    assert readings == pytest.approx([1.0, 1.0, 1.0, 1.1, 1.3, 1.3])


def test_own_proc_files() -> None:
    stat = read_stat(os.getpid())
    assert stat is not None
    assert stat.cpu > 0
    assert stat.resident > 1 << 20
    assert read_stat(os.getpid(), os.getpid()) is not None
    assert read_stat(2**22 + 1) is None
    resident, virtual = memory([os.getpid(), 2**22 + 1])
    assert 1 << 20 < resident < virtual


SECRET = b"\xabSECRETSECRETKEY"


def saved(link: dict[str, object]) -> bytes:
    return Saved(
        link=link,
        user="alice@example",
        peer_name="DOM\\alice\udcff",
        auth="mschapv2",
        called=1,
        calling=2,
        dns=(parse_address("192.0.2.53"),),
        pool="default",
        started=1.0,
        up=2.0,
    ).pack()


def test_session_in_full_without_secrets() -> None:
    shared = Shared()
    shared.up(0, "alice", "10.99.1.5")
    link: dict[str, object] = {
        "v": 1,
        "seed": SECRET,
        "link": [3, "mschapv2", b"alice", [SECRET, SECRET, b"", b""], 1],
        "key": SECRET,
        "lcp": [[9, None, 10], [1, 2, SECRET, False, 0, 0], [SECRET]],
    }
    shared.table.write_blob(0, saved(link))
    (found,) = View(shared.table, settings(), Usage()).find("alice")
    assert found["username"] == "alice@example"
    assert found["peer-name"] == "DOM\\alice\\xff"
    assert found["dns"] == ["192.0.2.53"]
    assert found["link"] == {"note": "written by another version; not shown"}
    text = json.dumps(found)
    assert "SECRET" not in text
    assert SECRET.hex() not in text


def test_interface_identifiers() -> None:
    shared = Shared()
    shared.up(0, "alice", "10.99.1.5")
    view = View(shared.table, settings(), Usage())
    (found,) = view.find("alice")
    assert found["ip6"] is None and found["local-ip6"] is None
    shared.table.set_six(0, bytes.fromhex("02aabbfffeccddee"), bytes(7) + b"\x01")
    (found,) = view.find("alice")
    assert (found["ip6"], found["local-ip6"]) == ("fe80::2aa:bbff:fecc:ddee", "fe80::1")


def test_frozen_ipv6cp_is_described() -> None:
    policy = Policy(ipv6=True, interface_id=bytes(7) + b"\x01")
    link = Link(policy, magic=1, challenge=bytes(16))
    shown = describe(link.freeze())
    assert shown["ipv6cp"] == {"state": "INITIAL", "iid": "fe80::", "our_iid": "fe80::1"}
    assert "ipv6cp" not in describe(Link(Policy(), magic=1, challenge=bytes(16)).freeze())


def test_versions_tell_which_code_encrypts() -> None:
    shared = Shared()
    view = View(shared.table, settings(), Usage())
    assert view.versions()["mppe"] == mppe.kernels_of("auto")
    assert view.versions()["gre"] == {"receive": "raw", "send": "raw"}
    view.apply(replace(settings(), mppe=replace(settings().mppe, kernel="portable")))
    assert view.versions()["mppe"] == {"sha1": "portable", "rc4": "portable"}
    assert view.versions()["tun_writes"] == "auto"  # no data thread has tried yet


def test_damaged_blobs_are_named() -> None:
    shared = Shared()
    shared.up(0, "alice", "10.99.1.5")
    view = View(shared.table, settings(), Usage())
    for blob in (b"\xc1", b"\x90", b"\x91\x63", b"\x80"):
        shared.table.write_blob(0, blob)
        (found,) = view.find("alice")
        assert found["saved"].startswith("not readable: ")


@given(st.recursive(st.none() | st.integers() | st.text(), st.lists, max_leaves=10))
def test_any_frozen_link_is_described_or_named(junk: object) -> None:
    assert isinstance(describe({"lcp": junk, "ccp": junk, "ipcp": junk, "ipv6cp": junk}), dict)
