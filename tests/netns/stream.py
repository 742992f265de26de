"""One TCP stream as fast as it goes, told by its receiver: `stream.py MODE HOST PORT ...`.

`listen HOST PORT send|receive SECONDS` takes one connection, `connect HOST PORT SOURCE
send|receive SECONDS` makes one. The receiver prints a JSON list of [seconds, octets so far].
"""

from __future__ import annotations

import json
import socket
import sys
import time

EVERY_S = 0.05
PIECE = 1 << 18


def send(link: socket.socket, seconds: float) -> None:
    """Until the time is over, or the other end has had enough."""
    data = bytes(PIECE)
    ends = time.monotonic() + seconds
    link.settimeout(seconds)
    try:
        while time.monotonic() < ends:
            link.send(data)
    except OSError:
        pass


def receive(link: socket.socket, seconds: float) -> list[tuple[float, int]]:
    """Samples of the sum received."""
    room = bytearray(PIECE)
    start = time.monotonic()
    samples = [(0.0, 0)]
    total, after = 0, EVERY_S
    link.settimeout(seconds)
    try:
        while (now := time.monotonic() - start) < seconds:
            got = link.recv_into(room)
            if not got:
                break
            total += got
            if now >= after:
                after = now + EVERY_S
                samples.append((time.monotonic() - start, total))
    except TimeoutError:
        pass
    return samples


def main() -> int:
    """The command line above."""
    mode, host, port, *words = sys.argv[1:]
    if mode == "listen":
        with socket.create_server((host, int(port))) as listener:
            print("listening", flush=True)
            listener.settimeout(10)
            link, _ = listener.accept()
    else:
        link = socket.create_connection((host, int(port)), 10, (words.pop(0), 0))
    with link:
        seconds = float(words[1])
        if words[0] == "send":
            send(link, seconds)
        else:
            print(json.dumps(receive(link, seconds)), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
