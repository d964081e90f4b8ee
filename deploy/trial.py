"""A trial federation in containers that sets itself up: `python -m deploy.trial`, for deploy/docker/compose.yaml alone.

Each party makes its own folder, as in life, and finds the other's letters (requests, join files) in a folder that they
share; nobody compares fingerprints, which is why this is for a trial. The aggregator also makes the accounts, with the
administrator's password that the broker's container has drawn. A folder that is set up already is left as it is, so the
same containers run a federation that people have set up. Killed anywhere, it can be started again.

In the end the process becomes `fedqueue aggregator run` or `fedqueue site run`.
"""

import os
import secrets
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final
from urllib.parse import quote

import click
import msgspec

from aggregator.enrolment import Founding, create
from aggregator.settings import Folder as AggregatorFolder
from broker.accounts import Management, with_login
from broker.commands import run_cli
from broker.errors import LinkError
from broker.files import write_file
from broker.letters import INITIAL_MODEL, Joined, Request
from broker.rights import AGGREGATOR, accounts
from broker.settings import write_secret
from broker.topology import WATCHER_RIGHTS, account_of, watcher_of

ADMIN: Final = "admin"
TASK: Final = "site_worker.tasks.synthetic:tiny"
PAUSE_S: Final = 1.0


class Accounts:
    """Makes the accounts of `federation` on a broker; what it returns are their addresses, with new passwords."""

    def __init__(self, management: Management, *, host: str, federation: str, sites: Sequence[str]) -> None:
        self.federation = federation
        self._management, self._host = management, host
        self._rights = accounts(federation, sites)

    def make(self, name: str) -> str:
        """Make the account of a site or of the aggregator, or give it a new password."""
        account, password = account_of(self.federation, name), secrets.token_urlsafe(18)
        self._management.put_user(account, password)
        self._management.set_rights("/", account, self._rights[account])
        return f"amqp://{quote(account, safe='')}:{password}@{self._host}/%2F"

    def make_watcher(self) -> str:
        """Make the account with which the aggregator looks at the console."""
        account, password = watcher_of(self.federation), secrets.token_urlsafe(18)
        self._management.put_user(account, password, tags=WATCHER_RIGHTS.tags)
        self._management.set_rights("/", account, WATCHER_RIGHTS)
        return with_login(self._management.url, account, password)


def found(folder: AggregatorFolder, letters: Path, sites: Sequence[str], made: Accounts) -> None:
    """Found the federation once every site's request is there; then lay a join file beside each request without one."""
    if not folder.settings_file.exists():
        requests = [_awaited(letters / site / f"{site}.request.toml") for site in sites]
        folder.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_secret(folder.url_file, made.make(AGGREGATOR))
        write_secret(folder.console_file, made.make_watcher())
        model = letters / sites[0] / INITIAL_MODEL
        create(folder, Founding(made.federation, model, [Request.read(path) for path in requests]), node=None)
    for site in unanswered(letters, sites):
        joined = Joined.read(folder.join_file(site))
        answer = msgspec.structs.replace(joined, broker_url=made.make(site)).to_toml()
        write_secret(letters / site / f"{site}.join.toml", answer)


def unanswered(letters: Path, sites: Sequence[str]) -> list[str]:
    """Sites whose request lies there without a join file."""
    folders = {site: letters / site for site in sites}
    asked = (site for site, own in folders.items() if (own / f"{site}.request.toml").exists())
    return [site for site in asked if not (folders[site] / f"{site}.join.toml").exists()]


def ask(folder: Path, letters: Path, site: str, *, number: int) -> None:
    """Make the folder of a site with rows of its own, and lay its request before the aggregator."""
    from site_worker.joining import create as create_site  # noqa: PLC0415 - the aggregator's image has no torch
    from site_worker.request import write_request  # noqa: PLC0415
    from site_worker.settings import Folder  # noqa: PLC0415

    place, own = Folder(folder), letters / site
    if not place.settings_file.exists():
        create_site(place, site=site, task=TASK, options={"site": number, "rows": 4000}, step_delay_s=0.02)
    write_request(place)
    own.mkdir(mode=0o700, parents=True, exist_ok=True)
    for sent in (place.model_file, place.request_file(site)):  # the request last: who sees it finds the model
        write_file(own / sent.name, sent.read_bytes())


def _awaited(path: Path) -> Path:
    while not path.exists():
        time.sleep(PAUSE_S)
    return path


def _become(*command: str) -> None:
    os.execv(sys.executable, [sys.executable, "-m", "deploy.cli", *command])  # noqa: S606 - our own program


FOLDER = click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
LETTERS = click.option("--letters", required=True, type=click.Path(path_type=Path, file_okay=False))


@click.group()
def cli() -> None:
    """A trial federation in containers; deploy/docker/compose.yaml calls this."""


@cli.command()
@FOLDER
@LETTERS
@click.option("--site", required=True, help="Name of the site.")
@click.option("--number", default=0, help="Which rows are drawn for it.")
def site(folder: Path, *, letters: Path, site: str, number: int) -> None:
    """Set FOLDER up as a site that trains on drawn rows, then run it.

    \b
    Example:
      python -m deploy.trial site /data --letters /letters --site A
    """
    from site_worker.joining import join  # noqa: PLC0415
    from site_worker.settings import Folder  # noqa: PLC0415

    place = Folder(folder)
    set_up_by_people = place.settings_file.exists() and not (letters / site).exists()
    if not place.join_file.exists() and not set_up_by_people:
        ask(folder, letters, site, number=number)
        join(place, _awaited(letters / site / f"{site}.join.toml"))
    _become("site", "run", "-v", str(folder))


@cli.command()
@FOLDER
@LETTERS
@click.option("--broker", "host", default="broker", help="Name of the broker's machine.")
@click.option("--password-file", required=True, type=click.Path(path_type=Path), help="The administrator's password.")
@click.argument("sites", nargs=-1, required=True)
def aggregator(folder: Path, *, letters: Path, host: str, password_file: Path, sites: tuple[str, ...]) -> None:
    """Set FOLDER up as the aggregator of SITES, then run it.

    \b
    Example:
      python -m deploy.trial aggregator /data --letters /letters --password-file /admin/password A B
    """
    place = AggregatorFolder(folder)
    if not place.settings_file.exists() or unanswered(letters, sites):
        management = Management(f"http://{host}:15672", ADMIN, _awaited(password_file).read_text().strip())
        made = Accounts(management, host=host, federation="trial", sites=sites)
        _until_there(management)
        found(place, letters, sites, made)
    _become("aggregator", "run", "-v", str(folder))


def _until_there(management: Management) -> None:
    while True:
        try:
            management.overview()
        except LinkError:
            time.sleep(PAUSE_S)
        else:
            return


if __name__ == "__main__":
    sys.exit(run_cli(cli, prog_name="python -m deploy.trial"))
