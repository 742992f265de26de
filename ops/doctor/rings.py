"""AF_XDP: why it is not used here, or what it would pass by where it is configured."""

from __future__ import annotations

from collections.abc import Iterator

from ops.doctor.finding import Finding
from ops.doctor.host import Host


def look(host: Host) -> Iterator[Finding]:
    """The device of gre.interface, its queueing discipline, rules that only rings pass by."""
    gre = host.settings.gre
    if gre.mode == "raw":
        return
    chosen = [key for key, word in (("mode", gre.mode), ("send", gre.send)) if word == "xdp"]
    mend = f'set gre.{chosen[0]} = "auto"' if chosen else ""
    if host.rings and chosen:
        text = f"is configured, and yet: {host.rings}"
        yield Finding("warning", "AF_XDP", text, mend)
    elif host.rings:
        yield Finding("note", "AF_XDP", f"is not used: {host.rings}")
    for way, value in (("ring_receive", gre.mode), ("ring_send", gre.send)):
        for remark in host.filters.get(way, ()):
            if remark["kind"] == "passed" and value == "xdp":
                text = f"is about GRE ({remark['text']}), and AF_XDP passes it by"
                yield Finding("warning", remark["where"], text, mend)
