"""`fedqueue status`: any folder of fedqueue, or all below this one; is it failed or slow, and what is there to do?

Reads files, and asks a private broker's console for alarms; nothing is changed.
"""

import json
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import click

from aggregator.health import troubles as aggregator_troubles
from aggregator.settings import Folder as AggregatorFolder
from aggregator.status import read_status as read_aggregator
from aggregator.statustext import status_text as aggregator_text
from aggregator.verdict import verdict, waits_for
from broker.accounts import Management
from broker.errors import FedqueueError, UsageError
from broker.node import Node
from broker.options import AS_JSON
from broker.troubles import CAUSES, Trouble, must_act
from site_worker.health import troubles as site_troubles
from site_worker.settings import Folder as SiteFolder
from site_worker.status import read_status as read_site
from site_worker.statustext import status_text as site_text

AGAIN_S: Final = 2.0


@dataclass(frozen=True)
class Seen:
    """One folder: what it is, as text and for programs, and what is wrong."""

    kind: str
    folder: Path
    text: str
    values: dict[str, Any]
    troubles: tuple[Trouble, ...]

    def to_wire(self) -> dict[str, Any]:
        """For programs."""
        wrong = [one.to_wire() for one in self.troubles]
        return {"kind": self.kind, "folder": str(self.folder), **self.values, "troubles": wrong}


def _aggregator(folder: Path) -> Seen:
    found, now = read_aggregator(AggregatorFolder(folder)), time.time()
    values = {"verdict": verdict(found, now), "waits_for": waits_for(found, now), **asdict(found)}
    return Seen("aggregator", folder, aggregator_text(found, now), values, tuple(aggregator_troubles(found, now)))


def _site(folder: Path) -> Seen:
    place, now = SiteFolder(folder), time.time()
    if not place.outbox_file.is_file():
        text = f"site {place.settings().site}: it has never run; start it with 'fedqueue site run {folder}'"
        return Seen("site", folder, text, {"site": place.settings().site, "running": False}, ())
    found = read_site(place)
    return Seen("site", folder, site_text(found, now), asdict(found), tuple(site_troubles(found)))


def _broker(folder: Path) -> Seen:
    node = Node.open(folder)
    if not node.running:
        down = Trouble(CAUSES["broker-down"], detail=f"the broker in {folder} does not run")
        return _of_broker(node, "does not run", down)
    try:
        alarms = Management(node.management_url, node.user, node.password).alarms()
    except FedqueueError as error:
        return _of_broker(node, "runs, and its console does not answer", detail=str(error))
    if alarms:
        return _of_broker(node, "runs", Trouble(CAUSES["broker-alarm"], detail=", ".join(alarms)))
    return _of_broker(node, f"runs; 'fedqueue broker queues {folder}' tells of its queues")


def _of_broker(node: Node, state: str, *wrong: Trouble, detail: str = "") -> Seen:
    now = time.time()
    head = f"broker in {node.folder}: {state}{f': {detail}' if detail else ''}"
    text = "\n".join([head, *(line for one in wrong for line in one.lines(now))])
    return Seen("broker", node.folder, text, {"running": node.running}, wrong)


KINDS: Final[dict[str, Callable[[Path], Seen]]] = {
    "node.json": _broker,
    "aggregator.toml": _aggregator,
    "site.toml": _site,
}
UNREADABLE: Final[dict[Callable[[Path], Seen], str]] = {
    _broker: "broker-down",
    _aggregator: "aggregator-down",
    _site: "site-failed",
}


@click.command()
@click.argument("folders", nargs=-1, metavar="[FOLDER]...", type=click.Path(path_type=Path, file_okay=False))
@click.option("--watch", is_flag=True, help=f"Show it again every {AGAIN_S:g} s until Ctrl-C.")
@AS_JSON
def status(folders: tuple[Path, ...], *, watch: bool, as_json: bool) -> int:
    """Show how brokers, aggregators and sites are, whether failed or slow, and what to do.

    A FOLDER is of an aggregator, a site or a private broker, or holds such; without one it is this folder. Exits with 1
    if somebody has to act.

    \b
    Examples:
      fedqueue status
      fedqueue status agg --watch
      fedqueue status /srv/fedqueue/ny --json
    """
    places = list(_places(folders or (Path(),)))
    while True:
        seen = [_seen(read, place) for read, place in places]
        if watch and not as_json:
            click.clear()
        click.echo(json.dumps([one.to_wire() for one in seen]) if as_json else "\n\n".join(one.text for one in seen))
        if not watch:
            return int(must_act(trouble for one in seen for trouble in one.troubles))
        time.sleep(AGAIN_S)


def _seen(read: Callable[[Path], Seen], place: Path) -> Seen:
    """One folder; what cannot be read hides no other, and does not pass for well."""
    try:
        return read(place)
    except FedqueueError as error:
        wrong = Trouble(CAUSES[UNREADABLE[read]], detail=str(error))
        text = "\n".join([f"{place}: cannot be read", *wrong.lines(time.time())])
        return Seen("unreadable", place, text, {"error": str(error)}, (wrong,))


def _places(folders: Iterable[Path]) -> Iterator[tuple[Callable[[Path], Seen], Path]]:
    """Every folder of ours among these and right below them; UsageError if there is none."""
    for folder in folders:
        if not folder.is_dir():
            raise UsageError(f"There is no folder {folder}.")
        own = _kinds(folder)
        below = [found for inner in sorted(folder.iterdir()) if inner.is_dir() for found in _kinds(inner)]
        if not own and not below:
            raise UsageError(f"{folder} is no folder of a broker, an aggregator or a site, and holds none.")
        yield from own or sorted(below, key=lambda found: list(KINDS.values()).index(found[0]))


def _kinds(folder: Path) -> list[tuple[Callable[[Path], Seen], Path]]:
    return [(read, folder) for name, read in KINDS.items() if (folder / name).is_file()]
