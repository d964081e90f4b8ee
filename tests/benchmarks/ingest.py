"""Accepted updates a second: `python -m tests.benchmarks.ingest --sites 8 --params 1000000 --codec int8 --json FILE`.

A private broker, the real aggregator process, one publisher process a site (see publisher.py). An update counts when
the journal has it: between two times, `max(ordinal)` is read twice. All processes share this machine, so `cpu_ms`,
the processor time that each side spends on one update, says more about a change than the rate on a busy machine does.
"""

import itertools
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import fmean, median
from typing import Any, Final

import click
import msgspec
import numpy as np

from aggregator.enrolment import Founding, add_site, create
from broker.codecs import CODECS, encode
from broker.database import open_readonly
from broker.errors import FedqueueError
from broker.identity import PrivateKey
from broker.letters import Request
from broker.processes import wait_until
from broker.weights import Layout, model_digest, save_model
from deploy.local import LocalFederation
from tests.benchmarks.publisher import Assignment, Published

FEDERATION: Final = "ingest"
TASK: Final = "benchmark"
PAYLOADS: Final = 4
WARM_UP_S: Final = 3.0
SAMPLE_S: Final = 5.0
PATIENCE_S: Final = 60.0
SETTINGS: Final = """\
federation = "ingest"
task = "benchmark"
codec = "{codec}"

[aggregation]
strategy = "{strategy}"
buffer_size = {buffer_size}

[start]
min_sites = {sites}
"""


class Ingest:
    """A federation of publishers in `path`."""

    def __init__(
        self, path: Path, *, sites: int, params: int, codec: str, window: int, strategy: str, buffer_size: int
    ) -> None:
        self.local = LocalFederation(path)
        self._path, self._codec, self._window = path, codec, window
        self._rule = {"strategy": strategy, "buffer_size": buffer_size}
        self.sites = [f"site{number}" for number in range(sites)]
        self._vector = np.random.default_rng(0).normal(0, 0.05, params).astype(np.float32)
        self._layout = Layout.of({"weights": self._vector})

    def start(self) -> None:
        """Broker, aggregator, publishers."""
        node, folder = self.local.start_broker(), self.local.aggregator
        model = self._path / "initial.safetensors"
        save_model(model, self._layout, self._layout.flatten({"weights": self._vector}))
        create(folder, Founding(FEDERATION, model, task=TASK), node=node)
        folder.settings_file.write_text(SETTINGS.format(codec=self._codec, sites=len(self.sites), **self._rule))
        payloads = self._payloads()
        for site in self.sites:
            self._assign(site, payloads)
        self.local.start_aggregator()
        for site in self.sites:
            self._start(site)

    def accepted(self) -> int:
        """Updates in the journal."""
        return self._one("SELECT coalesce(max(ordinal), 0) FROM updates")

    def versions(self) -> int:
        """Versions in the journal after version 0."""
        return self._one("SELECT max(version) FROM versions")

    def pids(self) -> dict[str, list[int]]:
        """Process ids by side."""
        node = self.local.node
        processes = self.local.processes
        return {
            "aggregator": [processes["aggregator"].pid],
            "broker": [node.pid] if node and node.pid else [],
            "sites": [processes[site].pid for site in self.sites],
        }

    def published(self) -> list[Published]:
        """What the publishers measured, after they have ended."""
        files = [self._path / site / "published.json" for site in self.sites]
        return [msgspec.json.decode(file.read_bytes(), type=Published) for file in files]

    def _one(self, sql: str) -> int:
        database = open_readonly(self.local.aggregator.journal_file)
        try:
            return int(database.execute(sql).fetchone()[0])
        finally:
            database.close()

    def _payloads(self) -> list[str]:
        """A few different ones, as sites of different data would send."""
        paths = [self._path / f"payload{number}" for number in range(PAYLOADS)]
        for number, path in enumerate(paths):
            delta = np.random.default_rng(number + 1).normal(0, 0.01, len(self._vector)).astype(np.float32)
            path.write_bytes(encode(self._codec, delta))
        return [str(path) for path in paths]

    def _assign(self, site: str, payloads: list[str]) -> None:
        folder, key = self._path / site, PrivateKey.generate()
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
            base_digest=model_digest(self._layout.digest, self._vector),
            codec=self._codec,
            payloads=payloads,
            window=self._window,
        )
        (folder / "assignment.json").write_bytes(msgspec.json.encode(assignment))

    def _start(self, site: str) -> None:
        command = [sys.executable, "-m", "tests.benchmarks.publisher", str(self._path / site)]
        with (self._path / f"{site}.log").open("ab") as log:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self.local.processes[site] = process


def measure(ingest: Ingest, *, seconds: float) -> dict[str, Any]:
    """Warm up, then count for `seconds`; ends everything."""
    _warm_up(ingest)
    cpu, versions, samples = _cpu(ingest), ingest.versions(), [_sample(ingest)]
    while samples[-1][0] - samples[0][0] < seconds:
        time.sleep(SAMPLE_S)
        ingest.local.check()
        samples.append(_sample(ingest))
    used = {side: spent - cpu[side] for side, spent in _cpu(ingest).items()}
    versions, peak = ingest.versions() - versions, _peak_mb(ingest.pids()["aggregator"][0])
    ingest.local.close()
    (begin, first), (end, last) = samples[0], samples[-1]
    return {
        **_rates(samples),
        **_seen_by_sites(ingest.published()),
        "aggregator_peak_mb": peak,
        "versions_per_s": round(versions / (end - begin), 2),
        "cpu_ms": {side: round(1000 * spent / (last - first), 2) for side, spent in used.items()},
    }


def _warm_up(ingest: Ingest) -> None:
    def warm() -> bool:
        ingest.local.check()
        return ingest.accepted() >= 2 * len(ingest.sites)

    if not wait_until(warm, PATIENCE_S):
        raise FedqueueError(f"Only {ingest.accepted()} updates were accepted in {PATIENCE_S:.0f} s; look at the logs.")
    time.sleep(WARM_UP_S)


def _rates(samples: list[tuple[float, int]]) -> dict[str, float]:
    """Over the whole time, and of its slowest and fastest sample."""
    rates = [(after - before) / (end - begin) for (begin, before), (end, after) in itertools.pairwise(samples)]
    seconds, updates = (samples[-1][place] - samples[0][place] for place in (0, 1))
    return {
        "updates_per_s": round(updates / seconds, 2),
        "updates_per_s_min": round(min(rates), 2),
        "updates_per_s_max": round(max(rates), 2),
        "seconds": round(seconds, 2),
        "updates": updates,
    }


def _seen_by_sites(published: list[Published]) -> dict[str, float]:
    """Medians over sites of their medians, from publish to the broker's confirm and to the aggregator's receipt."""
    return {
        "bytes_per_update": round(fmean(one.bytes_per_update for one in published)),
        "refused": sum(one.refused for one in published),
        "confirm_ms": round(1000 * median(one.confirm_s for one in published), 1),
        "receipt_ms": round(1000 * median(one.receipt_s for one in published), 1),
    }


def _sample(ingest: Ingest) -> tuple[float, int]:
    count = ingest.accepted()
    return time.monotonic(), count


def _cpu(ingest: Ingest) -> dict[str, float]:
    """Processor seconds by side, so far."""
    return {side: sum(map(_cpu_of, pids)) for side, pids in ingest.pids().items()}


def _cpu_of(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _peak_mb(pid: int) -> float:
    """Largest resident memory that the process has had."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    (kilobytes,) = [int(line.split()[1]) for line in lines if line.startswith("VmHWM")]
    return round(kilobytes / 1024, 1)


@click.command()
@click.option("--sites", default=8, show_default=True, type=click.IntRange(1, 64))
@click.option("--params", default=1_000_000, show_default=True, type=click.IntRange(1))
@click.option("--codec", default="int8", show_default=True, type=click.Choice(list(CODECS)))
@click.option("--seconds", default=20.0, show_default=True, help="How long to count, after warming up.")
@click.option("--window", default=4, show_default=True, help="Updates of one site that may await their receipt.")
@click.option("--strategy", default="patient", show_default=True, help="How updates become versions.")
@click.option("--buffer-size", default=0, show_default=True, type=click.IntRange(0), help="Sites a version is made of.")
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Write the figures to this file.")
def main(*, seconds: float, json_file: Path | None, **asked: Any) -> None:
    """Count the updates that the aggregator accepts in a second."""
    with tempfile.TemporaryDirectory(prefix="fedqueue-ingest-") as folder:
        ingest = Ingest(Path(folder), **asked)
        try:
            ingest.start()
            figures = measure(ingest, seconds=seconds)
        finally:
            ingest.local.close()
    found = {**figures, **asked}
    text = msgspec.json.format(msgspec.json.encode(found)).decode()
    click.echo(text)
    if json_file is not None:
        json_file.write_text(text + "\n")


if __name__ == "__main__":
    main()
