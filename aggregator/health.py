"""What is wrong with a federation, as its aggregator sees it. Pure: a status in, troubles out.

Where something hides the rest it is named alone: a service that does not run, or has lost the broker, knows nothing of
who is there.
"""

from collections.abc import Iterator
from statistics import median
from typing import Final

from aggregator.refusals import cause_of
from aggregator.sitestatus import SiteStatus
from aggregator.status import Status
from broker.link import ALARMED
from broker.progress import readable_bytes, readable_s
from broker.topology import UPDATES_BYTES, site_of
from broker.troubles import BACKLOG, CAUSES, RECENT_S, Trouble

SLOW_TIMES: Final = 5.0  # the median of the other sites' rounds
STUCK_TIMES, STUCK_S, FIRST_S = 10.0, 900.0, 4 * 3600.0  # its own usual round; never sooner; with no round known
Troubles = Iterator[Trouble]


def troubles(status: Status, now: float) -> list[Trouble]:
    """All of them, the federation's before those of sites."""
    return [*of_service(status), *_of_queues(status, now), *_of_sites(status, now)]


def of_service(status: Status) -> Troubles:
    """Those by which all stands still."""
    kinds = status.troubles
    if not status.running:
        ended = kinds.get("ended")
        yield Trouble(CAUSES["login-refused"], detail=ended) if ended else Trouble(CAUSES["aggregator-down"])
    if "down" in kinds:
        yield Trouble(CAUSES["broker-down"], detail=kinds["down"])
    stuck, alarms = kinds.get("stuck", ""), status.console.alarms if status.console else ()
    if alarms or ALARMED in stuck:
        yield Trouble(CAUSES["broker-alarm"], detail=", ".join(alarms) or stuck)
    full = status.disk.full or kinds.get("disk")
    if full:
        yield Trouble(CAUSES["disk-full"], detail=full)


def _of_queues(status: Status, now: float) -> Troubles:
    for queue, at in status.missing.items():
        if now - at < RECENT_S:
            yield Trouble(CAUSES["queue-missing"], site_of(queue), f"{queue} was missing", since=at)
    if "repair" in status.troubles:
        yield Trouble(CAUSES["queue-missing"], detail=status.troubles["repair"])
    waiting = status.console.waiting if status.console else {}
    for site, size in waiting.items():
        if size > BACKLOG * UPDATES_BYTES:
            yield Trouble(CAUSES["backlog"], site, f"{readable_bytes(size)} wait")


def _of_sites(status: Status, now: float) -> Troubles:
    known = status.running and "down" not in status.troubles
    for site in status.sites:
        if site.state == "removed":
            continue
        if site.refusal is not None:
            yield Trouble(cause_of(site.refusal), site.site, site.refusal, since=site.refused_at)
        if known:
            yield from _of_presence(status, site, now)


def _of_presence(status: Status, site: SiteStatus, now: float) -> Troubles:
    if site.state == "resting":
        yield Trouble(CAUSES["site-resting"], site.site, since=site.since)
    elif site.state == "away":
        refused = status.console.refused if status.console else {}
        if site.account is not None and site.account in refused:
            yield Trouble(CAUSES["login-refused"], site.site, f"account {site.account}", refused[site.account])
        else:
            yield Trouble(CAUSES["site-away"], site.site, since=site.since)
    elif site.state in {"training", "behind"}:
        silent_s = now - max(site.newest_at or 0.0, site.since or 0.0, status.made_at if not site.usual_s else 0.0)
        patience_s = max(STUCK_S, STUCK_TIMES * site.usual_s) if site.usual_s else FIRST_S
        times = _times_slower(status, site)
        if silent_s > patience_s:
            usually = f", its rounds take {readable_s(site.usual_s)}" if site.usual_s else ""
            yield Trouble(CAUSES["site-stuck"], site.site, f"nothing came for {readable_s(silent_s)}{usually}")
        elif times >= SLOW_TIMES and site.usual_s:
            detail = f"a round takes {readable_s(site.usual_s)}, {times:.0f} times the others'"
            yield Trouble(CAUSES["site-slow"], site.site, detail)


def _times_slower(status: Status, site: SiteStatus) -> float:
    others = [one.usual_s for one in status.sites if one.site != site.site and one.usual_s]
    return site.usual_s / median(others) if others and site.usual_s else 1.0
