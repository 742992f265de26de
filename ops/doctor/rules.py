"""The packet filter rules that a concentrator needs, as shell commands for this host."""

from __future__ import annotations

from collections.abc import Iterator

from dispatcher import ruleset
from dispatcher.ruleset import OWN_TABLE, Ruleset
from ops.doctor.filtering import allow
from ops.ranges import format_address, parse_ranges
from ops.settings import Settings

NAT = "subscribers"
MAX_RANGES = 64


def commands(settings: Settings, rules: Ruleset | None = None) -> Iterator[str]:
    """Lines of a shell script. Nothing is changed by asking."""
    found = ruleset.read() if rules is None else rules
    address, port = settings.listen.address, settings.listen.port
    only = "" if address == "0.0.0.0" else f"ip daddr {address} "  # noqa: S104 - all of them
    yield "# What subscribers of pptpcon need to get through. These commands hold until the next"
    yield "# boot: what you keep belongs into your own rules."
    wanted = {
        "input": (f"{only}tcp dport {port}", f"{only}ip protocol gre"),
        "forward": ('iifname "pptp*"', 'oifname "pptp*" ct state established,related'),
    }
    for hook, each in wanted.items():
        places = [
            chain
            for (table, _), chain in found.chains.items()
            if chain.hook == hook
            and not table.split()[1].startswith(OWN_TABLE)
            and (chain.rules or chain.policy == "drop")
        ]
        if not places:
            yield f"# {hook}: no chain filters it, nothing is needed"
        for chain in places:
            for what in each:
                yield shell(chain.where, what)
    yield "# If no router knows the way back to your pools, give subscribers this host's address:"
    ranges = [
        format_address(first)
        if first == last
        else f"{format_address(first)}-{format_address(last)}"
        for pool in settings.pools
        for text in pool.ranges
        for first, last in parse_ranges(text)
    ]
    some = ", ".join(ranges[:MAX_RANGES])
    yield f"#nft add table ip {NAT}"
    yield f"#nft 'add chain ip {NAT} out {{ type nat hook postrouting priority srcnat; }}'"
    yield (f"#nft 'add rule ip {NAT} out ip saddr {{ {some} }} oifname != \"pptp*\" masquerade'")


def shell(where: str, what: str) -> str:
    """`allow`, quoted for a shell."""
    command = allow(where, what)
    if command.startswith("iptables"):
        return (
            command.replace(
                'oifname "pptp*" ct state established,related',
                "-o pptp+ -m conntrack --ctstate ESTABLISHED,RELATED",
            )
            .replace('iifname "pptp*"', "-i pptp+")
            .replace("ip daddr ", "-d ")
            .replace("ip protocol gre", "-p gre")
            .replace("tcp dport", "-p tcp --dport")
        )
    words = command.split(" ", 3)
    return f"nft '{command[4:]}'" if len(words) > 3 else f"# {where}: let through {what}"
