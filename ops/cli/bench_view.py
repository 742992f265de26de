"""What `pptpcon bench` says at its end, for a person."""

from __future__ import annotations

from typing import Any


def _way(name: str, way: dict[str, int]) -> str:
    share = 100 * way["lost"] / way["sent"] if way["sent"] else 0.0
    return (
        f"UDP {name:9}{way['sent']} sent, {way['received']} received, {way['lost']} lost "
        f"({share:.3f} %), {way['duplicated']} duplicated, {way['reordered']} out of order"
    )


def _trail(name: str, trail: dict[str, Any]) -> str:
    losses = [f"{n} {who}" for part in ("before", "after") for who, n in trail[part].items()]
    unknown = [
        f"{n} unexplained {where} the concentrator"
        for n, where in zip(trail["unexplained"], ("before", "behind"), strict=True)
        if n
    ]
    return (
        f"account {name:5}{trail['sent']} sent = {trail['received']} received + "
        f"{', '.join(losses) or 'no loss'}; the concentrator counts {trail['concentrator']}"
        + (f"; {', '.join(unknown)}" if unknown else "")
    )


def summary_text(s: dict[str, Any]) -> str:
    """The closing summary."""
    setup = s["setup"]
    latency = setup["latency_ms"]
    failed = ", ".join(f"{n} {cause}" for cause, n in setup["failed"].items())
    lines = [
        f"sessions     {s['up']} of {s['sessions']} up, {s['lost']} lost on the way",
        f"set-up       {setup['per_second']:.0f} a second, p50 {latency['p50']:.0f} ms, "
        f"p95 {latency['p95']:.0f}, p99 {latency['p99']:.0f}; failed: {failed or 'none'}",
    ]
    if "udp" in s:
        udp = s["udp"]
        lines += [_way("up", udp["up"]), _way("down", udp["down"])]
        lines.append(
            f"round trip   p50 {udp['round_trip_ms']['p50']:.2f} ms, "
            f"p99 {udp['round_trip_ms']['p99']:.2f} ms"
        )
        if udp["misrouted"]:
            lines.append(f"MISROUTED    {udp['misrouted']} came to another session")
    if "tcp" in s:
        tcp = s["tcp"]
        lines.append(
            f"TCP          {tcp['mbit_up']:.1f} Mbit/s up, {tcp['mbit_down']:.1f} Mbit/s down, "
            f"{tcp['answers']} of {tcp['requests']} requests answered, {tcp['failed']} failed"
        )
    if "account" in s:
        lines += [_trail(way, s["account"][way]) for way in ("up", "down")]
    server = s.get("server")
    if server:
        packets = sum(server["packets"].values())
        spent = ", ".join(f"{who} {n:.2f}" for who, n in server["cpu_seconds"].items())
        lines.append(f"server       {packets} packets; CPU seconds: {spent or 'none'}")
        lines.append(f"             {server['cpu_text']}")
        drops = ", ".join(f"{reason} {n}" for reason, n in server["drops"].items())
        lines.append(f"drops        {drops or 'none'}")
    lines.append(f"result       {'passed' if s['passed'] else 'NOT passed: ' + s['because']}")
    return "\n".join(lines)
