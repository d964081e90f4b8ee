"""Fetching one announced model from the stream: parts by number, kept as they come, nothing trusted but the signature.

A site that holds a model from which the announced differences lead on fetches those; any other the keyframe and what
follows. Where a transfer was cut, it goes on after the last part that is here. Stream offsets are not contiguous and an
evicted offset silently starts at the oldest message, so parts are taken by version, digest and number. A stream that
starts beyond the offset, or ends without the parts, means the model was evicted: the site then says hello and asks.
"""

from collections.abc import Iterable
from typing import Final

from broker.codecs import CODECS, Form, max_payload_bytes
from broker.differences import KEYFRAME_CODEC
from broker.errors import WireError
from broker.link import Delivery
from broker.messages import EVERYONE, Announcement, ModelPart, Peer, part_bounds, part_count
from broker.progress import Progress
from site_worker.models import Held, Leg, Models

STALLED_S: Final = 60.0


def legs_to(announcement: Announcement, held: Held | None, *, whole: bool = False) -> tuple[Leg, ...]:
    """The transfers that lead from what is held to the announced model; none if it is held. The fewest bytes.

    `whole`: from the keyframe, whatever is held.
    """
    if held is not None and held.digest == announcement.model_digest:
        return ()
    key = Leg(
        announcement.key_version if announcement.key_digest else announcement.version,
        announcement.key_digest or announcement.model_digest,
        announcement.model_codec,
        announcement.model_bytes,
        announcement.parts,
        announcement.offset,
    )
    ways = [(key, *way) for way in _differences(announcement, key.digest)]
    ways += [] if held is None or whole else _differences(announcement, held.digest)
    if not ways:
        raise WireError(f"The differences of version {announcement.version} do not lead to it.")
    return min(ways, key=lambda way: sum(leg.payload_bytes for leg in way))


def _differences(announcement: Announcement, digest: bytes) -> list[tuple[Leg, ...]]:
    """The way from the model with `digest`, in a list; an empty one if there is none."""
    way: list[Leg] = []
    for one in announcement.differences:
        if one.base_digest == digest:
            parts = part_count(one.payload_bytes)
            way.append(Leg(one.version, one.digest, one.codec, one.payload_bytes, parts, one.offset, one.base_digest))
            digest = one.digest
    return [tuple(way)] if digest == announcement.model_digest else []


class Download:
    """The way to the model of one announcement, from a keyframe if it shall be `whole`.

    Raises WireError if the announcement itself cannot be right.
    """

    def __init__(
        self, announcement: Announcement, aggregator: Peer, models: Models, *, whole: bool = False, now: float
    ) -> None:
        self.announcement, self._aggregator, self._models = announcement, aggregator, models
        self.legs = legs_to(announcement, models.held(), whole=whole)
        for leg in self.legs:
            _require_sound(leg, models.form)
        here = {leg.name: models.parts(leg) for leg in self.legs}
        self._here = {name: dict(parts) for name, parts in here.items()}
        total = sum(leg.payload_bytes for leg in self.legs)
        self.progress = Progress(total, now, sum(_bytes_here(leg, here[leg.name]) for leg in self.legs))
        self._position = 0
        self._first = True
        self.evicted = False
        self.stalled_at = now + STALLED_S

    @property
    def leg(self) -> Leg | None:
        """The transfer that is being fetched, None once all are here."""
        while self._position < len(self.legs):
            leg = self.legs[self._position]
            if len(self._here[leg.name]) < leg.parts:
                return leg
            self._position, self._first = self._position + 1, True
        return None

    def offset(self) -> int:
        """Where in the stream to read on: after the last part that is here of those from the first on.

        Parts of an earlier writing of the same model are as good, but tell nothing of where the others lie.
        """
        leg = self.leg
        assert leg is not None
        next_part = self._next(leg)
        return leg.offset if next_part == 0 else self._here[leg.name][next_part - 1] + 1

    def take(self, delivery: Delivery, *, now: float) -> tuple[Leg, int, int, bytes] | None:
        """A part to be kept: of which leg, its number, its offset, its bytes. Everything else is ignored."""
        leg, first = self.leg, self._first
        if leg is None:
            return None
        self._first = False
        offset, next_part = delivery.offset or 0, self._next(leg)
        if first and next_part == 0 and offset > leg.offset:
            self.evicted = True
        try:
            message, body = self._aggregator.open(delivery.body, recipients=frozenset({EVERYONE}))
        except WireError:
            return None
        if not isinstance(message, ModelPart) or not _is_of(message, leg):
            return None
        self.evicted = self.evicted or (first and message.part > next_part)
        self.stalled_at = now + STALLED_S
        if message.part in self._here[leg.name]:
            return None
        self._here[leg.name][message.part] = offset
        self.progress.add(len(body), now=now)
        return leg, message.part, offset, body

    def _next(self, leg: Leg) -> int:
        """The part to read on from: the first that is missing, if those before it are of the announced writing."""
        here = self._here[leg.name]
        if here.get(0) != leg.offset:
            return 0
        return next(part for part in range(leg.parts) if part not in here)


def _bytes_here(leg: Leg, parts: Iterable[int]) -> int:
    bounds = map(part_bounds, parts)
    return sum(min(size, leg.payload_bytes - first) for first, size in bounds)


def _is_of(message: ModelPart, leg: Leg) -> bool:
    return (message.model_digest, message.base) == (leg.digest, leg.base_digest) and message.part < leg.parts


def _require_sound(leg: Leg, form: Form) -> None:
    if not leg.base_digest and leg.codec != KEYFRAME_CODEC:
        raise WireError(f"Models in codec {leg.codec!r} cannot be read by this version.")
    if leg.codec not in CODECS:
        raise WireError(f"Differences in codec {leg.codec!r} cannot be read by this version; upgrade.")
    allowed = max_payload_bytes(leg.codec, form)
    if leg.payload_bytes > allowed or leg.parts != part_count(leg.payload_bytes):
        raise WireError("The announced model's size does not fit its parameters.")
