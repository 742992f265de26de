"""A PPP link of any policy under any frames, times and answers of its owner.

The same checks as tests/workers/ppp/test_any_octets.py: never an exception, and at no
moment a link that is neither up, nor over, nor waiting for a time to come.
"""

from __future__ import annotations

from typing import Literal

from tests.fuzz.targets import Reader
from tests.workers.ppp.ends import End
from tests.workers.ppp.test_any_octets import acknowledge, check_whole, settle
from workers.ppp.actions import Policy
from workers.ppp.link import Link

METHODS = ("pap", "chap-md5", "mschap", "mschapv2", "eap")
PROTOCOLS = (0xC021, 0xC223, 0x80FD, 0x8021, 0xC227, 0xC023, 0x8057, 0x0021)
POLICIES: tuple[Literal["require", "prefer", "deny"], ...] = ("require", "prefer", "deny")


def policy_of(reader: Reader) -> Policy:
    """Two octets choose it."""
    bits = reader.number(2)
    methods = tuple(m for i, m in enumerate(METHODS) if bits >> i & 1) or ("mschapv2",)
    return Policy(
        role="client" if bits & 0x20 else "server",
        name="user",
        password="secret",
        auth=methods,
        mppe=POLICIES[(bits >> 6 & 3) % 3],
        mppe_strengths=((128,), (128, 40), (40,), (128, 56, 40))[bits >> 8 & 3],
        mppe_stateful=bool(bits & 0x400),
        dns=((), (1, 2))[bits >> 11 & 1],
        wins=((), (3,))[bits >> 12 & 1],
    )


def echo_of_ours(end: End, code: int) -> bytes | None:
    """Our last Configure-Request come back with another code: so options get agreed on."""
    frame = acknowledge(end)
    return None if frame is None else frame[:2] + bytes([code]) + frame[3:]


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
                end.refusal = "no address left" if step >> 3 & 1 else ""
        end.act(now)
        check_whole(end, now)
    settle(end, now)
