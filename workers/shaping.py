"""Rates and filter of a session: what its account says, and [shaping] where it says nothing."""

from __future__ import annotations

from dataclasses import dataclass

from ops.settings import Settings
from workers.filters import Filter, Network, number_of, pack, parse_network, parse_rule
from workers.policy import Policy


@dataclass(frozen=True, slots=True)
class Limits:
    """As Table.set_limits takes them: bit/s, octets, the number of a filter; 0: none."""

    rate_up: int = 0
    rate_down: int = 0
    burst_up: int = 0
    burst_down: int = 0
    filter: int = 0


def block_of(settings: Settings) -> bytes:
    """All filters and exempt prefixes, for the data path."""
    filters = [
        Filter(each.name, tuple(map(parse_rule, each.rules)), each.default == "permit")
        for each in settings.filters
    ]
    networks: list[Network] = []
    for text in settings.shaping.exempt:
        network = parse_network(text)
        if network is not None:
            networks.append(network)
    return pack(filters, networks)


class Shaping:
    """The part of the settings that decides a session's limits."""

    def __init__(self, settings: Settings) -> None:
        self._general = settings.shaping
        self._names = frozenset(each.name for each in settings.filters)

    def __eq__(self, other: object) -> bool:
        """Whether sessions get the same from both; the words of filters are not compared."""
        return (
            isinstance(other, Shaping)
            and self._general == other._general
            and self._names == other._names
        )

    __hash__ = None  # type: ignore[assignment]  # compared only

    def limits(self, policy: Policy) -> Limits:
        """What holds for a session with this policy."""
        general = self._general
        name = self.filter_of(policy)
        return Limits(
            _rate(policy.rate_up, general.rate_up),
            _rate(policy.rate_down, general.rate_down),
            policy.burst_up or (0 if policy.rate_up else general.burst_up),
            policy.burst_down or (0 if policy.rate_down else general.burst_down),
            number_of(name) if name in self._names else 0,
        )

    def filter_of(self, policy: Policy) -> str:
        """The filter's name; "" if none is said."""
        return policy.filter or self._general.filter

    def unknown(self, policy: Policy) -> str:
        """The name of a filter that is said and not there."""
        name = self.filter_of(policy)
        return "" if name in self._names else name


def _rate(own: int, general: int) -> int:
    """0: nothing said, below: none."""
    return max(0, own or general)
