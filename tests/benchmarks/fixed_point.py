"""Whose optimum does a strategy find? Quadratics F_i = 1/2 |x - c_i|^2 at ten sites of very different speed.

    python -m tests.benchmarks.fixed_point --json figures.json

The simulator runs the production loops. Bias is |mean of the last versions - the optimum| over the spread of the c_i:
0 is the mean of all sites, 1 as far off as a typical site's own optimum. Once with everybody present all the time; once
with the site that leaves for good, where the optimum is that of the nine that remain. Medians over seeds.
"""

import tempfile
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, Final

import click
import msgspec
import numpy as np

from aggregator.journal import VersionRow
from deploy.simulation.learning import Vector
from deploy.simulation.run import FAST_DISK, learning_of
from deploy.simulation.scenario import Scenario, parse
from deploy.simulation.world import World

TAIL: Final = 0.25
SCENARIO: Final = """
title = "Ten quadratics, log-normal speeds"
codec = "float32"
presence_s = 2.0
[surrogate]
dimensions = 16
[sites]
number = 10
[speeds]
kind = "log-normal"
seconds = 1.0
sigma = 1.0
jitter = 0.1
[plan]
steps = 10
learning_rate = {rate}
[aggregation]
weighting = "equal"
max_wait_s = 1e6
[stop]
seconds = 1200.0
"""
LEAVES: Final = """
[[absences]]
who = "{who}"
from_s = 400.0
"""
STRATEGIES: Final[dict[str, dict[str, Any]]] = {
    "default": {},
    "fedbuff polynomial": {"strategy": "fedbuff", "buffer_size": 3, "staleness": "polynomial"},
    "fedbuff constant": {"strategy": "fedbuff", "buffer_size": 3, "staleness": "constant"},
    "fedasync": {"strategy": "fedasync", "staleness": "polynomial"},
    "fedasync-mixing": {"strategy": "fedasync-mixing", "staleness": "polynomial"},
    "ca2fl": {"strategy": "ca2fl", "server_rate": 0.5},
    "calibrated": {"strategy": "calibrated"},
}


@dataclass(frozen=True)
class Bias:
    """Of one run: how far the last versions are off on average, and how far the farthest of them is."""

    mean: float
    worst: float


def scenario(*, leaves: str, rate: float) -> Scenario:
    """`leaves` is "" for nobody."""
    text = SCENARIO.format(rate=rate) + (LEAVES.format(who=leaves) if leaves else "")
    return msgspec.structs.replace(parse(text, Path("fixed_point.toml")), strategies=STRATEGIES)


def bias(wanted: Scenario, strategy: str, seed: int) -> Bias:
    """One run."""
    learning = learning_of(wanted, seed)
    models: list[Vector] = []

    def watch(_row: VersionRow, model: Vector) -> None:
        if world.clock.now >= (1 - TAIL) * wanted.stop.seconds:
            models.append(model.copy())

    with tempfile.TemporaryDirectory(dir=FAST_DISK if FAST_DISK.is_dir() else None) as folder:
        world = World(wanted, strategy, learning, seed, path=Path(folder))
        try:
            world.watch = watch
            world.run()
            gone = [name for name, part in world.cast.items() if part.absences]
        finally:
            world.close()
    optima = {name: learning.rounds(name).optimum for name in wanted.names}  # type: ignore[attr-defined]
    every = np.array(list(optima.values()))
    spread = np.sqrt(((every - every.mean(axis=0)) ** 2).sum(axis=1).mean())
    target = np.mean([one for name, one in optima.items() if name not in gone], axis=0)
    off = np.linalg.norm(np.array(models) - target, axis=1) / spread
    return Bias(float(np.linalg.norm(np.mean(models, axis=0) - target) / spread), float(off.max()))


def measured(strategy: str, *, leaves: str, rate: float, seeds: int) -> dict[str, Any]:
    """Medians and all values of one strategy."""
    found = [bias(scenario(leaves=leaves, rate=rate), strategy, seed) for seed in range(seeds)]
    return {
        "bias": median(one.mean for one in found),
        "largest_distance": median(one.worst for one in found),
        "values": [one.mean for one in found],
    }


@click.command()
@click.option("--seeds", default=8, show_default=True, type=click.IntRange(1))
@click.option("--rate", default=0.067, show_default=True, help="Of a local step; ten of 0.067 go half of the way.")
@click.option("--only", default="", metavar="A,B", help="Some strategies.")
@click.option("--json", "json_file", type=click.Path(path_type=Path, dir_okay=False))
def main(seeds: int, rate: float, only: str, json_file: Path | None) -> None:
    """Measure every strategy; a line each."""
    names = only.split(",") if only else list(STRATEGIES)
    cases = {"all present": "", "slowest leaves": "slowest", "fastest leaves": "fastest"}
    figures: dict[str, Any] = {}
    click.echo(f"{'strategy':<20}" + "".join(f"{case:>26}" for case in cases) + "   bias (largest distance)")
    for name in names:
        figures[name] = {case: measured(name, leaves=who, rate=rate, seeds=seeds) for case, who in cases.items()}
        cells = [f"{one['bias']:.3f} ({one['largest_distance']:.3f})" for one in figures[name].values()]
        click.echo(f"{name:<20}" + "".join(f"{cell:>26}" for cell in cells))
    if json_file is not None:
        json_file.write_bytes(msgspec.json.format(msgspec.json.encode({"seeds": seeds, "rate": rate} | figures)))


if __name__ == "__main__":
    main()
