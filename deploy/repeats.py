"""Runs of one folder, one after another on one private broker: over seeds, or with one hospital after another left out."""

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from broker.errors import UsageError
from broker.node import Node
from deploy.cohort import Cohort
from deploy.ending import Ending, read_ending
from deploy.federating import Run, Wanted
from deploy.gather import read_events
from deploy.history import History
from deploy.local import LocalFederation
from deploy.results import Result
from deploy.scores import Model, Scores, compare, leading_metric, leave_out, score
from site_worker.plan import Plan
from site_worker.tasks.task import Task

Tell = Callable[[str], object]


@dataclass(frozen=True)
class Job:
    """One run: the seed of its held-out rows and batches, and the hospital that takes no part."""

    seed: int
    left_out: str | None = None

    @property
    def title(self) -> str:
        """For the live view and the log."""
        without = f", without {self.left_out}" if self.left_out else ""
        return f"seed {self.seed}{without}"

    @property
    def suffix(self) -> str:
        """For names of queues and files."""
        return f"-{self.seed}" + (f"-without-{self.left_out}" if self.left_out else "")


@dataclass(frozen=True)
class Bench:
    """What all runs share: the folder of data, the folder of states, how far to go, and how to speak to people."""

    folder: Path
    state: Path
    wanted: Wanted
    compares: bool
    stopping: threading.Event
    tell: Tell


@contextmanager
def broker_of(state: Path, *, again: bool) -> Iterator[Node]:
    """The private node of `state`, started; it ends in order, so that a run that was stopped can go on with it."""
    node = Node.open(state / "broker") if again else Node.create(state / "broker")
    node.start()
    try:
        yield node
    finally:
        node.stop()


def run_job(bench: Bench, job: Job, node: Node, *, again: bool) -> tuple[Result, History, LocalFederation]:
    """One run to its end; `again` goes on with one that was stopped. StoppedError ends it, keeping its state."""
    started = time.monotonic()
    cohort = Cohort.load(bench.folder, seed=job.seed)
    everyone = cohort
    cohort = cohort.without(job.left_out) if job.left_out else cohort
    tasks, refused = _read(cohort, bench.tell)
    federation = LocalFederation(bench.state / f"run{job.suffix}", node=node)
    one = Run(cohort, federation, bench.wanted, stopping=bench.stopping)
    try:
        if not again:
            one.set_up(tasks, name=f"{cohort.declaration.name[:20]}{job.suffix}"[:48], seed=job.seed)
        one.watch.go_on()
        bench.tell(f"Broker console: {node.management_url}  login {node.user} / {node.password}")
        one.go(f"{cohort.declaration.name}, {job.title}", tell=bench.tell)
        ending = read_ending(federation, cohort.sites)
        scores = _scored(one, ending, tasks, job=job, compares=bench.compares, everyone=everyone)
        metric = leading_metric(scores.pooled)
        result = Result(
            job.seed, job.left_out, metric, ending.version, time.monotonic() - started, scores, ending.ledger,
            ending.replayed, refused,
        )  # fmt: skip
        return result, _history(one, result), federation
    except BaseException:
        federation.close()
        raise


def _read(cohort: Cohort, tell: Tell) -> tuple[dict[str, Task], dict[str, str]]:
    """The tasks of the files that fit, telling of each; UsageError if there are none."""
    tasks, refused = cohort.tasks(cohort.sites)
    for site, reason in refused.items():
        tell(f"{site} is refused: {reason}")
    if not tasks:
        raise UsageError(f"No file in {cohort.folder} fits its federation.toml; the first says: {next(iter(refused.values()))}")
    tell(f"{len(tasks)} sites: {', '.join(list(tasks)[:12])}" + (" ..." if len(tasks) > 12 else ""))
    return tasks, refused


def _scored(
    one: Run, ending: Ending, tasks: Mapping[str, Task], *, job: Job, compares: bool, everyone: Cohort
) -> Scores:
    model = Model(ending.weights, ending.statistics)
    settings = one.federation.aggregator.settings()
    plan = Plan.from_numbers(dict(settings.plan.to_wire()))
    rounds = max(1, ending.ledger.accepted // max(1, len(tasks)))
    scores = score(model, tasks)
    if compares:
        scores = compare(scores, tasks, plan, rounds=rounds, seed=job.seed)
    if job.left_out:
        (absent,), _ = [list(found.values()) for found in everyone.tasks([job.left_out])]
        rows = leave_out(model, job.left_out, absent, plan, rounds=rounds, seed=job.seed)
        scores = Scores(
            scores.sites, scores.mean, scores.pooled, scores.histograms, scores.compared, {job.left_out: rows}
        )
    return scores


def _history(one: Run, result: Result) -> History:
    events = read_events(one.federation.aggregator)
    notes = [f"{site} was refused: {reason}" for site, reason in result.refused.items()]
    return History(
        federation=one.cohort.declaration.name,
        started=one.watch.started,
        seconds=one.watch.seconds,
        sites=tuple(one.watch.rows()[1]),
        merged=events.merged,
        published=events.published,
        evaluated=events.evaluated,
        refusals=events.refusals,
        absences=(),
        ledger=result.ledger,
        table=tuple(result.table),
        metric=result.metric,
        notes=(*([f"{result.left_out} took no part."] if result.left_out else []), *notes),
    )
