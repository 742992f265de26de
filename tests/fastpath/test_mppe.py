"""RC4, SHA-1 and the key changes, each against something slow and obvious."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterator
from random import Random

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher
from hypothesis import given, settings
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
    for sha1 in mppe.sha1_usable()
    for rc4 in ("portable", "sse4.1")
    if rc4 in ("portable", BEST["rc4"])
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


@given(st.randoms(use_true_random=False), st.integers(1, 128), st.sampled_from([40, 300, 1600]))
@settings(max_examples=40, deadline=None)
def test_mixed_lengths_against_openssl(random: Random, n: int, longest: int) -> None:
    packets = [random.randbytes(random.randint(1, longest)) for _ in range(n)]
    used = [random.randbytes(random.choice([8, 16])) for _ in packets]
    expected = [openssl_rc4(k, p) for p, k in zip(packets, used, strict=True)]
    assert mppe.crypt_batch(packets, used) == expected


def test_one_long_packet_among_short_ones() -> None:
    """Where a stream ends, the others go on in fewer lanes; every number of them."""
    key = bytes(range(16))
    for n in range(1, 14):
        packets = [bytes(16 * i * i) for i in range(n)] + [bytes(2304)]
        assert mppe.crypt_batch(packets, [key] * (n + 1)) == [openssl_rc4(key, p) for p in packets]


@given(keys, st.lists(st.integers(0, 700), min_size=1, max_size=9))
def test_a_stateful_stream_goes_on_at_any_octet(key: bytes, sizes: list[int]) -> None:
    whole = openssl_rc4(key, bytes(sum(sizes)))
    assert b"".join(mppe.crypt_stream(key, [bytes(n) for n in sizes])) == whole


def test_a_key_that_swaps_what_comes_next() -> None:
    """In step i of a key schedule, j is i + 1 about once in 256: what was loaded ahead is
    then old. Keys of one octet's value make it happen early, and often."""
    for value in range(256):
        for size in (8, 16):
            key = bytes([value]) * size
            assert mppe.crypt_stream(key, [bytes(300)]) == [openssl_rc4(key, bytes(300))]
            assert (
                mppe.crypt_batch([bytes(300)] * 2, [key] * 2) == [openssl_rc4(key, bytes(300))] * 2
            )


CHAIN = st.sampled_from([40, 56, 128]).flatmap(
    lambda bits: st.tuples(
        st.binary(min_size=16 if bits == 128 else 8, max_size=16 if bits == 128 else 8),
        st.just(bits),
        st.lists(st.integers(1, 4), min_size=1, max_size=9),
    )
)


@given(st.lists(CHAIN, max_size=20))
@settings(deadline=None)
def test_chains_in_step(chains: list[tuple[bytes, int, list[int]]]) -> None:
    for (start, bits, changes), made in zip(chains, mppe.chain_keys(chains), strict=True):
        key, expected = initial_session_key(start, bits), []
        for count in changes:
            for _ in range(count):
                key = next_session_key(start, key, bits)
            expected.append(key)
        assert made == expected


def test_one_chain_far_longer_than_the_others() -> None:
    start = bytes(range(16))
    keys = mppe.chain_keys([(start, 128, [1])] * 9 + [(start, 128, [1] * 99)])
    assert keys[:9] == [[keys[9][0]]] * 9
    key = mppe.initial_key(start, 128)
    for made in keys[9]:
        key = mppe.changed_key(start, key, 128)
        assert made == key


def test_kernels_by_name() -> None:
    can = mppe.usable()
    assert can[0] == "portable"
    assert mppe.kernels_of("portable") == {"sha1": "portable", "rc4": "portable"}
    assert mppe.kernels_of("auto") == mppe.kernels_of(can[-1]) == BEST
    assert mppe.kernels_of("sse4.1")["sha1"] == "portable"
    was = mppe.kernels()
    for name in can:
        assert mppe.choose(name) == name
        assert mppe.kernels() == mppe.kernels_of(name)
    chosen = mppe.choose("auto")
    assert chosen in can
    assert mppe.kernels() == mppe.kernels_of(chosen)
    assert mppe.choose("no such kernel") == can[-1]
    mppe.use_kernels(**was)


def test_bad_arguments_are_refused() -> None:
    for call in (
        lambda: mppe.initial_key(b"short", 128),
        lambda: mppe.initial_key(bytes(16), 64),
        lambda: mppe.changed_key(bytes(16), bytes(8), 128),
        lambda: mppe.crypt_batch([b""], []),
        lambda: mppe.crypt_batch([b""], [b"x"]),
        lambda: mppe.crypt_stream(b"x", []),
        lambda: mppe.chain_keys([(bytes(8), 128, [1])]),
        lambda: mppe.chain_keys([(bytes(16), 128, [0])]),
        lambda: mppe.use_kernels(sha1="none", rc4="portable"),
    ):
        with pytest.raises(ValueError, match=r"\w"):
            call()
