"""One schedule: a federation drawn from a seed, faults for a while, quiet until all has settled, then every check."""

import hashlib
import random
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from unittest.mock import patch

import msgspec

from aggregator.control import Control
from aggregator.settings import Aggregation
from broker.topology import SiteNames
from tests.federation.actors import Sound
from tests.federation.faults import strike
from tests.federation.invariants import CHECKS, Broken, books
from tests.federation.world import World

AGGREGATIONS: Final = (
    Aggregation(strategy="fedbuff"),
    Aggregation(strategy="fedbuff", weighting="equal", staleness="hinge", normalised=True, max_staleness=4),
    Aggregation(strategy="fedasync"),
    Aggregation(strategy="fedasync-mixing"),
    Aggregation(strategy="fedavg", deadline_s=8.0),
    Aggregation(strategy="ca2fl", server_rate=0.5),
    Aggregation(strategy="calibrated", server_optimizer="momentum", server_rate=0.5),
    Aggregation(strategy="patient", staleness="constant"),
    Aggregation(
        strategy="patient", staleness="constant", weighting="capped", server_optimizer="fadas", server_rate=0.1
    ),
)
MORE_VERSIONS: Final = 2  # how far the federation must get once nothing fails any more
QUIET_STEPS: Final = 6_000
UPDATES_BYTES: Final = 4_000


@dataclass(frozen=True)
class Shape:
    """What a schedule's federation is like, and how much it has to suffer."""

    sites: int
    part_bytes: int
    steps: int
    fault_rate: float
    training_s: int
    batch: int
    codec: str
    refusing: bool
    aggregation: Aggregation
    model_codec: str
    keyframe_every: int
    snapshot_every_s: float

    @classmethod
    def drawn(cls, seed: int, aggregations: Sequence[Aggregation] = AGGREGATIONS) -> "Shape":
        """The shape that follows from a seed. A payload has some thirty bytes: small parts make up to four of it."""
        draw = random.Random(f"shape {seed}")
        sites = draw.randint(1, 5)
        aggregation = msgspec.structs.replace(
            draw.choice(aggregations), buffer_size=draw.randint(1, 4), max_wait_s=draw.choice([5.0, 20.0])
        )
        return cls(
            sites=sites,
            part_bytes=draw.choice([8, 16, 4 << 20]),
            steps=draw.randint(40, 160),
            fault_rate=draw.choice([0.1, 0.2, 0.35]),
            training_s=draw.choice([0, 0, 3, 15]),
            batch=draw.choice([1, 3, 16]),
            codec=draw.choice(["int8", "int8", "float32"]),
            refusing=draw.random() < 0.3,
            aggregation=aggregation,
            model_codec=draw.choice(["float32", "int8", "int8"]),
            keyframe_every=draw.choice([1, 2, 5]),
            snapshot_every_s=draw.choice([0.0, 5.0, 30.0]),
        )


@dataclass(frozen=True)
class Outcome:
    """What came of one schedule. `digest` is of the journal's rows and of the faults in their order."""

    seed: int
    sent: int
    lost: int
    doubled: int
    faults: Counter[str]
    broken: tuple[Broken, ...]
    digest: str
    story: tuple[str, ...] = field(repr=False)

    @property
    def line(self) -> str:
        """ "" if everything held."""
        return "; ".join(f"{one.invariant}: {one.detail}" for one in self.broken)


def run_schedule(
    path: Path,
    seed: int,
    *,
    mutant: Any = Sound,
    aggregations: Sequence[Aggregation] = AGGREGATIONS,
    tell: Callable[[str], None] | None = None,
) -> Outcome:
    """Run the schedule of `seed` in the new folder `path`."""
    shape = Shape.drawn(seed, aggregations)
    if tell is not None:
        tell(str(shape))
    with ExitStack() as stack:
        for home in ("broker.messages", "site_worker.draft"):
            stack.enter_context(patch(f"{home}.PART_BYTES", shape.part_bytes))
        stack.enter_context(patch.dict(SiteNames.topology.__kwdefaults__, max_updates_bytes=UPDATES_BYTES))
        world = World(
            path, seed, sites=shape.sites, versions=0, mutant=mutant, aggregation=shape.aggregation,
            codec=shape.codec, training_s=shape.training_s, refusing=shape.refusing, batch=shape.batch, drift=0.05,
            presence_s=5.0, in_memory=True, tell=tell, model_codec=shape.model_codec,
            keyframe_every=shape.keyframe_every, snapshot_every_s=shape.snapshot_every_s,
        )  # fmt: skip
        stack.callback(world.close)
        return _judged(world, seed, _suffer(world, shape))


def _suffer(world: World, shape: Shape) -> list[Broken]:
    """Faults, then quiet; whatever a process raises is a fault of the product's own."""
    try:
        for actor in world.actors:
            actor.start()
        for _ in range(shape.steps):
            if world.random.random() < shape.fault_rate:
                strike(world)
            world.one_step()
        _quieten(world)
    except Exception as error:  # noqa: BLE001 - however a process fails by itself, it is told with the seed
        return [Broken("no process fails by itself", f"{type(error).__name__}: {error}")]
    return []


def _quieten(world: World) -> None:
    """Nobody helps: the federation must go on by itself. Then it is asked to stop, and must come to rest."""
    world.calm()
    world.goal = world.version() + MORE_VERSIONS
    before = {site.name: len(site.stored) for site in world.sites}
    _run(world, lambda _: world.version() >= world.goal and all(len(s.stored) > before[s.name] for s in world.sites))
    world.left_behind = [site.name for site in world.sites if len(site.stored) == before[site.name]]
    world.decide(Control(stop_after=world.version()))
    _run(world, lambda busy: not busy and world.settled())


def _run(world: World, over: Callable[[bool], bool]) -> None:
    for _ in range(QUIET_STEPS):
        if over(world.one_step()):
            return


def _judged(world: World, seed: int, broken: list[Broken]) -> Outcome:
    story, sent = tuple(world.story), sum(len(site.stored) for site in world.sites)
    if broken:  # in the middle of something: there is nothing to check
        return Outcome(seed, sent, 0, 0, world.faults, tuple(broken), "", story)
    found = tuple(Broken(name, detail) for name, check in CHECKS.items() if (detail := check(world)))
    ledger = books(world).balance()
    return Outcome(seed, ledger.sent, ledger.lost, ledger.doubled, world.faults, found, _digest(world), story)


def _digest(world: World) -> str:
    state = hashlib.sha256("\n".join(world.story).encode())
    for table in ("updates", "refused", "parts", "versions", "presence", "sites", "facts"):
        for row in world.journal.query(f"SELECT * FROM {table}"):
            state.update(repr(tuple(row)).encode())
    return state.hexdigest()
