"""Enhanced GRE: entries for tests and tools."""

def parse(
    packet: bytes | bytearray | memoryview,
) -> tuple[int, int | None, int | None, int, int]: ...
def build(
    call_id: int, payload: bytes, seq: int | None = None, ack: int | None = None
) -> bytes: ...
