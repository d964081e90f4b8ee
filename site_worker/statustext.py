"""A site's status as text for a terminal."""

from broker.progress import readable_bytes, readable_s
from site_worker.health import troubles
from site_worker.status import Newest, Status


def status_text(found: Status, now: float) -> str:
    """What the worker is doing, what became of its updates, and what is wrong."""
    version = "" if found.version is None else f", version {found.version}"
    since = f", for {readable_s(max(0.0, now - found.since))}" if found.running and found.since else ""
    detail = f": {found.detail}" if found.detail else ""
    running = "running" if found.running else "not running"
    lines = [
        f"site {found.site} ({running}): {found.state}{version}{since}{detail}",
        f"updates: {found.accepted} accepted, {found.waiting} waiting, {found.refused} refused",
    ]
    if found.newest is not None:
        lines.append(_newest_text(found.newest))
    room = f"disk: {readable_bytes(found.used_bytes)} used, {readable_bytes(found.free_bytes)} free"
    lines.append(found.disk_full or room)
    return "\n".join([*lines, *(line for trouble in troubles(found) for line in trouble.lines(now))])


def _newest_text(newest: Newest) -> str:
    words = [f"newest update: {newest.choice}"]
    if newest.smaller is not None:
        words.append(f"{newest.smaller:.4g} times smaller than float32")
    if newest.error is not None:
        words.append(f"{100 * newest.error:.3g} % left out")
    if newest.backlog:
        words.append(f"{newest.backlog:.2g} rounds' worth for the next")
    return ", ".join(words)
