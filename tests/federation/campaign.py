"""Many schedules, in processes side by side, and the sum of what came of them."""

import logging
import os
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Self

from tests.federation.actors import Sound
from tests.federation.mutants import MUTANTS
from tests.federation.schedule import Outcome, run_schedule

CHUNK: Final = 10
ENOUGH: Final = 10  # so many failing seeds end a campaign
_MEMORY: Final = Path("/dev/shm")  # a file system in memory, where there is one


@dataclass
class Tally:
    """The sum of schedules; `failing` maps seeds to what is wrong."""

    schedules: int = 0
    sent: int = 0
    lost: int = 0
    doubled: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    failing: dict[int, str] = field(default_factory=dict)

    @classmethod
    def of(cls, outcome: Outcome) -> Self:
        failing = {outcome.seed: outcome.line} if outcome.broken else {}
        return cls(1, outcome.sent, outcome.lost, outcome.doubled, outcome.faults, failing)

    def add(self, other: "Tally") -> None:
        self.schedules += other.schedules
        self.sent += other.sent
        self.lost += other.lost
        self.doubled += other.doubled
        self.faults += other.faults
        self.failing |= other.failing


@contextmanager
def scratch() -> Iterator[Path]:
    """A folder for one schedule, in memory where the system has such a place."""
    home = _MEMORY if os.access(_MEMORY, os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=home, prefix="fedqueue-faults-") as folder:
        yield Path(folder)


def run_seeds(seeds: range, mutant: str | None = None) -> Tally:
    """Run the schedules of `seeds` one after the other."""
    logging.disable(logging.CRITICAL)
    tally = Tally()
    try:
        for seed in seeds:
            with scratch() as folder:
                tally.add(Tally.of(run_schedule(folder, seed, mutant=MUTANTS[mutant] if mutant else Sound)))
    finally:
        logging.disable(logging.NOTSET)
    return tally


def run_campaign(
    seeds: range, *, jobs: int, mutant: str | None, progress: Callable[[Tally, float], None]
) -> tuple[Tally, bool]:
    """Run all of `seeds` in `jobs` processes; the sum so far, and whether Ctrl-C ended it before the end."""
    started, tally, interrupted = time.monotonic(), Tally(), False
    signal.signal(signal.SIGINT, signal.default_int_handler)  # also where it was started with "&"
    chunks = [seeds[start : start + CHUNK] for start in range(0, len(seeds), CHUNK)]
    with ProcessPoolExecutor(jobs, initializer=_leave_interrupts_to_the_parent) as pool:
        running = [pool.submit(run_seeds, chunk, mutant) for chunk in chunks]
        added = set[Future[Tally]]()
        try:
            for done in as_completed(running):
                added.add(done)
                tally.add(done.result())
                progress(tally, time.monotonic() - started)
                if len(tally.failing) >= ENOUGH:
                    break
        except KeyboardInterrupt:
            interrupted = True
        pool.shutdown(wait=True, cancel_futures=True)
    for late in running:
        if late not in added and not late.cancelled():
            tally.add(late.result())
    return tally, interrupted


def _leave_interrupts_to_the_parent() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
