"""A second opinion on every format: scapy reads what we write, and we what it writes.

scapy is a tool of the tests (GPL); tests/test_layers.py keeps it out of what is shipped.
Differences between the two are named here one by one.
"""

from __future__ import annotations

import random
import warnings
from dataclasses import fields, replace
from typing import Any, Final

import pytest
from hypothesis import given, settings

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # what scapy misses on this machine is no matter here
    from scapy.layers import pptp
    from scapy.layers.inet import IP, UDP
    from scapy.layers.ppp import (
        PPP,
        PPP_CHAP,
        PPP_IPCP,
        PPP_PAP,
        PPP_CHAP_ChallengeResponse,
        PPP_IPCP_Option_DNS1,
        PPP_IPCP_Option_DNS2,
        PPP_IPCP_Option_IPAddress,
        PPP_IPCP_Option_NBNS1,
        PPP_IPCP_Option_NBNS2,
        PPP_LCP_ACCM_Option,
        PPP_LCP_Auth_Protocol_Option,
        PPP_LCP_Callback_Option,
        PPP_LCP_Configure,
        PPP_LCP_Echo,
        PPP_LCP_Magic_Number_Option,
        PPP_LCP_MRU_Option,
        PPP_LCP_Protocol_Reject,
        PPP_LCP_Terminate,
        PPP_PAP_Request,
        PPP_PAP_Response,
    )
    from scapy.packet import NoPayload, Packet, Raw

from dispatcher.pptp import messages
from dispatcher.pptp.messages import HEADER, LENGTHS, MESSAGES, Message, decode
from fastpath import gre
from tests.dispatcher.pptp.test_messages import GOLDEN, any_message
from tests.workers.ppp.ends import pair
from tests.workers.ppp.test_traps import WINDOWS, Peer
from tests.workers.ppp.test_traps import packet as ppp_packet
from workers.ppp.actions import Policy
from workers.ppp.options import Option, decode_options
from workers.ppp.packets import Packet as OurPacket
from workers.ppp.packets import split_frame

# Our field: scapy's, where the names differ.
NAMES: Final = {
    "version": "protocol_version",
    "framing": "framing_capabilities framing_type",
    "bearer": "bearer_capabilities bearer_type",
    "max_channels": "maximum_channels",
    "firmware": "firmware_revision",
    "vendor": "vendor_string",
    "result": "result_code",
    "error": "error_code",
    "serial": "call_serial_number",
    "min_bps": "minimum_bps",
    "max_bps": "maximum_bps",
    "window": "pkt_window_size",
    "delay": "pkt_proc_delay pkt_transmit_delay",
    "number": "phone_number",
    "number_length": "phone_number_len",
    "cause": "cause_code",
    "speed": "connect_speed",
    "channel": "channel_id",
    "dialed_length": "dialed_number_len",
    "dialing_length": "dialing_number_len",
    "dialed": "dialed_number",
    "dialing": "dialing_number",
    "statistics": "call_statistic",
    "timeout_errors": "time_out_errors",
}
LAYERS: Final[dict[type[Message], Any]] = {
    messages.StartRequest: pptp.PPTPStartControlConnectionRequest,
    messages.StartReply: pptp.PPTPStartControlConnectionReply,
    messages.StopRequest: pptp.PPTPStopControlConnectionRequest,
    messages.StopReply: pptp.PPTPStopControlConnectionReply,
    messages.EchoRequest: pptp.PPTPEchoRequest,
    messages.EchoReply: pptp.PPTPEchoReply,
    messages.OutgoingRequest: pptp.PPTPOutgoingCallRequest,
    messages.OutgoingReply: pptp.PPTPOutgoingCallReply,
    messages.IncomingRequest: pptp.PPTPIncomingCallRequest,
    messages.IncomingReply: pptp.PPTPIncomingCallReply,
    messages.IncomingConnected: pptp.PPTPIncomingCallConnected,
    messages.ClearRequest: pptp.PPTPCallClearRequest,
    messages.DisconnectNotify: pptp.PPTPCallDisconnectNotify,
    messages.WanErrorNotify: pptp.PPTPWANErrorNotify,
    messages.SetLinkInfo: pptp.PPTPSetLinkInfo,
}


def same_fields(ours: Message, theirs: Packet) -> None:
    """Each of our fields has scapy's value."""
    known = {f.name for f in theirs.fields_desc}
    for field in fields(ours):
        (name,) = known & set(NAMES.get(field.name, field.name).split())
        value = theirs.getfieldval(name)
        if isinstance(value, str):
            value = value.encode()
        wanted = getattr(ours, field.name)
        if isinstance(wanted, bytes):
            assert bytes(value).ljust(len(wanted), b"\0") == wanted, name
        else:
            assert int(value) == wanted, name


def test_all_fifteen() -> None:
    assert set(LAYERS) == set(MESSAGES) and len(LAYERS) == 15
    assert {type(message) for message, _ in GOLDEN} == set(LAYERS)


@settings(max_examples=150, deadline=None)
@given(any_message)
def test_scapy_reads_our_messages(message: Message) -> None:
    wire = message.encode()
    theirs = pptp.PPTP(wire)
    assert type(theirs) is LAYERS[type(message)]
    assert isinstance(theirs.payload, NoPayload), "all octets belong to the message"
    assert theirs.len == len(wire) and theirs.magic_cookie == 0x1A2B3C4D
    same_fields(message, theirs)
    assert bytes(theirs) == wire


@pytest.mark.parametrize("kind", MESSAGES, ids=lambda k: k.__name__)
def test_we_read_scapys_messages(kind: type[Message]) -> None:
    layer = LAYERS[kind]
    # Incoming-Call-Reply: scapy's preset is 148, the RFC's figure and scapy's own fields 24.
    size = {"len": 24} if kind is messages.IncomingReply else {}
    for theirs in (layer(**size), layer(**size, reserved_0=0xFFFF)):
        wire = bytes(theirs)
        message = decode(wire)
        assert type(message) is kind
        same_fields(message, layer(wire))


# -- GRE


@pytest.mark.parametrize("seq", [None, 0, 1, 2**32 - 1])
@pytest.mark.parametrize("ack", [None, 0, 77, 2**32 - 1])
def test_scapy_reads_our_gre(seq: int | None, ack: int | None) -> None:
    payload = b"" if seq is None else bytes.fromhex("ff03c0210100000a0506aabbccdd")
    wire = gre.build(0x1234, payload, seq, ack)
    theirs = IP(bytes(IP(proto=47, src="198.18.0.1", dst="198.18.0.2") / Raw(wire)))
    layer = theirs.getlayer("GRE PPTP")
    assert layer is not None, "told from plain GRE by its version"
    assert (layer.call_id, layer.payload_len) == (0x1234, len(payload))
    assert (layer.sequence_number, layer.ack_number) == (seq, ack)
    assert bytes(layer)[-len(payload) :] == payload or not payload
    if seq is not None:
        assert theirs.haslayer(PPP_LCP_Configure)


def test_we_read_scapys_gre() -> None:
    from scapy.layers.l2 import GRE_PPTP  # noqa: PLC0415 - beside the layer it makes

    frame = PPP(proto=0xC021) / PPP_LCP_Configure(id=3, options=[PPP_LCP_MRU_Option()])
    for seq, ack in ((5, None), (5, 9), (0, 2**32 - 1)):
        wire = bytes(
            GRE_PPTP(
                call_id=640,
                seqnum_present=1,
                acknum_present=int(ack is not None),
                sequence_number=seq,
                ack_number=ack,
            )
            / frame
        )
        call_id, got_seq, got_ack, at, size = gre.parse(wire)
        assert (call_id, got_seq, got_ack, size) == (640, seq, ack, len(bytes(frame)))
        assert wire[at : at + size] == bytes(frame)
    pure = bytes(GRE_PPTP(call_id=7, seqnum_present=0, acknum_present=1, ack_number=3))
    assert gre.parse(pure)[:3] == (7, None, 3)


# -- PPP: whole logins, each frame of both sides


def frames_of(server: Policy, client: Policy) -> list[bytes]:
    """All frames of a login and its proper end."""
    one, two, wire = pair(server, client)
    wire.start()
    wire.run(wire.now + 30, lambda: bool(one.up and two.up))
    assert one.up is not None
    one.link.close("admin", "the end", wire.now)
    wire.carry(0)
    wire.run(wire.now + 30)
    return one.sent + two.sent


@pytest.mark.parametrize("method", ["pap", "chap-md5", "mschap", "mschapv2"])
def test_scapy_reads_our_links(method: str) -> None:
    mppe = "require" if method.startswith("mschap") else "deny"
    base = Policy(auth=(method,), mppe=mppe, dns=(0x0A000035, 0x0A000036))  # type: ignore[arg-type]
    seen = set()
    client = replace(base, role="client", name="user", password="secret")
    for frame in frames_of(base, client):
        protocol, payload = split_frame(frame)
        ours = OurPacket.decode(payload)
        theirs = PPP(frame)
        assert theirs.proto == protocol
        layer = theirs.payload
        assert bytes(theirs) == frame, "what it read is what it would write"
        if protocol in (0xC021, 0x8021, 0xC223, 0xC023):
            assert (layer.code, layer.id, layer.len) == (ours.code, ours.identifier, len(payload))
            seen.add((protocol, ours.code))
        if protocol in (0xC021, 0x8021) and ours.code in (1, 2, 3, 4):
            assert [o.type for o in layer.options] == [o.type for o in decode_options(ours.data)]
            for theirs_option, option in zip(layer.options, decode_options(ours.data), strict=True):
                check_option(protocol, theirs_option, option)
        if protocol == 0xC223 and ours.code in (1, 2):
            size = ours.data[0]
            assert layer.value_size == size
            assert layer.value == ours.data[1 : 1 + size]
            assert layer.optional_name == ours.data[1 + size :]
        if protocol == 0xC023 and ours.code == 1:
            assert (layer.username, layer.password) == (b"user", b"secret")
    assert {(0xC021, 1), (0xC021, 2), (0xC021, 5), (0xC021, 6), (0x8021, 1), (0x8021, 3)} <= seen
    login = {(0xC023, 1), (0xC023, 2)} if method == "pap" else {(0xC223, n) for n in (1, 2, 3)}
    assert login <= seen


def check_option(protocol: int, theirs: Packet, option: Option) -> None:
    assert theirs.len == 2 + len(option.data)
    value = int.from_bytes(option.data, "big")
    if protocol == 0x8021:
        address = ".".join(str(octet) for octet in option.data)
        assert theirs.data == address
        return
    match option.type:
        case 1:
            assert theirs.max_recv_unit == value
        case 3:
            assert theirs.auth_protocol == int.from_bytes(option.data[:2], "big")
            if theirs.auth_protocol == 0xC223:
                assert theirs.algorithm == option.data[2]
        case 5:
            assert theirs.magic_number == value


def test_we_read_scapys_links() -> None:
    """Its requests, with Windows' options among them, are answered as the octets are."""
    peer = Peer()
    request = PPP(proto=0xC021) / PPP_LCP_Configure(
        id=0,
        options=[
            PPP_LCP_MRU_Option(max_recv_unit=1400),
            PPP_LCP_ACCM_Option(accm=0),
            PPP_LCP_Magic_Number_Option(magic_number=0x1A2B3C4D),
        ],
    )
    (ack,) = peer.tell(bytes(request))
    theirs = PPP(ack)
    assert theirs.payload.code == 2 and theirs.payload.id == 0
    assert bytes(theirs.payload.options[2]) == bytes.fromhex("05061a2b3c4d")
    callback = PPP(proto=0xC021) / PPP_LCP_Configure(
        id=1, options=[PPP_LCP_Callback_Option(operation=6)]
    )
    (reject,) = peer.tell(bytes(callback))
    assert reject == ppp_packet(0xC021, 4, 1, "0d0306")
    # Naked to PAP, which is not allowed here: the next of the list, or the end.
    nak = PPP(proto=0xC021) / PPP_LCP_Configure(
        code=3, id=1, options=[PPP_LCP_Auth_Protocol_Option(auth_protocol=0xC023)]
    )
    (answer,) = peer.tell(bytes(nak))
    assert PPP(answer).payload.code == 5 and PPP(answer).haslayer(PPP_LCP_Terminate)


def test_scapy_reads_the_rest_of_lcp() -> None:
    peer = Peer()
    (reject,) = peer.tell(ppp_packet(0xC021, 1, 0, WINDOWS))
    options = PPP(reject).payload.options
    assert [(o.type, o.len) for o in options] == [(13, 3), (17, 4)]
    peer.all_up()
    (echo,) = peer.tell(bytes(PPP(proto=0xC021) / PPP_LCP_Echo(id=9, magic_number=1, data="abc")))
    reply = PPP(echo).payload
    assert (reply.code, reply.id, reply.data) == (10, 9, b"abc")
    assert reply.magic_number == 0xAABBCCDD
    frame = PPP(proto=0x8029) / Raw(bytes.fromhex("01010004"))
    (reject,) = peer.tell(bytes(frame))
    protocol_reject = PPP(reject)
    assert protocol_reject.haslayer(PPP_LCP_Protocol_Reject)
    assert protocol_reject.payload.rejected_protocol == 0x8029
    (terminated,) = peer.tell(bytes(PPP(proto=0xC021) / PPP_LCP_Terminate(id=4, data="bye")))
    assert (PPP(terminated).payload.code, PPP(terminated).payload.id) == (6, 4)


def test_we_read_scapys_chap_pap_and_ipcp() -> None:
    policy = Policy(auth=("chap-md5",), mppe="deny", dns=(1, 2), wins=(3, 4))
    peer = Peer(policy)
    peer.lcp_up()
    response = PPP_CHAP_ChallengeResponse(code=2, id=1, value=b"v" * 16, optional_name=b"user")
    peer.tell(bytes(PPP(proto=0xC223) / response))
    frames = peer.verdict()
    assert PPP(frames[0]).haslayer(PPP_CHAP) or PPP(frames[0]).payload.code == 4

    peer = Peer(replace(policy, auth=("pap",)))
    peer.lcp_up()
    login = PPP_PAP_Request(id=6, username=b"user", password=b"secret")
    assert peer.tell(bytes(PPP(proto=0xC023) / login)) == []
    answer = PPP(peer.verdict()[0])
    assert answer.haslayer(PPP_PAP_Response) or answer.haslayer(PPP_PAP)
    assert (answer.payload.code, answer.payload.id) == (2, 6)
    peer.admit()
    wish = PPP_IPCP(
        id=1,
        options=[
            PPP_IPCP_Option_IPAddress(data="0.0.0.0"),
            PPP_IPCP_Option_DNS1(data="0.0.0.0"),
            PPP_IPCP_Option_DNS2(data="0.0.0.0"),
            PPP_IPCP_Option_NBNS1(data="0.0.0.0"),
            PPP_IPCP_Option_NBNS2(data="0.0.0.0"),
        ],
    )
    (nak,) = peer.tell(bytes(PPP(proto=0x8021) / wish))
    values = {o.type: o.data for o in PPP(nak).payload.options}
    assert values == {
        3: "10.99.1.2",
        129: "0.0.0.1",
        131: "0.0.0.2",
        130: "0.0.0.3",
        132: "0.0.0.4",
    }


def test_scapy_finds_the_packet_inside() -> None:
    """Outer IP, GRE, PPP, inner IP: one tree."""
    inner = IP(src="10.99.1.2", dst="198.19.0.10") / UDP(sport=1, dport=2) / Raw(b"hello")
    for frame in (b"\xff\x03\x00\x21" + bytes(inner), b"\x00\x21" + bytes(inner)):
        wire = gre.build(640, frame, 0, 0)
        tree = IP(bytes(IP(proto=47) / Raw(wire)))
        assert tree.haslayer(UDP) and bytes(tree[UDP].payload) == b"hello"


def test_a_stream_is_what_scapy_would_send() -> None:
    """A conversation in scapy's octets, cut at random, is the same conversation to us."""
    from dispatcher.pptp.framing import Framer  # noqa: PLC0415

    wire = b"".join(bytes(LAYERS[kind](len=LENGTHS[kind.TYPE])) for kind in MESSAGES)
    assert len(wire) > HEADER.size * 15
    cutter = random.Random(7)
    framer, out, at = Framer(), [], 0
    while at < len(wire):
        size = cutter.randint(1, 200)
        found, error = framer.feed(wire[at : at + size])
        assert error is None
        out += found
        at += size
    assert [type(m) for m in out] == list(MESSAGES)
