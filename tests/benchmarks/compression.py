"""What small updates cost in accuracy: `python -m tests.benchmarks.compression --seeds 5 --json figures.json`.

Five sites with label skew (Dirichlet), the one with the most classes of its own away every other stretch of time,
models of more than a million parameters, local SGD and local Adam. Every run is the simulator's: the product's loops,
codecs, outboxes, journal and torch rounds on a virtual clock. Nothing takes time on the lines, so that all arms of a
seed have the same rounds in the same order (`paired`), and differ by the codecs alone: another order moves the accuracy
by a point, as the absent site comes back a round sooner or later. `auto` knows no line then, and takes it for slow.

An arm is a codec for updates and one for models. Its accuracy is that of the last versions on average: of the models
that the coordinator would export, and of what the sites hold of them. Bytes are all that went over the sites' lines,
keyframes, announcements and receipts included.
"""

import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from statistics import fmean, stdev
from typing import Any, Final

import click
import msgspec
import numpy as np

from broker.weights import map_model
from deploy.simulation.run import FAST_DISK
from deploy.simulation.scenario import Scenario, parse
from deploy.simulation.tasks import TaskLearning
from deploy.simulation.world import World
from site_worker.outbox import Made


@dataclass(frozen=True)
class Arm:
    """What updates and models are compressed with."""

    up: str
    down: str


ARMS: Final[Mapping[str, Arm]] = {
    "float32": Arm("float32", "float32"),
    "auto": Arm("auto", "auto"),
    "int8-coarse": Arm("int8-coarse", "int8-coarse"),
    "lowrank-330, int8-coarse": Arm("lowrank-330", "int8-coarse"),
    "lowrank-330": Arm("lowrank-330", "lowrank-330"),
    "lowrank-100": Arm("lowrank-100", "lowrank-100"),
    "top1": Arm("top1", "int8-coarse"),
    "top5": Arm("top5", "int8-coarse"),
    "sign": Arm("sign", "int8-coarse"),
}
RATES: Final = {
    ("distorted", "sgd"): 0.1,
    ("distorted", "adam"): 5e-4,
    ("clusters", "sgd"): 0.1,
    ("clusters", "adam"): 3e-4,
}
LAST: Final = 16  # versions that the accuracy at the end is of: every other one, since each takes its time
EARLY: Final = 20
SCENARIO: Final = """
title = "{task} with local {optimizer}"
codec = "{up}"
model_codec = "{down}"
presence_s = 0.5
probe_s = 20.0
[task]
name = "tests.benchmarks.larger:{task}"
options = {{seed = {seed}}}
[sites]
number = 5
split = "dirichlet"
alpha = {alpha}
[speeds]
kind = "log-normal"
seconds = 1.0
sigma = 0.35
jitter = 0.15
{absences}
[links]
latency_s = 0.0
[plan]
steps = 20
batch_size = 32
learning_rate = {rate}
optimizer = "{optimizer}"
[aggregation]
strategy = "{strategy}"
max_wait_s = 1e6
[stop]
seconds = 1e5
versions = {versions}
"""
ABSENCE: Final = '[[absences]]\nwho = "most-label-unique"\nfrom_s = {away}\nto_s = {back}\n'
AWAY_S: Final = 40.0  # four rounds of the median site here, four away


@dataclass(frozen=True)
class Cell:
    """What is trained, and how: the same for all arms."""

    task: str
    optimizer: str
    strategy: str = "patient"
    alpha: float = 0.5
    versions: int = 120

    @property
    def name(self) -> str:
        """For tables."""
        return f"{self.task}, {self.optimizer}, {self.strategy}"

    def scenario(self, arm: str, seed: int) -> Scenario:
        """As the simulator takes it."""
        codecs = ARMS[arm]
        starts = np.arange(AWAY_S, 20 * self.versions, 2 * AWAY_S)
        text = SCENARIO.format(
            task=self.task, optimizer=self.optimizer, up=codecs.up, down=codecs.down,
            seed=seed, alpha=self.alpha, rate=RATES[self.task, self.optimizer], strategy=self.strategy,
            versions=self.versions,
            absences="".join(ABSENCE.format(away=one, back=one + AWAY_S) for one in starts),
        )  # fmt: skip
        return parse(text, Path("compression.toml"))


@dataclass(frozen=True)
class Measured:
    """One run. Accuracies in per cent; `early` is the model's at version EARLY, `choices` the updates by their codec.

    `up` and `down` say how many times fewer bytes than 4 a parameter: for each update, and for each site and version.
    `payload` and `difference` are the same of the payloads alone. `error` and `backlog` are means over all updates.
    """

    model: float
    held: float
    early: float
    up: float
    down: float
    payload: float
    difference: float
    bytes_up: int
    bytes_down: int
    error: float
    backlog: float
    updates: int
    order: str
    choices: dict[str, int]
    balanced: bool
    seconds: float


class Watched:
    """Accuracies while a world runs: the model's at version EARLY and of the LAST, and then of what sites hold too."""

    def __init__(self, world: World, learning: TaskLearning, versions: int) -> None:
        self._world, self._learning, self._versions = world, learning, versions
        self.model: dict[int, float] = {}
        self.held: list[float] = []

    def look(self, row: Any, model: Any) -> None:
        """A version has been made; what sites hold is that of the one before."""
        if row.version == EARLY:
            self.model[EARLY] = self._accuracy(model)
        if row.version > self._versions - LAST and row.version % 2 == 0:
            self.model[row.version] = self._accuracy(model)
            kept = self._world.folder.published_files()
            self.held.append(self._accuracy(map_model(max(kept)[1])[1]) if kept else self.model[row.version])
        if row.version >= self._versions:
            self._world.clock.stop()

    def _accuracy(self, model: Any) -> float:
        return 100 * self._learning.measures(model)["accuracy"]


def run(cell: Cell, arm: str, seed: int) -> Measured:
    """One arm with one seed."""
    started, scenario = time.monotonic(), cell.scenario(arm, seed)
    learning = TaskLearning.of(scenario, seed)
    with tempfile.TemporaryDirectory(dir=FAST_DISK if FAST_DISK.is_dir() else None) as folder:
        world = World(scenario, "", learning, seed, path=Path(folder))
        try:
            watched = Watched(world, learning, cell.versions)
            world.watch = watched.look
            world.run()
            return _measured(world, watched, cell, time.monotonic() - started)
        finally:
            world.close()


def _measured(world: World, watched: Watched, cell: Cell, seconds: float) -> Measured:
    journal, whole, made = world.journal, 4 * world.learning.layout.size, _made(world)
    ((updates, payloads, error),) = journal.query("SELECT count(*), avg(payload_bytes), avg(error) FROM updates")
    ((difference,),) = journal.query("SELECT avg(payload_bytes) FROM publications WHERE base >= 0")
    up, down = (round(sum(one)) for one in zip(*(site.carried for site in world.sites.values()), strict=True))
    return Measured(
        model=fmean(watched.model[version] for version in watched.model if version > cell.versions - LAST),
        held=fmean(watched.held),
        early=watched.model[EARLY],
        up=whole * updates / up,
        down=whole * cell.versions * len(world.sites) / down,
        payload=whole / payloads,
        difference=whole / difference if difference else 1.0,
        bytes_up=up,
        bytes_down=down,
        error=error,
        backlog=fmean(one.backlog for one in made),
        updates=updates,
        order=_order(world),
        choices=dict(sorted(Counter(one.choice for one in made).items())),
        balanced=world.ledger().balanced,
        seconds=round(seconds, 1),
    )


def _order(world: World) -> str:
    """A digest of who has sent what in which order."""
    rows = world.journal.query("SELECT site, base_version FROM updates ORDER BY ordinal")
    return sha256(repr([tuple(row) for row in rows]).encode()).hexdigest()


def _made(world: World) -> list[Made]:
    """Every update that any site has made."""
    outboxes = [site.outbox for site in world.sites.values()]
    return [box.update(sequence) for box in outboxes for sequence in range(1, box.last_sequence() + 1)]


def compared(runs: Mapping[int, Measured], base: Mapping[int, Measured]) -> dict[str, Any]:
    """An arm over its seeds, and what it loses against float32 with the same seed, in points."""
    lost = {
        name: [
            getattr(base[seed], "early" if name == "early" else "model") - getattr(runs[seed], name) for seed in runs
        ]
        for name in ("model", "held", "early")
    }
    return {
        "accuracy": fmean(one.model for one in runs.values()),
        "lost": {name: {"mean": fmean(some), "error": _error(some), "most": max(some)} for name, some in lost.items()},
        **{
            name: fmean(getattr(one, name) for one in runs.values()) for name in ("up", "down", "payload", "difference")
        },
        "paired": all(base[seed].order == runs[seed].order for seed in runs),
        "fewer_up": fmean(base[seed].bytes_up / runs[seed].bytes_up for seed in runs),
        "fewer_down": fmean(base[seed].bytes_down / runs[seed].bytes_down for seed in runs),
        "runs": {seed: asdict(one) for seed, one in runs.items()},
    }


def _error(values: Sequence[float]) -> float:
    """Standard error of the mean."""
    return stdev(values) / len(values) ** 0.5 if len(values) > 1 else float("nan")


def line(arm: str, row: Mapping[str, Any]) -> str:
    """An arm for the terminal."""
    lost = "".join(
        f"{row['lost'][name]['mean']:8.2f} +-{row['lost'][name]['error']:.2f}" for name in ("model", "held", "early")
    )
    sizes = "".join(f"{row[name]:9.1f}" for name in ("payload", "up", "difference", "down", "fewer_up", "fewer_down"))
    return f"{arm:<26}{row['accuracy']:7.2f}{lost}{sizes}{'' if row['paired'] else '  another order'}"


HEAD: Final = f"{'':<26}{'acc':>7}{'model lost':>14}{'held lost':>14}{'early lost':>14}" + "".join(
    f"{name:>9}" for name in ("payload", "up", "diff", "down", "up/f32", "down/f32")
)


@click.command()
@click.option("--seeds", default=5, show_default=True, type=click.IntRange(1))
@click.option("--seed", default=0, show_default=True, type=click.IntRange(0), help="The first.")
@click.option("--arm", "arms", multiple=True, default=tuple(ARMS), type=click.Choice(list(ARMS)))
@click.option("--task", "tasks", multiple=True, default=("distorted",), type=click.Choice(["distorted", "clusters"]))
@click.option("--optimizer", "optimizers", multiple=True, default=("sgd", "adam"), type=click.Choice(["sgd", "adam"]))
@click.option("--strategy", default="patient", show_default=True)
@click.option("--json", "json_file", type=click.Path(path_type=Path, dir_okay=False))
def main(
    *, seeds: int, seed: int, arms: Sequence[str], tasks: Sequence[str], optimizers: Sequence[str], strategy: str,
    json_file: Path | None,
) -> None:  # fmt: skip
    """Compare the arms with float32, seed by seed."""
    figures: dict[str, Any] = {}
    for cell in (Cell(task, optimizer, strategy) for task in tasks for optimizer in optimizers):
        click.echo(f"\n{cell.name}\n{HEAD}")
        rows = figures[cell.name] = dict[str, Any]()
        base = dict[int, Measured]()
        for arm in dict.fromkeys(("float32", *arms)):
            runs = {one: run(cell, arm, one) for one in range(seed, seed + seeds)}
            base = base or runs
            rows[arm] = compared(runs, base)
            click.echo(line(arm, rows[arm]))
            if json_file is not None:
                json_file.write_bytes(msgspec.json.format(msgspec.json.encode(figures)))


if __name__ == "__main__":
    main()
