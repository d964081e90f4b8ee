"""The aggregator without I/O: one event in, state changed, effects out, in the order in which they must happen.

For an update that order is: journal, then ack, then receipt. For a version: journal, then its vectors, its digest into
the journal, then stream, then announcement. A kill between any two of these loses nothing: what was not acked comes
again and is found in the journal; what was not made or announced is at the next start.

Work on vectors is done beside the loop (aggregator/workshop.py), in the order in which it was asked for; meanwhile
updates are taken, and count from the version that is being made.

The loop reads the journal (kept parts, settled sequences) but never writes it: writing is an effect.
"""

import json
from collections.abc import Callable
from itertools import chain
from typing import Any

from aggregator.admission import MAX_LEAP, Check, check_fields
from aggregator.attendance import Attendance
from aggregator.budgets import REMEMBERED, Budgets, WirePlan
from aggregator.console import Console
from aggregator.control import read_control
from aggregator.effects import (
    Decided,
    Encoded,
    Failed,
    KeepPart,
    Moved,
    OutOfRoom,
    Refuse,
    Registry,
    Ruled,
    Saved,
    SetFact,
)
from aggregator.fold import Fold
from aggregator.journal import Journal
from aggregator.notices import Notices
from aggregator.publication import Publication
from aggregator.publications import Published
from aggregator.reception import Receptions
from aggregator.refusals import BY_OTHER_ACCOUNT
from aggregator.rounds import Rounds
from aggregator.settings import Settings
from aggregator.settlement import Receipts
from broker.drive import Ack, Tick
from broker.errors import RefusedUpdate, WireError
from broker.link import (
    Cancelled,
    Confirmed,
    Consuming,
    Declared,
    Delivery,
    Down,
    Inspected,
    Returned,
    Stuck,
    Up,
)
from broker.messages import AGGREGATOR, Announcement, Hello, Opened, Party, Peer, UpdatePart
from broker.plan import PAUSED
from broker.topology import SiteNames, models_stream, site_of, stream_bytes

Effects = list[Any]


class AggregatorLoop:
    """See the module's docstring. `fold` stands at the journal's newest version with its open buffer merged.

    `read` gives one part of a publication that was encoded.
    """

    def __init__(
        self,
        settings: Settings,
        party: Party,
        fold: Fold,
        journal: Journal,
        *,
        rule: str,
        read: Callable[[Published, int], bytes | None],
    ) -> None:
        self._settings, self._party, self._journal = settings, party, journal
        self._control = read_control(journal)
        self._attendance = Attendance(
            party.federation,
            journal.sites(),
            every_s=settings.presence_s,
            max_models_bytes=stream_bytes(len(fold.model)),
        )
        self._rounds = Rounds(settings, fold, journal, rule=rule)
        self._receipts = Receipts(party, journal, {row["site"]: row["answers"] for row in journal.site_rows()})
        self._receptions = Receptions(journal.transfers)
        self._budgets = self._remembered_budgets()
        self._publication = Publication(
            party, settings, fold, journal.publications.rows(),
            read=read, announce=self._announcement, plans=self._plans, note_digest=self._rounds.note_published,
        )  # fmt: skip
        self._trouble: dict[str, str | None] = {}
        self._notices = Notices(party.federation, journal.troubled())
        self._now = 0.0

    def deadline(self) -> float | None:
        """The next time at which something may be due."""
        times = (self._attendance.deadline(), self._rounds.deadline(), self._publication.deadline())
        return min((time for time in times if time is not None), default=None)

    def handle(self, event: Any, now: float) -> Effects:
        """One event; see broker/drive.py."""
        self._now = now
        return [*self._on(event, now), *self._publication.ask()]

    def _on(self, event: Any, now: float) -> Effects:
        match event:
            case Tick():
                return self._on_tick(now)
            case Delivery():
                return self._on_delivery(event, now)
            case Confirmed() | Consuming() | Encoded():
                return self._on_publishing(event)
            case Moved() | Saved() | Failed() | OutOfRoom():
                return self._on_work(event, now)
            case Registry() | Decided() | Ruled() | Console():
                return self._on_beside(event, now)
            case _:
                return self._on_link(event, now)

    def _on_publishing(self, event: Confirmed | Consuming | Encoded) -> Effects:
        match event:
            case Confirmed(token):
                return [*self._left(token), *self._publication.confirmed(event)]
            case Consuming():
                return self._publication.consuming(event)
            case Encoded():
                return self._publication.encoded(event)

    def _on_work(self, event: Moved | Saved | Failed | OutOfRoom, now: float) -> Effects:
        match event:
            case Moved():  # its model is encoded, if it shall be, before it is moved on
                made = self._rounds.moved(event) + self._publication.begin()
                return [*made, *self._publication.ask(), *self._close(now)]
            case Saved():
                return self._rounds.saved(event, now)
            case OutOfRoom(reason):
                return [self._link_fact(now, disk=reason)]
            case Failed(error):
                raise error

    def _on_beside(self, event: Registry | Decided | Ruled | Console, now: float) -> Effects:
        """What people have decided, and what the console says."""
        match event:
            case Console():
                return self._on_console(event, now)
            case Registry(sites):
                return self._attendance.enrolled(sites)
            case Decided(control):
                self._control = control
                return self._publication.announce_again()
            case Ruled(aggregation, rule):
                self._rounds.use(aggregation, rule=rule)
                return []

    def _on_console(self, found: Console, now: float) -> Effects:
        """For `status`; a console that does not answer says nothing of logins."""
        noted = SetFact("console", found.to_bytes())
        return [noted] if found.error else [noted, *self._notices.logins(found.refused, now)]

    def _on_link(self, event: Any, now: float) -> Effects:
        match event:
            case Up():
                published = self._publication.up() if self._rounds.started else []
                return [*self._attendance.up(now), *published, self._link_fact(now, down=None)]
            case Down(reason):
                self._attendance.down()
                self._publication.down()
                return [self._link_fact(now, down=reason)]
            case Stuck(reason):
                return [self._link_fact(now, stuck=reason)]
            case _:
                return self._on_topology(event, now)

    def _on_topology(self, event: Any, now: float) -> Effects:
        match event:
            case Returned(token):
                return [*self._returned(token, now), *self._left(token)]
            case Cancelled(queue, _, gone):
                self._attendance.repair(now)
                return [*(self._missing(queue, now) if gone else []), *self._publication.cancelled(queue)]
            case Declared(error):
                consumers = self._attendance.declared(error, now)
                again = self._publication.lost() if consumers and self._rounds.started else []
                return [*consumers, *again, self._link_fact(now, repair=error)]
            case Inspected(queues):
                missing = [self._missing(queue, now) for queue, state in queues.items() if state is None]
                return [*chain(*missing), *self._attendance.seen(queues, now)]
        return []

    def _returned(self, token: Any, now: float) -> Effects:
        """No queue takes a message: the one that it was for is gone, if it was for one."""
        if token[0] == "receipt":
            return self._missing(SiteNames(self._party.federation, token[1]).receipts, now)
        self._attendance.repair(now)
        return []

    def _missing(self, queue: str, now: float) -> Effects:
        noted = self._attendance.missing(queue, now)
        return [*noted, *self._notices.missing(queue, now)] if noted else []

    def _left(self, token: Any) -> Effects:
        """A message has been settled: what waited for its place may go."""
        self._receipts.left(token)
        self._notices.left(token)
        return self._publication.announcing.left(token)

    def _on_tick(self, now: float) -> Effects:
        effects = self._attendance.tick(now) + self._publication.tick(now)
        started = self._rounds.start(now)
        if started:
            effects += started + self._publication.begin()
        effects += self._close(now)
        return effects + (self._receipts.leave() if self._attendance.connected else [])

    def _close(self, now: float) -> Effects:
        """What is due: a snapshot of the newest version, and the decision on the next."""
        saving = self._rounds.save(now)
        closed = self._rounds.close(self._attendance.present, self._attendance.sites, now)
        if closed:
            self._budgets.fix(self._attendance.sites)
        return saving + closed

    # ---- what sites send

    def _on_delivery(self, delivery: Delivery, now: float) -> Effects:
        if delivery.queue == models_stream(self._party.federation):
            return self._publication.read_back(delivery)
        site = site_of(delivery.queue)
        try:
            effects = self._on_message(site, self._open(site, delivery), now)
        except WireError as error:
            effects = self._refuse(Refuse(site, None, None, str(error), len(delivery.body), now))
        return [*effects, Ack(delivery), *self._close(now)]

    def _on_message(self, site: str, opened: Opened, now: float) -> Effects:
        match opened.message:
            case UpdatePart() as update:
                return self._on_part(site, update, opened, now)
            case Hello() as hello:
                return self._on_hello(site, hello, now)
            case _:
                raise WireError("A site sends updates and hellos, nothing else.")

    def _open(self, site: str, delivery: Delivery) -> Opened:
        enrolled = self._attendance.sites.get(site)
        if enrolled is None:
            raise WireError(f"Site {site} is not enrolled.")
        if enrolled.account is not None and delivery.user_id != enrolled.account:
            raise WireError(f"{BY_OTHER_ACCOUNT} {delivery.user_id!r}, not by {enrolled.account!r}.")
        peer = Peer(self._party.federation, site, enrolled.key)
        return peer.opened(delivery.body, recipients=frozenset({AGGREGATOR}))

    def _on_hello(self, site: str, hello: Hello, now: float) -> Effects:
        try:
            effects = self._rounds.greet(site, hello, now)
        except WireError as error:
            # It still gets the announcement: the site itself finds that the model differs, and says so to its people.
            refused = self._refuse(Refuse(site, None, None, str(error), 0, now))
            return refused + self._publication.announcing.tell(site)
        self._receipts.of(site, hello.incarnation, known=hello.settled)
        self._receipts.answer(site, hello.nonce)
        if hello.evicted and self._rounds.started:
            self._publication.announcing.tell_later(site)
            return effects + self._publication.begin(key=True)
        return effects + self._publication.announcing.tell(site)

    def _on_part(self, site: str, update: UpdatePart, opened: Opened, now: float) -> Effects:
        body = opened.body
        settlement = self._receipts.of(site, update.incarnation, known=update.settled)
        if update.sequence > settlement.through + MAX_LEAP:
            raise WireError(f"Sequence {update.sequence} leaps over {MAX_LEAP} others.")
        if update.sequence in settlement:
            return []
        try:
            check_fields(update, self._rounds.terms)
            if update.parts == 1:
                return self._accept(site, update, body, norm=self._measured(update, opened), now=now)
            reception = self._receptions.of(site, update, self._rounds.terms)
            if update.part in reception.parts:
                return []
            kept: Effects = [KeepPart(site, update, body, now)]
            if not reception.take(update.part, body):
                return kept
            norm = reception.finish()
        except RefusedUpdate as error:
            self._receptions.over(site)
            settlement.settle(update.sequence, str(error))
            return self._refuse(Refuse(site, update.incarnation, update.sequence, str(error), len(body), now))
        self._receptions.over(site)
        return kept + self._accept(site, update, body, norm=norm, now=now)

    def _measured(self, update: UpdatePart, opened: Opened) -> float:
        check = Check(update, self._rounds.terms, digest=opened.digest)
        check.feed(opened.body)
        return check.finish()

    def _accept(self, site: str, update: UpdatePart, body: bytes, *, norm: float, now: float) -> Effects:
        """Merge a whole update; `body` is the part that came last."""
        self._receipts.of(site, update.incarnation, known=update.settled).settle(update.sequence)
        self._budgets.note(site, steps=update.steps, training_s=update.training_s)
        return [self._rounds.merge(site, update, body, norm=norm, now=now), *self._notices.accepted(site, now)]

    def _refuse(self, refusal: Refuse) -> Effects:
        """Journal it, and tell people at the console."""
        return [refusal, *self._notices.refused(refusal)]

    def _announcement(self, *, version: int, **transfer: Any) -> Announcement:
        settings, fold = self._settings, self._rounds.fold
        training, plan = self._asked(version)
        return Announcement(
            task=settings.task,
            version=version,
            previous_digest=self._rounds.digests.get(version - 1, bytes(32)),
            layout_digest=fold.layout_digest,
            parameters=len(fold.model),
            codec=settings.codec,
            plan=plan,
            statistics=self._rounds.statistics or [],
            training=training,
            issued_at=self._now,
            **transfer,
        )

    def _asked(self, version: int) -> tuple[bool, list[tuple[str, float]]]:
        """Whether sites shall train from `version`, and by which plan; without one, whether to wait."""
        if self._control.asks_for_training(version, versions=self._settings.versions):
            return True, self._settings.plan.to_wire()
        return False, [(PAUSED, 1.0)] if self._control.paused else []

    def _remembered_budgets(self) -> Budgets:
        """As they were fixed with the newest version, and what has been learned since."""
        known = Budgets(self._settings.plan)
        if self._settings.plan.equal_time:
            made, newest = self._journal.versions()[-1].through_ordinal, self._journal.last_ordinal()
            for site, steps, training_s in self._journal.work(through=made, last=REMEMBERED):
                known.note(site, steps=steps, training_s=training_s)
            known.fix(self._attendance.sites)
            for site, steps, training_s in self._journal.work(after=made, through=newest, last=REMEMBERED):
                known.note(site, steps=steps, training_s=training_s)
        return known

    def _plans(self) -> dict[str, WirePlan]:
        """The plans of the enrolled sites, where they differ."""
        return self._budgets.plans(self._attendance.sites)

    def _link_fact(self, now: float, **trouble: str | None) -> SetFact:
        """What `status` shows: consuming, publishing, declaring and the disk can each be in trouble."""
        self._trouble |= trouble
        reasons = [reason for reason in self._trouble.values() if reason]
        state = reasons[0] if reasons else "connected"
        waits = bool(reasons) and not state.startswith("waiting")
        kinds = {kind: reason for kind, reason in self._trouble.items() if reason}
        return SetFact("link", json.dumps([f"waiting: {state}" if waits else state, now, kinds]).encode())
