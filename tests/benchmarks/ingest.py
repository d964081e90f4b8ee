"""Accepted updates a second: `python -m tests.benchmarks.ingest --sites 8 --params 1000000 --codec int8 --json FILE`.

A private broker, the real aggregator process, one publisher process a site (see publisher.py). An update counts when
the journal has it: between two times, `max(ordinal)` is read twice. All processes share this machine, so `cpu_ms`,
the processor time that each side spends on one update, says more about a change than the rate on a busy machine does.
Deltas are drawn like those of training: most coordinates move little, a tenth five times as much, so that int8 makes
them 5 to 6 times smaller. With `--repeat` the figures are those of the run with the median rate, and `runs` has all.
"""

import itertools
import tempfile
import time
from operator import itemgetter
from pathlib import Path
from statistics import fmean, median
from typing import Any, Final

import click
import msgspec
import numpy as np
from numpy.typing import NDArray

from broker.codecs import CODECS, encode
from broker.errors import FedqueueError
from broker.processes import wait_until
from tests.benchmarks.publisher import Published
from tests.benchmarks.stage import Stage, cpu_s, peak_mb

PAYLOADS: Final = 4
WARM_UP_S: Final = 3.0
SAMPLE_S: Final = 5.0
PATIENCE_S: Final = 60.0
PER_MILLION_S: Final = 2.0


class Ingest:
    """A federation of publishers in `path`."""

    def __init__(
        self, path: Path, *, sites: int, params: int, codec: str, window: int, strategy: str, buffer_size: int
    ) -> None:
        vector = np.random.default_rng(0).standard_normal(params, dtype=np.float32) * np.float32(0.05)
        self.stage, self.params = Stage(path, vector), params
        self.local = self.stage.local
        self._path, self._codec, self._window = path, codec, window
        self._rule = {"strategy": strategy, "buffer_size": buffer_size}
        self.sites = [f"site{number}" for number in range(sites)]

    def start(self) -> None:
        """Broker, aggregator, publishers."""
        self.stage.set_up(codec=self._codec, min_sites=len(self.sites), **self._rule)
        part = {"codec": self._codec, "payloads": self._payloads(), "window": self._window}
        for site in self.sites:
            self.stage.assign(site, **part)
        self.local.start_aggregator()
        for site in self.sites:
            self.stage.play(site, "publisher")

    def versions(self) -> int:
        """Versions in the journal after version 0."""
        return self.stage.asked("SELECT max(version) FROM versions")

    def pids(self) -> dict[str, list[int]]:
        """Process ids by side."""
        return {
            "aggregator": [self.stage.aggregator_pid()],
            "broker": [self.stage.broker_pid()],
            "sites": [self.local.processes[site].pid for site in self.sites],
        }

    def published(self) -> list[Published]:
        """What the publishers measured, after they have ended."""
        files = [self._path / site / "published.json" for site in self.sites]
        return [msgspec.json.decode(file.read_bytes(), type=Published) for file in files]

    def _payloads(self) -> list[str]:
        """A few different ones, as sites of different data would send."""
        paths = [self._path / f"payload{number}" for number in range(PAYLOADS)]
        for number, path in enumerate(paths):
            path.write_bytes(encode(self._codec, _delta(self.params, seed=number + 1)))
        return [str(path) for path in paths]


def _delta(size: int, *, seed: int) -> NDArray[np.float32]:
    """See the module's docstring."""
    drawn = np.random.default_rng(seed)
    delta = drawn.standard_normal(size, dtype=np.float32)
    delta *= np.where(drawn.random(size, dtype=np.float32) < 0.1, np.float32(0.01), np.float32(0.002))
    return delta


def measure(ingest: Ingest, *, seconds: float) -> dict[str, Any]:
    """Warm up, then count for `seconds`; ends everything."""
    _warm_up(ingest)
    cpu, versions, samples = _cpu(ingest), ingest.versions(), [_sample(ingest)]
    while samples[-1][0] - samples[0][0] < seconds:
        time.sleep(SAMPLE_S)
        ingest.local.check()
        samples.append(_sample(ingest))
    used = {side: spent - cpu[side] for side, spent in _cpu(ingest).items()}
    versions, peak = ingest.versions() - versions, peak_mb(ingest.pids()["aggregator"][0])
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
        return ingest.stage.accepted() >= 2 * len(ingest.sites)

    patience_s = PATIENCE_S + PER_MILLION_S * ingest.params / 1e6
    if not wait_until(warm, patience_s):
        raise FedqueueError(
            f"Only {ingest.stage.accepted()} updates were accepted in {patience_s:.0f} s; look at the logs."
        )
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
    count = ingest.stage.accepted()
    return time.monotonic(), count


def _cpu(ingest: Ingest) -> dict[str, float]:
    """Processor seconds by side, so far."""
    return {side: sum(map(cpu_s, pids)) for side, pids in ingest.pids().items()}


@click.command()
@click.option("--sites", default=8, show_default=True, type=click.IntRange(1, 64))
@click.option("--params", default=1_000_000, show_default=True, type=click.IntRange(1))
@click.option("--codec", default="int8", show_default=True, type=click.Choice(list(CODECS)))
@click.option("--seconds", default=20.0, show_default=True, help="How long to count, after warming up.")
@click.option("--window", default=4, show_default=True, help="Updates of one site that may await their receipt.")
@click.option("--strategy", default="patient", show_default=True, help="How updates become versions.")
@click.option("--buffer-size", default=0, show_default=True, type=click.IntRange(0), help="Sites a version is made of.")
@click.option("--repeat", default=1, show_default=True, type=click.IntRange(1), help="Runs, each from nothing.")
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Write the figures to this file.")
def main(*, seconds: float, repeat: int, json_file: Path | None, **asked: Any) -> None:
    """Count the updates that the aggregator accepts in a second."""
    runs = sorted((_run(seconds, asked) for _ in range(repeat)), key=itemgetter("updates_per_s"))
    found = {**runs[(repeat - 1) // 2], "runs": [run["updates_per_s"] for run in runs], **asked}
    text = msgspec.json.format(msgspec.json.encode(found)).decode()
    click.echo(text)
    if json_file is not None:
        json_file.write_text(text + "\n")


def _run(seconds: float, asked: dict[str, Any]) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="fedqueue-ingest-") as folder:
        ingest = Ingest(Path(folder), **asked)
        try:
            ingest.start()
            return measure(ingest, seconds=seconds)
        finally:
            ingest.local.close()


if __name__ == "__main__":
    main()
