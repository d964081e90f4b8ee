"""A whole federation on one machine: a private broker, one aggregator, one process a site.

These are the processes and folders that a real federation has, set up by the same code; only the distances are short.
Children get a session of their own, so that a terminal's Ctrl-C reaches the owner alone, who ends them in order: sites,
aggregator, broker. Each is ended by its own pid.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from aggregator.enrolment import add_site, create
from aggregator.settings import Folder as AggregatorFolder
from broker.errors import FedqueueError
from broker.node import Node
from broker.settings import write_secret
from broker.weights import Layout, save_model
from site_worker.joining import create as create_site
from site_worker.joining import join
from site_worker.settings import Folder as SiteFolder
from site_worker.tasks.task import load_task
from site_worker.training import initial_weights

STOP_S: Final = 15.0
LAST_LINES: Final = 3


@dataclass(frozen=True)
class SitePlan:
    """How to set up one site; `task` "" is the federation's."""

    name: str
    options: Mapping[str, str | float]
    step_delay_s: float = 0.0
    probe_s: float = 30.0
    task: str = ""


@dataclass
class LocalFederation:
    """Folders under `path`; processes by name. `close` leaves no process behind, whatever happened before.

    A `node` that is given belongs to its giver; one that `start_broker` made ends with the federation.
    """

    path: Path
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    node: Node | None = None
    _own_node: Node | None = field(default=None, init=False)

    @property
    def aggregator(self) -> AggregatorFolder:
        """The aggregator's folder."""
        return AggregatorFolder(self.path / "aggregator")

    def site(self, name: str) -> SiteFolder:
        """A site's folder."""
        return SiteFolder(self.path / "sites" / name)

    def start_broker(self) -> Node:
        """Make and start the private node."""
        self.node = self._own_node = Node.create(self.path / "broker")
        self.node.start()
        return self.node

    def set_up(self, *, federation: str, task: str, sites: list[SitePlan], settings: str) -> None:
        """Make the aggregator's and all sites' folders and enrol the sites; `settings` goes into aggregator.toml."""
        assert self.node is not None
        first = load_task(task, sites[0].options)
        model = self.path / "initial.safetensors"
        weights = initial_weights(first)
        layout = Layout.of(weights)
        save_model(model, layout, layout.flatten(weights))
        create(
            self.aggregator, federation=federation, task=first.name, model=model, node=self.node, min_sites=len(sites)
        )
        self.aggregator.settings_file.write_text(settings)
        for site in sites:
            self.enrol(site, task)

    def enrol(self, site: SitePlan, task: str) -> None:
        """Make a site's folder and enrol it, also while everything runs."""
        folder = self.site(site.name)
        key = create_site(
            folder,
            site=site.name,
            task=site.task or task,
            options=site.options,
            step_delay_s=site.step_delay_s,
            probe_s=site.probe_s,
        )
        joining = add_site(self.aggregator, site.name, key, node=self.node, account=None)
        join_file = folder.path / "from-coordinator.toml"
        write_secret(join_file, joining.to_toml())
        join(folder, join_file)

    def start_aggregator(self) -> None:
        """Start the aggregator's process, again after it was killed."""
        self._start("aggregator", ["-m", "aggregator", "run", str(self.aggregator.path), "-v"])

    def start_site(self, name: str) -> None:
        """Start a site's process, again after it was killed."""
        self._start(name, ["-m", "site_worker", "run", str(self.site(name).path), "-v"])

    def start_together(self, names: Sequence[str]) -> str:
        """Start several sites in one process; its name among `processes`."""
        name = f"{names[0]}-and-{len(names) - 1}-more"
        self._start(name, ["-m", "site_worker", "run", *(str(self.site(one).path) for one in names), "-v"])
        return name

    def kill(self, name: str) -> None:
        """SIGKILL a process and wait until it is gone."""
        process = self.processes.pop(name)
        process.kill()
        process.wait()

    def check(self) -> None:
        """FedqueueError with its last words if a process has ended by itself."""
        for name, process in self.processes.items():
            if process.poll() is not None:
                words = self._log(name).read_text(errors="replace").strip().splitlines()[-LAST_LINES:]
                raise FedqueueError(f"{name} ended with code {process.returncode}: {' | '.join(words)}")

    def close(self) -> None:
        """End sites, then the aggregator, then the broker."""
        aggregator = [process for name, process in self.processes.items() if name == "aggregator"]
        _end([process for name, process in self.processes.items() if name != "aggregator"])
        _end(aggregator)
        self.processes.clear()
        if self._own_node is not None:
            self._own_node.kill()

    def _start(self, name: str, arguments: list[str]) -> None:
        with self._log(name).open("ab") as log:
            # One thread a process: four sites share two cores with the broker.
            environment = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
            self.processes[name] = subprocess.Popen(  # noqa: S603 - our own modules and folders
                [sys.executable, *arguments],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment, start_new_session=True,
            )  # fmt: skip

    def _log(self, name: str) -> Path:
        return self.path / f"{name}.log"


def _end(processes: list[subprocess.Popen[bytes]]) -> None:
    for process in processes:
        process.send_signal(signal.SIGTERM)
    for process in processes:
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
