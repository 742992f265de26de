"""For tests: a queue's frames as one worker sees them, where the test plays the kernel."""

class Umem:
    """`memory`: as dispatcher.umem makes it. `rings`: a memfd of `size` octets; each ring has its
    producer at 0, its consumer at 64 and its entries from 128 on: fill ring (`frames`),
    completion ring (`done`), then each worker's receive (`ring`) and send ring (2048).
    Frames and addresses as in linux/if_xdp.h; the first `senders` workers send."""

    def __init__(
        self,
        memory: int,
        rings: int,
        size: int,
        frames: int,
        ring: int,
        senders: int,
        workers: int,
        worker: int,
        done: int,
    ) -> None: ...
    in_hand: int  # frames from the receive ring
    free: list[int]  # frames to send from that are ours, from 0
    def mend(self) -> bool: ...  # what a predecessor left; False: a lock is held for seconds
    def take(self, most: int) -> int: ...  # from the receive ring
    def give(self, patient: bool = False) -> bool: ...  # back all of them; False: another is at it
    def put(self, most: int) -> int: ...  # into free frames and the send ring
    def hand_over(self, n: int) -> None: ...  # all that was put: the kernel sees them
    def reap(self) -> None: ...  # what the kernel is done with
    def run(self, batch: int) -> None: ...  # all of this until killed, without the GIL
