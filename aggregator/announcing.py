"""Telling sites of the newest version: by one message for all, or, where their plans differ, each by its own.

Of the latter one is under way for a site, and only so many for all, so that receipts and the next version need not wait
for the announcements to a thousand sites.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Self

import msgspec

from aggregator.budgets import WirePlan
from aggregator.publications import Published
from broker.drive import Publish
from broker.link import Outgoing
from broker.messages import EVERYONE, MAX_DIFFERENCES, Announcement, Difference, Party
from broker.topology import ROUND_FOR_ALL, SiteNames, rounds_exchange

TOLD_AT_ONCE: Final = 20  # with the largest statistics that is 20 MiB
Effects = list[Any]


@dataclass(frozen=True)
class Offer:
    """How sites come by `version`: from the keyframe, or from any model that the differences lead on from."""

    version: int
    digest: bytes
    keyframe: Published
    differences: tuple[Published, ...] = ()

    @classmethod
    def of(cls, newest: Published, rows: Mapping[tuple[int, int], Published]) -> Self | None:
        """The offer of what is in the stream; None if there is no keyframe from which it could be reached."""
        leading: dict[int, Published] = {}
        keyframes: dict[int, Published] = {}
        for row in rows.values():
            if row.there:
                (keyframes if row.keyframe else leading)[row.version] = row
        chain: list[Published] = []
        keyframe, version = keyframes.get(newest.version), newest.version
        while version in leading and len(chain) < MAX_DIFFERENCES:
            chain.append(leading[version])
            version = leading[version].base
            keyframe = keyframe or keyframes.get(version)
        return None if keyframe is None else cls(newest.version, newest.digest, keyframe, tuple(reversed(chain)))

    def fields(self) -> dict[str, Any]:
        """As an announcement carries it."""
        key = self.keyframe
        own = key.version == self.version
        return {
            "version": self.version,
            "model_digest": self.digest,
            "model_codec": key.codec,
            "model_bytes": key.payload_bytes,
            "offset": key.offset,
            "parts": key.parts,
            "key_version": 0 if own else key.version,
            "key_digest": b"" if own else key.digest,
            "differences": [
                Difference(
                    one.base, one.base_digest, one.version, one.digest, one.codec, one.payload_bytes, one.offset or 0
                )
                for one in self.differences
            ],
        }


class Announcing:
    """See the module's docstring. `announce` makes an announcement of an offer's fields, with all else."""

    def __init__(
        self, party: Party, announce: Callable[..., Announcement], plans: Callable[[], Mapping[str, WirePlan]]
    ) -> None:
        self._party, self._announce, self._plans_now = party, announce, plans
        self._plans: Mapping[str, WirePlan] = {}  # as announced
        self._offer: Offer | None = None
        self._in_flight: set[str] = set()
        self._due: dict[str, None] = {}  # in the order in which they are told
        self._waiting: set[str] = set()
        self.announced: Announcement | None = None

    def offer(self, offer: Offer) -> Effects:
        """Tell all of a new version, or, if it is known and only comes another way now, those who have asked."""
        self._due |= dict.fromkeys(self._waiting)
        self._waiting.clear()
        known = self.announced is not None and self.announced.version == offer.version
        self._offer = offer
        if not known:
            return self.again()
        self.announced = self._announce(**offer.fields())
        return self._tell_due(self.announced)

    def again(self) -> Effects:
        """Tell all, as things are now."""
        if self._offer is None:
            return []
        self.announced = self._announce(**self._offer.fields())
        return self._tell_all(self.announced)

    def tell(self, site: str) -> Effects:
        """The newest announcement, for one site; later, if one is under way to it, or too many to all."""
        if self.announced is None or site in self._waiting:
            return []
        self._due.setdefault(site)
        return self._tell_due(self.announced)

    def tell_later(self, site: str) -> None:
        """What is announced is of no use to a site, which gets the next offer."""
        self._waiting.add(site)

    def left(self, token: Any) -> Effects:
        """A message has been settled; whoever waited for its place gets the newest announcement."""
        if token[0] != "announcement" or token[2] not in self._in_flight or self.announced is None:
            return []
        self._in_flight.discard(token[2])
        return self._tell_due(self.announced)

    def _tell_all(self, announcement: Announcement) -> Effects:
        """By one message if it is the same for all, which it is where no training is asked for."""
        self._plans = self._plans_now() if announcement.training else {}
        if not self._plans:
            return [self._publish(announcement, EVERYONE, ROUND_FOR_ALL)]
        self._due |= dict.fromkeys(self._plans)
        return self._tell_due(announcement)

    def _tell_due(self, announcement: Announcement) -> Effects:
        ready = [site for site in self._due if site not in self._in_flight]
        effects: Effects = []
        for site in ready[: TOLD_AT_ONCE - len(self._in_flight)]:
            del self._due[site]
            self._in_flight.add(site)
            own = msgspec.structs.replace(announcement, plan=self._plans.get(site, announcement.plan))
            effects.append(self._publish(own, site, SiteNames(self._party.federation, site).round_key))
        return effects

    def _publish(self, announcement: Announcement, to: str, routing_key: str) -> Publish:
        sealed = self._party.seal(announcement, to=to)
        token = ("announcement", announcement.version, to)
        return Publish(Outgoing(rounds_exchange(self._party.federation), routing_key, sealed, token))
