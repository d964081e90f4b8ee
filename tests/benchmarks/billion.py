"""A model of a billion parameters from end to end: `python -m tests.benchmarks.billion --json FILE`.

A private broker, the real aggregator and three real site workers, one after the other, since one machine has to hold
them: each fetches the newest model, trains a step of a dense network on it, and delivers its update. One is killed in
the middle of its upload, another in the middle of its download, and the aggregator once; all go on where they stopped.
At last the first site comes back and fetches only what has changed.

Memory is of each process alone: `anonymous` is what it holds, `resident` also has pages of files that it has mapped,
which the system takes back when it needs them.
"""

import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import click
import msgspec

from broker.database import open_readonly
from broker.errors import FedqueueError
from broker.processes import wait_until
from broker.room import used_bytes
from deploy.local import LocalFederation, SitePlan
from tests.benchmarks.stage import cpu_s

TASK: Final = "site_worker.tasks.synthetic:synthetic"
SITES: Final = ("a", "b", "c")
PATIENCE_S: Final = 3_600.0
LOOK_S: Final = 0.2
SETTINGS: Final = """\
federation = "billion"
task = "synthetic"
codec = "{codec}"
model_codec = "{model_codec}"

[plan]
steps = 1
learning_rate = 0.01

[limits]
max_norm = 1e9
"""


class Memory:
    """The largest that processes have been, in bytes, by name; looks at them now and then."""

    def __init__(self, federation: LocalFederation) -> None:
        self.peaks: dict[str, dict[str, int]] = {}
        self._federation = federation
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()

    def close(self) -> None:
        """Look no more."""
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._over.wait(LOOK_S):
            node = self._federation.node
            pids = {name: process.pid for name, process in list(self._federation.processes.items())}
            if node is not None and node.pid:
                pids["broker"] = node.pid
            for name, pid in pids.items():
                self._note("aggregator" if name == "aggregator" else "broker" if name == "broker" else "site", pid)

    def _note(self, name: str, pid: int) -> None:
        try:
            lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        except OSError:
            return
        fields = {line.split(":")[0]: line for line in lines}
        peaks = self.peaks.setdefault(name, {"anonymous": 0, "resident": 0})
        for kind, field in (("anonymous", "RssAnon"), ("resident", "VmRSS")):
            if field in fields:
                peaks[kind] = max(peaks[kind], 1024 * int(fields[field].split()[1]))


class Run:
    """The federation and its figures."""

    def __init__(self, path: Path, *, params: int, codec: str, model_codec: str) -> None:
        self.federation, self._params = LocalFederation(path), params
        self._settings = SETTINGS.format(codec=codec, model_codec=model_codec)
        self.seconds: dict[str, float] = {}
        self.disk_bytes = 0

    def start(self) -> None:
        """Broker, folders, aggregator."""
        plans = [SitePlan(name, {"parameters": self._params, "site": number}) for number, name in enumerate(SITES)]
        with self._timed("set-up"):
            self.federation.start_broker()
            self.federation.set_up(federation="billion", task=TASK, sites=plans, settings=self._settings)
            (self.federation.path / "initial.safetensors").unlink()
        self.federation.start_aggregator()

    def round(self, name: str, *, cut: str | None = None) -> None:
        """A site comes, trains once and goes; `cut` says in the middle of what it is killed."""
        accepted = self._journal("SELECT count(*) FROM updates")
        with self._timed(f"{name}: " + (f"a round, killed while {cut}" if cut else "a round")):
            self.federation.start_site(name)
            if cut is not None:
                self._until(f"{name} is {cut}", lambda: self._half_way(name, cut))
                self._kill(name)
                self.federation.start_site(name)
            self._until(f"{name} counts", lambda: self._journal("SELECT count(*) FROM updates") > accepted)
            version = self._journal("SELECT max(version) FROM versions")
            click.echo(f"version {version} at most so far", err=True)
        self._stop(name)
        self.disk_bytes = max(self.disk_bytes, used_bytes(self.federation.path))

    def crash(self) -> None:
        """The aggregator is killed and started again."""
        self._kill("aggregator")
        with self._timed("aggregator: from its start to connected"):
            self.federation.start_aggregator()
            since = time.time()
            sql = "SELECT json_extract(CAST(value AS TEXT), '$[1]') FROM facts WHERE name = 'link'"
            self._until("the aggregator is back", lambda: self._journal(sql) >= int(since))

    def come_back(self, name: str) -> None:
        """A site that was away fetches what has changed."""
        with self._timed(f"{name}: back, until it trains from what has changed"):
            self.federation.start_site(name)
            newest = self._journal("SELECT max(version) FROM publications")
            self._until(f"{name} has the newest", lambda: self._held(name) >= newest)
        self._stop(name)

    def transfers(self) -> dict[str, Any]:
        """Bytes of updates and models."""
        database = open_readonly(self.federation.aggregator.journal_file)
        try:
            updates = database.execute("SELECT site, codec, payload_bytes, error FROM updates ORDER BY ordinal")
            models = database.execute("SELECT version, base, codec, payload_bytes, error FROM publications")
            return {"updates": [dict(row) for row in updates], "models": [dict(row) for row in models]}
        finally:
            database.close()

    def _half_way(self, name: str, cut: str) -> bool:
        outbox = self.federation.site(name).outbox_file
        if cut == "uploading":
            return self._site(outbox, "SELECT count(*) FROM updates WHERE sent * 4194304 > payload_bytes / 3") > 0
        here = sum(1 for _ in self.federation.site(name).model_folder.glob("*-whole/[0-9]*"))
        return here > self._keyframe_parts() / 2

    def _keyframe_parts(self) -> int:
        return self._journal("SELECT max(payload_bytes) / 4194304 FROM publications WHERE base < 0")

    def _held(self, name: str) -> int:
        files = self.federation.site(name).model_folder.glob("*.safetensors")
        return max((int(path.stem.partition("-")[0]) for path in files), default=-1)

    def _journal(self, sql: str) -> int:
        return self._site(self.federation.aggregator.journal_file, sql)

    def _site(self, file: Path, sql: str) -> int:
        try:
            database = open_readonly(file)
        except FedqueueError:
            return 0
        try:
            return int(database.execute(sql).fetchone()[0] or 0)
        finally:
            database.close()

    def _until(self, what: str, holds: Callable[[], bool]) -> None:
        def look() -> bool:
            self.federation.check()
            return holds()

        if not wait_until(look, PATIENCE_S):
            raise FedqueueError(f"It did not come to pass that {what}.")

    def _kill(self, name: str) -> None:
        process = self.federation.processes.pop(name)
        process.kill()
        process.wait()

    def _stop(self, name: str) -> None:
        process = self.federation.processes.pop(name)
        process.terminate()
        process.wait()

    @contextmanager
    def _timed(self, what: str) -> Iterator[None]:
        begun = time.monotonic()
        yield
        self.seconds[what] = round(time.monotonic() - begun, 1)
        click.echo(f"{self.seconds[what]:8.1f} s  {what}", err=True)


def measure(run: Run, params: int) -> dict[str, Any]:
    """All of it."""
    memory = Memory(run.federation)
    begun = time.monotonic()
    try:
        run.start()
        run.round("a", cut="uploading")
        run.round("b", cut="fetching")
        run.crash()
        run.round("c")
        run.come_back("a")
        cpu = cpu_s(run.federation.processes["aggregator"].pid)
    finally:
        memory.close()
    model = 4 * params
    return {
        "parameters": params,
        "wall_s": round(time.monotonic() - begun, 1),
        "seconds": run.seconds,
        "peak_mb": {
            name: {kind: round(size / 1e6) for kind, size in one.items()} for name, one in memory.peaks.items()
        },
        "peak_models": {
            name: {kind: round(size / model, 2) for kind, size in one.items()} for name, one in memory.peaks.items()
        },
        "aggregator_cpu_s_since_crash": round(cpu, 1),
        "disk_gb": round(run.disk_bytes / 1e9, 2),
        **run.transfers(),
    }


@click.command()
@click.option("--params", default=1_000_000_000, show_default=True, type=click.IntRange(1_000_000))
@click.option("--codec", default="int8-coarse", show_default=True, help="Of updates.")
@click.option("--model-codec", default="int8-coarse", show_default=True, help="Of the differences between models.")
@click.option("--folder", type=click.Path(path_type=Path), help="Where to work; by default a temporary folder.")
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Write the figures to this file.")
def main(*, params: int, folder: Path | None, json_file: Path | None, **codecs: str) -> None:
    """Take a large model through a federation of three sites with three kills. 1,000,000,000 parameters need 60 GB."""
    with tempfile.TemporaryDirectory(prefix="fedqueue-billion-", dir=folder) as path:
        run = Run(Path(path), params=params, **codecs)
        try:
            figures = measure(run, params)
        finally:
            run.federation.close()
    text = msgspec.json.format(msgspec.json.encode(figures)).decode()
    click.echo(text)
    if json_file is not None:
        json_file.write_text(text + "\n")


if __name__ == "__main__":
    main()
