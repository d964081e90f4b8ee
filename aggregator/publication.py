"""Bringing versions to the sites: parts into the stream, the offset of part 0 read back, then the announcement.

What is published of a version is encoded to files (aggregator/downlink.py), journaled, and written part by part, the
next when the last is confirmed: memory holds one part. Confirms carry no offsets, so the aggregator attaches its own
consumer at "next" before it writes and waits for its own part 0. Versions made meanwhile are skipped; the newest goes
out next. A restart goes on at the part that is missing. Before anything is announced after a connection was made, the
newest part 0 is read again: a broker that has lost its disk has lost the stream, and then a keyframe is written anew.

An announcement names the newest keyframe and the differences around it: a site that holds any of these models reads the
differences after it, any other the keyframe and what follows.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from aggregator.announcing import Announcing, Offer
from aggregator.budgets import WirePlan
from aggregator.downlink import Wanted
from aggregator.effects import AddPublished, Encode, Encoded, LosePublished, NotePublished
from aggregator.fold import Fold
from aggregator.publications import Published
from aggregator.settings import Settings
from broker.codecs import codec_named
from broker.drive import Ack, Cancel, Consume, Publish
from broker.errors import WireError
from broker.link import Confirmed, Consuming, Delivery, Outgoing
from broker.messages import EVERYONE, Announcement, ModelPart, Party, Peer
from broker.topology import models_stream

STALLED_S: Final = 60.0
PROBED_S: Final = 10.0
Effects = list[Any]


@dataclass
class _Job:
    """A publication on its way; `row` says how far it is."""

    attempt: int
    row: Published
    sent: int


class Publication:
    """See the module's docstring. `announce` fills in what an announcement needs besides the transfer.

    `plans` gives the plan of every enrolled site, or nothing where all have that of the announcement. `read` gives one
    part of what was encoded, `publish_digest` is told what sites hold of a version.
    """

    def __init__(
        self,
        party: Party,
        settings: Settings,
        fold: Fold,
        rows: list[Published],
        *,
        read: Callable[[Published, int], bytes | None],
        announce: Callable[..., Announcement],
        plans: Callable[[], Mapping[str, WirePlan]],
        note_digest: Callable[[int, bytes], None],
    ) -> None:
        self._party, self._settings, self._fold, self._read = party, settings, fold, read
        self._codec = settings.codec_of_models(fold.form)
        self._stream = models_stream(party.federation)
        self._own = Peer(party.federation, party.name, party.key.public)
        self._note_digest = note_digest
        self._rows = {row.name: row for row in rows}
        self._newest = max(rows, key=lambda row: row.version, default=None)
        self._due = [] if self._newest is None else [row for row in rows if self._unfinished(row, self._newest)]
        self._job: _Job | None = None
        self._encoding = self._asking = self._key_wanted = self._reading = False
        self._probing: tuple[Published, float] | None = None
        self._attempts = 0
        self._moved: tuple[tuple[int, int, int], float] | None = None
        self._now = 0.0
        self.announcing = Announcing(party, announce, plans)

    # ---- what is asked for

    def begin(self, *, key: bool = False) -> Effects:
        """Publish the current version, unless one is on its way: then the newest follows it. `key`: in full as well."""
        if key and self._probing is not None:
            return self.lost()
        under_way = [self._job.row] if self._job else []
        coming = any(row.keyframe for row in (*under_way, *self._due))
        self._key_wanted = self._key_wanted or (key and not coming)
        return [] if self._busy else self._next()

    def up(self) -> Effects:
        """Connected: go on where it stopped, or see whether the stream still has what was published."""
        self._probing, self._reading = None, False
        if self._job is not None:
            return self._listen() if self._job.row.offset is None else []
        if self._encoding:
            return []
        if self._due or self._newest is None or self._newest.version < self._fold.made:
            return self._next()
        self._probing = (self._newest, self._now + PROBED_S)
        assert self._newest.offset is not None
        return [Consume(self._stream, 1, self._newest.offset)]

    def down(self) -> None:
        """Not connected: what the stream has is looked at again then."""
        self._probing = None

    def lost(self) -> Effects:
        """The stream has lost what was in it: write the newest in full again."""
        self._rows = {name: replace(row, offset=None, confirmed=0) for name, row in self._rows.items()}
        self._job, self._probing, self._due = None, None, []
        self._newest = self._newest and self._rows[self._newest.name]
        return [Cancel(self._stream), LosePublished(), *self.begin(key=True)]

    def encoded(self, event: Encoded) -> Effects:
        """What was asked for lies in files."""
        self._encoding = False
        for row in event.rows:
            self._rows[row.name] = self._newest = row
            self._note_digest(row.version, row.digest)
        self._due = list(event.rows)
        added = list(map(AddPublished, event.rows))
        return [*added, *self._next()] if self._due or self._behind else []

    def announce_again(self) -> Effects:
        """What sites are asked to do has changed: tell all of them, unless a version on its way will."""
        return [] if self._busy else self.announcing.again()

    # ---- what the link says

    def consuming(self, event: Consuming) -> Effects:
        """The reader is in place: write the first part."""
        ready = event.queue == self._stream and self._job is not None and self._reading and not self._job.sent
        return self._next_part() if ready else []

    def confirmed(self, event: Confirmed) -> Effects:
        """A part is safe: write the next, or finish."""
        job = self._job
        if job is None or event.token != ("model", job.attempt, job.row.confirmed):
            return []
        self._advance(replace(job.row, confirmed=job.row.confirmed + 1))
        return [NotePublished(job.row), *(self._next_part() if job.sent < job.row.parts else self._finish())]

    def cancelled(self, queue: str) -> Effects:
        """The broker has ended a consumer: without the stream, nothing is in it; declared anew, all begins again."""
        return self.lost() if queue == self._stream and self._probing is not None else []

    def read_back(self, delivery: Delivery) -> Effects:
        """Something in the stream: our own part 0 tells its offset."""
        if self._probing is not None:
            return self._probed(delivery)
        job = self._job
        if job is None or job.row.offset is not None or not self._is_first_part(delivery, job.row):
            return [Ack(delivery)]
        self._reading = False
        self._advance(replace(job.row, offset=delivery.offset))
        return [Cancel(self._stream), NotePublished(job.row), *self._finish()]

    def deadline(self) -> float | None:
        """When a transfer without progress starts again; while a part is unconfirmed that is the link's to say."""
        if self._probing is not None:
            return self._probing[1]
        job = self._job
        waiting = job is None or self._moved is None or job.sent > job.row.confirmed
        return None if waiting or self._moved is None else self._moved[1] + STALLED_S

    def tick(self, now: float) -> Effects:
        """Start again when nothing has come for long although nothing of ours is unconfirmed: the reader missed it."""
        self._now = now
        if self._probing is not None and now >= self._probing[1]:
            return self.lost()
        job = self._job
        if job is None:
            self._moved = None
            return []
        progress = (job.attempt, job.sent, job.row.confirmed)
        if self._moved is None or self._moved[0] != progress or now < self._moved[1]:
            self._moved = (progress, now)
        if job.sent == job.row.confirmed and now >= self._moved[1] + STALLED_S:
            return self._listen()
        return []

    # ---- one after another

    @property
    def _busy(self) -> bool:
        return self._job is not None or self._encoding or self._probing is not None

    @property
    def _behind(self) -> bool:
        """Whether something is to be encoded."""
        return self._key_wanted or self._newest is None or self._newest.version < self._fold.made

    def _unfinished(self, row: Published, newest: Published) -> bool:
        """Whether to go on with a publication after a restart: not if models go out whole and there is a newer one."""
        whole = codec_named(self._codec).lossless
        return row.version == newest.version and not row.there and not (whole and self._fold.made > row.version)

    def _next(self) -> Effects:
        """The next publication that lies ready, else what is to be encoded."""
        if self._due:
            row = self._due.pop(0)
            self._attempts += 1
            self._job = _Job(self._attempts, row, row.confirmed)
            return self._listen() if row.offset is None else self._next_part()
        self._encoding = self._asking = self._behind
        return []

    def ask(self) -> Effects:
        """What is to be encoded, of the newest model: so once an event is dealt with, and not while the model moves."""
        if not self._asking or self._fold.moving:
            return []
        key, self._key_wanted, self._asking = self._key_wanted or self._key_due, False, False
        fold = self._fold
        return [Encode(Wanted(fold.made, fold.digest, fold.model, self._newest, self._codec, key, self._now))]

    @property
    def _key_due(self) -> bool:
        """Whether the newest keyframe is old enough, where there are differences."""
        if codec_named(self._codec).lossless:
            return False
        newest = max((row.version for row in self._rows.values() if row.keyframe and row.there), default=None)
        return newest is not None and self._fold.made - newest >= self._settings.keyframe_every

    def _listen(self) -> Effects:
        """From the first part, with a reader that tells its offset."""
        job = self._job
        assert job is not None
        self._attempts += 1
        self._job = _Job(self._attempts, replace(job.row, confirmed=0, offset=None), 0)
        self._reading = True
        return [Consume(self._stream, 1, "next")]

    def _next_part(self) -> Effects:
        job = self._job
        assert job is not None
        row, part = job.row, job.sent
        body = self._read(row, part)
        if body is None:  # somebody has removed the file
            self._job, self._due = None, []
            return self.begin(key=True)
        job.sent += 1
        message = ModelPart(row.version, row.digest, part, row.parts, row.base_digest)
        sealed = self._party.seal(message, to=EVERYONE, body=body)
        return [Publish(Outgoing("", self._stream, sealed, ("model", job.attempt, part)))]

    def _advance(self, row: Published) -> None:
        assert self._job is not None
        self._job.row = self._rows[row.name] = row
        if self._newest is not None and self._newest.name == row.name:
            self._newest = row

    def _finish(self) -> Effects:
        job = self._job
        if job is None or not job.row.there:
            return []
        self._job = None
        return [*self._announce(), *self._next()]

    def _announce(self) -> Effects:
        """Offer the newest version, if it can be come by."""
        offer = self._newest and Offer.of(self._newest, self._rows)
        if offer:
            return self.announcing.offer(offer)
        self._key_wanted = True
        return []

    def _probed(self, delivery: Delivery) -> Effects:
        assert self._probing is not None
        row, _ = self._probing
        if not self._is_first_part(delivery, row) or delivery.offset != row.offset:
            return self.lost()
        self._probing = None
        return [Cancel(self._stream), *self._announce(), *self._next()]

    def _is_first_part(self, delivery: Delivery, row: Published) -> bool:
        try:
            message, _ = self._own.open(delivery.body, recipients=frozenset({EVERYONE}))
        except WireError:
            return False
        return isinstance(message, ModelPart) and (message.part, message.model_digest, message.base) == (
            0, row.digest, row.base_digest
        )  # fmt: skip
