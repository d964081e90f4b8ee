"""What is wrong with a site, as its own worker sees it. Pure: a status in, troubles out."""

from collections.abc import Iterator

from broker.link import ALARMED
from broker.troubles import CAUSES, Trouble
from site_worker.status import FIRST, WAITING, Status


def troubles(status: Status) -> list[Trouble]:
    """All of them, what hides the others first."""
    return [Trouble(CAUSES[name], status.site, detail, since) for name, detail, since in _found(status)]


def _found(status: Status) -> Iterator[tuple[str, str, float | None]]:
    """Cause, detail and since when."""
    if status.state == "failed":
        yield "login-refused" if status.denied else "site-failed", status.detail, status.since
    elif not status.running:
        yield "site-away", "this worker does not run", status.since or None
    elif status.state == "resting":
        yield "site-resting", status.detail, status.since
    elif ALARMED in status.detail:
        yield "broker-alarm", status.detail, status.since
    elif status.detail.startswith(WAITING):
        yield "broker-down", status.detail.removeprefix(WAITING), status.since
    elif status.state == "waiting" and status.detail not in {"", FIRST}:
        yield "site-failed", status.detail, status.since
    if status.disk_full:
        yield "disk-full", status.disk_full, None
    if status.refusal:
        yield "update-refused", status.refusal, None
