"""For tests: a data thread's turns ahead of others, on a clock that is given. Times in ns."""

from typing import Literal

class Turns:
    """`used`: it had real-time priority at its start; `returns`: it may take it again."""

    def __init__(self, now: int, *, used: bool, returns: bool) -> None: ...
    @property
    def ahead(self) -> bool: ...  # it has the priority now
    def sleeps(self, ns: int) -> None: ...  # after the last turn
    # At the begin of a round; `refused`: the kernel does not do it. "nap": 0.2 ms.
    def turn(self, now: int, *, refused: bool = False) -> Literal["", "give up", "take", "nap"]: ...
