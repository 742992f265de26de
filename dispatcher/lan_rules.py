"""What [lan] puts into nft: a rule between subscribers, and sets with their addresses.

The rule stands in a table of our own, named after the run folder and without the flag
`owner`: it holds on while netops is replaced. A rule of the kernel's and not a look of the data
path's, since only the kernel knows which worker's device a packet leaves by; what does not
go from one of our devices to another costs one test of the incoming one.

Address lists are sets in a table of the administrator's, whose own rules name them. Elements
of ours carry a comment that says whose they are; others in the same set are left alone.
"""

from __future__ import annotations

import ctypes
import json
import re
import zlib
from collections.abc import Collection, Iterable
from typing import Any, Final

from dispatcher import nft
from dispatcher.nft import NftError
from ops.log import Log
from ops.ranges import format_address, parse_address
from ops.settings import Lan

JSON_OUTPUT: Final = 1 << 4  # nftables/libnftables.h, NFT_CTX_OUTPUT_JSON
BATCH: Final = 512  # elements of one transaction
NAME_MAX: Final = 31
LISTS_MAX: Final = 16  # of one session


class Commands:
    """libnftables, for commands one after the other."""

    def __init__(self) -> None:
        self._lib = nft.library()
        self._lib.nft_ctx_get_output_buffer.restype = ctypes.c_char_p
        self._context = self._lib.nft_ctx_new(0)
        if not self._context:
            raise NftError("libnftables gives no context")
        self._pointer = ctypes.c_void_p(self._context)
        self._lib.nft_ctx_buffer_error(self._pointer)
        self._lib.nft_ctx_buffer_output(self._pointer)
        self._lib.nft_ctx_output_set_flags(self._pointer, ctypes.c_uint(JSON_OUTPUT))

    def run(self, commands: str) -> dict[str, Any]:
        """One transaction; what it printed. NftError says why it was refused."""
        code = self._lib.nft_run_cmd_from_buffer(self._pointer, commands.encode())
        printed = self._lib.nft_ctx_get_output_buffer(self._pointer) or b""
        error = (self._lib.nft_ctx_get_error_buffer(self._pointer) or b"").decode(
            "utf-8", "replace"
        )
        if code != 0:
            raise NftError(" ".join(error.split())[:200] or "nft refused it")
        try:
            found = json.loads(printed) if printed.strip() else {}
        except ValueError:
            return {}
        return found if isinstance(found, dict) else {}

    def close(self) -> None:
        """Give it back; tables stay."""
        self._lib.nft_ctx_free(self._pointer)


class Isolation:
    """The rule that nothing goes from subscriber to subscriber."""

    def __init__(self, commands: Commands, run_dir: str, devices: Collection[int]) -> None:
        self._commands = commands
        self._table = f"inet pptpcon_{zlib.crc32(run_dir.encode()):08x}"
        self._devices = devices
        self._on = False
        self._seen = 0

    def set(self, wanted: bool) -> None:
        """Put the rule there, or take it away, whatever a predecessor left."""
        table = self._table
        if wanted:
            own = "{ " + ", ".join(map(str, self._devices)) + " }"
            self._commands.run(
                f"add table {table}\nadd counter {table} isolated\n"
                f"add chain {table} isolate {{ type filter hook forward priority -5; }}\n"
                f"flush chain {table} isolate\n"
                f"add rule {table} isolate iif {own} oif {own} counter name isolated drop\n"
            )
        else:
            self._commands.run(f"add table {table}\ndelete table {table}\n")
        self._on = wanted
        self._seen = self._counter() if wanted else 0

    def dropped(self) -> int:
        """Packets since the last call."""
        if not self._on:
            return 0
        try:
            before, self._seen = self._seen, self._counter()
        except NftError:  # somebody flushed the ruleset: set it anew
            self.set(True)
            return 0
        return max(0, self._seen - before)

    def _counter(self) -> int:
        found = self._commands.run(f"list counter {self._table} isolated")
        return sum(
            int(entry["counter"]["packets"])
            for entry in found.get("nftables", ())
            if "counter" in entry
        )


def set_name(text: str) -> str:
    """The name of a list as that of a set: what nft does not take becomes _."""
    name = re.sub(r"[^A-Za-z0-9_.]", "_", text)[:NAME_MAX]
    return name if name[:1].isalpha() else f"l_{name}"[:NAME_MAX]


class AddressLists:
    """Sets with the addresses of sessions. A failure costs no session anything."""

    def __init__(self, commands: Commands, lan: Lan, run_dir: str, log: Log) -> None:
        self._commands = commands
        self._table = lan.list_table
        self._mark = f"pptpcon {zlib.crc32(run_dir.encode()):08x}"
        self._log = log
        self._of: dict[int, tuple[str, ...]] = {}  # address to its sets
        self._wanted: list[tuple[bool, str, int]] = []
        self.failures = 0

    def begin(self, alive: Iterable[int]) -> None:
        """Take on elements of ours, and take away those of sessions that are gone."""
        try:
            found = self._commands.run(f"list table {self._table}")
        except NftError:
            return  # there is none yet
        living = set(alive)
        for entry in found.get("nftables", ()):
            for element in entry.get("set", {}).get("elem", ()):
                inner = element.get("elem", {}) if isinstance(element, dict) else {}
                if inner.get("comment") != self._mark:
                    continue
                try:
                    address = parse_address(str(inner["val"]))
                except (ValueError, KeyError):
                    continue
                name = entry["set"]["name"]
                if address in living:
                    self._of[address] = (*self._of.get(address, ()), name)
                else:
                    self._wanted.append((False, name, address))
        self.flush()

    def put(self, address: int, names: Iterable[str]) -> None:
        """The lists of a session from now on; carried out by `flush`."""
        before, now = self._of.get(address, ()), tuple(dict.fromkeys(map(set_name, names)))
        self._wanted += [(False, name, address) for name in before if name not in now]
        self._wanted += [(True, name, address) for name in now if name not in before]
        if now:
            self._of[address] = now
        else:
            self._of.pop(address, None)

    def flush(self) -> None:
        """All that waits, in as few transactions as possible."""
        wanted, self._wanted = self._wanted, []
        for at in range(0, len(wanted), BATCH):
            part = wanted[at : at + BATCH]
            try:
                self._commands.run(self._text(part))
            except NftError:
                self._one_by_one(part)

    def leave(self) -> None:
        """Take our elements away."""
        for address in list(self._of):
            self.put(address, ())
        self.flush()

    def _text(self, part: list[tuple[bool, str, int]]) -> str:
        lines = []
        for add, name, address in part:
            verb, tail = ("add", f' comment "{self._mark}"') if add else ("delete", "")
            element = f"{{ {format_address(address)}{tail} }}"
            lines.append(f"{verb} element {self._table} {name} {element}\n")
        return "".join(lines)

    def _one_by_one(self, part: list[tuple[bool, str, int]]) -> None:
        """A set is missing, or an element that somebody else has removed."""
        made: set[str] = set()
        for item in part:
            add, name, _ = item
            try:
                self._commands.run(self._text([item]))
                continue
            except NftError as e:
                error = e
            if not add:
                continue  # it is gone already
            try:
                if name not in made:
                    made.add(name)
                    kind = f"add set {self._table} {name} {{ type ipv4_addr; }}\n"
                    self._commands.run(f"add table {self._table}\n{kind}")
                self._commands.run(self._text([item]))
            except NftError as e:
                error = e
                self.failures += 1
                self._log.warning(
                    "address list not kept",
                    list=name,
                    table=self._table,
                    address=format_address(item[2]),
                    error=str(error),
                )
