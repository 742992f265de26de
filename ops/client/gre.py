"""How the client receives and sends enhanced GRE, in its own network namespace.

A packet socket sees a packet before the kernel's IP input, and a rule in nft ends it there:
less than half the kernel's work that a raw socket costs. Where nftables can't be had, a raw
socket does. A server of the same host may end all GRE there before any raw socket: then
it is the packet socket without a rule of our own.
"""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from typing import Final

from dispatcher import descriptors, nft
from dispatcher.filters import (
    AD_PKTTYPE,
    ALU_AND_K,
    GRE_PPP,
    JEQ_K,
    JSET_K,
    LD_B_ABS,
    LD_H_ABS,
    LD_H_IND,
    LD_W_ABS,
    LDX_B_MSH,
    NOTHING,
    PACKET_HOST,
    PROTOCOL_GRE,
    RET_K,
    WHOLE,
    Instruction,
    Program,
)
from ops.client.sockets import JGE_K, JGT_K, SOCKET_BUFFER, SocketError

RULES: Final = """
add table ip {name} {{ flags owner; }}
add chain ip {name} gre {{ type filter hook prerouting priority -300; policy accept; }}
add rule ip {name} gre ip saddr {server} ip protocol 47 ip frag-off & 0x3fff == 0 \
@th,0,32 & 0x0007ffff == 0x0001880b @th,48,16 {first}-{last} drop
"""


@dataclass(frozen=True, slots=True)
class Gre:
    """The sockets: one to receive, one to send; `table` keeps the kernel away, or is None."""

    receive: socket.socket
    send: socket.socket
    table: nft.Table | None

    def close(self) -> None:
        """Give all of it back."""
        if self.table is not None:
            self.table.close()
        self.receive.close()
        self.send.close()


def gre_filter(first: int, last: int) -> Program:
    """Enhanced GRE for a call ID from `first` to `last`; nothing else."""
    return (
        Instruction(LDX_B_MSH, 0, 0, 0),
        Instruction(LD_H_IND, 0, 0, 0),  # GRE flags and version
        Instruction(ALU_AND_K, 0, 0, 7),
        Instruction(JEQ_K, 0, 5, 1),
        Instruction(LD_H_IND, 0, 0, 2),
        Instruction(JEQ_K, 0, 3, GRE_PPP),
        Instruction(LD_H_IND, 0, 0, 6),  # low half of the key
        Instruction(JGE_K, 0, 1, first),
        Instruction(JGT_K, 0, 1, last),
        NOTHING[0],
        Instruction(RET_K, 0, 0, WHOLE),
    )


def packet_filter(first: int, last: int) -> Program:
    """The same for a packet socket, which sees every IPv4 packet: whole ones to this host."""
    return (
        Instruction(LD_W_ABS, 0, 0, AD_PKTTYPE),
        Instruction(JEQ_K, 0, 4, PACKET_HOST),
        Instruction(LD_B_ABS, 0, 0, 9),
        Instruction(JEQ_K, 0, 2, PROTOCOL_GRE),
        Instruction(LD_H_ABS, 0, 0, 6),
        Instruction(JSET_K, 0, 1, 0x1FFF),
        NOTHING[0],
        *gre_filter(first, last),
    )


def _is_ours(address: str) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((address, 0))
        except OSError:
            return False
    return True


def open_gre(server: str, first: int, last: int) -> Gre:
    """Sockets that hear only the call IDs of one client; by packets where that can be."""
    try:
        table = None
        ours = _is_ours(server)
        if not ours:
            name = f"pptpcon_client_{os.getpid()}"
            rules = RULES.format(name=name, server=server, first=first, last=last)
            try:
                table = nft.Table(name, rules)
            except nft.NftError:
                table = None
        if table is None and not ours:
            both = descriptors.gre_raw(gre_filter(first, last), receive_buffer=SOCKET_BUFFER)
            return Gre(both, both, None)
        # The raw socket only sends; its being there keeps the kernel from answering.
        send = descriptors.gre_raw(NOTHING)
        receive = descriptors.gre_packets(1, packet_filter(first, last), SOCKET_BUFFER)[0]
        return Gre(receive, send, table)
    except PermissionError:
        raise SocketError("GRE socket: permission denied: root is needed") from None
