"""Who is and was logged in, as [records] says: history, utmp and wtmp kept together."""

from __future__ import annotations

import os
import time
from typing import Final

from ops.hook_event import session_name
from ops.log import Log
from ops.settings import Records
from workers.radius.accounting import Counters, Facts
from workers.radius.history import FILE, History
from workers.radius.utmp import Utmp

DAY_S: Final = 86400.0
FORGET_S: Final = 3600.0  # between looks for what is too old
LOG_S: Final = 60.0


class Logbook:
    """Nothing here fails: what cannot be written is said, at most once a minute."""

    def __init__(self, conf: Records, folder: str, epoch: int, log: Log) -> None:
        """`folder`: of the history; "" if it cannot be had."""
        self._conf = conf
        self._epoch = epoch
        self._log = log
        self._forget_at = 0.0
        self._told_at = -LOG_S
        self._history: History | None = None
        if conf.history_days:
            try:
                if not folder:
                    raise OSError("there is no folder to write to; see server.state_dir")
                self._history = History(os.path.join(folder, FILE), epoch)
            except OSError as e:
                log.error("history not kept", reason=str(e))
        self._utmp = Utmp(conf.utmp, conf.wtmp, os.getppid(), strip_domain=conf.strip_domain)

    def begin(self) -> None:
        """End what a dead instance left."""
        lost = self._history.begin() if self._history is not None else {}
        seen = {session_name(int(sid, 16)): when for sid, when in lost.items()}
        ghosts = self._utmp.sweep(seen.get, self._epoch)
        if lost or ghosts:
            self._log.warning(
                "logins of a dead instance ended", history=len(lost), utmp_and_wtmp=ghosts
            )
        self._tell()

    def started(self, facts: Facts) -> None:
        """A session is up; said again it changes nothing."""
        now = time.time()
        if self._history is not None:
            self._history.started(facts, now)
        if self._conf.utmp or self._conf.wtmp:
            name = session_name(int(facts.sid, 16))
            self._utmp.login(name, facts.user, facts.calling, facts.up_unix or now)

    def stopped(self, sid: str, counters: Counters | None, cause: str, unix: float) -> None:
        """It is over; said again it changes nothing."""
        if self._history is not None:
            self._history.ended(sid, counters, cause, unix)
        self._utmp.logout(session_name(int(sid, 16)), unix)

    def seen(self, items: list[tuple[str, Counters]], unix: float) -> None:
        """Counters as they stand."""
        if self._history is not None:
            self._history.seen(items, unix)

    @property
    def open(self) -> set[str]:
        """sids of sessions that are logged in here."""
        found = {
            f"{int(line[-8:], 16) << 32 | int(line[4:].partition('.')[0], 16):016x}"
            for line in self._utmp.lines
        }
        return found | self._history.open if self._history is not None else found

    def tick(self) -> None:
        """Once a second or so."""
        now = time.time()
        if self._history is not None and now >= self._forget_at:
            self._forget_at = now + FORGET_S
            gone = self._history.forget(now - self._conf.history_days * DAY_S)
            if gone:
                self._log.info("history forgotten", sessions=gone, days=self._conf.history_days)
        self._tell()

    def commit(self) -> None:
        """Make all changes last."""
        if self._history is not None:
            self._history.commit()

    def close(self) -> None:
        """With what is not committed."""
        if self._history is not None:
            self._history.close()

    def _tell(self) -> None:
        if self._history is not None and self._history.failure:
            self._log.error(
                "history given up", reason=self._history.failure, hint="mend the disk, restart"
            )
            self._history.failure = ""
        now = time.monotonic()
        if self._utmp.failures and now >= self._told_at + LOG_S:
            self._told_at = now
            self._log.warning(
                "login record not written",
                reason=self._utmp.failures[0],
                hint="server.user must be able to write it: group utmp",
            )
        self._utmp.failures.clear()
