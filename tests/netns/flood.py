"""Subscribers' data as fast as a process can send it: `python -m tests.netns.flood`.

Words: descriptor of a bound raw GRE socket, the server's address, then for each session
CALL-ID:SEQUENCE:INNER-ADDRESS:TARGET. Ends with SIGTERM, printing how many packets were sent.
"""

from __future__ import annotations

import signal
import socket
import struct
import sys

from fastpath import gre
from ops.ranges import parse_address
from tests.fastpath.peer import udp

SEQUENCE_AT = 8
BURST = 64


def main() -> int:
    """Until SIGTERM."""
    ended = False

    def end(*_: object) -> None:
        nonlocal ended
        ended = True

    signal.signal(signal.SIGTERM, end)
    sock = socket.socket(fileno=int(sys.argv[1]))
    sock.connect((sys.argv[2], 0))
    packets, numbers = [], []
    for word in sys.argv[3:]:
        call_id, first, inner, target = word.split(":")
        data = udp(parse_address(inner), parse_address(target), bytes(64))
        packets.append(bytearray(gre.build(int(call_id), b"\x00\x21" + data, 0, None)))
        numbers.append(int(first))
    sent = 0
    print("ready", flush=True)
    while not ended:
        for i, packet in enumerate(packets):
            seq = numbers[i]
            for number in range(seq, seq + BURST):
                struct.pack_into(">I", packet, SEQUENCE_AT, number & 0xFFFFFFFF)
                try:
                    sock.send(packet)
                except OSError:
                    continue
                sent += 1
            numbers[i] = seq + BURST
    print(sent, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
