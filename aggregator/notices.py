"""Lines of JSON in the broker's refused queue, so that people at the console read what happens: refusals and their end.

For each site the newest line tells how things stand: a cause of broker/troubles.py, or "" once it is over. While many
lines are on their way the journal alone has to do: junk must not queue up before others' receipts.
"""

import json
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, Final

from aggregator.effects import Refuse
from aggregator.refusals import cause_of
from broker.drive import Publish
from broker.link import Outgoing
from broker.topology import refused_queue, site_of
from broker.troubles import CAUSES, Cause

AT_ONCE: Final = 100
LOGIN: Final = CAUSES["login-refused"]


class Notices:
    """`troubled` are the sites whose newest update was refused, as the journal knows."""

    def __init__(self, federation: str, troubled: Iterable[str]) -> None:
        self._queue = refused_queue(federation)
        self._account = f"{federation}."
        self._troubled = set(troubled)
        self._refused_logins: set[str] | None = None
        self._written = 0
        self._in_flight: set[int] = set()

    def refused(self, refusal: Refuse) -> list[Publish]:
        """Something of a site was not admitted."""
        self._troubled.add(refusal.site)
        return self._line(
            cause_of(refusal.reason), refusal.site, refusal.reason, refusal.at,
            sequence=refusal.sequence, bytes=refusal.size,
        )  # fmt: skip

    def accepted(self, site: str, at: float) -> list[Publish]:
        """An update of a site was accepted: after a refusal that is news."""
        if site not in self._troubled:
            return []
        self._troubled.discard(site)
        return self._line(None, site, "its updates are accepted again", at)

    def logins(self, refused: Mapping[str, float], at: float) -> list[Publish]:
        """These accounts are refused; lines for the sites that were not before, and for those that no longer are."""
        sites = {one.removeprefix(self._account) for one in refused if one.startswith(self._account)}
        before, self._refused_logins = self._refused_logins, sites
        new, over = sorted(sites - (before or set())), sorted((before or set()) - sites)
        return [
            *(line for site in new for line in self._line(LOGIN, site, "the broker refuses its login", at)),
            *(line for site in over for line in self._line(None, site, "its login is accepted again", at)),
        ]

    def missing(self, queue: str, at: float) -> list[Publish]:
        """A queue was deleted."""
        return self._line(CAUSES["queue-missing"], site_of(queue), f"{queue} was missing; it is declared again", at)

    def left(self, token: Any) -> None:
        """A line was confirmed or returned: there is room for another."""
        if token[0] == "notice":
            self._in_flight.discard(token[1])

    def _line(self, cause: Cause | None, site: str, reason: str, at: float, **more: object) -> list[Publish]:
        if len(self._in_flight) >= AT_ONCE:
            return []
        self._written += 1
        self._in_flight.add(self._written)
        when = datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
        line = {"at": when, "cause": cause.name if cause else "", "site": site, "reason": reason, **more}
        token = ("notice", self._written)
        return [Publish(Outgoing("", self._queue, json.dumps(line).encode(), token, "application/json"))]
