"""The playground's concentrator: what it writes, and how it reads a /metrics page."""

from __future__ import annotations

import tomllib

from ops.client.concentrator import Concentrator, Samples
from ops.client.playground import Playground, sources

PAGE = """# HELP pptp_slots_used Slots in use.
# TYPE pptp_slots_used gauge
pptp_slots_used{worker="0"} 3.0
pptp_slots_used{worker="1"} 2.0
pptp_traffic_bytes_total{worker="0",direction="receive"} 1.5e+03
pptp_traffic_bytes_total{worker="1",direction="receive"} 500
pptp_traffic_bytes_total{worker="1",direction="transmit"} 7
pptp_build_info{version="a \\"b\\""} 1
nonsense
"""


def test_samples() -> None:
    samples = Samples.parse(PAGE)
    assert samples.by("pptp_slots_used", "worker") == {"0": 3.0, "1": 2.0}
    assert samples.total("pptp_traffic_bytes_total", direction="receive") == 2000
    assert samples.total("pptp_traffic_bytes_total", worker="1") == 507
    assert samples.total("pptp_absent") == 0
    assert samples.total("pptp_build_info") == 1


def test_configuration_is_toml_with_the_extra_keys_in_place() -> None:
    concentrator = Concentrator(
        Playground(),
        {"a user": 'p"w'},
        extra={"workers": {"count": 2}, "ip": {"local": "10.0.0.1"}},
    )
    read = tomllib.loads(concentrator.configuration())
    assert read["accounts"]["users"] == {"a user": 'p"w'}
    assert read["workers"] == {"count": 2}
    assert read["ip"]["local"] == "10.0.0.1"
    assert read["pools"]["default"]["ranges"]


def test_sources_are_distinct() -> None:
    assert sources(2) == ("198.18.0.2", "198.18.0.3")
    assert len(set(sources(1000))) == 1000
