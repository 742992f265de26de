"""A PPP link of any policy under any frames, times and answers of its owner.

The same checks as tests/workers/ppp/test_any_octets.py: never an exception, and at no
moment a link that is neither up, nor over, nor waiting for a time to come.
"""

from __future__ import annotations

from typing import Literal

from tests.fuzz.targets import Reader
from tests.workers.ppp.ends import End
from tests.workers.ppp.test_any_octets import acknowledge, check_whole, settle
from workers.ppp import mschap
from workers.ppp.actions import Policy, Verdict
from workers.ppp.link import Link

METHODS = ("pap", "chap-md5", "mschap", "mschapv2", "eap")
PROTOCOLS = (0xC021, 0xC223, 0x80FD, 0x8021, 0xC227, 0xC023, 0x8057, 0x0021)
POLICIES: tuple[Literal["require", "prefer", "deny"], ...] = ("require", "prefer", "deny")


def policy_of(reader: Reader) -> Policy:
    """Four octets choose it."""
    bits = reader.number(4)
    methods = tuple(m for i, m in enumerate(METHODS) if bits >> i & 1) or ("mschapv2",)
    return Policy(
        role="client" if bits & 0x20 else "server",
        name="user",
        password="secret",
        auth=methods,
        mppe=POLICIES[(bits >> 6 & 3) % 3],
        mppe_strengths=((128,), (128, 40), (40,), (128, 56, 40))[bits >> 8 & 3],
        mppe_stateful=bool(bits & 0x400),
        mppe_ask_stateful=bool(bits & 0x800),
        dns=((), (1, 2))[bits >> 12 & 1],
        wins=((), (3,))[bits >> 13 & 1],
        mppe_by_user=bool(bits & 0x4000),
        eap=(("mschapv2", "md5"), ("md5", "mschapv2"), ("relay",), ())[bits >> 16 & 3],
        auth_retries=bits >> 18 & 3,
        chap_rechallenge=7.0 if bits & 0x100000 else 0.0,
        ipv6=bool(bits & 0x200000),
        interface_id=(b"", bytes(7) + b"\x01")[bits >> 22 & 1],
        subscriber_id="random" if bits & 0x800000 else "ipv4",
        subscriber_may_choose=not bits & 0x1000000,
    )


def right_answer(end: End) -> bytes | None:
    """The answer to the last CHAP Challenge that the account's password gives."""
    challenge = next((f for f in reversed(end.sent) if f[:3] == b"\xc2\x23\x01"), b"")
    if not challenge:
        return None
    value, method = challenge[7 : 7 + challenge[6]], end.link.method
    if method == "chap-md5":
        response = mschap.chap_md5(challenge[3], b"secret", value)
    elif method == "mschap":
        response = bytes(24) + mschap.nt_challenge_response(value, "secret") + b"\1"
    else:
        nt_hash = mschap.nt_password_hash("secret")
        answer = mschap.generate_nt_response(value, bytes(16), b"user", nt_hash)
        response = bytes(24) + answer + b"\0"
    body = bytes([len(response)]) + response + b"user"
    return b"\xc2\x23\x02" + challenge[3:4] + (4 + len(body)).to_bytes(2, "big") + body


def echo_of_ours(end: End, code: int) -> bytes | None:
    """Our last Configure-Request come back with another code: so options get agreed on."""
    frame = acknowledge(end)
    return None if frame is None else frame[:2] + bytes([code]) + frame[3:]


def owner(end: End, which: int, reader: Reader, now: float) -> None:
    """What comes from the link's owner, or from a client that knows its password."""
    match which & 3:
        case 0:
            end.refusal = "no address left" if which & 4 else ""
        case 1:
            frame = right_answer(end)
            if frame is not None:
                end.link.receive(frame, now)
        case 2:
            verdict = Verdict(bool(which & 4), "user", send_key=bytes(16), receive_key=bytes(16))
            end.link.eap_relayed(reader.block(), verdict if which & 8 else None, now)
        case _:
            end.link.authenticated(Verdict(bool(which & 4), "user"), now)


def one(data: bytes) -> None:
    reader = Reader(data)
    policy = policy_of(reader)
    end = End(Link(policy, magic=1, challenge=bytes(16)), freezing=bool(reader.number() & 1))
    now = 10.0
    end.link.start(now)
    end.act(now)
    while reader:
        step = reader.number()
        match step & 7:
            case 0:
                end.link.receive(reader.block(), now)
            case 1 | 2 | 3:
                # A packet of a protocol, with its length in order.
                protocol = PROTOCOLS[step >> 3 & 7]
                code, identifier = reader.number(), reader.number()
                body = reader.block()
                head = protocol.to_bytes(2, "big") + bytes([code, identifier])
                end.link.receive(head + (4 + len(body)).to_bytes(2, "big") + body, now)
            case 4:
                frame = echo_of_ours(end, 2 + (step >> 3 & 3) % 3)
                if frame is not None:
                    end.link.receive(frame, now)
            case 5:
                now += reader.number() / 16
                end.link.handle_timer(now)
            case 6:
                end.link.close("admin", "asked to", now)
            case _:
                owner(end, step >> 3, reader, now)
        end.act(now)
        check_whole(end, now)
    settle(end, now)
