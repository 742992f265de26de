"""From settings to what the parts of RADIUS are made of."""

from __future__ import annotations

import ipaddress

from ops.ranges import parse_address
from ops.settings import Settings
from workers.radius.dynamic import Client
from workers.radius.lines import KINDS, Address
from workers.radius.requests import Nas


def addresses(settings: Settings) -> list[Address]:
    """The lines, in the order of the file."""
    radius = settings.radius
    found = []
    for server in radius.servers:
        for kind in KINDS:
            port = server.auth_port if kind == "auth" else server.acct_port
            if port and (kind == "auth" or radius.accounting == "on"):
                found.append(
                    Address(
                        server=server.name or server.address,
                        kind=kind,
                        host=server.address,
                        port=port,
                        secret=server.secret.encode(),
                        priority=server.priority,
                        weight=server.weight,
                        timeout_s=radius.timeout_s,
                        tries=radius.tries,
                        probe=server.probe == "status",
                        probe_interval_s=radius.probe_interval_s,
                        dead_time_s=radius.dead_time_s,
                        signed=server.message_authenticator,
                        flight=radius.in_flight,
                    )
                )
    return found


def nas(settings: Settings) -> Nas:
    """Who we are."""
    radius = settings.radius
    return Nas(
        identifier=radius.nas_identifier or settings.server.name,
        address=parse_address(radius.nas_ip) if radius.nas_ip else 0,
        port_id=radius.nas_port_id,
        mtu=settings.ppp.mtu,
    )


def clients(settings: Settings) -> list[Client]:
    """Who may change and end sessions."""
    return [
        Client(ipaddress.ip_network(client.address), client.secret.encode())
        for client in settings.radius.clients
    ]


def logs_in(settings: Settings) -> bool:
    """Whether RADIUS decides about logins."""
    return any(server.auth_port for server in settings.radius.servers)


def records(settings: Settings) -> bool:
    """Whether it gets accounting."""
    servers = settings.radius.servers
    return settings.radius.accounting == "on" and any(server.acct_port for server in servers)
