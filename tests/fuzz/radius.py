"""RADIUS: any octets are a packet or a named fault; any attributes are read or left out."""

from __future__ import annotations

import ipaddress

from workers.radius import replies
from workers.radius.dynamic import Client, Dynamic
from workers.radius.packets import FAULTS, Code, Packet, RemoteError, check_response, request
from workers.radius.replies import Asked
from workers.radius.requests import Nas

SECRET = b"s"
SENT = request(Code.ACCESS_REQUEST, 1, ((1, b"anna"),), SECRET, bytes(16))
ASKED = (
    Asked("mschapv2", "anna", bytes(16), 1),
    Asked("mschap", "anna", bytes(8)),
    Asked("eap", ""),
)


def one(data: bytes) -> None:
    faults: list[RemoteError] = []
    try:
        check_response(data, SENT, SECRET)
    except RemoteError as e:
        faults.append(e)
    try:
        packet = Packet.decode(data)
    except RemoteError as e:
        faults.append(e)
        # As attributes of a packet that is whole.
        attributes = tuple((data[at], data[at + 1 : at + 30]) for at in range(0, len(data), 31))
        packet = Packet(2, 1, bytes(16), attributes)
    for asked in ASKED:
        found = replies.accepted(packet, asked, SECRET, bytes(16), faults)
        assert found.policy.source == "radius"
        replies.rejected(packet, asked, faults)
    replies.changes(packet, faults)
    clients = [Client(ipaddress.ip_network("192.0.2.0/24"), SECRET)]
    for code in (Code.COA_REQUEST, Code.DISCONNECT_REQUEST):
        dynamic = Dynamic(clients, Nas("n"), 300)
        sized = tuple((kind, value[:200]) for kind, value in packet.attributes[:12])
        dynamic.receive(request(code, 1, sized, SECRET, bytes(16)), ("192.0.2.1", 1), 0.0, 0.0)
    assert all(fault.fault in FAULTS for fault in faults)
