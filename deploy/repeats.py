"""Runs of one folder, one after another on one private broker: over seeds, or with one hospital after another away.

A run that was stopped is kept under `Bench.state` as it was, since all its services go on where they were.
"""

import shutil
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from broker.errors import UsageError
from broker.node import Node
from deploy.cohort import Cohort
from deploy.ending import Ending, read_ending
from deploy.events import read_events
from deploy.federating import Run, Wanted
from deploy.history import History, leading_metric
from deploy.local import LocalFederation
from deploy.results import Result
from deploy.scores import Effort, Model, Scores, compare, leave_out, score
from deploy.watching import StoppedError
from site_worker.outbox import read_local
from site_worker.plan import Plan
from site_worker.tasks.task import Task
from site_worker.tensors import unpacked


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
    tell: Callable[[str], object]


@contextmanager
def broker_of(state: Path) -> Iterator[Node]:
    """The private node of `state`, made if need be. It ends in order if the run is stopped: that may go on with it."""
    folder = state / "broker"
    node = Node.open(folder) if (folder / "node.json").is_file() else Node.create(folder)
    node.start()
    try:
        yield node
    except StoppedError:
        node.stop()
        raise
    finally:
        node.kill()


def run_job(bench: Bench, job: Job, node: Node) -> tuple[Result, History, LocalFederation]:
    """One run to its end, its processes still there; StoppedError ends them, keeping its state."""
    started = time.monotonic()
    everyone = Cohort.load(bench.folder, seed=job.seed)
    cohort = everyone.without(job.left_out) if job.left_out else everyone
    tasks, refused = _read(cohort, bench.tell)
    federation = LocalFederation(bench.state / f"run{job.suffix}", node=node)
    one = Run(cohort, federation, bench.wanted, stopping=bench.stopping)
    try:
        _set_up(one, tasks, job)
        one.watch.go_on()
        bench.tell(f"Broker console: {node.management_url}  login {node.user} / {node.password}")
        one.go(f"{cohort.declaration.name}, {job.title}", tell=bench.tell)
        ending = read_ending(federation, cohort.sites)
        scores = _scored(one, ending, tasks, bench=bench, job=job, everyone=everyone)
        result = Result(
            job.seed, job.left_out, leading_metric(scores.pooled), ending.version, time.monotonic() - started, scores,
            ending.ledger, ending.replayed, refused,
        )  # fmt: skip
        return result, _history(one, result), federation
    except BaseException:
        federation.close()
        raise


def _read(cohort: Cohort, tell: Callable[[str], object]) -> tuple[dict[str, Task], dict[str, str]]:
    """The tasks of the files that fit, telling of each; UsageError if there are none."""
    tasks, refused = cohort.tasks(cohort.sites)
    for site, reason in refused.items():
        tell(f"{site} is refused: {reason}")
    if not tasks:
        raise UsageError(f"No site of {cohort.folder} can take part; correct what is said above.")
    tell(f"{len(tasks)} sites: {', '.join(list(tasks)[:12])}" + (" ..." if len(tasks) > 12 else ""))
    return tasks, refused


def _set_up(one: Run, tasks: Mapping[str, Task], job: Job) -> None:
    """Make the folders and queues, unless a run that was stopped has them."""
    path = one.federation.path
    ready = path / "ready"
    if not ready.exists():
        shutil.rmtree(path, ignore_errors=True)
        one.set_up(tasks, name=f"{one.cohort.declaration.name[:16]}{job.suffix}"[:48], seed=job.seed)
        ready.touch()


def _scored(one: Run, ending: Ending, tasks: Mapping[str, Task], *, bench: Bench, job: Job, everyone: Cohort) -> Scores:
    own = {name: unpacked(read_local(one.federation.site(name).outbox_file)) for name in tasks}
    model = Model(ending.weights, ending.statistics, own)
    scores = score(model, tasks)
    effort = _effort(one, ending, bench, job)
    if bench.compares:
        scores = compare(scores, tasks, effort)
    absent, _ = everyone.tasks([job.left_out] if job.left_out else [])  # none if its file does not fit
    return replace(scores, left_out={name: leave_out(model, name, task, effort) for name, task in absent.items()})


def _effort(one: Run, ending: Ending, bench: Bench, job: Job) -> Effort:
    """For each other model as many rounds as the average site has trained."""
    plan = Plan.from_numbers(dict(one.federation.aggregator.settings().plan.to_wire()))
    rounds = round(ending.ledger.accepted / max(1, len(one.cohort.sites)))
    return Effort(plan, rounds, job.seed, bench.stopping, bench.tell)


def _history(one: Run, result: Result) -> History:
    events = read_events(one.federation.aggregator)
    notes = [f"{result.left_out} took no part."] if result.left_out else []
    return History(
        federation=one.cohort.declaration.name,
        started=one.watch.started,
        seconds=one.watch.seconds,
        sites=tuple(one.watch.rows()[1]),
        merged=events.merged,
        published=events.published,
        evaluated=events.evaluated,
        refusals=events.refusals,
        sent=events.sent,
        parameters=events.parameters,
        absences=(),
        ledger=result.ledger,
        table=tuple(result.table),
        metric=result.metric,
        notes=(*notes, *(f"{site} was refused: {reason}" for site, reason in result.refused.items())),
    )
