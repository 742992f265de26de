"""EAP types that we do not speak, by a real peer (wpa_supplicant's) and a real FreeRADIUS.

eapol_test is a peer and a NAS in one. Here the test is the server it asks: it takes the EAP
packets out, hands them to the accounts process as a worker does, and puts what comes back
into answers, the keys included. The peer says whether these are the keys it made itself.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import threading
from pathlib import Path

import pytest

from ops.settings import Radius, RadiusServer, Server, Settings
from tests.netns.accounts import accounts_process
from tests.netns.freeradius import SECRET, FreeRadius
from tests.netns.spaces import Space
from workers.radius import hidden, wire
from workers.radius.attributes import A, Ms, Vendor, vendor
from workers.radius.packets import Attributes, Code, Packet, response

pytestmark = pytest.mark.netns

USERS = 'user1 Cleartext-Password := "secret"\n'
PORT = 3812
PEER = """\
network={
	key_mgmt=WPA-EAP
	eap=%s
	identity="user1"
	password="%s"
	%s
}
"""


class Bridge(threading.Thread):
    """RADIUS from eapol_test, EAP to the accounts process."""

    def __init__(self, space: Space, worker: socket.socket) -> None:
        super().__init__(daemon=True)
        self.worker = worker
        self.done = False
        self.challenges = 0
        self.largest = 0
        with space.inside():
            self.sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            self.sock.bind(("127.0.0.1", PORT))
        self.sock.settimeout(0.1)

    def run(self) -> None:
        seq = 1000
        while not self.done:
            try:
                data, source = self.sock.recvfrom(8192)
            except TimeoutError:
                continue
            asked = Packet.decode(data)
            seq += 1
            eap = b"".join(asked.all(A.EAP_MESSAGE))
            message = [seq, wire.EAP, 0, 1, "user1", eap, asked.get(A.STATE) or b""]
            self.worker.send(wire.pack(message))
            while True:
                got, *said = wire.unpack(self.worker.recv(wire.DATAGRAM))
                if got == seq:
                    break
            self.sock.sendto(self.answer(asked, said), source)

    def answer(self, asked: Packet, said: list[object]) -> bytes:
        """What a worker gets, as RADIUS again."""
        match said:
            case [wire.CHALLENGE, bytes(eap), bytes(token)]:
                self.challenges += 1
                self.largest = max(self.largest, len(eap))
                return self.packet(Code.ACCESS_CHALLENGE, asked, eap, ((A.STATE, token),))
            case [wire.ACCEPT, dict(said_verdict), _policy, bytes(eap)]:
                verdict = wire.unpack_verdict(said_verdict)
                keys: Attributes = ()
                if verdict.send_key:
                    pairs = (
                        (Ms.MPPE_SEND_KEY, verdict.send_key),
                        (
                            Ms.MPPE_RECV_KEY,
                            verdict.receive_key,
                        ),
                    )
                    keys = tuple(
                        vendor(Vendor.MICROSOFT, kind, self.hide(key, salt, asked))
                        for salt, (kind, key) in enumerate(pairs)
                    )
                return self.packet(Code.ACCESS_ACCEPT, asked, eap, keys)
            case [wire.REJECT, _verdict, bytes(eap)]:
                return self.packet(Code.ACCESS_REJECT, asked, eap, ())
        raise AssertionError(said)

    @staticmethod
    def hide(key: bytes, salt: int, asked: Packet) -> bytes:
        return hidden.hide_key(key, bytes((0x80, salt)), SECRET.encode(), asked.authenticator)

    @staticmethod
    def packet(code: int, asked: Packet, eap: bytes, more: Attributes) -> bytes:
        parts = tuple((int(A.EAP_MESSAGE), eap[at : at + 253]) for at in range(0, len(eap), 253))
        return response(code, asked, (*parts, *more), SECRET.encode())


def test_types_of_the_servers(space: Space) -> None:
    if shutil.which("eapol_test") is None:
        if os.environ.get("CI") == "true":
            pytest.fail("needs eapol_test: apt-get install eapoltest")
        pytest.skip("needs eapol_test: apt-get install eapoltest")
    with tempfile.TemporaryDirectory(prefix="pptpcon-radius-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        conf = Settings(
            server=Server(state_dir=""),
            radius=Radius(servers=(RadiusServer("127.0.0.1", SECRET),)),
        )
        server = FreeRadius(space, folder / "radius", USERS, eap="peap")
        try:
            with accounts_process(space, conf) as (_pid, worker, _status):
                bridge = Bridge(space, worker)
                bridge.start()
                for kind, password, more, good in (
                    ("PEAP", "secret", 'phase2="auth=MSCHAPV2"', True),
                    ("PEAP", "wrong", 'phase2="auth=MSCHAPV2"', False),
                    ("MSCHAPV2", "secret", "", True),
                    ("GTC", "secret", "", True),
                    ("MD5", "secret", "", True),
                    ("MD5", "wrong", "", False),
                ):
                    (folder / "peer").write_text(PEER % (kind, password, more))
                    keys = [] if kind == "PEAP" else ["-n"]
                    words = ["-c", str(folder / "peer"), "-a", "127.0.0.1", "-p", str(PORT)]
                    words += ["-s", SECRET, "-t", "10", *keys]
                    done = subprocess.run(
                        space.argv("eapol_test", *words),
                        capture_output=True,
                        text=True,
                        check=False,
                    )
                    said = done.stdout[-2000:] + done.stderr[-500:]
                    assert (done.returncode == 0) == good, (kind, password, said)
                    if kind == "PEAP" and good:
                        # The server's certificate came in fragments of 500 octets.
                        assert bridge.challenges >= 8 and bridge.largest > 253
                        assert "MPPE keys OK: 1" in done.stdout
                bridge.done = True
                bridge.join()
                bridge.sock.close()
        finally:
            server.kill()
