"""Allowed and denied addresses, for tests; the engine uses what peers.pxd lists."""

class Peers:
    """A block that ops.peers.Peers.block made; ValueError if it is none."""

    def __init__(self, block: bytes) -> None: ...
    def allowed(self, address: int) -> bool: ...  # host order
