"""pcapng files: golden octets of the blocks, and a second opinion by scapy."""

from __future__ import annotations

import io
import struct
from pathlib import Path

from scapy.layers.inet import IP, TCP
from scapy.utils import PcapNgReader

from ops.cli.pcapng import IPV4, PPP_WITH_DIR, Pcapng


def blocks(data: bytes) -> list[tuple[int, bytes]]:
    found = []
    while data:
        kind, size = struct.unpack_from("<II", data)
        assert size % 4 == 0
        assert struct.unpack_from("<I", data, size - 4) == (size,)
        found.append((kind, data[8 : size - 4]))
        data = data[size:]
    return found


def test_blocks() -> None:
    sink = io.BytesIO()
    out = Pcapng(sink, "pptpcon")
    out.comment("up")
    out.frame(1.5, True, 0xC021, b"\x01\x01\x00\x04")
    out.frame(2.0, False, 0x0021, b"inner")
    section, ppp, ip, first, second = blocks(sink.getvalue())
    assert section[0] == 0x0A0D0D0A
    assert [struct.unpack_from("<H", b)[0] for _, b in (ppp, ip)] == [PPP_WITH_DIR, IPV4]
    assert struct.unpack_from("<IIIII", first[1]) == (0, 0, 1_500_000, 9, 9)
    assert first[1][20:29] == bytes.fromhex("00ff03c02101010004")
    assert b"\x01\x00\x02\x00up\0\0" in first[1]
    assert second[1][20:30] == bytes.fromhex("01ff030021") + b"inner"
    # Flags: 1 in, 2 out.
    assert b"\x02\x00\x04\x00\x01\0\0\0" in first[1]
    assert b"\x02\x00\x04\x00\x02\0\0\0" in second[1]


def test_control_messages_are_tcp_that_others_read(tmp_path: Path) -> None:
    sink = io.BytesIO()
    out = Pcapng(sink, "pptpcon")
    out.control(1.0, True, "203.0.113.7", b"a" * 156)
    out.control(1.1, False, "203.0.113.7", b"b" * 155)
    out.control(1.2, True, "203.0.113.7", b"c" * 16)
    path = tmp_path / "control.pcapng"
    path.write_bytes(sink.getvalue())
    found = [IP(bytes(packet)) for packet in PcapNgReader(str(path))]
    numbers = [(p[TCP].sport, p[TCP].dport, p[TCP].seq, p[TCP].ack) for p in found]
    assert numbers == [(49152, 1723, 1, 1), (1723, 49152, 1, 157), (49152, 1723, 157, 156)]
    for packet in found:
        sums = packet[IP].chksum, packet[TCP].chksum
        del packet[IP].chksum, packet[TCP].chksum
        again = IP(bytes(packet))
        assert (again[IP].chksum, again[TCP].chksum) == sums
