"""One model to many sites: `python -m tests.benchmarks.fanout --sites 20 --params 25000000 --json FILE`.

A private broker, the real aggregator process, and one process a site that reads the model as a site does (reader.py).
Version 0 goes out when the last site has said hello. `written_copies` is what the broker wrote to its disk meanwhile,
in models: one, if it writes the model once for all. Times are from the announcement to the model at a site.
"""

import tempfile
from pathlib import Path
from statistics import median
from typing import Any, Final

import click
import msgspec
import numpy as np

from broker.errors import FedqueueError
from broker.processes import wait_until
from tests.benchmarks.reader import Read
from tests.benchmarks.stage import Stage, peak_mb, written_mb

PATIENCE_S: Final = 300.0


def measure(folder: Path, *, sites: int, params: int) -> dict[str, Any]:
    """One run in a new folder."""
    vector = np.random.default_rng(0).standard_normal(params, dtype=np.float32)
    stage = Stage(folder, vector)
    names = [f"site{number}" for number in range(sites)]
    try:
        stage.set_up(codec="float32", strategy="fedbuff", buffer_size=1000, min_sites=sites)
        for name in names:
            stage.assign(name)
        stage.local.start_aggregator()
        before = written_mb(stage.broker_pid())
        for name in names:
            stage.play(name, "reader")
        reads = _all_read(stage, [folder / name / "read.json" for name in names])
        written, peak = written_mb(stage.broker_pid()) - before, peak_mb(stage.aggregator_pid())
    finally:
        stage.local.close()
    return {**_figures(reads), "written_mb": round(written, 1), **_copies(reads, written), "aggregator_peak_mb": peak}


def _all_read(stage: Stage, files: list[Path]) -> list[Read]:
    def done() -> bool:
        stage.local.check()
        return all(file.exists() for file in files)

    if not wait_until(done, PATIENCE_S):
        there = sum(file.exists() for file in files)
        raise FedqueueError(f"Only {there} of {len(files)} sites had the model after {PATIENCE_S:.0f} s.")
    return [msgspec.json.decode(file.read_bytes(), type=Read) for file in files]


def _figures(reads: list[Read]) -> dict[str, float]:
    announced = min(one.announced for one in reads)
    done = sorted(one.done - announced for one in reads)
    return {
        "model_mb": round(reads[0].bytes / 1e6, 1),
        "first_site_s": round(done[0], 2),
        "median_site_s": round(median(done), 2),
        "last_site_s": round(done[-1], 2),
        "mb_per_s": round(sum(one.bytes for one in reads) / 1e6 / done[-1], 1),
    }


def _copies(reads: list[Read], written: float) -> dict[str, float]:
    return {"written_copies": round(written / (reads[0].bytes / 1e6), 2)}


@click.command()
@click.option("--sites", default=20, show_default=True, type=click.IntRange(1, 64))
@click.option("--params", default=25_000_000, show_default=True, type=click.IntRange(1))
@click.option("--repeat", default=1, show_default=True, type=click.IntRange(1), help="Runs, each from nothing.")
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Write the figures to this file.")
def main(*, sites: int, params: int, repeat: int, json_file: Path | None) -> None:
    """Measure how long a model takes to all sites, and what the broker writes for it."""
    runs = []
    for _ in range(repeat):
        with tempfile.TemporaryDirectory(prefix="fedqueue-fanout-") as folder:
            runs.append(measure(Path(folder), sites=sites, params=params))
    found = {name: median(run[name] for run in runs) for name in runs[0]} | {"sites": sites, "repeat": repeat}
    text = msgspec.json.format(msgspec.json.encode(found)).decode()
    click.echo(text)
    if json_file is not None:
        json_file.write_text(text + "\n")


if __name__ == "__main__":
    main()
