"""Longest prefix match, for tests; the data thread uses what networks.pxd lists."""

class Networks:
    """Prefixes (4 or 16 octets, length) and the numbers of their owners."""

    def add(self, octets: bytes, length: int, owner: int) -> bool: ...
    def remove(self, octets: bytes, length: int, owner: int) -> None: ...
    def find(self, octets: bytes) -> int: ...  # -1: nobody's
    @property
    def sizes(self) -> tuple[int, int, int, int]: ...  # networks, places, lengths of IPv4, IPv6
