"""Writes to the TUN by the data thread."""

WRITES: tuple[str, ...]  # by the numbers of tun_queue.pxd
