"""Types of fastpath/census.pyx."""

from typing import Final

from fastpath.layout import Table

STATES: Final[tuple[str, ...]]

class Census:
    pools: int
    pools6: int
    def __init__(
        self,
        table: Table,
        pools: list[list[tuple[int, int]]],
        pools6: list[tuple[int, list[tuple[bytes, int]]]] | None = None,
    ) -> None: ...
    def take(self) -> tuple[list[list[int]], list[int], int, list[int]]: ...
    def look(self) -> None: ...
    def busiest(self, most: int) -> list[int]: ...
