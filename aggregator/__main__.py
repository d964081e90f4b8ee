"""`fedqueue aggregator`: set up a federation, add hospitals, run, look, export, replay."""

import json
import sys
import time
from pathlib import Path

import click

from aggregator.enrolment import Founding, add_site, create, remove_site
from aggregator.export import export_model
from aggregator.journal import Journal
from aggregator.opening import Replayed, replay
from aggregator.service import serve
from aggregator.settings import Folder
from aggregator.status import read_refused, read_status
from aggregator.statustext import status_text, when
from aggregator.steering import pause, resume, stop_after, switch_command
from broker.commands import run_cli
from broker.errors import StorageError, UsageError
from broker.events import printable
from broker.files import require_writable
from broker.letters import INITIAL_MODEL, Request
from broker.logs import log_to_stderr
from broker.node import Node
from broker.options import AS_JSON, log_options, tls_of, tls_options
from broker.serving import link_maker, until_signalled
from broker.settings import write_secret

FOLDER = click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
BROKER = click.option(
    "--broker",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder of a private broker made by 'fedqueue broker up'; accounts are then made on it. "
    "Without it, the address is read from FEDQUEUE_BROKER_URL or FOLDER/broker.url.",
)


@click.group()
def cli() -> None:
    """The aggregator of a federation: admits updates, makes versions of the model, keeps the journal."""


for command in (pause, resume, stop_after, switch_command):
    cli.add_command(command)


@cli.command()
@FOLDER
@click.argument("requests", nargs=-1, metavar="[REQUEST_FILE]...", type=click.Path(path_type=Path))
@click.option("--federation", required=True, help="Name of the federation, such as 'sepsis'.")
@click.option("--task", default="", help="Name of the task that all sites run; default: what the requests say.")
@click.option(
    "--model",
    type=click.Path(path_type=Path),
    help=f"Version 0, a safetensors file; default: {INITIAL_MODEL} beside the first request.",
)
@click.option(
    "--min-sites",
    type=click.IntRange(min=1),
    help="Sites that must say hello before version 0 goes out; default: the number of requests.",
)
@BROKER
@tls_options
def init(
    folder: Path,
    requests: tuple[Path, ...],
    *,
    federation: str,
    task: str,
    model: Path | None,
    min_sites: int | None,
    broker: Path | None,
    **tls_files: Path | None,
) -> None:
    """Make FOLDER: settings, key, journal, version 0; declare the queues; enrol the hospitals that sent a REQUEST_FILE.

    \b
    Example:
      fedqueue aggregator init agg --federation opt --broker broker ny/NY.request.toml mn/MN.request.toml
    """
    read = [Request.read(path) for path in requests]
    first = model or next((path.with_name(INITIAL_MODEL) for path in requests), None)
    if first is None:
        raise UsageError("Without a request give --model, version 0 as a safetensors file, and --task.")
    founding = Founding(federation, first, read, task, min_sites, tls_of(**tls_files))
    layout = create(Folder(folder), founding, node=Node.open(broker) if broker else None)
    click.echo(f"Federation {federation}: {layout.size} parameters in {len(layout.tensors)} tensors.")
    for request in read:
        _tell_enrolled(request, Folder(folder).join_file(request.site))
    click.echo(f"Look at {folder / 'aggregator.toml'}, then: fedqueue aggregator run {folder}")


@cli.command("add-site")
@FOLDER
@click.argument("request_file", type=click.Path(path_type=Path))
@click.option("--account", help="The site's account on a broker that is not private; default FEDERATION.SITE.")
@click.option("--out", type=click.Path(path_type=Path), help="The join file to write; default FOLDER/SITE.join.toml.")
@BROKER
def add(folder: Path, request_file: Path, *, account: str | None, out: Path | None, broker: Path | None) -> None:
    """Enrol the hospital that sent REQUEST_FILE and write its join file. Works while running, and disturbs no other.

    \b
    Example:
      fedqueue aggregator add-site agg ky/KY.request.toml --broker broker
    """
    request, place = Request.read(request_file), Folder(folder)
    path = out or place.join_file(request.site)
    place.settings()
    require_writable(path)
    joined = add_site(place, request, node=Node.open(broker) if broker else None, account=account)
    write_secret(path, joined.to_toml())
    _tell_enrolled(request, path)


def _tell_enrolled(request: Request, join_file: Path) -> None:
    click.echo(f"Site {request.site}: compare {request.key.fingerprint} with the hospital by telephone,")
    click.echo(f"  then give them {join_file} as you would give a password.")


@cli.command("remove-site")
@FOLDER
@click.argument("site")
@BROKER
def remove(folder: Path, site: str, *, broker: Path | None) -> None:
    """Take SITE out: its account (with --broker), registry and queues. Works while running; its history stays.

    What waits in its queues is lost for the model; what was accepted stays in the versions it is in.

    \b
    Example:
      fedqueue aggregator remove-site agg KY --broker broker
    """
    account = remove_site(Folder(folder), site, node=Node.open(broker) if broker else None)
    click.echo(f"Site {site} is removed; what was accepted from it stays in the model.")
    if broker is None:
        click.echo(f"Its account may still log in: delete {account!r} at the broker, as with rabbitmqctl delete_user.")


@cli.command()
@FOLDER
@log_options
def run(folder: Path, *, verbose: bool, log_style: str) -> None:
    """Run the aggregator of FOLDER until Ctrl-C or SIGTERM; start it again and it goes on where it was.

    \b
    Example:
      fedqueue aggregator run agg -v
    """
    log_to_stderr(log_style, verbose=verbose)
    place = Folder(folder)
    settings = place.settings()
    name = f"fedqueue {settings.federation} aggregator"
    with until_signalled() as stopping:
        serve(place, link_maker(place.url_file, settings.tls, name=name), stopping)


@cli.command()
@FOLDER
@AS_JSON
def status(folder: Path, *, as_json: bool) -> None:
    """Show the federation: version, link, and for each site its state, staleness, accepted and refused updates.

    \b
    Example:
      fedqueue aggregator status agg --json
    """
    found = read_status(Folder(folder))
    click.echo(found.to_json() if as_json else status_text(found, time.time()))


@cli.command()
@FOLDER
@click.option("--last", default=50, show_default=True, help="How many of the newest refusals.")
@AS_JSON
def refused(folder: Path, last: int, *, as_json: bool) -> None:
    """Show what was refused and why.

    \b
    Example:
      fedqueue aggregator refused agg --last 5
    """
    rows = read_refused(Folder(folder).journal_file, last=last)
    if as_json:
        click.echo(json.dumps(rows, indent=2))
        return
    for row in rows:
        sequence = "-" if row["sequence"] is None else row["sequence"]
        click.echo(
            f"{when(row['at'])}  {row['site']:<16} update {sequence:<6} {row['bytes']:>9} B  {printable(row['reason'])}"
        )
    if not rows:
        click.echo("Nothing was refused.")


@cli.command()
@FOLDER
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--version", "wanted", type=int, help="An older version, folded from the journal; default the newest.")
def export(folder: Path, file: Path, wanted: int | None) -> None:
    """Write the model to FILE, a .safetensors, and its model card beside it: where it comes from, sites, measures.

    The file's metadata holds the same facts as JSON. 'fedqueue site export' makes a torch file of it.

    \b
    Example:
      fedqueue aggregator export agg model.safetensors
    """
    layout, version = export_model(Folder(folder), file, version=wanted)
    beside = file.with_suffix(".md")
    click.echo(f"Wrote version {version} ({layout.size} parameters) to {file}, its card to {beside}.")


@cli.command("replay")
@FOLDER
@click.option("--version", "wanted", type=int, help="Show the members of this version only.")
@AS_JSON
def replay_command(folder: Path, wanted: int | None, *, as_json: bool) -> None:
    """Fold the journal again from version 0 and hold every version's digest against it; say which updates are in it.

    \b
    Example:
      fedqueue aggregator replay agg --version 7
    """
    place = Folder(folder)
    journal = Journal(_existing(place))
    started = time.monotonic()
    try:
        versions = list(replay(journal, place))
    finally:
        journal.close()
    wrong = [one.row.version for one in versions if not one.same]
    shown = [one for one in versions if wanted is None or one.row.version == wanted]
    if as_json:
        click.echo(json.dumps([_replayed_json(one) for one in shown], indent=2))
    else:
        for one in shown:
            members = ", ".join(f"{site}#{sequence} (staleness {stale})" for site, sequence, stale in one.members)
            mark = "same bits" if one.same else "DIFFERENT"
            click.echo(f"version {one.row.version:<5} {one.row.digest.hex()[:12]} {mark}: {members or one.row.reason}")
        click.echo(f"{len(versions)} versions folded in {time.monotonic() - started:.1f} s")
    if wrong:
        raise StorageError(f"Replay differs from the journal at version {wrong[0]}; restore the folder from a backup.")


def _replayed_json(one: Replayed) -> dict[str, object]:
    members = [{"site": site, "sequence": number, "staleness": stale} for site, number, stale in one.members]
    return {"version": one.row.version, "digest": one.row.digest.hex(), "same": one.same, "members": members}


def _existing(place: Folder) -> Path:
    if not place.journal_file.is_file():
        raise UsageError(f"There is no {place.journal_file}; has this folder been initialised?")
    return place.journal_file


def main() -> int:
    """Entry point."""
    return run_cli(cli, prog_name="fedqueue aggregator")


if __name__ == "__main__":
    sys.exit(main())
