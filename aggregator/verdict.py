"""Is it failed or slow, and what does it wait for: two sentences that `status` begins with. Pure, as health.py."""

from collections.abc import Iterator
from typing import Final

from aggregator.health import of_service
from aggregator.sitestatus import SiteStatus
from aggregator.status import Status
from broker.progress import readable_s

LATE_TIMES, LATE_S = 3.0, 10.0  # the usual gap between versions; nobody calls less than that late
AT_WORK: Final = frozenset({"training", "behind"})


def waits_for(status: Status, now: float) -> str:
    """What has to happen next, and by whom: one phrase."""
    return next(_waits(status, now))


def _waits(status: Status, now: float) -> Iterator[str]:
    if not status.running:
        yield "somebody to start it"
    if status.link != "connected":
        yield status.link.removeprefix("waiting: ")
    if not status.started:
        yield f"hospitals to say hello: {status.greeted} of {status.min_sites} have"
    if status.paused:
        yield "somebody to resume it with 'fedqueue aggregator resume'"
    if _finished(status):
        yield f"nothing: training has ended at version {status.version}"
    if busy := [_busy(site, now) for site in status.sites if site.state in AT_WORK]:
        yield f"updates of {', '.join(busy)}"
    if gone := [f"{site.site} is {site.state}" for site in status.sites if site.state in {"away", "resting"}]:
        yield f"a hospital that trains: {', '.join(gone)}"
    yield "hospitals to fetch the newest model"


def _busy(site: SiteStatus, now: float) -> str:
    if site.newest_at is None or site.usual_s is None:
        return f"{site.site} (its first)"
    return f"{site.site} (the last came {readable_s(now - site.newest_at)} ago, a round takes {_takes(site.usual_s)})"


def _takes(seconds: float) -> str:
    """A duration that may be of less than a second."""
    return f"{seconds:.1g} s" if seconds < 0.95 else readable_s(seconds)


def verdict(status: Status, now: float) -> str:
    """Whether the federation goes on, and how long ago it made its newest version."""
    ago = f"version {status.version} was made {readable_s(now - status.made_at)} ago"
    usual = "" if status.usual_gap_s is None else f"; one takes {_takes(status.usual_gap_s)} usually"
    return f"{next(_state(status, now))}; {ago}{usual}"


def _state(status: Status, now: float) -> Iterator[str]:
    if stands := [one.cause.name for one in of_service(status)]:
        yield f"failed: it stands still ({', '.join(stands)})"
    if not status.started:
        yield "waiting: version 0 has not gone out yet"
    if status.paused:
        yield "paused"
    if _finished(status):
        yield "finished"
    if status.usual_gap_s is None or now - status.made_at <= max(LATE_S, LATE_TIMES * status.usual_gap_s):
        yield "going on"
    if any(site.state in AT_WORK for site in status.sites):
        yield "slow, not failed: hospitals are training"
    yield "waiting, not failed: no hospital trains"


def _finished(status: Status) -> bool:
    return 0 < status.last_version <= status.version
