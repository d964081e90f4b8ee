"""A federation's status as text for a terminal: failed or slow, what it waits for, each hospital, what is wrong."""

from datetime import UTC, datetime
from typing import Final

from aggregator.health import troubles
from aggregator.sitestatus import SiteStatus
from aggregator.status import Disk, Status
from aggregator.verdict import verdict, waits_for
from broker.progress import readable_bytes

_HOW: Final = f"{'codec':<9}{'smaller':>8}{'left out':>10}  "


def status_text(found: Status, now: float) -> str:
    """All of it."""
    wrong = [line for trouble in troubles(found, now) for line in trouble.lines(now)]
    return "\n".join([*_head(found, now), *_table(found), *wrong])


def _head(found: Status, now: float) -> list[str]:
    counts = f"{found.accepted} updates accepted, {found.refused} refused, {found.buffered} in the open buffer"
    head = [
        f"federation {found.federation}: version {found.version}, {counts}",
        verdict(found, now),
        f"waits for: {waits_for(found, now)}",
        f"strategy: {found.strategy}",
        f"service: {'running, ' + found.link if found.running else 'not running'}",
    ]
    if found.paused:
        head.append("paused: sites are asked for no training until 'fedqueue aggregator resume'")
    if found.switch_pending:
        head.append("aggregator.toml has another [aggregation] than is in force: see 'fedqueue aggregator switch'")
    if found.last_version:
        head.append(f"training ends at version {found.last_version}")
    head.append(_disk_text(found.disk))
    if found.console is not None and found.console.error:
        head.append(f"console: not asked, all else goes on: {found.console.error}")
    head += [
        f"{'receiving' if one.site else 'sending'} {one.what}{f' of {one.site}' if one.site else ''}: {one.progress}"
        for one in found.transfers
    ]
    if not found.started:
        head.append("not started: version 0 goes out when enough sites have said hello ([start] in aggregator.toml)")
    return head


def _table(found: Status) -> list[str]:
    names = f"{'site':<16}{'state':<10}{'from':>6}{'stale':>7}{'accepted':>10}{'refused':>9}"
    head = f"{names}  {_HOW}{'last hello':<22}{'bytes':<10}{'waiting':<10}measures"
    waiting = found.console.waiting if found.console is not None and not found.console.error else {}
    return [head, *(_row(site, waiting.get(site.site)) for site in found.sites)]


def _row(site: SiteStatus, waiting: int | None) -> str:
    """`waiting` is how many bytes of it the aggregator has not settled, if the broker's console has told."""
    base = "-" if site.base is None else str(site.base)
    stale = "-" if site.staleness is None else str(site.staleness)
    seen = "never" if site.last_seen is None else when(site.last_seen)
    counts = f"{base:>6}{stale:>7}{site.accepted:>10}{site.refused:>9}"
    measures = " ".join(f"{name}={value:.4g}" for name, value in (site.metrics or {}).items())
    sizes = f"{readable_bytes(site.bytes):<10}{'-' if waiting is None else readable_bytes(waiting):<10}"
    return f"{site.site:<16}{site.state:<10}{counts}  {_how(site)}{seen:<22}{sizes}{measures}".rstrip()


def _disk_text(disk: Disk) -> str:
    if disk.full:
        return disk.full
    most = f" of at most {readable_bytes(disk.most_payload_bytes)}" if disk.most_payload_bytes else ""
    since = f", from version {disk.anchor} on" if disk.anchor else ""
    updates = f"{readable_bytes(disk.payload_bytes)} of updates{most}{since}"
    return f"disk: {readable_bytes(disk.used_bytes)} used ({updates}), {readable_bytes(disk.free_bytes)} free"


def _how(site: SiteStatus) -> str:
    """How the newest update was compressed: by what, how many times smaller than float32, what share is left out."""
    smaller = "-" if site.smaller is None else f"{site.smaller:.4g} x"
    error = "-" if site.error is None else f"{100 * site.error:.3g} %"
    return f"{site.codec or '-':<9}{smaller:>8}{error:>10}  "


def when(at: float) -> str:
    """A time for people, in UTC."""
    return datetime.fromtimestamp(at, tz=UTC).strftime("%Y-%m-%d %H:%M:%SZ")
