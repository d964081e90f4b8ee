"""`fedqueue report FOLDER`: the report of a federation between hospitals, from its aggregator's folder; reads only."""

import time
from pathlib import Path

import click

from aggregator.health import troubles
from aggregator.settings import Folder
from aggregator.status import read_status
from broker.files import require_writable
from broker.progress import readable_bytes
from deploy.report import write
from deploy.standing import read_standing


@click.command()
@click.argument("folder", metavar="AGGREGATOR_FOLDER", type=click.Path(path_type=Path, file_okay=False))
@click.option(
    "--out", default="report.html", show_default=True, type=click.Path(path_type=Path), help="Where to write it."
)
def report(folder: Path, *, out: Path) -> None:
    """Write one HTML file about the federation in AGGREGATOR_FOLDER: curves, who contributed when, bytes, refusals.

    Reads only, while the aggregator runs or not. The file needs no other and no network, and prints well.

    \b
    Examples:
      fedqueue report agg
      fedqueue report agg --out /srv/reports/sepsis.html
    """
    place, now = Folder(folder), time.time()
    require_writable(out)
    history = read_standing(place, now=now)
    write(history, out, troubles=troubles(read_status(place), now))
    click.echo(f"Wrote {out} ({readable_bytes(out.stat().st_size)}): {len(history.merged)} updates accepted so far.")
