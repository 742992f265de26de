"""Segmentation and coalescing, for tests."""

def segment(
    packet: bytes,
    mtu: int,
    *,
    flags: int = 0,
    gso_type: int = 0,
    gso_size: int = 0,
    csum_start: int = 0,
    csum_offset: int = 0,
) -> list[bytes]: ...
def coalesce(
    packets: list[bytes], fd: int, *, refused: bool = False, writes: str = "plain"
) -> tuple[int, int, int, int]: ...
def clamp(packet: bytes, mtu: int) -> bytes: ...
def measure_write(
    packets: bytes, size: int, batch: int, fd: int, *, writes: str = "plain"
) -> tuple[int, int]: ...
def measure_read(fd: int, mtu: int) -> tuple[int, int, int]: ...
