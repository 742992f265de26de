"""RC4, SHA-1 and the key changes, each against something slow and obvious."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterator

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher
from hypothesis import given
from hypothesis import strategies as st

from fastpath import mppe
from workers.ppp.mppe_keys import initial_session_key, next_session_key
from workers.ppp.rc4 import Rc4

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from cryptography.hazmat.decrepit.ciphers.algorithms import ARC4

BEST = mppe.kernels()
KERNELS = [
    (sha1, rc4)
    for sha1 in ("portable", "sha-ni")
    for rc4 in ("portable", "sse4.1")
    if sha1 in ("portable", BEST["sha1"]) and rc4 in ("portable", BEST["rc4"])
]
keys = st.sampled_from([8, 16]).flatmap(lambda n: st.binary(min_size=n, max_size=n))


def slow_rc4(key: bytes, data: bytes) -> bytes:
    return Rc4(key).crypt(data)


def openssl_rc4(key: bytes, data: bytes) -> bytes:
    return Cipher(ARC4(key), None).encryptor().update(data)


@pytest.fixture(params=KERNELS, ids="-".join, autouse=True, scope="module")
def kernel(request: pytest.FixtureRequest) -> Iterator[None]:
    mppe.use_kernels(sha1=request.param[0], rc4=request.param[1])
    yield
    mppe.use_kernels(**BEST)


@pytest.mark.parametrize("size", [0, 1, 3, 55, 56, 63, 64, 65, 119, 128, 1000])
def test_sha1(size: int) -> None:
    data = bytes(i * 7 & 255 for i in range(size))
    assert mppe.sha1_digest(data) == hashlib.sha1(data, usedforsecurity=False).digest()


@given(st.lists(st.tuples(st.binary(max_size=200), keys), max_size=13))
def test_batch_is_rc4(pairs: list[tuple[bytes, bytes]]) -> None:
    packets, used = [p for p, _ in pairs], [k for _, k in pairs]
    assert mppe.crypt_batch(packets, used) == [slow_rc4(k, p) for p, k in pairs]


def test_long_packets_against_openssl() -> None:
    key = bytes(range(16))
    packets = [
        bytes([n & 255]) * n
        for n in (1400, 1399, 1401, 1400, 1500, 8, 0, 64, *range(1380, 1400), 2304, 2303)
    ]
    wide = [key] * len(packets)
    assert mppe.crypt_batch(packets, wide) == [openssl_rc4(key, p) for p in packets]


@pytest.mark.parametrize("bits", [40, 56, 128])
def test_key_changes(bits: int) -> None:
    """A hundred changes beside the slow twin, which has the vectors of RFC 3079 in its tests."""
    start = bytes(range(100, 116 if bits == 128 else 108))
    expected = initial_session_key(start, bits)
    key = mppe.initial_key(start, bits)
    assert key == expected
    for _ in range(100):
        expected = next_session_key(start, expected, bits)
        key = mppe.changed_key(start, key, bits)
        assert key == expected


@given(
    st.lists(st.tuples(keys, st.integers(1, 9)), max_size=12),
)
def test_chains_in_step(chains: list[tuple[bytes, int]]) -> None:
    found = mppe.chain_keys([start for start, _ in chains], [n for _, n in chains])
    for (start, n), made in zip(chains, found, strict=True):
        bits = 128 if len(start) == 16 else 40
        key, expected = mppe.initial_key(start, bits), []
        for _ in range(n):
            key = mppe.changed_key(start, key, bits)
            expected.append(key)
        assert made == expected


def test_bad_arguments_are_refused() -> None:
    for call in (
        lambda: mppe.initial_key(b"short", 128),
        lambda: mppe.initial_key(bytes(16), 64),
        lambda: mppe.changed_key(bytes(16), bytes(8), 128),
        lambda: mppe.crypt_batch([b""], []),
        lambda: mppe.crypt_batch([b""], [b"x"]),
        lambda: mppe.use_kernels(sha1="none", rc4="portable"),
    ):
        with pytest.raises(ValueError, match=r"\w"):
            call()
