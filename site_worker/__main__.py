"""`fedqueue site`: describe a hospital's task, join a federation, run the worker, look at what left the hospital."""

import json
import sys
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from broker.commands import run_cli
from broker.identity import PrivateKey
from broker.serving import log_to_stderr, until_signalled
from broker.weights import Layout, save_model
from site_worker.joining import create, parsed_option
from site_worker.joining import join as take_join_file
from site_worker.pausing import pause, resume
from site_worker.settings import Folder
from site_worker.status import Status, read_outbox, read_status

FOLDER = click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
AS_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")


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
def init(folder: Path, site: str, task: str, options: tuple[str, ...]) -> None:
    """Make FOLDER with settings and this site's own key, and print what the coordinator needs.

    \b
    Example:
      fedqueue site init ny --site NY --task site_worker.tasks.clinics:clinic --option clinic=NY
    """
    public = create(Folder(folder), site=site, task=task, options=dict(parsed_option(one) for one in options))
    click.echo(f"Site {site}; its fingerprint, to read to the coordinator by telephone: {public.fingerprint}")
    click.echo("Send the coordinator this line:")
    click.echo(public.to_text())


@cli.command()
@FOLDER
def key(folder: Path) -> None:
    """Print this site's public key, the one line that the coordinator needs.

    \b
    Examples:
      fedqueue site key ny
      fedqueue aggregator add-site agg NY "$(fedqueue site key ny)" --broker broker
    """
    click.echo(PrivateKey.load(Folder(folder).key_file).public.to_text())


@cli.command("init-model")
@FOLDER
@click.option("--out", required=True, type=click.Path(path_type=Path), help="The safetensors file to write.")
def init_model(folder: Path, out: Path) -> None:
    """Write version 0 of this site's task as a safetensors file, for 'fedqueue aggregator init'.

    \b
    Example:
      fedqueue site init-model ny --out model.safetensors
    """
    from site_worker.tasks.task import load_task  # noqa: PLC0415 - torch is imported by the commands that need it
    from site_worker.training import initial_weights  # noqa: PLC0415

    settings = Folder(folder).settings()
    task = load_task(settings.task, settings.options, base=folder)
    weights = initial_weights(task)
    layout = Layout.of(weights)
    save_model(out, layout, layout.flatten(weights), metadata={"task": task.name, "version": "0"})
    click.echo(f"Wrote {layout.size} parameters of task {task.name!r} to {out}.")


@cli.command()
@FOLDER
@click.argument("join_file", type=click.Path(path_type=Path))
def join(folder: Path, join_file: Path) -> None:
    """Join the federation of JOIN_FILE, which the coordinator made with 'fedqueue aggregator add-site'.

    \b
    Example:
      fedqueue site join ny NY.join.toml
    """
    joined = take_join_file(Folder(folder), join_file)
    click.echo(f"Site {joined.site} joins federation {joined.federation}; start it with: fedqueue site run {folder}")


@cli.command()
@click.argument("folders", nargs=-1, required=True, type=click.Path(path_type=Path, file_okay=False))
@click.option("--verbose", "-v", is_flag=True, help="Log every event, one line each.")
def run(folders: tuple[Path, ...], *, verbose: bool) -> None:
    """Run the worker of each FOLDER until Ctrl-C or SIGTERM; start it again and it goes on where it was.

    Several sites in one process train by turns; one that cannot go on ends alone.

    \b
    Examples:
      fedqueue site run ny -v
      fedqueue site run clinics/*
    """
    from site_worker.together import work_together  # noqa: PLC0415 - torch is imported by the commands that need it

    log_to_stderr(verbose=verbose, threads=len(folders) > 1)
    with until_signalled() as stopping:
        work_together(folders, stopping)


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
    click.echo(json.dumps(asdict(found), indent=2) if as_json else _status_text(found))


def _status_text(found: Status) -> str:
    version = "" if found.version is None else f", version {found.version}"
    detail = f": {found.detail}" if found.detail else ""
    running = "running" if found.running else "not running"
    return (
        f"site {found.site} ({running}): {found.state}{version}{detail}\n"
        f"updates: {found.accepted} accepted, {found.waiting} waiting, {found.refused} refused"
    )


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
