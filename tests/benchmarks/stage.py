"""A federation for benchmarks: a private broker, the real aggregator process, and sites that processes of ours play.

Such a process is a module of this package that is given a folder with its key and its assignment, and that leaves its
figures there when it is ended by SIGTERM.
"""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from aggregator.enrolment import Founding, add_site, create
from broker.database import open_readonly
from broker.identity import PrivateKey
from broker.letters import Request
from broker.weights import Layout, model_digest, save_model
from deploy.local import LocalFederation

FEDERATION: Final = "benchmark"
TASK: Final = "benchmark"
SETTINGS: Final = """\
federation = "benchmark"
task = "benchmark"
codec = "{codec}"

[aggregation]
strategy = "{strategy}"
buffer_size = {buffer_size}

[start]
min_sites = {min_sites}
"""


class Assignment(msgspec.Struct, frozen=True):
    """What a process that plays a site is told, as FOLDER/assignment.json; its key is FOLDER/site.key.

    `window` is how many of its updates may await their receipt, `updates` how many it makes, 0 without end.
    """

    url: str
    federation: str
    site: str
    task: str
    aggregator_key: str
    layout_digest: bytes
    base_digest: bytes
    codec: str = "float32"
    payloads: list[str] = []
    window: int = 1
    updates: int = 0


class Stage:
    """A federation in `path` for models like `vector`; `local` has its processes, and ends them."""

    def __init__(self, path: Path, vector: NDArray[np.float32]) -> None:
        self.local, self.path, self.vector = LocalFederation(path), path, vector
        self._layout = Layout.of({"weights": vector})

    def set_up(self, **settings: Any) -> None:
        """Start the broker and make the aggregator's folder."""
        node, folder = self.local.start_broker(), self.local.aggregator
        model = self.path / "initial.safetensors"
        save_model(model, self._layout, self._layout.flatten({"weights": self.vector}))
        create(folder, Founding(FEDERATION, model, task=TASK), node=node)
        folder.settings_file.write_text(SETTINGS.format(**settings))

    def assign(self, site: str, **part: Any) -> None:
        """Enrol a site, and say what its process shall do."""
        folder, key = self.path / site, PrivateKey.generate()
        folder.mkdir()
        key.save(folder / "site.key")
        joining = add_site(self.local.aggregator, Request(site, key.public.to_text()), node=self.local.node)
        assignment = Assignment(
            url=joining.broker_url,
            federation=FEDERATION,
            site=site,
            task=TASK,
            aggregator_key=joining.aggregator_key,
            layout_digest=self._layout.digest,
            base_digest=model_digest(self._layout.digest, self.vector),
            **part,
        )
        (folder / "assignment.json").write_bytes(msgspec.json.encode(assignment))

    def play(self, site: str, module: str) -> None:
        """Start the process of a site."""
        command = [sys.executable, "-m", f"tests.benchmarks.{module}", str(self.path / site)]
        with (self.path / f"{site}.log").open("ab") as log:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self.local.processes[site] = process

    def accepted(self) -> int:
        """Updates in the journal."""
        return self.asked("SELECT coalesce(max(ordinal), 0) FROM updates")

    def asked(self, sql: str) -> int:
        """A number from the journal."""
        database = open_readonly(self.local.aggregator.journal_file)
        try:
            return int(database.execute(sql).fetchone()[0])
        finally:
            database.close()

    def broker_pid(self) -> int:
        """Of the broker's VM."""
        node = self.local.node
        if node is None or node.pid is None:
            raise RuntimeError("The broker does not run.")
        return node.pid

    def aggregator_pid(self) -> int:
        """Of the aggregator."""
        return self.local.processes["aggregator"].pid


def assignment_in(folder: Path) -> tuple[Assignment, PrivateKey]:
    """What the process that was given `folder` shall do, and its key."""
    assignment = msgspec.json.decode((folder / "assignment.json").read_bytes(), type=Assignment)
    return assignment, PrivateKey.load(folder / "site.key")


def cpu_s(pid: int) -> float:
    """Processor seconds of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def peak_mb(pid: int) -> float:
    """Largest resident memory that a process has had."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    (kilobytes,) = [int(line.split()[1]) for line in lines if line.startswith("VmHWM")]
    return round(kilobytes / 1024, 1)


def written_mb(pid: int) -> float:
    """What a process has caused to be written to disk so far."""
    lines = Path(f"/proc/{pid}/io").read_text().splitlines()
    (bytes_,) = [int(line.split()[1]) for line in lines if line.startswith("write_bytes")]
    return bytes_ / 1e6
