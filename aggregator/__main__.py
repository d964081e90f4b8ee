"""`fedqueue aggregator`: set up a federation, add hospitals, run, look, export, replay."""

import json
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import click

from aggregator.enrolment import add_site, create
from aggregator.journal import Journal
from aggregator.opening import Replayed, replay, restore
from aggregator.service import serve
from aggregator.settings import Folder
from aggregator.status import Status, read_refused, read_status
from aggregator.steering import pause, resume, stop_after
from broker.commands import run_cli
from broker.errors import StorageError, UsageError
from broker.identity import PublicKey
from broker.node import Node
from broker.serving import link_maker, log_to_stderr, until_signalled
from broker.settings import write_secret
from broker.weights import save_model

FOLDER = click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
BROKER = click.option(
    "--broker",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder of a private broker made by 'fedqueue broker up'; accounts are then made on it. "
    "Without it, the address is read from FEDQUEUE_BROKER_URL or FOLDER/broker.url.",
)
AS_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")


@click.group()
def cli() -> None:
    """The aggregator of a federation: admits updates, makes versions of the model, keeps the journal."""


for command in (pause, resume, stop_after):
    cli.add_command(command)


@cli.command()
@FOLDER
@click.option("--federation", required=True, help="Name of the federation, such as 'sepsis'.")
@click.option("--task", required=True, help="Name of the task that all sites run, such as 'opt-clinic'.")
@click.option("--model", required=True, type=click.Path(path_type=Path), help="Version 0, a safetensors file.")
@click.option("--min-sites", default=1, show_default=True, help="Sites that must say hello before version 0 goes out.")
@BROKER
def init(folder: Path, federation: str, task: str, model: Path, *, min_sites: int, broker: Path | None) -> None:
    """Make FOLDER: settings, key, journal, version 0; declare the federation's queues.

    \b
    Example:
      fedqueue site init-model site-a --out model.safetensors
      fedqueue aggregator init agg --federation opt --task clinic --model model.safetensors --broker broker
    """
    node = Node.open(broker) if broker else None
    layout = create(Folder(folder), federation=federation, task=task, model=model, node=node, min_sites=min_sites)
    click.echo(f"Federation {federation}: {layout.size} parameters in {len(layout.tensors)} tensors.")
    click.echo(f"Edit {folder / 'aggregator.toml'}, add sites with 'add-site', then: fedqueue aggregator run {folder}")


@cli.command("add-site")
@FOLDER
@click.argument("site")
@click.argument("public_key")
@click.option("--account", help="The site's account on a broker that is not private; its messages must come from it.")
@click.option("--out", type=click.Path(path_type=Path), help="The join file to write; default FOLDER/SITE.join.toml.")
@BROKER
def add(
    folder: Path, site: str, public_key: str, *, account: str | None, out: Path | None, broker: Path | None
) -> None:
    """Enrol SITE with its PUBLIC_KEY (from 'fedqueue site init') and write its join file. Works while running.

    \b
    Example:
      fedqueue aggregator add-site agg NY ed25519:9kX... --broker broker
    """
    key = PublicKey.from_text(public_key)
    joining = add_site(Folder(folder), site, key, node=Node.open(broker) if broker else None, account=account)
    path = out or folder / f"{site}.join.toml"
    write_secret(path, joining.to_toml())
    click.echo(f"Site {site} is enrolled; compare the fingerprint with the hospital by telephone: {key.fingerprint}")
    click.echo(f"Give them {path}" + (" (it holds their password)." if joining.broker_url else "."))


@cli.command()
@FOLDER
@click.option("--verbose", "-v", is_flag=True, help="Log every event, one line each.")
def run(folder: Path, *, verbose: bool) -> None:
    """Run the aggregator of FOLDER until Ctrl-C or SIGTERM; start it again and it goes on where it was.

    \b
    Example:
      fedqueue aggregator run agg -v
    """
    log_to_stderr(verbose=verbose)
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
    click.echo(found.to_json() if as_json else _status_text(found))


def _status_text(found: Status) -> str:
    counts = f"{found.accepted} updates accepted, {found.refused} refused, {found.buffered} in the open buffer"
    head = [
        f"federation {found.federation}: version {found.version}, {counts}",
        f"service: {'running, ' + found.link if found.running else 'not running'}",
    ]
    if found.paused:
        head.append("paused: sites are asked for no training until 'fedqueue aggregator resume'")
    if found.last_version:
        head.append(f"training ends at version {found.last_version}")
    if not found.started:
        head.append("not started: version 0 goes out when enough sites have said hello ([start] in aggregator.toml)")
    rows = [f"{'site':<16}{'state':<10}{'from':>6}{'stale':>7}{'accepted':>10}{'refused':>9}  last hello"]
    for site in found.sites:
        base = "-" if site.base is None else str(site.base)
        stale = "-" if site.staleness is None else str(site.staleness)
        seen = "never" if site.last_seen is None else _when(site.last_seen)
        rows.append(f"{site.site:<16}{site.state:<10}{base:>6}{stale:>7}{site.accepted:>10}{site.refused:>9}  {seen}")
    return "\n".join(head + rows)


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
        click.echo(f"{_when(row['at'])}  {row['site']:<16} update {sequence:<6} {row['bytes']:>9} B  {row['reason']}")
    if not rows:
        click.echo("Nothing was refused.")


@cli.command()
@FOLDER
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--version", "wanted", type=int, help="An older version, folded from the journal; default the newest.")
def export(folder: Path, file: Path, wanted: int | None) -> None:
    """Write the model to FILE as safetensors, with its federation and version as metadata.

    \b
    Example:
      fedqueue aggregator export agg model.safetensors
    """
    place = Folder(folder)
    journal = Journal(_existing(place))
    try:
        layout, fold = restore(journal, place, place.settings().aggregation, at_version=wanted)
        metadata = {
            "federation": place.settings().federation,
            "version": str(fold.version),
            "digest": fold.digest.hex(),
        }
        save_model(file, layout, fold.model, metadata=metadata)
    finally:
        journal.close()
    click.echo(f"Wrote version {fold.version} ({layout.size} parameters) to {file}.")


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


def _when(at: float) -> str:
    return datetime.fromtimestamp(at, tz=UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def main() -> int:
    """Entry point."""
    return run_cli(cli, prog_name="fedqueue aggregator")


if __name__ == "__main__":
    sys.exit(main())
