"""The virtual clock: what is to happen, in the order of its time; nothing ever sleeps.

Actions of one moment happen in the order in which they were asked for, so a run is the same every time.
"""

import heapq
import itertools
from collections.abc import Callable

Action = Callable[[], object]


class Clock:
    """`now` is in seconds since the start of the simulation."""

    def __init__(self) -> None:
        self.now = 0.0
        self._due: list[tuple[float, int, Action]] = []
        self._order = itertools.count()
        self._stopped = False

    def at(self, time: float, action: Action) -> None:
        """Do `action` at `time`, now if that has passed."""
        heapq.heappush(self._due, (max(time, self.now), next(self._order), action))

    def after(self, delay_s: float, action: Action) -> None:
        """Do `action` in `delay_s` seconds."""
        self.at(self.now + delay_s, action)

    def stop(self) -> None:
        """Let no more time pass: `run` returns after the present action."""
        self._stopped = True

    def run(self, until: float) -> None:
        """Let time pass until `until`, or until somebody stops it."""
        self._stopped = False
        while not self._stopped and self._due and self._due[0][0] <= until:
            self.now, _, action = heapq.heappop(self._due)
            action()
        if not self._stopped:
            self.now = max(self.now, until)
