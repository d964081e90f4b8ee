"""What each site of a run on this machine is doing, from the journal and its outbox, while everything runs."""

from collections.abc import Sequence

from aggregator.settings import Folder as AggregatorFolder
from aggregator.sitestatus import SiteStatus as SeenStatus
from aggregator.status import read_status
from broker.errors import UsageError
from deploy.history import SiteRow, SiteState
from site_worker.settings import Folder as SiteFolder
from site_worker.status import Status as SiteStatus
from site_worker.status import read_status as read_site


def read_rows(aggregator: AggregatorFolder, sites: Sequence[SiteFolder]) -> tuple[int, list[SiteRow]]:
    """The newest version and one line a site, from the aggregator's view and each site's own."""
    status = read_status(aggregator)
    known = {site.site: site for site in status.sites}
    rows: list[SiteRow] = []
    for folder in sites:
        own = _own_status(folder)
        name = folder.settings().site
        seen = known.get(name, _without_trace(name))
        rows.append(
            SiteRow(
                site=name,
                state=_state(seen.state, own),
                trains_from=own.version if own is not None and own.state == "training" else seen.base,
                staleness=seen.staleness,
                accepted=seen.accepted,
                waiting=own.waiting if own is not None else 0,
                refused=seen.refused,
                note=own.detail if own is not None else "",
                codec=seen.codec,
                smaller=seen.smaller,
                error=seen.error,
            )
        )
    return status.version, rows


def _without_trace(site: str) -> SeenStatus:
    """A site that was removed before anything of it was accepted or refused."""
    return SeenStatus(site, "removed", None, None, 0, 0, None)


def _state(seen: SiteState, own: SiteStatus | None) -> SiteState:
    """The aggregator's word, but the site itself knows sooner that it is gone, and why."""
    if seen == "removed" or (own is not None and own.running):
        return seen
    return "failed" if own is not None and own.state == "failed" else "away"


def _own_status(folder: SiteFolder) -> SiteStatus | None:
    try:
        return read_site(folder)
    except UsageError:
        return None
