"""One run of a cohort on this machine: set up, start, watch, until the wanted version or the end of the time."""

import threading
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from math import ceil
from typing import Final

from aggregator.control import Control, write_control
from aggregator.journal import Journal
from broker.errors import UsageError
from deploy.cohort import Cohort
from deploy.history import SiteRow
from deploy.live import LiveView
from deploy.local import LocalFederation, SitePlan
from deploy.watching import Watch
from site_worker.tasks.task import Task

SETTLE_S: Final = 30.0
EACH_ITS_OWN: Final = 12  # processes at most with one site each; more sites share `PROCESSES`, for each brings torch
PROCESSES: Final = 4


@dataclass(frozen=True)
class Wanted:
    """When a run ends, and how its sites are spread: `versions` or `minutes` 0 for no limit, `per_process` 0 for us."""

    versions: int
    minutes: float
    per_process: int


class Run:
    """A federation under `federation.path`; whoever makes it closes it."""

    def __init__(
        self, cohort: Cohort, federation: LocalFederation, wanted: Wanted, *, stopping: threading.Event
    ) -> None:
        self.cohort, self.federation, self.wanted = cohort, federation, wanted
        self.watch = Watch(federation, list(cohort.sites), stopping)

    def set_up(self, tasks: Mapping[str, Task], *, name: str, seed: int) -> None:
        """Folders, keys, accounts, queues. `tasks` are of the sites whose files fit; the others are enrolled too."""
        first = next(iter(tasks.values()))
        order = [*tasks, *(site for site in self.cohort.sites if site not in tasks)]
        plans = [SitePlan(site, dict(self.cohort.sites[site]), seed=seed, probe_s=5.0) for site in order]
        settings = self.cohort.settings(
            federation=name, task=first.name, versions=self.wanted.versions, sites=len(tasks)
        )
        self.federation.set_up(federation=name, task=self.cohort.task, sites=plans, settings=settings)

    def go(self, title: str, *, tell: Callable[[str], object]) -> None:
        """Start everything, or go on with what was stopped, perhaps to another end, and watch it."""
        self._end_at(self.wanted.versions)
        self.federation.start_aggregator()
        self._start_sites(tell)
        with LiveView(title) as view:
            self.watch.show(view, target=self.wanted.versions or None, done=self._done)
        if not self.watch.settle(SETTLE_S):
            tell("Some sites are still at work; what they are training from now on is not waited for.")

    def _start_sites(self, tell: Callable[[str], object]) -> None:
        names = list(self.cohort.sites)
        shared = ceil(len(names) / PROCESSES) if len(names) > EACH_ITS_OWN else 1
        per_process = self.wanted.per_process or shared
        if per_process > 1:
            tell(f"{len(names)} sites share {ceil(len(names) / per_process)} processes.")
        for start in range(0, len(names), per_process):
            self.federation.expendable.add(self.federation.start_together(names[start : start + per_process]))

    def _done(self, version: int, rows: list[SiteRow]) -> bool:
        failed = [row for row in rows if row.state == "failed"]
        if len(failed) == len(rows):
            raise UsageError(f"No site can take part. {failed[0].site}: {failed[0].note}")
        if self.wanted.minutes and self.watch.seconds >= 60 * self.wanted.minutes:
            self._end_at(max(1, version))
            return True
        return bool(self.wanted.versions) and version >= self.wanted.versions

    def _end_at(self, version: int) -> None:
        with closing(Journal(self.federation.aggregator.journal_file)) as journal:
            write_control(journal, Control(stop_after=version))
