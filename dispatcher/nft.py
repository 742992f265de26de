"""The nft table that keeps our GRE from the kernel's own protocol handlers.

libnftables by ctypes. The table has the flag `owner`: it goes with our netlink socket,
however we end. It names exactly what a worker serves (RFC 2637 section 4.1: GRE version
1, protocol type 0x880b, to an address of this host), so that the host's own GRE
tunnels and PPTP in transit pass untouched.
"""

from __future__ import annotations

import ctypes
from typing import Any, Final

LIBRARIES: Final = ("libnftables.so.1", "libnftables.so")
PACKAGE: Final = "libnftables1"

# Fragments go on to the kernel's reassembly: had we taken the first alone, the others
# would wait there for it. The drop-all raw socket ends the whole packet instead.
# With br_netfilter (Docker loads it) a bridge shows its ports' packets to prerouting before
# our packet sockets get them: what comes in by a bridge is dropped a step later.
RULES: Final = """
add table ip {name} {{ flags owner; }}
add chain ip {name} gre {{ type filter hook prerouting priority -300; policy accept; }}
add rule ip {name} gre {match} meta iifkind != "bridge" {local}drop
add chain ip {name} bridged {{ type filter hook input priority -300; policy accept; }}
add rule ip {name} bridged {match} {local}drop
"""
MATCH: Final = "ip protocol 47 ip frag-off & 0x3fff == 0 @th,0,32 & 0x0007ffff == 0x0001880b"


class NftError(Exception):
    """The table can't be had; the reason in one line."""


def library() -> Any:
    """libnftables; NftError if it is not installed."""
    for name in LIBRARIES:
        try:
            library = ctypes.CDLL(name)
        except OSError:
            continue
        library.nft_ctx_new.restype = ctypes.c_void_p
        library.nft_ctx_get_error_buffer.restype = ctypes.c_char_p
        return library
    raise NftError(f"libnftables is not installed (Debian: apt install {PACKAGE})")


def available() -> bool:
    """Is the library there? Says nothing about the kernel."""
    try:
        library()
    except NftError:
        return False
    return True


def served(name: str, address: str = "") -> str:
    """The commands for a table that ends the GRE a concentrator takes.

    `address`: the only one served; "" for all of this host.
    """
    local = f"ip daddr {address} " if address else "fib daddr type local "
    return RULES.format(name=name, match=MATCH, local=local)


class Table:
    """The loaded table; it exists until `close`, or until this process ends."""

    def __init__(self, name: str, rules: str) -> None:
        """`rules`: the commands that make the table `name`, with the flag `owner`."""
        self.name = name
        self._lib = library()
        self._context = self._lib.nft_ctx_new(0)
        if not self._context:
            raise NftError("libnftables gives no context")
        self._lib.nft_ctx_buffer_error(ctypes.c_void_p(self._context))
        self._lib.nft_ctx_buffer_output(ctypes.c_void_p(self._context))
        try:
            self._run(rules)
        except NftError:
            self.close()
            raise

    def _run(self, commands: str) -> None:
        context = ctypes.c_void_p(self._context)
        if self._lib.nft_run_cmd_from_buffer(context, commands.encode()) != 0:
            text = self._lib.nft_ctx_get_error_buffer(context).decode("utf-8", "replace")
            raise NftError(" ".join(text.split())[:300] or "nft refused the table")

    def close(self) -> None:
        """Give the netlink socket back, and the table with it."""
        if self._context:
            self._lib.nft_ctx_free(ctypes.c_void_p(self._context))
            self._context = None
