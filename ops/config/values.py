"""Checks of single values: each returns its value, or raises what pydantic shows."""

from __future__ import annotations

import re
from ipaddress import IPv4Network, IPv6Address, ip_address, ip_network
from typing import Any, Final

from pydantic_core import PydanticCustomError

from ops import networks
from ops.ranges import parse_address, parse_network, parse_ranges
from ops.rates import UNLIMITED, parse_rate
from workers.filters import RuleError, parse_rule
from workers.filters import parse_network as parse_filter_network

NAME_OCTETS: Final = 63  # text fields of SCCRP hold 64, of the session record 63 and a zero
TOP_MOST: Final = 1000  # sessions with series of their own


def _refuse(text: str) -> PydanticCustomError:
    return PydanticCustomError("pptpcon", "{text}", {"text": text})


def check_address(text: str) -> str:
    try:
        parse_address(text)
    except ValueError:
        raise _refuse('must be an IPv4 address, as in "10.99.0.1"') from None
    return text


def check_network(text: str) -> str:
    """A prefix of peers' addresses, written from its beginning."""
    try:
        parse_network(text)
    except ValueError as e:
        raise _refuse(f"must be an IPv4 address or prefix: {e}") from None
    return text


def check_ranges(text: str) -> str:
    """The text, if it is ranges of addresses that hosts can have; else ValueError."""
    try:
        found = parse_ranges(text)
    except ValueError as e:
        raise _refuse(f"must be addresses, a range or a prefix: {e}") from None
    for first, last in found:
        # 0/8 and 127/8 are the host's own, from 224/4 on there are no unicast addresses.
        for low, high, what in (
            (0, (1 << 24) - 1, "0.0.0.0/8"),
            (127 << 24, (128 << 24) - 1, "127.0.0.0/8"),
            (224 << 24, (1 << 32) - 1, "224.0.0.0/3"),
        ):
            if first <= high and low <= last:
                raise _refuse(f"must be addresses a host can have, and {what} has none")
    return text


def check_prefix(text: str) -> str:
    try:
        network = IPv4Network(text)
    except ValueError as e:
        raise _refuse(f'must be a network, as in "192.168.7.0/24": {e}') from None
    if not network.prefixlen >= 8:
        raise _refuse("must be a network of length /8 to /32")
    check_ranges(str(network))
    return text


def check_route(text: str) -> str:
    """A network behind a subscriber."""
    try:
        wrong = networks.usable(networks.parse_network(text), default=True)
    except networks.NetworkError as e:
        raise _refuse(f'must be a network, as in "192.168.7.0/24": {e}') from None
    if wrong:
        raise _refuse(f"must be a subscriber's, not {wrong}")
    return text


def check_prefix6(text: str) -> str:
    try:
        wrong = networks.usable(networks.parse_network(text, 6))
    except networks.NetworkError as e:
        raise _refuse(f'must be an IPv6 prefix, as in "2001:db8::/40": {e}') from None
    if wrong:
        raise _refuse(f"must be a subscriber's, not {wrong}")
    return text


def check_prefix6_or_none(text: str) -> str:
    return check_prefix6(text) if text else text


def check_address6(text: str) -> str:
    try:
        IPv6Address(text)
    except ValueError as e:
        raise _refuse(f"must be an IPv6 address: {e}") from None
    return text


def check_address6_or_none(text: str) -> str:
    return check_address6(text) if text else text


def check_search(text: str) -> str:
    labels = text.rstrip(".").split(".")
    if len(text) > 64 or not all(re.fullmatch(r"[A-Za-z0-9_-]{1,63}", part) for part in labels):
        raise _refuse('must be a domain name of at most 64 characters, as in "example.net"')
    return text


def check_name(text: str) -> str:
    if not re.fullmatch(rf"[!-~]{{1,{NAME_OCTETS}}}", text):
        raise _refuse(f"must be 1 to {NAME_OCTETS} printable ASCII characters without spaces")
    return text


def check_pool_name(text: str) -> None:
    """ValueError unless `text` can name a pool: it is a label of metrics and a word of logs."""
    if not re.fullmatch(rf"[A-Za-z0-9._-]{{1,{NAME_OCTETS}}}", text):
        raise ValueError(f"a pool's name must be 1 to {NAME_OCTETS} of A-Z a-z 0-9 . _ -")


def check_filter_name(text: str) -> None:
    """ValueError unless `text` can name a filter: RADIUS names it, logs show it."""
    if not re.fullmatch(rf"[!-~]{{1,{NAME_OCTETS}}}", text):
        raise ValueError(
            f"a filter's name must be 1 to {NAME_OCTETS} printable ASCII characters without spaces"
        )


def check_user_name(text: str) -> str:
    if not 1 <= len(text.encode("utf-8")) <= 255 or not text.isprintable():
        raise _refuse("an account's name must be 1 to 255 octets of printable text")
    return text


def check_password(text: str) -> str:
    if not 1 <= len(text) <= 256 or "\0" in text:
        raise _refuse("a password must have 1 to 256 characters")
    return text


def check_user(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_.-]{0,31}", text):
        raise _refuse('must be the name of a system user, as in "nobody"')
    return text


def check_run_dir(text: str) -> str:
    # sun_path holds 108 octets; the longest name below is /control.sock.
    if text and (not text.startswith("/") or not text.isprintable() or len(text.encode()) > 90):
        raise _refuse("must be an absolute path of at most 90 octets, or empty")
    return text


def check_file_path(text: str) -> str:
    if "\0" in text:
        raise _refuse("must be a path; a path holds no NUL")
    return text


def check_path(text: str) -> str:
    """An absolute path, or "" for none."""
    if text and (not text.startswith("/") or not text.isprintable() or len(text.encode()) > 4000):
        raise _refuse("must be an absolute path, or empty")
    return text


def check_word(text: str) -> str:
    if not re.fullmatch(r"[!-~]{0,255}", text):
        raise _refuse("must be at most 255 printable ASCII characters without spaces")
    return text


def check_interface(text: str) -> str:
    if not re.fullmatch(r"[^\s/]{0,15}", text):
        raise _refuse("must be the name of an interface (at most 15 characters), or empty")
    return text


def check_netns(text: str) -> str:
    if not re.fullmatch(r"(?!\.{1,2}$)[A-Za-z0-9._-]{0,64}|/[!-~]{1,200}", text):
        raise _refuse("must be a name of `ip netns list`, an absolute path, or empty")
    return text


def check_nft_table(text: str) -> str:
    """FAMILY NAME; ours to put into a text that libnftables reads."""
    if not re.fullmatch(r"(inet|ip) [A-Za-z][A-Za-z0-9_]{0,63}", text):
        raise _refuse('must be a family, inet or ip, and the name of an nft table: "inet filter"')
    return text


def check_domain(text: str) -> str:
    if not re.fullmatch(r"[!-\[\]-~]{0,63}", text):
        raise _refuse(r"must be a domain's name alone, without \ and without spaces")
    return text


def check_domain_pair(text: str) -> str:
    old, equals, new = text.partition("=")
    if not old or not equals:
        raise _refuse('must be "OLD=NEW", or "OLD=" for none')
    check_domain(old)
    check_domain(new)
    return text


def check_interface_id(text: str) -> str:
    try:
        value = int(IPv6Address(text))
    except ValueError:
        value = 0
    if not 0 < value < 1 << 64:
        raise _refuse('must be the low half of an IPv6 address and not zero, as in "::1"')
    return text


def check_top(text: str) -> str:
    if not text:
        return text
    found = re.fullmatch(r"top:([0-9]{1,4})", text)
    if found is None or not 1 <= int(found[1]) <= TOP_MOST:
        raise _refuse(f'must be "top:N", N from 1 to {TOP_MOST}, or empty')
    return text


def check_endpoint(text: str) -> str:
    if not text:
        return text
    host, _, port = text.rpartition(":")
    good = port.isascii() and port.isdigit() and len(port) <= 5 and 1 <= int(port) <= 65535
    try:
        parse_address(host)
    except ValueError:
        good = False
    if not good:
        raise _refuse('must be ADDRESS:PORT, as in "127.0.0.1:9723", or empty to switch it off')
    return text


def check_rate(given: Any) -> int:
    """bit/s from "10M" or a plain number; before pydantic's own look."""
    if isinstance(given, bool) or not isinstance(given, int | str):
        raise _refuse('must be a rate in quotes, as in "10M", "512k" or "1G"')
    if given == UNLIMITED:
        return UNLIMITED
    try:
        return parse_rate(str(given), 1 if isinstance(given, int) else 0)
    except ValueError as e:
        raise _refuse(f"must be a rate: {e}") from None


def check_rule(text: str) -> str:
    try:
        parse_rule(text)
    except RuleError as e:
        raise _refuse(f"is no rule: {e}") from None
    return text


def check_exempt(text: str) -> str:
    try:
        network = parse_filter_network(text)
    except RuleError as e:
        raise _refuse(f"must be a prefix: {e}") from None
    if network is None or not network.prefixlen:
        raise _refuse("must be a prefix; without rates there is nothing to exempt all from")
    return text


def check_strength(bits: int) -> int:
    if bits not in (128, 56, 40):
        raise _refuse("must be 128, 56 or 40")
    return bits


def check_any_address(text: str) -> str:
    """IPv4 or IPv6, of one host."""
    try:
        found = ip_address(text)
    except ValueError:
        raise _refuse('must be an IPv4 or IPv6 address, as in "192.0.2.1"') from None
    if found.is_unspecified or found.is_multicast:
        raise _refuse("must be the address of one host")
    return text


def check_any_address_or_none(text: str) -> str:
    return check_any_address(text) if text else text


def check_address_or_none(text: str) -> str:
    return check_address(text) if text else text


def check_any_network(text: str) -> str:
    try:
        ip_network(text)
    except ValueError as e:
        raise _refuse(f"must be an IPv4 or IPv6 address or prefix: {e}") from None
    return text


def check_secret(text: str) -> str:
    if not 1 <= len(text.encode()) <= 128 or "\0" in text:
        raise _refuse("a shared secret must have 1 to 128 octets")
    return text


def check_label(text: str) -> str:
    """A name that stands in metrics."""
    if not re.fullmatch(r"[A-Za-z0-9._:-]{0,63}", text):
        raise _refuse("must be at most 63 letters, digits and . _ : -")
    return text


def check_short(text: str) -> str:
    if len(text.encode()) > 200 or not text.isprintable():
        raise _refuse("must be printable text of at most 200 octets")
    return text


def check_distinct(items: tuple[Any, ...]) -> tuple[Any, ...]:
    for at, item in enumerate(items):
        if item in items[:at]:
            raise _refuse(f"names {item} twice")
    return items
