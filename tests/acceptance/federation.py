"""A federation of real processes as a test sees it: wait for events, look into its files, close the books."""

import re
import signal
import sqlite3
import subprocess
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import pytest

from aggregator.status import Status, read_status
from broker.database import open_readonly
from broker.errors import UsageError
from broker.topology import SiteNames
from deploy.history import Ledger
from deploy.ledger import read_books
from deploy.local import LocalFederation, SitePlan
from site_worker.status import Status as SiteStatus
from site_worker.status import read_status as read_site_status

TINY: Final = "site_worker.tasks.synthetic:tiny"
POLL_S: Final = 0.02
SETTINGS: Final = """\
federation = "{name}"
task = "{task_name}"
codec = "{codec}"
versions = {versions}
presence_s = 0.3

[plan]
steps = {steps}
batch_size = 16
learning_rate = 0.1

[aggregation]
strategy = "{strategy}"
buffer_size = {buffer_size}
one_place = false
max_wait_s = {max_wait_s}

[start]
min_sites = {min_sites}
start_after_s = 60.0
"""


@dataclass
class Federation(LocalFederation):
    """See the module's docstring. `name` is the federation's, unique on the node that all tests share."""

    name: str = "fed"
    sites: list[str] = field(default_factory=list)

    def prepare(
        self,
        *plans: SitePlan,
        versions: int,
        task: str = TINY,
        task_name: str = "tiny",
        codec: str = "int8",
        steps: int = 3,
        buffer_size: int = 2,
        max_wait_s: float = 1.0,
        min_sites: int | None = None,
        strategy: str = "fedbuff",
    ) -> None:
        """Folders, keys, accounts and queues; sites train until there are so many `versions`.

        With "fedbuff", and every update in a place of its own, the model can be added up by hand.
        """
        self.sites = [plan.name for plan in plans]
        settings = SETTINGS.format(
            name=self.name,
            task_name=task_name,
            codec=codec,
            versions=versions,
            steps=steps,
            buffer_size=buffer_size,
            max_wait_s=max_wait_s,
            strategy=strategy,
            min_sites=len(plans) if min_sites is None else min_sites,
        )
        self.set_up(federation=self.name, task=task, sites=list(plans), settings=settings)

    def start(self) -> None:
        """The aggregator and all sites."""
        self.start_aggregator()
        for site in self.sites:
            self.start_site(site)

    def stop(self, name: str) -> int:
        """SIGTERM a process; its exit code, which must come within 5 s."""
        process = self.processes.pop(name)
        process.send_signal(signal.SIGTERM)
        try:
            return process.wait(5.0)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            pytest.fail(f"{name} did not stop within 5 s of SIGTERM.\n{self.log(name)[-1500:]}")

    def hurry(self, site: str) -> None:
        """Take the site's delay after each step out of its settings; its next start heeds it."""
        file = self.site(site).settings_file
        file.write_text(re.sub(r"^step_delay_s = \S+", "step_delay_s = 0.0", file.read_text(), flags=re.MULTILINE))

    def names(self, site: str) -> SiteNames:
        """The site's queues."""
        return SiteNames(self.name, site)

    def log(self, name: str) -> str:
        """What a process has written so far, over all its starts."""
        path = self.path / f"{name}.log"
        return path.read_text(errors="replace") if path.is_file() else ""

    # ---- waiting

    def eventually(self, what: str, condition: Callable[[], bool], timeout_s: float = 30.0) -> None:
        """Poll until `condition()`; fails with the processes' last words if it does not come, or if one has ended."""
        deadline = time.monotonic() + timeout_s
        while not condition():
            self.check()
            if time.monotonic() > deadline:
                logs = "\n".join(f"--- {name}\n{self.log(name)[-1500:]}" for name in ("aggregator", *self.sites))
                pytest.fail(f"Not within {timeout_s} s: {what}.\n{logs}")
            time.sleep(POLL_S)

    def reaches(self, version: int, timeout_s: float = 30.0) -> None:
        """Wait for a version."""
        self.eventually(f"version {version}", lambda: self.status().version >= version, timeout_s)

    def finished(self) -> None:
        """Wait until every site has heard that training has ended, and has ended its own."""
        done = "the federation has finished"
        self.eventually("all have heard the end", lambda: all(self.site_status(s).detail == done for s in self.sites))

    def trains(self, site: str, *, above: int = -1, timeout_s: float = 30.0) -> None:
        """Wait until the site trains from a version above `above`."""

        def training() -> bool:
            state = self.site_status(site)
            return state.state == "training" and state.version is not None and state.version > above

        self.eventually(f"{site} trains from above version {above}", training, timeout_s)

    def published(self, site: str, sequence: int) -> None:
        """Wait until the broker has confirmed an update that nobody has settled yet."""
        query = "SELECT 1 FROM updates WHERE sequence = ? AND published AND state = 'waiting'"
        self.eventually(f"{site} has update {sequence} confirmed", lambda: bool(self.outbox(site, query, sequence)))

    # ---- looking

    def status(self) -> Status:
        """The aggregator's."""
        return read_status(self.aggregator)

    def site_status(self, site: str) -> SiteStatus:
        """The site's; "stopped" before its first start."""
        try:
            return read_site_status(self.site(site))
        except UsageError:
            return SiteStatus(site, False, "stopped", None, "", 0.0, 0, 0, 0)

    def journal(self, query: str, *values: object) -> list[sqlite3.Row]:
        """Rows of the journal."""
        return _rows(self.aggregator.journal_file, query, values)

    def outbox(self, site: str, query: str, *values: object) -> list[sqlite3.Row]:
        """Rows of a site's outbox; none before its first start."""
        try:
            return _rows(self.site(site).outbox_file, query, values)
        except UsageError:
            return []

    def accepted(self) -> int:
        """Updates in the journal."""
        return int(self.journal("SELECT count(*) FROM updates")[0][0])

    def digest(self) -> bytes:
        """Digest of the newest version."""
        return bytes(self.journal("SELECT digest FROM versions ORDER BY version DESC LIMIT 1")[0][0])

    def waiting(self) -> int:
        """Updates in the outboxes that nobody has settled."""
        return sum(self.site_status(site).waiting for site in self.sites)

    def balance(self) -> Ledger:
        """The ledger as of now."""
        outboxes = [(site, self.site(site).outbox_file) for site in self.sites]
        return read_books(self.aggregator.journal_file, outboxes).balance()


def _rows(path: Path, query: str, values: tuple[object, ...]) -> list[sqlite3.Row]:
    with closing(open_readonly(path)) as database:
        return database.execute(query, values).fetchall()
