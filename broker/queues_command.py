"""`fedqueue broker queues`: the console's numbers in words, what to do, and an exit code for whoever is on call."""

import json
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import click

from broker.accounts import Management
from broker.errors import FedqueueError, LinkError, UsageError
from broker.node import Node
from broker.options import AS_JSON, PASSWORD_VARIABLE, default_folder
from broker.queues import FederationQueues, federations, read_queues, troubles
from broker.troubles import CAUSES, Trouble, must_act

MOST_LINES: Final = 1000


@dataclass(frozen=True)
class View:
    """One federation: its queues, and what is wrong."""

    found: FederationQueues
    troubles: tuple[Trouble, ...]


@click.command()
@click.argument("folder", required=False, type=click.Path(path_type=Path))
@click.option(
    "--url", help=f"The console of another broker, http://ACCOUNT@HOST:15672; password in ${PASSWORD_VARIABLE}."
)
@click.option("--vhost", default="/", show_default=True, help="The virtual host of the federations.")
@click.option("--ignore", multiple=True, metavar="SITE", help="A hospital that is known to be away; may be repeated.")
@AS_JSON
def queues(folder: Path | None, *, url: str | None, vhost: str, ignore: tuple[str, ...], as_json: bool) -> int:
    """Say in words what each hospital's queues tell, and what to do. Exits with 1 if somebody has to act.

    FOLDER is of a private broker, $FEDQUEUE_HOME or ~/.fedqueue/broker unless given. The numbers are the console's, up
    to 5 seconds old.

    \b
    Examples:
      fedqueue broker queues ./broker
      fedqueue broker queues --ignore KY --json
      FEDQUEUE_BROKER_PASSWORD=... fedqueue broker queues --url http://watch@broker.example.org:15672 --vhost fed
    """
    where = url or str((folder or default_folder()).absolute())
    try:
        records, views, notes = _look(_management(folder, url), vhost, frozenset(ignore))
    except LinkError as error:
        down = Trouble(CAUSES["broker-down"], detail=str(error))
        return _show([down], [], [], [], where=where, as_json=as_json)
    return _show([], views, records, notes, where=where, as_json=as_json)


def _management(folder: Path | None, url: str | None) -> Management:
    if url is None:
        node = Node.open(folder or default_folder())
        if not node.running:
            raise LinkError(f"The broker in {node.folder} does not run.")
        return Management(node.management_url, node.user, node.password)
    parts, password = urlsplit(url), os.environ.get(PASSWORD_VARIABLE)
    if parts.password is not None:
        raise UsageError(f"A password on the command line is no secret: leave it out and set ${PASSWORD_VARIABLE}.")
    if parts.scheme not in {"http", "https"} or not parts.hostname or not parts.username or password is None:
        raise UsageError(f"Name the account in --url, as in http://ACCOUNT@HOST:15672, and set ${PASSWORD_VARIABLE}.")
    return Management(f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}", parts.username, password)


def _look(
    management: Management, vhost: str, ignored: frozenset[str]
) -> tuple[list[dict[str, Any]], list[View], list[str]]:
    """Ask once. What an account may not read is a note, the rest is shown all the same."""
    records, notes = management.queues(vhost), list[str]()
    alarms = _asked(management.alarms, [], "Alarms", notes)
    attempts = _asked(management.attempts, {}, "Refused logins", notes)
    views = []
    for name in federations(records):
        lines = _lines(management, vhost, name, records, notes)
        found = read_queues(name, records, lines)
        prefix = f"{name}."
        never_in = {
            account.removeprefix(prefix)
            for account, (failed, succeeded) in attempts.items()
            if account.startswith(prefix) and failed and not succeeded
        }
        wrong = troubles(found, time.time(), alarms=alarms, never_in=never_in)
        views.append(View(found, tuple(one for one in wrong if not one.site or one.site not in ignored)))
    return records, views, notes


def _asked(ask: Any, nothing: Any, what: str, notes: list[str]) -> Any:
    try:
        return ask()
    except FedqueueError as error:
        notes.append(f"{what} cannot be told: {error}")
        return nothing


def _lines(
    management: Management, vhost: str, name: str, records: Iterable[Mapping[str, Any]], notes: list[str]
) -> list[str]:
    queue = f"fq.{name}.refused"
    held = {str(one["name"]): one.get("messages_ready", 0) for one in records}
    if not held.get(queue):
        return []
    lines: list[str] = _asked(lambda: management.messages(vhost, queue, most=MOST_LINES), [], "Refusals", notes)
    return lines


def _show(
    general: Sequence[Trouble],
    views: Sequence[View],
    records: Sequence[Mapping[str, Any]],
    notes: Sequence[str],
    *,
    where: str,
    as_json: bool,
) -> int:
    everything = [*general, *(one for view in views for one in view.troubles)]
    if as_json:
        shown = {
            "broker": where,
            "federations": {view.found.federation: _json_of(view) for view in views},
            "troubles": [one.to_wire() for one in general],
            "notes": list(notes),
        }
        click.echo(json.dumps(shown, indent=2))
        return int(must_act(everything))
    now = time.time()
    for view in views:
        click.echo("\n".join(_text_of(view, records)))
    if not views and not general:
        click.echo(f"No federation has queues at the broker in {where}.")
    for one in everything:
        click.echo("\n".join(one.lines(now)))
    for note in notes:
        click.echo(f"note  {note}")
    if not everything and views:
        click.echo("Nobody has to do anything.")
    return int(must_act(everything))


def _json_of(view: View) -> dict[str, Any]:
    sites = {site.site: {"doing": site.doing, "waiting": site.waiting} for site in view.found.sites}
    return {"served": view.found.served, "sites": sites, "troubles": [one.to_wire() for one in view.troubles]}


def _text_of(view: View, records: Sequence[Mapping[str, Any]]) -> list[str]:
    found = view.found
    served = "the aggregator reads what sites send" if found.served else "no aggregator reads what sites send"
    many = f"{len(found.sites)} hospital{'' if len(found.sites) == 1 else 's'}"
    rows = [f"federation {found.federation}: {many}, {served}"]
    rows += [f"{site.site:<16}{site.doing:<38}waiting for the aggregator: {site.waiting}" for site in found.sites]
    return [*rows, *_limits(found.federation, records)]


def _limits(federation: str, records: Sequence[Mapping[str, Any]]) -> list[str]:
    """What bounds each kind of queue, and any policy that somebody has laid over them."""
    limits: dict[str, str] = {}
    policies = set()
    for record in records:
        if str(record["name"]).startswith(f"fq.{federation}."):
            role = str(record["name"]).rpartition(".")[2]
            named = {key: value for key, value in record.get("arguments", {}).items() if key.startswith("x-max-length")}
            limits[role] = ", ".join(f"{key.removeprefix('x-')} {value}" for key, value in sorted(named.items()))
            policies |= {str(record[key]) for key in ("policy", "operator_policy") if record.get(key)}
    shown = "; ".join(f"{role}: {text or 'none'}" for role, text in sorted(limits.items()))
    laid = f"policies over them: {', '.join(sorted(policies))}" if policies else "no policy over them"
    return [f"limits  {shown}; {laid}"]
