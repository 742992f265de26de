"""What is wrong with what a subscriber sent."""

from __future__ import annotations


class RemoteError(Exception):
    """The peer's fault: the packet is counted and dropped; the text is for the log."""
