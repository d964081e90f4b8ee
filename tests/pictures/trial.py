"""The federation `trial` of docs/operations.md: NY trains, MN is there, KY is away and had an update refused."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from broker.accounts import Management
from broker.node import Node
from deploy.local import SitePlan
from tests.acceptance.federation import Federation

LIMIT = "\n[limits]\nmax_norm = 0.01\n"
LONG_S = 300.0
COUNTS = ("messages_ready", "messages_unacknowledged", "consumers")


@contextmanager
def trial(folder: Path) -> Iterator[tuple[Federation, Node]]:
    """Processes of its own, on a broker of its own; nothing is left of them."""
    federation = Federation(folder, name="trial")
    try:
        node = federation.start_broker()
        federation.prepare(
            *(SitePlan(name, {"site": n}, 0.05) for n, name in enumerate(("NY", "MN", "KY"))), versions=0
        )
        federation.start()
        federation.reaches(30)
        federation.kill("KY")
        _refuse_next(federation, "KY")
        federation.kill("KY")
        _slow_down(federation, "NY")
        federation.reaches(federation.status().version + 3)
        federation.eventually("KY counts as away", lambda: _state(federation, "KY") == "away")
        console = Management(node.management_url, node.user, node.password)
        federation.eventually("the console has heard of it", lambda: _told(console))
        yield federation, node
    finally:
        federation.close()


def _refuse_next(federation: Federation, site: str) -> None:
    """For one update of the site the aggregator takes none that is larger than next to nothing."""
    settings = federation.aggregator.settings_file
    usual = settings.read_text()
    federation.stop("aggregator")
    settings.write_text(usual + LIMIT)
    federation.start_aggregator()
    federation.start_site(site)
    federation.eventually("an update of it is refused", lambda: _refused(federation, site))
    federation.stop("aggregator")
    settings.write_text(usual)
    federation.start_aggregator()


def _slow_down(federation: Federation, site: str) -> None:
    """Its next round takes longer than all pictures."""
    federation.stop(site)
    file = federation.site(site).settings_file
    slow = re.sub(r"^step_delay_s = \S+", f"step_delay_s = {LONG_S}", file.read_text(), flags=re.MULTILINE)
    file.write_text(slow)
    federation.start_site(site)
    federation.trains(site)


def _told(console: Management) -> bool:
    """Whether the console, whose numbers are some seconds old, shows NY training, KY away and what was refused."""
    shown = {one["name"]: [one.get(count) for count in COUNTS] for one in console.queues("/")}
    ny, ky, refused = (shown[f"fq.trial.{name}"] for name in ("NY.rounds", "KY.rounds", "refused"))
    return ny == [1, 1, 1] and ky == [1, 0, 0] and bool(refused[0])


def _refused(federation: Federation, site: str) -> bool:
    return bool(federation.journal("SELECT 1 FROM refused WHERE site = ?", site))


def _state(federation: Federation, site: str) -> str:
    return next(one.state for one in federation.status().sites if one.site == site)
