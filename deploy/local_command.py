"""`fedqueue local FOLDER`: the files of a folder as a federation on this machine, with the processes of a real one."""

import json
import shutil
import threading
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import click

from aggregator.export import export_model
from broker.commands import STOPPED
from broker.errors import UsageError
from broker.files import write_file
from broker.folderlock import sole_process
from broker.install import ensure_rabbitmq
from broker.node import Node
from broker.serving import until_signalled
from deploy.cohort import Cohort
from deploy.example import EXAMPLES, write_example
from deploy.federating import Wanted
from deploy.local import LocalFederation
from deploy.repeats import Bench, Job, broker_of, run_job
from deploy.report import write
from deploy.results import Result, spread_lines, to_json
from deploy.watching import StoppedError
from site_worker.tabular.declaration import FILE_NAME, load_declaration
from site_worker.tabular.drafting import draft

EACH: Final = "each"
STATE_FILE: Final = "run.json"


@dataclass(frozen=True)
class Asked:
    """The command's options; None is what the folder's declaration says."""

    versions: int | None
    minutes: float | None
    seed: int | None
    seeds: int
    compares: bool
    leave_out: tuple[str, ...]
    per_process: int
    out: Path | None
    json_file: Path | None
    report_file: Path | None
    resume: bool
    restart: bool
    keep: bool


@click.command()
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@click.option("--init", "drafting", is_flag=True, help="Look at the files and draft federation.toml; run nothing.")
@click.option("--label", default="", metavar="COLUMN", help="With --init: the column to predict. Default: a guess.")
@click.option("--example", type=click.Choice(EXAMPLES), help="Write a worked example to FOLDER; run nothing.")
@click.option("--versions", type=click.IntRange(0), help="Versions to make, 0: no limit. Default: [run] versions.")
@click.option("--minutes", type=click.FloatRange(0), help="Minutes to run, 0: no limit. Default: [run] minutes.")
@click.option("--seed", type=click.IntRange(0), help="Draws held-out rows and batches. Default: [run] seed, or 0.")
@click.option("--seeds", default=1, show_default=True, type=click.IntRange(1, 100), help="Repeat with so many seeds.")
@click.option("--compare", "compares", is_flag=True, help="Also train each site alone and all rows pooled.")
@click.option("--leave-out", multiple=True, metavar="SITE", help="SITE takes no part and is judged; 'each': in turn.")
@click.option(
    "--sites-per-process", "per_process", default=0, type=click.IntRange(0), help="Default: 1, of many sites as needed."
)
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), help="For results. Default: FOLDER/results.")
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Write every figure to this file.")
@click.option("--report", "report_file", type=click.Path(path_type=Path), help="Default: report.html in the results.")
@click.option("--resume", is_flag=True, help="Go on with the run that was stopped.")
@click.option("--restart", is_flag=True, help="Throw away the run that was stopped.")
@click.option("--keep", is_flag=True, help="Leave everything running at the end, to look around; Ctrl-C ends it.")
def local(folder: Path, *, drafting: bool, label: str, example: str | None, **options: Any) -> int:
    """Federate a model over the files of FOLDER, one CSV or Parquet file a site, as federation.toml there declares.

    A private broker, an aggregator and a worker for each site: the processes of a federation between hospitals. A file
    that does not fit is refused at its site, and the others go on.

    \b
    Examples:
      fedqueue local heart --init --label died
      fedqueue local heart
      fedqueue local heart --compare --seeds 5 --json figures.json
      fedqueue local heart --leave-out north
      fedqueue local scans --example images
    """
    if drafting:
        return _draft(folder, label)
    if label:
        raise UsageError("--label goes with --init; without it federation.toml names the label.")
    if example is not None:
        files = write_example(example, folder)
        click.echo(f"Wrote {', '.join(map(str, files))}.")
        next_step = "" if folder / FILE_NAME in files else " --init"
        click.echo(f"Go on with: fedqueue local {folder}{next_step}")
        return 0
    asked = Asked(**options)
    jobs = _jobs(folder, asked)
    out = asked.out or folder / "results"
    _check_places(out, asked)
    ensure_rabbitmq(log=click.echo)
    with sole_process(out, "A local run"), until_signalled() as stopping:
        _prepare_state(out / "state", jobs, asked)
        try:
            _run_all(folder, out, jobs, asked, stopping)
        except StoppedError:
            click.echo("stopped; the same command with --resume goes on with it", err=True)
            return STOPPED
        shutil.rmtree(out / "state")
    return 0


def _draft(folder: Path, label: str) -> int:
    path = folder / FILE_NAME
    if path.exists():
        raise UsageError(f"{path} is there already; move it away to have another drafted.")
    text, sentences = draft(folder, label=label)
    write_file(path, text.encode(), replace=False)
    for sentence in sentences:
        click.echo(f"- {sentence}")
    click.echo(f"Wrote {path}. Look at it, correct what is wrong, then: fedqueue local {folder}")
    return 0


def _jobs(folder: Path, asked: Asked) -> list[Job]:
    """Every run that is asked for; UsageError if a hospital to be left out is none of the folder's."""
    declared = Cohort.load(folder, seed=0)
    first = declared.declaration.run.seed if asked.seed is None else asked.seed
    left_out: tuple[str | None, ...] = tuple(declared.sites) if EACH in asked.leave_out else asked.leave_out
    for name in left_out:
        declared.without(str(name))
    return [Job(first + number, name) for number in range(asked.seeds) for name in left_out or (None,)]


def _check_places(out: Path, asked: Asked) -> None:
    """A place that cannot be written to is told before the run, not after it."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        for path in (out / "probe", asked.json_file, asked.report_file):
            if path is not None:
                probe = path.absolute().parent / f".{path.name}.probe"
                probe.touch()
                probe.unlink()
    except OSError as error:
        raise UsageError(f"Results cannot be written to {error.filename}: {error.strerror}.") from error


def _prepare_state(state: Path, jobs: list[Job], asked: Asked) -> None:
    """Make the state's folder for new runs, or hold that of stopped ones against what is asked for."""
    wanted = [asdict(job) for job in jobs]
    if asked.restart:
        shutil.rmtree(state, ignore_errors=True)
    if not (state / STATE_FILE).is_file():
        if asked.resume:
            raise UsageError(f"There is no stopped run in {state.parent}; leave --resume out.")
        shutil.rmtree(state, ignore_errors=True)
        state.mkdir(mode=0o700)
        (state / STATE_FILE).write_text(json.dumps(wanted))
        return
    if not asked.resume:
        raise UsageError(f"{state.parent} holds a run that was stopped: add --resume to go on, --restart to drop it.")
    if json.loads((state / STATE_FILE).read_text()) != wanted:
        raise UsageError("The stopped run had another --seed, --seeds or --leave-out: give them again, or --restart.")


def _run_all(folder: Path, out: Path, jobs: list[Job], asked: Asked, stopping: threading.Event) -> None:
    declared = load_declaration(folder / FILE_NAME)
    wanted = Wanted(
        versions=declared.run.versions if asked.versions is None else asked.versions,
        minutes=declared.run.minutes if asked.minutes is None else asked.minutes,
        per_process=asked.per_process,
    )
    if not wanted.versions and not wanted.minutes:
        raise UsageError("This run would have no end: give --versions or --minutes.")
    bench = Bench(folder, out / "state", wanted, asked.compares, stopping, click.echo)
    results = list[Result]()
    with broker_of(out / "state") as node:
        for job in jobs:
            if len(jobs) > 1:
                click.echo(f"\nRun {len(results) + 1} of {len(jobs)}: {job.title}")
            results.append(_run_one(bench, job, node, out, asked, alone=len(jobs) == 1))
    if len(results) > 1:
        click.echo("\n" + "\n".join(spread_lines(results)))
    if asked.json_file is not None:
        write_file(asked.json_file, to_json(results, name=declared.name, task=declared.task).encode())


def _run_one(bench: Bench, job: Job, node: Node, out: Path, asked: Asked, *, alone: bool) -> Result:
    result, history, federation = run_job(bench, job, node)
    try:
        suffix = "" if alone else job.suffix
        report = asked.report_file if alone and asked.report_file else out / f"report{suffix}.html"
        model = out / f"model{suffix}.safetensors"
        write(history, report)
        export_model(federation.aggregator, model)
        click.echo("\n" + "\n".join(result.lines()))
        click.echo(f"Ledger: {result.ledger.line}")
        same = "gives the same weights bit for bit" if result.replayed else "DIFFERS"
        click.echo(f"Replay of the journal: {same}. {result.versions} versions in {result.seconds:.0f} s.")
        click.echo(f"Report: {report}. Model: {model}, its card: {model.with_suffix('.md')}")
        if asked.keep:
            _look_around(federation, bench.stopping)
    finally:
        federation.close()
    return result


def _look_around(federation: LocalFederation, stopping: threading.Event) -> None:
    click.echo("\nEverything is still running. Look around, then press Ctrl-C:")
    click.echo(f"  fedqueue aggregator status {federation.aggregator.path}")
    stopping.wait()
