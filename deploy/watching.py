"""Watching a federation on this machine until something has come about, or until somebody asks to stop.

Files are read, nothing is asked of the processes: what is shown is what each of them has written down.
"""

import threading
import time
from collections.abc import Callable, Sequence
from typing import Final

from aggregator.status import read_status
from broker.errors import FedqueueError
from deploy.gather import read_rows
from deploy.history import SiteRow
from deploy.live import LiveView
from deploy.local import LocalFederation

LOOK_S: Final = 0.25
SHARE: Final = 0.1  # of the time goes into looking at most: with hundreds of sites a look takes long


class StoppedError(FedqueueError):
    """Ctrl-C or SIGTERM."""


class Watch:
    """Looks at `federation` and its sites `names`; every method raises StoppedError once `stopping` is set."""

    def __init__(self, federation: LocalFederation, names: Sequence[str], stopping: threading.Event) -> None:
        self._federation, self._stopping = federation, stopping
        self._sites = [federation.site(name) for name in names]
        self.started = time.time()

    @property
    def seconds(self) -> float:
        """Since the watch began."""
        return time.time() - self.started

    def go_on(self) -> None:
        """Raise StoppedError if it is time to stop."""
        if self._stopping.is_set():
            raise StoppedError("stopped")

    def rows(self) -> tuple[int, list[SiteRow]]:
        """The newest version, and what each site is doing."""
        return read_rows(self._federation.aggregator, self._sites)

    def show(
        self,
        view: LiveView,
        *,
        target: int | None,
        done: Callable[[int, list[SiteRow]], bool],
    ) -> None:
        """Keep `view` up to date until `done(version, rows)`, which is asked at each look."""
        node = self._federation.node
        footer = f"console {node.management_url if node else ''}"
        while True:
            self.go_on()
            looked = time.monotonic()
            self._federation.check()
            version, rows = self.rows()
            shown = version if target is None else min(version, target)
            view.update(rows, version=shown, target=target, seconds=self.seconds, footer=footer)
            if done(version, rows):
                return
            self._stopping.wait(max(LOOK_S, (time.monotonic() - looked) / SHARE))

    def settle(self, timeout_s: float) -> bool:
        """Wait until every site is idle and nothing waits anywhere; False if that does not come in time."""
        deadline = time.monotonic() + timeout_s
        while not self._settled():
            self.go_on()
            if time.monotonic() > deadline:
                return False
            self._stopping.wait(LOOK_S)
        return True

    def _settled(self) -> bool:
        """Every site that could is idle, and the last late update is in a version."""
        _, rows = self.rows()
        working = [row for row in rows if row.state != "failed"]
        idle = all(row.state == "idle" and not row.waiting and "finished" in row.note for row in working)
        return idle and not read_status(self._federation.aggregator).buffered
