"""Bringing a version to the sites: its parts into the stream, the offset of part 0 read back, then the announcement.

Confirms carry no offsets, so the aggregator attaches its own consumer at "next" before it writes and waits for its own
part 0. Parts go out one by one, the next when the last is confirmed: memory holds one encoded model. Versions made
meanwhile are skipped; the newest goes out next. A lost connection starts the version again, which is harmless.

All sites are told by one message, or, where their plans differ, each by its own: one at a time for a site, and only so
many for all, so that receipts and the next version need not wait for the announcements to a thousand sites.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from aggregator.budgets import WirePlan
from aggregator.fold import Fold
from broker.codecs import encode
from broker.drive import Ack, Cancel, Consume, Publish
from broker.errors import WireError
from broker.link import Confirmed, Consuming, Delivery, Outgoing
from broker.messages import EVERYONE, PART_BYTES, Announcement, ModelPart, Party, Peer, part_count
from broker.topology import ROUND_FOR_ALL, SiteNames, models_stream, rounds_exchange

MODEL_CODEC: Final = "float32"
STALLED_S: Final = 60.0
TOLD_AT_ONCE: Final = 20  # with the largest statistics that is 20 MiB
Effects = list[Any]


@dataclass
class _Job:
    """One version on its way; `offset` is known once part 0 has been read back."""

    attempt: int
    version: int
    digest: bytes
    payload: bytes
    sent: int = 0
    confirmed: int = 0
    offset: int | None = None

    @property
    def parts(self) -> int:
        return part_count(len(self.payload))


class Publication:
    """See the module's docstring. `announce` fills in what an announcement needs besides the transfer.

    `plans` gives the plan of every enrolled site, or nothing where all have that of the announcement.
    """

    def __init__(
        self,
        party: Party,
        fold: Fold,
        announce: Callable[..., Announcement],
        plans: Callable[[], Mapping[str, WirePlan]],
    ) -> None:
        self._party, self._fold, self._announce, self._plans_now = party, fold, announce, plans
        self._plans: Mapping[str, WirePlan] = {}  # as announced
        self._stream = models_stream(party.federation)
        self._own = Peer(party.federation, party.name, party.key.public)
        self._job: _Job | None = None
        self._attempts = 0
        self._moved: tuple[tuple[int, int, int], float] | None = None
        self._in_flight: set[str] = set()
        self._due: dict[str, None] = {}  # in the order in which they are told
        self.announced: Announcement | None = None

    def begin(self) -> Effects:
        """Publish the current version, unless one is on its way (then the newest follows it)."""
        return self.restart() if self._job is None else []

    def restart(self) -> Effects:
        """Publish the current version from its first part."""
        payload = encode(MODEL_CODEC, self._fold.model)
        self._attempts += 1
        self._job = _Job(self._attempts, self._fold.version, self._fold.digest, payload)
        return [Consume(self._stream, 1, "next")]

    def consuming(self, event: Consuming) -> Effects:
        """The reader is in place: write the first part."""
        return self._next_part() if event.queue == self._stream and self._job and not self._job.sent else []

    def confirmed(self, event: Confirmed) -> Effects:
        """A part is safe: write the next, or finish."""
        job = self._job
        if job is None or event.token != ("model", job.attempt, job.confirmed):
            return []
        job.confirmed += 1
        return self._next_part() if job.sent < job.parts else self._finish()

    def read_back(self, delivery: Delivery) -> Effects:
        """Something in the stream: our own part 0 tells its offset."""
        job = self._job
        if job is None or job.offset is not None or not self._is_first_part(delivery, job):
            return [Ack(delivery)]
        job.offset = delivery.offset
        return [Cancel(self._stream), *self._finish()]

    def announce_again(self) -> Effects:
        """What sites are asked to do has changed: tell all of them, unless a version on its way will."""
        if self.announced is None or self._job is not None:
            return []
        told = self.announced
        self.announced = self._announce(
            version=told.version, digest=told.model_digest, offset=told.offset, parts=told.parts,
            model_bytes=told.model_bytes,
        )  # fmt: skip
        return self._tell_all(self.announced)

    def announcement_for(self, site: str) -> Effects:
        """The newest announcement, for one site; later, if one is under way to it, or too many to all."""
        if self.announced is None:
            return []
        self._due.setdefault(site)
        return self._tell_due(self.announced)

    def left(self, token: Any) -> Effects:
        """A message has been settled; whoever waited for its place gets the newest announcement."""
        if token[0] != "announcement" or token[2] not in self._in_flight or self.announced is None:
            return []
        self._in_flight.discard(token[2])
        return self._tell_due(self.announced)

    def deadline(self) -> float | None:
        """When a transfer without progress starts again; while a part is unconfirmed that is the link's to say."""
        job = self._job
        waiting = job is None or self._moved is None or job.sent > job.confirmed
        return None if waiting or self._moved is None else self._moved[1] + STALLED_S

    def tick(self, now: float) -> Effects:
        """Start again when nothing has come for long although nothing of ours is unconfirmed: the reader missed it."""
        job = self._job
        if job is None:
            self._moved = None
            return []
        progress = (job.attempt, job.sent, job.confirmed)
        if self._moved is None or self._moved[0] != progress or now < self._moved[1]:
            self._moved = (progress, now)
        if job.sent == job.confirmed and now >= self._moved[1] + STALLED_S:
            return self.restart()
        return []

    def _is_first_part(self, delivery: Delivery, job: _Job) -> bool:
        try:
            message, _ = self._own.open(delivery.body, recipients=frozenset({EVERYONE}))
        except WireError:
            return False
        return isinstance(message, ModelPart) and (message.part, message.model_digest) == (0, job.digest)

    def _next_part(self) -> Effects:
        job = self._job
        assert job is not None
        part, job.sent = job.sent, job.sent + 1
        body = job.payload[part * PART_BYTES : (part + 1) * PART_BYTES]
        sealed = self._party.seal(ModelPart(job.version, job.digest, part, job.parts), to=EVERYONE, body=body)
        return [Publish(Outgoing("", self._stream, sealed, ("model", job.attempt, part)))]

    def _finish(self) -> Effects:
        job = self._job
        if job is None or job.offset is None or job.confirmed < job.parts:
            return []
        self.announced = self._announce(
            version=job.version, digest=job.digest, offset=job.offset, parts=job.parts, model_bytes=len(job.payload)
        )
        self._job = None
        effects = self._tell_all(self.announced)
        return effects + (self.restart() if self._fold.version > job.version else [])

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
