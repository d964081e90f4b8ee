"""`fedqueue simulate SCENARIO`: a federation on a virtual clock, to compare strategies without a hospital."""

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from broker.commands import STOPPED
from broker.errors import UsageError
from broker.files import require_writable, write_file
from broker.serving import until_signalled
from deploy.simulation.comparison import sentences, strategies_of, table, to_json
from deploy.simulation.crew import SimulationStopped, run_jobs
from deploy.simulation.job import Job
from deploy.simulation.result import Result
from deploy.simulation.scenario import Scenario, load, ready, text_of

MOST_SEEDS: Final = 1000


@click.command()
@click.argument("scenario", required=False)
@click.option("--list", "listing", is_flag=True, help="Name the ready scenarios.")
@click.option("--show", is_flag=True, help="Print the scenario's TOML, to start one's own from; run nothing.")
@click.option("--compare", default="", metavar="A,B,C", help="Strategies, by their names in the scenario; or 'all'.")
@click.option("--seeds", default=1, show_default=True, type=click.IntRange(1, MOST_SEEDS), help="Repeat so often.")
@click.option("--seed", default=0, show_default=True, type=click.IntRange(0), help="The first seed.")
@click.option("--seconds", type=click.FloatRange(0, min_open=True), help="Virtual seconds. Default: [stop] seconds.")
@click.option("--processes", type=click.IntRange(1), help="Runs at once. Default: one for each processor.")
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Write every figure to this file.")
@click.option("--report", "report_file", type=click.Path(path_type=Path), help="Write a report with plots (HTML).")
def simulate(
    scenario: str | None,
    *,
    listing: bool,
    show: bool,
    compare: str,
    seeds: int,
    seed: int,
    seconds: float | None,
    processes: int | None,
    json_file: Path | None,
    report_file: Path | None,
) -> int:
    """Run SCENARIO, a TOML file or the name of a ready one, on a virtual clock: hours of a federation in seconds.

    Aggregator, sites, journal and outboxes are the production code; the network and the time are simulated. One seed
    is one run: the same sites, the same faults, the same journal every time.

    \b
    Examples:
      fedqueue simulate --list
      fedqueue simulate hospitals-8
      fedqueue simulate hospitals-8 --compare patient,fedbuff,wait-for-all --seeds 8 --report compared.html
      fedqueue simulate hospitals-8 --show > mine.toml
      fedqueue simulate mine.toml --json figures.json
    """
    if listing:
        return _list()
    if scenario is None:
        raise UsageError("Name a scenario: a TOML file, or one that 'fedqueue simulate --list' names.")
    if show:
        click.echo(text_of(scenario), nl=False)
        return 0
    wanted = load(scenario) if seconds is None else load(scenario).lasting(seconds)
    strategies = strategies_of(wanted, compare)
    for path in (json_file, report_file):
        if path is not None:
            require_writable(path)
    name = Path(scenario).stem
    jobs = [Job(name, wanted, strategy, one) for one in range(seed, seed + seeds) for strategy in strategies]
    with until_signalled() as stopping:
        try:
            results = _run(jobs, processes, stopping)
        except SimulationStopped:
            click.echo("stopped", err=True)
            return STOPPED
    _conclude(wanted, name, results, json_file, report_file)
    return 0 if all(result.sound for result in results) else 1


def _list() -> int:
    for name in ready():
        click.echo(f"{name:<24} {load(name).title}")
    return 0


def _run(jobs: Sequence[Job], processes: int | None, stopping: threading.Event) -> list[Result]:
    with _progress(len(jobs)) as told:
        return run_jobs(jobs, processes=processes or os.cpu_count() or 1, stopping=stopping, told=told)


@contextmanager
def _progress(jobs: int) -> Iterator[Callable[[int, float], None]]:
    """A bar over all jobs with an estimate, on the standard error output."""
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(f"{jobs} run{'s' if jobs > 1 else ''}", total=jobs)
        shares = [0.0] * jobs

        def told(job: int, share: float) -> None:
            shares[job] = share
            progress.update(task, completed=sum(shares))

        yield told


def _conclude(
    scenario: Scenario, name: str, results: Sequence[Result], json_file: Path | None, report_file: Path | None
) -> None:
    console = Console(highlight=False)
    hours = max(result.seconds for result in results) / 3600
    seeds = len({result.seed for result in results})
    console.print(f"{scenario.title}\n{len(scenario.names)} sites, {hours:.1f} virtual hours, seeds: {seeds}\n")
    console.print(table(scenario, results))
    console.print()
    for sentence in sentences(scenario, results):
        console.print(sentence, markup=False)
    if json_file is not None:
        write_file(json_file, to_json(scenario, name, results))
    if report_file is not None:
        from deploy.simulation.report import write  # noqa: PLC0415 - needs the drawing libraries

        write(scenario, name, results, report_file)
        console.print(f"Report: {report_file}", markup=False)
