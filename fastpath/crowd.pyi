"""For tests: the crowd of a worker's sessions with numbers for names."""

class Crowd:
    """`sessions` who may send."""

    def __init__(self, sessions: int) -> None: ...
    @property
    def level(self) -> int: ...  # one of 2 ** level packets of a flood stays
    def turn(self, now: int, drained: bool) -> None: ...  # ns; was the socket empty once?
    def passes(self, session: int) -> bool: ...  # a packet of that session
