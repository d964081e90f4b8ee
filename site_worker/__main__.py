"""`fedqueue site`: describe a hospital's task, join a federation, run the worker, look at what left the hospital."""

import json
import sys
import time
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from broker.commands import run_cli
from broker.errors import UsageError
from broker.files import whole_or_nothing
from broker.logs import log_to_stderr
from broker.options import AS_JSON, log_options, show_checks, tls_of, tls_options
from broker.serving import until_signalled
from site_worker.joining import create, found_from_anywhere, parsed_file, parsed_option
from site_worker.joining import join as take_join_file
from site_worker.pausing import pause, resume
from site_worker.settings import Folder
from site_worker.status import read_outbox, read_status
from site_worker.statustext import status_text

FOLDER = click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
NO_MODEL = click.option("--no-model", is_flag=True, help="Do not load the task; the request then names no model.")


@click.group()
def cli() -> None:
    """The worker at a hospital: trains when it can, keeps what it computed until a receipt has settled it."""


for command in (pause, resume):
    cli.add_command(command)


@cli.command()
@FOLDER
@click.option("--site", required=True, help="Name of the hospital, such as 'NY'.")
@click.option("--task", required=True, help="The task as file.py:function or module:function.")
@click.option(
    "--option", "options", multiple=True, metavar="NAME=VALUE", help="An option of the task; repeat for more."
)
@click.option("--file", "files", multiple=True, metavar="NAME=PATH", help="An option that is a path; repeat for more.")
@NO_MODEL
@tls_options
def init(
    folder: Path,
    *,
    site: str,
    task: str,
    options: tuple[str, ...],
    files: tuple[str, ...],
    no_model: bool,
    **tls_files: Path | None,
) -> None:
    """Make FOLDER: settings, this site's own key, its request to the coordinator, and version 0 of the task's model.

    \b
    Examples:
      fedqueue site init ny --site NY --task site_worker.tasks.clinics:clinic --option clinic=NY
      fedqueue site init ny --site NY --task model.py:task --file path=ward.csv
    """
    place = Folder(folder)
    given = dict([*(parsed_option(one) for one in options), *(parsed_file(one) for one in files)])
    with whole_or_nothing(folder):
        create(place, site=site, task=found_from_anywhere(task), options=given, tls=tls_of(**tls_files))
        try:
            _request(place, no_model=no_model)
        except UsageError as error:
            raise UsageError(f"{error} Or leave the model for later with --no-model.") from error


@cli.command()
@FOLDER
@NO_MODEL
def request(folder: Path, *, no_model: bool) -> None:
    """Write this site's request and version 0 of its model again, after the task has changed; the key stays.

    \b
    Example:
      fedqueue site request ny
    """
    _request(Folder(folder), no_model=no_model)


def _request(place: Folder, *, no_model: bool) -> None:
    from site_worker.request import write_request  # noqa: PLC0415 - torch is imported by the commands that need it

    written = write_request(place, with_model=not no_model)
    model = "" if no_model else f" and, with the first request, {place.model_file} ({written.parameters} parameters)"
    click.echo(f"Send the coordinator {place.request_file(written.site)}{model}.")
    click.echo(f"Fingerprint of site {written.site}, to read to them by telephone: {written.key.fingerprint}")


@cli.command()
@FOLDER
@AS_JSON
def check(folder: Path, *, as_json: bool) -> int:
    """Check FOLDER before the worker runs: key, task, data, a few steps, model, broker, rights, clock, disk.

    Changes nothing, also while the worker runs. Exits with 1 if a check fails.

    \b
    Example:
      fedqueue site check ny
    """
    from site_worker.check import SiteCheck  # noqa: PLC0415 - torch is imported by the commands that need it

    return show_checks(SiteCheck(Folder(folder)).run(), as_json=as_json)


@cli.command()
@FOLDER
@click.argument("join_file", type=click.Path(path_type=Path))
def join(folder: Path, join_file: Path) -> None:
    """Join the federation of JOIN_FILE, which the coordinator made; 'run --join' does it on the way.

    \b
    Example:
      fedqueue site join ny NY.join.toml
    """
    joined = take_join_file(Folder(folder), join_file)
    click.echo(f"Site {joined.site} joins federation {joined.federation}; start it with: fedqueue site run {folder}")


@cli.command()
@click.argument("folders", nargs=-1, required=True, type=click.Path(path_type=Path, file_okay=False))
@click.option("--join", "join_file", type=click.Path(path_type=Path), help="Join the federation of this file first.")
@log_options
def run(folders: tuple[Path, ...], *, join_file: Path | None, verbose: bool, log_style: str) -> None:
    """Run the worker of each FOLDER until Ctrl-C or SIGTERM; start it again and it goes on where it was.

    Several sites in one process train by turns; one that cannot go on ends alone.

    \b
    Examples:
      fedqueue site run ny --join NY.join.toml
      fedqueue site run ny -v
      fedqueue site run clinics/*
    """
    from site_worker.together import work_together  # noqa: PLC0415 - torch is imported by the commands that need it

    log_to_stderr(log_style, verbose=verbose)
    if join_file is not None:
        if len(folders) > 1:
            raise UsageError("--join goes with one folder: let each site join with 'fedqueue site join'.")
        take_join_file(Folder(folders[0]), join_file)
    with until_signalled() as stopping:
        work_together(folders, stopping)


@cli.command()
@click.argument("source", type=click.Path(path_type=Path))
@click.argument("target", type=click.Path(path_type=Path))
def export(source: Path, target: Path) -> None:
    """Turn SOURCE, a model from 'fedqueue aggregator export', into TARGET, a file for torch.load(weights_only=True).

    \b
    Example:
      fedqueue site export model.safetensors model.pt
    """
    from site_worker.torchfile import write_torch_file  # noqa: PLC0415 - torch is imported by the commands that need it

    version = write_torch_file(source, target)
    click.echo(f"Wrote version {version} to {target}: a dict with state_dict, layout, and where the model comes from.")


@cli.command()
@FOLDER
@AS_JSON
def status(folder: Path, *, as_json: bool) -> None:
    """Show what the worker is doing and what became of its updates.

    \b
    Example:
      fedqueue site status ny
    """
    found = read_status(Folder(folder))
    click.echo(json.dumps(asdict(found), indent=2) if as_json else status_text(found, time.time()))


@cli.command()
@FOLDER
@click.option("--last", default=20, show_default=True, help="How many of the newest updates.")
@AS_JSON
def outbox(folder: Path, last: int, *, as_json: bool) -> None:
    """List the updates that this site made, and what became of each.

    \b
    Example:
      fedqueue site outbox ny --last 5
    """
    rows = read_outbox(Folder(folder).outbox_file, last=last)
    click.echo(json.dumps(rows, indent=2) if as_json else _outbox_text(rows))


def _outbox_text(rows: list[dict[str, Any]]) -> str:
    if not rows:
        return "The outbox is empty: nothing was computed yet."
    lines = [f"{'update':>6} {'base':>6} {'examples':>9} {'bytes':>10}  made                  state"]
    for row in rows:
        made = datetime.fromtimestamp(row["made_at"], tz=UTC).strftime("%Y-%m-%d %H:%M:%SZ")
        sent = "published, waiting for the receipt" if row["published"] else "waiting to be published"
        state = sent if row["state"] == "waiting" else f"{row['state']} {row['reason'] or ''}".rstrip()
        numbers = f"{row['sequence']:>6} {row['base_version']:>6} {row['examples']:>9} {row['payload_bytes']:>10}"
        lines.append(f"{numbers}  {made}  {state}")
    return "\n".join(lines)


def main() -> int:
    """Entry point."""
    return run_cli(cli, prog_name="fedqueue site")


if __name__ == "__main__":
    sys.exit(main())
