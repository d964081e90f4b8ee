"""`fedqueue demo`: four real clinics, a real broker, one clinic ten times slower, one killed for the middle of the run.

Everything that a federation promises is on show: nobody waits for the slow or the missing clinic, the late update still
counts, and at the end the ledger says where every update is, computed from the outboxes and the journal.
"""

import json
import os
import shutil
import statistics
import tempfile
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import click

from broker.commands import STOPPED
from broker.errors import StorageError, UsageError
from broker.install import ensure_rabbitmq
from broker.serving import until_signalled
from deploy.ending import read_ending
from deploy.events import read_events
from deploy.history import Absence, History, Ledger, SiteRow
from deploy.live import LiveView
from deploy.local import LocalFederation, SitePlan
from deploy.report import write
from deploy.watching import StoppedError, Watch

TASK: Final = "site_worker.tasks.clinics:clinic"
CLINICS: Final = ("NY", "MN", "KY", "MS")
SLOW, KILLED = "KY", "MS"
SLOWER: Final = 10
STEPS: Final = 10
ROUND_S: Final = 0.36
SETTLE_S: Final = 20.0

SETTINGS: Final = """\
federation = "clinics"
task = "{task}"
codec = "int8"
versions = {versions}
presence_s = 0.5

[plan]
steps = {steps}
batch_size = 64
learning_rate = 0.1
weight_decay = 0.01

[aggregation]
max_wait_s = 0.7

[start]
min_sites = 4
start_after_s = 30.0
"""


@dataclass(frozen=True)
class Outcome:
    """Every figure of a demo."""

    seconds: float
    versions: int
    alone: dict[str, float]
    federated: float
    pooled: float
    ledger: Ledger
    replayed: bool
    mean_staleness: dict[str, float]

    def to_json(self) -> str:
        """For programs."""
        auc = {"alone": statistics.fmean(self.alone.values()), "federated": self.federated, "pooled": self.pooled}
        values: dict[str, Any] = {
            "seconds": round(self.seconds, 2),
            "versions": self.versions,
            "auc": auc,
            "auc_each_alone": self.alone,
            "ledger": asdict(self.ledger),
            "replay_same": self.replayed,
            "mean_staleness": self.mean_staleness,
        }
        return json.dumps(values, indent=2)

    def table(self) -> list[tuple[str, float]]:
        """What is compared: each clinic alone, federated, pooled."""
        each = [(f"{name} alone", value) for name, value in self.alone.items()]
        return [*each, ("federated", self.federated), ("pooled", self.pooled)]


@click.command()
@click.option("--versions", default=40, show_default=True, type=click.IntRange(8, 1000), help="Versions to publish.")
@click.option("--seed", default=0, show_default=True, help="Which split into training and held-out patients.")
@click.option("--keep", is_flag=True, help="Leave everything running at the end, to look around; Ctrl-C ends it.")
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Write every figure to this file.")
@click.option("--report", "report_file", type=click.Path(path_type=Path), help="Where to write the report (HTML).")
def demo(versions: int, seed: int, *, keep: bool, json_file: Path | None, report_file: Path | None) -> int:
    """Federate a model over four real US clinics on this machine, through a private RabbitMQ, in under a minute.

    One clinic trains ten times slower; one is killed for the middle half of the run and comes back.

    \b
    Examples:
      fedqueue demo
      fedqueue demo --keep
      fedqueue demo --json figures.json --seed 3
    """
    for path in (json_file, report_file):
        if path is not None and not os.access(path.absolute().parent, os.W_OK):
            raise UsageError(f"{path} cannot be written: there is no folder {path.absolute().parent} to write to.")
    ensure_rabbitmq(log=click.echo)
    folder = Path(tempfile.mkdtemp(prefix="fedqueue-demo-"))
    report = report_file or folder / "report.html"
    with until_signalled() as stopping:
        run = _Run(LocalFederation(folder), versions, seed, stopping)
        try:
            outcome = run.whole(report)
            if json_file is not None:
                _write_json(json_file, outcome)
            if keep:
                _look_around(run)
        except StoppedError:
            click.echo("stopped", err=True)
            return STOPPED
        finally:
            run.federation.close()
            _tidy(folder, keep=report)
    return 0


class _Run:
    """One demo from start to report."""

    def __init__(self, federation: LocalFederation, versions: int, seed: int, stopping: threading.Event) -> None:
        self.federation, self._versions, self._seed, self.stopping = federation, versions, seed, stopping
        self._absences: list[Absence] = []
        self._killed_at: float | None = None
        self._watch = Watch(federation, CLINICS, stopping)

    def whole(self, report: Path) -> Outcome:
        """Everything; raises StoppedError as soon as somebody asks to stop."""
        click.echo("Starting a private RabbitMQ, an aggregator and four clinics ...")
        self._prepare()
        with LiveView("four clinics, one model") as view:
            self._watch.show(view, target=self._versions, done=self._looked)
        self._watch.settle(SETTLE_S)
        return self._conclude(report)

    def _prepare(self) -> None:
        federation = self.federation
        node = federation.start_broker()
        self._watch.go_on()
        click.echo(f"Broker console: {node.management_url}  login {node.user} / {node.password}")
        delay = ROUND_S / STEPS
        plans = [
            SitePlan(name, {"clinic": name, "seed": self._seed}, delay * (SLOWER if name == SLOW else 1))
            for name in CLINICS
        ]
        from site_worker.tasks.clinics import NAME  # noqa: PLC0415 - torch takes seconds; the broker starts meanwhile

        settings = SETTINGS.format(task=NAME, versions=self._versions, steps=STEPS)
        federation.set_up(federation="clinics", task=TASK, sites=plans, settings=settings)
        federation.start_aggregator()
        for name in CLINICS:
            federation.start_site(name)

    def _looked(self, version: int, _rows: list[SiteRow]) -> bool:
        """Kill one clinic for the middle half; it is over when the last version is there and the clinic is back."""
        if self._killed_at is None and version >= self._versions // 4:
            self.federation.kill(KILLED)
            self._killed_at = time.time()
        elif self._killed_at is not None and not self._absences and version >= 3 * self._versions // 4:
            self.federation.start_site(KILLED)
            self._absences.append(Absence(KILLED, self._killed_at, time.time(), "killed"))
        return version >= self._versions and bool(self._absences)

    def _conclude(self, report: Path) -> Outcome:
        outcome = self._outcome()
        self._watch.go_on()
        events = read_events(self.federation.aggregator)
        history = History(
            federation="clinics",
            started=self._watch.started,
            seconds=outcome.seconds,
            sites=tuple(self._watch.rows()[1]),
            merged=events.merged,
            published=events.published,
            evaluated=events.evaluated,
            refusals=events.refusals,
            sent=events.sent,
            parameters=events.parameters,
            absences=tuple(self._absences),
            ledger=outcome.ledger,
            table=tuple(outcome.table()),
            notes=(f"{SLOW} trained {SLOWER} times slower.", f"{KILLED} was killed (SIGKILL) and came back."),
        )
        write(history, report)
        _print(outcome, report)
        return outcome

    def _outcome(self) -> Outcome:
        from deploy.baselines import alone, federated_auc, pooled_auc  # noqa: PLC0415 - needs torch

        ending = read_ending(self.federation, CLINICS)
        return Outcome(
            versions=ending.version,
            alone=alone(seed=self._seed),
            federated=federated_auc(ending.weights, ending.statistics, seed=self._seed),
            pooled=pooled_auc(seed=self._seed),
            ledger=ending.ledger,
            replayed=ending.replayed,
            mean_staleness=self._mean_staleness(),
            seconds=self._watch.seconds,
        )

    def _mean_staleness(self) -> dict[str, float]:
        merged = read_events(self.federation.aggregator).merged
        of = {name: [one.staleness for one in merged if one.site == name] for name in CLINICS}
        return {name: round(statistics.fmean(values), 2) for name, values in of.items() if values}


def _print(outcome: Outcome, report: Path) -> None:
    click.echo("\nArea under the ROC curve over the held-out patients of all four clinics:")
    for name, value in outcome.table():
        click.echo(f"  {name:<12} {value:.3f}")
    click.echo(f"Ledger: {outcome.ledger.line}")
    same = "gives the same weights bit for bit" if outcome.replayed else "DIFFERS"
    click.echo(f"Replay of the journal: {same}. {outcome.versions} versions in {outcome.seconds:.0f} s.")
    click.echo(f"Report: {report}")


def _write_json(path: Path, outcome: Outcome) -> None:
    try:
        path.write_text(outcome.to_json() + "\n")
    except OSError as error:
        raise StorageError(f"{path} could not be written: {error.strerror}.") from error


def _look_around(run: _Run) -> None:
    federation = run.federation
    node = federation.node
    assert node is not None
    click.echo("\nEverything is still running. Look around, then press Ctrl-C:")
    click.echo(f"  {node.management_url}  (login {node.user} / {node.password})")
    click.echo(f"  fedqueue aggregator status {federation.aggregator.path}")
    click.echo(f"  fedqueue site status {federation.site(CLINICS[0]).path}")
    run.stopping.wait()


def _tidy(folder: Path, *, keep: Path) -> None:
    """Remove the run's folder but for the report."""
    for path in folder.iterdir():
        if path != keep:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    if not any(folder.iterdir()):
        folder.rmdir()
