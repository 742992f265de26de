"""Who else wants TCP 1723 or GRE."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from ops.doctor.finding import Finding
from ops.doctor.host import Host

GRE: Final = 47
SERVICES: Final = {
    "pptpd": "systemctl disable --now pptpd",
    "pptpctrl": "systemctl disable --now pptpd",
    "accel-pppd": "take [pptp] out of /etc/accel-ppp.conf and restart accel-ppp",
}


def look(host: Host) -> Iterator[Finding]:
    """Listeners on our port; raw GRE sockets; the kernel's own PPTP."""
    port = host.settings.listen.port
    owners = host.listeners(port)
    where = f"TCP port {port}"
    running = [str(owner.pid) for owner in owners if owner.ours]
    if running:
        yield Finding("note", where, f"pptpcon is running (processes {', '.join(running)})")
    for owner in owners:
        if not owner.ours:
            who = f"{owner.name} (process {owner.pid})" if owner.pid else owner.name
            mend = SERVICES.get(owner.name) or (f"kill {owner.pid}" if owner.pid else "")
            text = f"is taken by {who}: pptpcon can't start beside it"
            yield Finding("error", where, text, mend)
    for owner in host.raw_sockets(GRE):
        if owner.ours or not owner.pid:
            continue
        text = f"{owner.name} (process {owner.pid}) has a raw socket of it, too"
        if owner.name == "pptp":
            text += ": a PPTP client. Our table of packet mode ends its GRE with ours"
            mend = 'set listen.address to the address served, or gre.mode = "raw"'
            yield Finding("warning", "GRE", text, mend)
        else:
            yield Finding("warning", "GRE", text, SERVICES.get(owner.name, ""))
    if any(line.split(" ")[0] == "pptp" for line in host.text("modules").splitlines()):
        text = "is loaded: the kernel's own PPTP sees version 1 of GRE too, in raw mode"
        yield Finding("note", "module pptp", text, "modprobe -r pptp")
