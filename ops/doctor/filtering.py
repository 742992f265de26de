"""Packet filters: what keeps TCP or GRE out, and what packet sockets pass by."""

from __future__ import annotations

from collections.abc import Iterator

from ops.doctor.finding import Finding, Level
from ops.doctor.host import Host


def look(host: Host) -> Iterator[Finding]:
    """nft and iptables, legacy rules too."""
    if not host.root:
        yield Finding("note", "firewall", "only root may read its rules", "run as root")
        return
    found, gre = host.filters, host.settings.gre
    port = f"tcp dport {host.settings.listen.port}"
    for remark in found["tcp"]:
        text = f"drops TCP to port {host.settings.listen.port}: no client gets through"
        yield Finding("error", remark["where"], text, allow(remark["where"], port))
    passed = any(remark["kind"] == "passed" for remark in found["receive"])
    raw = gre.mode == "raw" or (gre.mode == "auto" and passed)
    for remark in found["receive"]:
        if remark["kind"] == "blocks":
            level: Level = "error" if raw else "warning"
            text = "drops GRE: " + (
                "no data gets through"
                if raw
                else "packet sockets pass it by, and data flows; in raw mode none would"
            )
            yield Finding(level, remark["where"], text, allow(remark["where"], "ip protocol gre"))
    for way, key, value in (("receive", "gre.mode", gre.mode), ("send", "gre.send", gre.send)):
        for remark in found[way]:
            if remark["kind"] == "passed":
                yield _passed(remark, key, value)
            elif way == "send":
                text = "drops GRE that we send"
                mend = allow(remark["where"], "ip protocol gre")
                yield Finding("error" if raw else "warning", remark["where"], text, mend)
    for remark in found["forward"]:
        text = "drops what is forwarded: subscribers reach this host and nothing behind it"
        mend = allow(remark["where"], 'iifname "pptp*"')
        yield Finding("warning", remark["where"], text, mend)
    for remark in found["unread"]:
        yield Finding("warning", remark["where"], "rules about GRE are not known to us")


def _passed(remark: dict[str, str], key: str, value: str) -> Finding:
    text = f"is about GRE ({remark['text']})"
    if value in ("packet", "xdp"):
        mend = f'set {key} = "auto"'
        return Finding("warning", remark["where"], f"{text}, and packet sockets pass it by", mend)
    return Finding("note", remark["where"], f"{text}: raw sockets are used, which obey it")


def allow(where: str, what: str) -> str:
    """The command that lets something through where it is dropped; `what` in nft's words."""
    words = where.split()
    if words[:2] == ["nft", "chain"] and len(words) >= 5:
        return f"nft insert rule {words[2]} {words[3]} {words[4]} {what} accept"
    if words[:1] == ["iptables"] and len(words) >= 5:
        legacy = {
            "ip protocol gre": "-p gre",
            'iifname "pptp*"': "-i pptp+",
        }.get(what) or what.replace("tcp dport", "-p tcp --dport")
        return f"iptables -t {words[2]} -I {words[4]} {legacy} -j ACCEPT"
    return ""
