"""The site worker without I/O: one event in, state changed, effects out, in the order in which they must happen.

A round: an announcement is held unacknowledged, its model fetched, trained from, the update stored in the outbox, and
only then the announcement acknowledged. A crash before that is a redelivery; a crash after it is an update in the
outbox. A site trains at most once from a version; after an absence it finds only the newest.

While the hospital does not let it train, the worker rests: it leaves its rounds queue, so that the console shows it as
away and nobody waits for it, but still delivers what it has made. A round that is halted, by rest or by a restart, is
kept and finished before a newer one is begun: what a slow machine has computed is not thrown away.
"""

from typing import Any, Final

from broker.drive import Ack, Cancel, Consume, Tick
from broker.errors import WireError
from broker.link import Cancelled, Confirmed, Delivery, Down, Returned, Stuck, Up
from broker.messages import EVERYONE, Announcement, Hello, Party, Peer
from broker.plan import PAUSED
from broker.topology import SiteNames, models_stream
from site_worker.availability import Availability, Rest
from site_worker.dispatch import Dispatch
from site_worker.download import Download
from site_worker.effects import (
    Halt,
    Halted,
    KeepModelPart,
    NoteActivity,
    NoteSeen,
    Paused,
    Settle,
    Store,
    Train,
    Trained,
    TrainingFailed,
)
from site_worker.models import Models
from site_worker.outbox import Made, Outbox
from site_worker.status import FIRST, WAITING

MODEL_PREFETCH: Final = 1  # what a cancelled reader had prefetched comes over the hospital's line all the same
RETRY_S: Final = 10.0
LONGEST_RETRY_S: Final = 600.0
DOUBLINGS: Final = 6
FINISHED: Final = "the federation has finished"
PAUSED_BY_COORDINATOR: Final = "the federation is paused"
Effects = list[Any]


class SiteLoop:
    """See the module's docstring. The outbox is read at construction only; writing to it is an effect."""

    def __init__(
        self,
        party: Party,
        aggregator: Peer,
        outbox: Outbox,
        greeting: Hello,
        models: Models,
        *,
        probe_s: float = 30.0,
        availability: Availability | None = None,
        unfinished: Announcement | None = None,
    ) -> None:
        self._party, self._aggregator, self._greeting, self._models = party, aggregator, greeting, models
        self._names = SiteNames(party.federation, party.name)
        self._stream = models_stream(party.federation)
        self._dispatch = Dispatch(party, aggregator, outbox, greeting, probe_s=probe_s)
        self._seen = outbox.seen()
        self._trained = outbox.last_base()
        self._held: tuple[Delivery, Announcement] | None = None
        self._download: Download | None = None
        self._whole = False  # begin with a keyframe: what leads on from the model that is held was not in the stream
        self._training: Announcement | None = None
        newer = unfinished is not None and unfinished.version > self._trained
        self._unfinished = unfinished if newer else None
        self._availability = availability or Availability()
        self._rest: Rest | None = None
        self._rest_may_change_at: float | None = None
        self._retry_at: float | None = None
        self._failures = 0
        self._newest, self._refusals = outbox.last_sequence(), 0
        self._ask_at: float | None = None
        self._connected = False
        self._activity: tuple[str, int | None, str] | None = None

    # ---- the loop's two faces

    def deadline(self) -> float | None:
        """The next time at which something may be due."""
        times = [self._dispatch.deadline()]
        times += [self._retry_at, self._ask_at] if self._connected else []
        times += [self._download.stalled_at if self._download else None, self._rest_may_change_at]
        return min((time for time in times if time is not None), default=None)

    def handle(self, event: Any, now: float) -> Effects:
        """One event; see broker/drive.py."""
        self._dispatch.now = now
        effects = self._on(event, now)
        return effects + self._note_activity(now)

    def _on(self, event: Any, now: float) -> Effects:
        match event:
            case Tick():
                return self._on_tick(now)
            case Delivery():
                return self._on_delivery(event, now)
            case Confirmed(token):
                return self._dispatch.confirmed(token, now)
            case Returned(token, reason):
                self._dispatch.returned(token, reason, now)
            case Trained() | TrainingFailed() | Halted():
                return self._on_training(event, now)
            case Paused(paused):
                self._availability.paused = paused
            case _:
                return self._on_link(event, now)
        return []

    def _on_link(self, event: Any, now: float) -> Effects:
        match event:
            case Up():
                self._connected, self._retry_at = True, None
                self._note = "" if self._trained >= 0 else FIRST
                return [*self._listen(), *self._dispatch.up(now), *self._dispatch.send()]
            case Down(reason):
                self._connected, self._held, self._download = False, None, None
                self._dispatch.down()
                self._note = f"{WAITING}{reason}"
            case Stuck(reason):
                self._dispatch.trouble = reason
            case Cancelled(queue) if queue == self._stream:
                return self._ask_again(now) if self._download is not None else []
            case Cancelled(_, reason):
                self._held, self._download = None, None
                self._fail(reason, now)
        return []

    def _on_tick(self, now: float) -> Effects:
        effects = self._heed_rest(now) + self._dispatch.tick(now)
        if self._download is not None and now >= self._download.stalled_at:
            return effects + self._ask_again(now)
        if self._ask_at is not None and now >= self._ask_at and self._connected:
            self._ask_at = None
            effects += self._dispatch.hello(now)  # its answer is the newest announcement
        if self._retry_at is not None and now >= self._retry_at and self._connected:
            # Consuming anew gives a held announcement back; the broker drops it if a newer one is ready.
            # The hello brings the newest announcement, and its answer shows the aggregator a queue that is missing.
            self._retry_at, self._held = None, None
            effects += [*self._listen(), *self._dispatch.hello(now)]
        return effects

    def _listen(self) -> Effects:
        rounds = [] if self._rest else [Consume(self._names.rounds, 1)]
        return [*rounds, Consume(self._names.receipts, 1)]

    # ---- resting

    def _heed_rest(self, now: float) -> Effects:
        """Begin to rest, or go on, when it is time."""
        before, self._rest = self._rest, self._availability.rest(now)
        self._rest_may_change_at = self._availability.changes_at(now)
        effects: Effects = []
        if self._rest and not before:
            effects = self._leave_rounds()
        elif before and not self._rest:
            effects = self._listen() if self._connected else []
        return effects + self._go_on()

    def _leave_rounds(self) -> Effects:
        """A held announcement goes back to its queue, where a newer one may take its place."""
        effects: Effects = [Halt()] if self._training else []
        effects += [Cancel(self._stream)] if self._download else []
        self._held, self._download = None, None
        return [*effects, Cancel(self._names.rounds)]

    def _go_on(self) -> Effects:
        """Finish a halted round, as soon as there may be training."""
        if self._unfinished is None or self._training is not None or self._rest or self._dispatch.outdated:
            return []
        self._training, self._unfinished, self._note = self._unfinished, None, ""
        return [Train(self._training, None)]

    # ---- announcements

    def _on_delivery(self, delivery: Delivery, now: float) -> Effects:
        if delivery.queue == self._names.receipts:
            settled = self._dispatch.receipt(delivery, now)
            self._learn_of_refusal(settled, now)
            return settled
        if delivery.queue == self._stream:
            return self._on_model_part(delivery, now)
        try:
            announcement = self._opened(delivery)
        except WireError as error:
            self._fail(f"An announcement was refused: {error}", now)
            return [Ack(delivery)]
        self._held, self._note = (delivery, announcement), ""
        effects: Effects = []
        if announcement.version > self._seen[0]:
            self._seen = (announcement.version, announcement.model_digest)
            effects.append(NoteSeen(*self._seen))
        return effects + self._begin(now)

    def _opened(self, delivery: Delivery) -> Announcement:
        """The announcement; WireError if this site must not train from it."""
        recipients = frozenset({self._party.name, EVERYONE})
        message, _ = self._aggregator.open(delivery.body, recipients=recipients)
        if not isinstance(message, Announcement):
            raise WireError("It is not an announcement.")
        if message.task != self._greeting.task:
            raise WireError(f"It asks for task {message.task!r}, this site runs {self._greeting.task!r}.")
        if message.layout_digest != self._greeting.layout_digest:
            raise WireError("The federation's model has another layout than this site's task; compare their versions.")
        if message.version < self._seen[0]:
            raise WireError(f"It rolls back to version {message.version}; version {self._seen[0]} was announced.")
        if message.version == self._seen[0] and message.model_digest != self._seen[1]:
            raise WireError(f"There are two models for version {message.version}; ask the coordinator.")
        return message

    def _begin(self, now: float) -> Effects:
        """Start on the held announcement, unless a round is under way or there is nothing to train."""
        busy = self._training or self._unfinished or self._download or self._rest
        if self._held is None or busy is not None or self._dispatch.outdated:
            return []
        delivery, announcement = self._held
        if not announcement.training or announcement.version <= self._trained:
            self._held, self._note = None, _why_none(announcement)
            return [Ack(delivery)]
        try:
            download = Download(announcement, self._aggregator, self._models, whole=self._whole, now=now)
        except WireError as error:
            self._held = None
            self._fail(str(error), now)
            return [Ack(delivery)]
        if download.leg is None:
            return self._train(download)
        self._download = download
        return [Consume(self._stream, MODEL_PREFETCH, download.offset())]

    def _train(self, download: Download) -> Effects:
        """All that leads to the model is here."""
        self._download, self._whole, self._training = None, False, download.announcement
        return [Train(download.announcement, download.legs)]

    def _on_model_part(self, delivery: Delivery, now: float) -> Effects:
        download = self._download
        if download is None:
            return [Cancel(self._stream)]
        before = download.leg
        part = download.take(delivery, now=now)
        if download.evicted:
            return self._ask_again(now)
        kept: Effects = [] if part is None else [KeepModelPart(*part)]
        if download.leg is None:
            return [*kept, Cancel(self._stream), *self._train(download)]
        if download.leg is not before:
            return [*kept, Consume(self._stream, MODEL_PREFETCH, download.offset())]
        return [*kept, Ack(delivery)]

    def _ask_again(self, now: float) -> Effects:
        """The model is no longer in the stream: ask for it, and wait for the new announcement."""
        effects: Effects = [Cancel(self._stream)]
        if self._held is not None:
            effects.append(Ack(self._held[0]))
        self._held, self._download, self._whole = None, None, True
        return effects + self._dispatch.hello(now, evicted=True)

    # ---- training

    def _on_training(self, event: Trained | TrainingFailed | Halted, now: float) -> Effects:
        match event:
            case Trained(made):
                return self._on_trained(made)
            case TrainingFailed(reason):
                self._training = None
                self._fail(reason, now)
                return []
            case Halted(kept):
                self._training, self._unfinished = None, kept
                return self._begin(now)

    def _on_trained(self, made: Made) -> Effects:
        announcement, self._training = self._training, None
        assert announcement is not None
        self._trained, self._failures, self._note = announcement.version, 0, ""
        numbered = made.numbered(self._dispatch.next_sequence())
        self._newest = numbered.sequence
        self._availability.note_update(made.made_at)
        effects: Effects = [Store(numbered)]
        effects += self._dispatch.added(numbered.sequence, numbered.payload_bytes)
        return effects + self._begin(made.made_at)

    def _learn_of_refusal(self, effects: Effects, now: float) -> None:
        """A refused update counts for nobody: its version may be trained from again, else all might wait for all."""
        settled = {one.sequence: one for effect in effects if isinstance(effect, Settle) for one in effect.settled}
        newest = settled.get(self._newest)
        if newest is None:
            return
        if newest.state == "accepted":
            self._refusals = 0
            return
        self._trained -= 1
        self._note = f"the aggregator refused update {newest.sequence}: {newest.reason}"
        self._ask_at = now + _backoff(self._refusals)
        self._refusals += 1

    def _fail(self, reason: str, now: float) -> None:
        """Say what is wrong, and try again later with whatever is then the newest announcement."""
        self._note = reason
        self._retry_at = now + _backoff(self._failures)
        self._failures += 1

    # ---- what `status` shows

    _note = FIRST

    def _note_activity(self, now: float) -> Effects:
        """One row when it changes, before anything slow begins."""
        current = self._state()
        if current == self._activity:
            return []
        self._activity = current
        return [NoteActivity(*current, now)]

    def _state(self) -> tuple[str, int | None, str]:
        detail = (self._rest.reason if self._rest else self._note) or self._dispatch.trouble or self._dispatch.under_way
        if self._training is not None:
            return "training", self._training.version, detail
        if self._download is not None:
            return "fetching", self._download.announcement.version, detail or str(self._download.progress)
        ready = self._connected and self._retry_at is None and not self._dispatch.outdated
        state = "resting" if self._rest else "idle" if ready else "waiting"
        return state, self._trained if self._trained >= 0 else None, detail


def _why_none(announcement: Announcement) -> str:
    """Why there is no training from it: "" if there was already."""
    if announcement.training:
        return ""
    return PAUSED_BY_COORDINATOR if dict(announcement.plan).get(PAUSED) else FINISHED


def _backoff(times: int) -> float:
    return min(RETRY_S * 2.0 ** min(times, DOUBLINGS), LONGEST_RETRY_S)
