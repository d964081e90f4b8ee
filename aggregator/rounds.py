"""When a version is due and what is in it.

A version is published when the buffer is full, or every present site has contributed since the last one, or
`max_wait_s` has passed with at least one update: neither a missing site nor a large buffer ever holds up the others.
Synchronous rounds (fedavg) are the exception that was asked for: they wait for every enrolled site, a quorum or a
deadline, present or not, and for `max_wait_s` at the longest.
"""

import json
from collections.abc import Collection
from typing import Any

from aggregator.admission import Terms
from aggregator.effects import (
    Accept,
    AddVersion,
    Bound,
    Move,
    Moved,
    NoteMade,
    NoteSite,
    NoteState,
    Save,
    Saved,
    SetFact,
)
from aggregator.fold import Fold
from aggregator.journal import Accepted, Journal, VersionRow
from aggregator.memory import Contribution
from aggregator.settings import Aggregation, Settings
from broker.errors import WireError
from broker.messages import Hello, UpdatePart
from broker.statistics import FeatureStatistics

Effects = list[Any]


class Rounds:
    """The fold with its open buffer, and the feature statistics fixed with version 0."""

    def __init__(self, settings: Settings, fold: Fold, journal: Journal, *, rule: str) -> None:
        self._settings, self.fold, self._rule = settings, fold, rule
        self._aggregation = settings.aggregation
        versions = journal.versions()
        self._begun = versions[-1].at
        self.digests = {row.version: row.digest for row in versions if row.digest}
        self.digests |= {row.version: row.digest for row in journal.publications.rows()}
        self._save_at = 0.0
        self._ordinal = journal.last_ordinal()
        self._oldest = journal.oldest_open(versions[-1].through_ordinal)
        known = journal.fact("statistics")
        self.statistics: list[list[float]] | None = None if known is None else json.loads(known)
        greeted = [row for row in journal.site_rows() if row["examples"] is not None]
        self._hellos: dict[str, str | None] = {row["site"]: row["statistics"] for row in greeted}
        # An answered site does not say hello again: without this a restart before the start would wait for ever.
        self._first_hello: float | None = min((row["last_seen"] for row in greeted), default=None)

    @property
    def started(self) -> bool:
        """Whether version 0 has gone out."""
        return self.statistics is not None

    @property
    def terms(self) -> Terms:
        """What updates are held against."""
        return Terms(
            self._settings.task,
            self.fold.form,
            self.digests,
            self._settings.limits,
            self.fold.version,
            self._aggregation.max_staleness,
        )

    def deadline(self) -> float | None:
        """When a version, a snapshot or the start is due even if nothing arrives."""
        if not self.started:
            first = self._first_hello
            return None if first is None else first + self._settings.start.start_after_s
        if self.fold.moving:
            return None
        due = () if self._oldest is None else self._due_at(self._oldest)
        return min((*due, self._save_at) if self._unsaved else due, default=None)

    def _due_at(self, oldest: float) -> tuple[float, ...]:
        """When the buffer whose first update came at `oldest` is due by the clock."""
        rule = self._aggregation
        longest = oldest + rule.max_wait_s
        return (longest,) if rule.deadline_s is None else (longest, self._begun + rule.deadline_s)

    def greet(self, site: str, hello: Hello, now: float) -> Effects:
        """Note a hello; WireError if its model or its statistics do not fit the federation's."""
        if hello.layout_digest != self.fold.layout_digest or hello.task != self._settings.task:
            raise WireError(f"Site {site} runs task {hello.task!r} with another model than the federation's.")
        statistics = self._checked(hello)
        self._hellos[site] = statistics
        self._first_hello = now if self._first_hello is None else self._first_hello
        return [
            NoteSite(
                site,
                (
                    ("incarnation", hello.incarnation),
                    ("answers", hello.nonce),
                    ("settled", hello.settled),
                    ("examples", hello.examples),
                    ("statistics", statistics),
                    ("last_seen", now),
                ),
            )
        ]

    def start(self, now: float) -> Effects:
        """Fix the statistics once `min_sites` have said hello, or `start_after_s` after the first."""
        if self.started or self._first_hello is None:
            return []
        self._first_hello = min(self._first_hello, now)
        wanted = self._settings.start
        if len(self._hellos) < wanted.min_sites and now < self._first_hello + wanted.start_after_s:
            return []
        parts = [FeatureStatistics.from_lists(json.loads(one)) for one in self._hellos.values() if one]
        total = FeatureStatistics.summed(parts)
        self.statistics = [] if total is None else total.to_lists()
        return [SetFact("statistics", json.dumps(self.statistics).encode())]

    def note_published(self, version: int, digest: bytes) -> None:
        """What sites hold of a version, and name as the base of their updates."""
        self.digests[version] = digest

    def use(self, aggregation: Aggregation, *, rule: str) -> None:
        """Make the next version, with all that is in the buffer already, by another aggregation."""
        self._aggregation, self._rule = aggregation, rule
        self.fold.strategy = aggregation.build()

    def merge(self, site: str, update: UpdatePart, body: bytes, *, norm: float, now: float) -> Accept:
        """Merge an admitted update; its staleness is the versions published since its base.

        `body` is its payload, or the part of it that came last.
        """
        staleness = self.fold.version - update.base_version
        self._ordinal += 1
        self.fold.add(Contribution(site, self._ordinal, staleness, update.examples, update.base_version))
        self._oldest = now if self._oldest is None else self._oldest
        weight = self.fold.strategy.worth.discount(staleness)
        payload = body if update.parts == 1 else b""
        return Accept(Accepted(self._ordinal, site, update, payload, staleness, weight, norm, now))

    def close(self, present: set[str] | None, enrolled: Collection[str], now: float) -> Effects:
        """Decide on the next version, if one is due and the one before it is made: its vectors follow."""
        reason = None if self.fold.moving else self._reason_to_close(present, enrolled, now)
        if reason is None:
            return []
        count, step = len(self.fold.buffer), self.fold.decide()
        self._oldest, self._begun = None, now
        row = VersionRow(step.version, b"", self._ordinal, count, reason, self._rule, now)
        return [AddVersion(row), Move(self.fold, step)]

    def moved(self, event: Moved) -> Effects:
        """A version is made."""
        self.fold.settle(event.digest)
        self.digests[event.version] = event.digest
        return [NoteMade(event.version, event.digest)]

    def save(self, now: float) -> Effects:
        """A snapshot, if one is due: of every version where models of older ones are needed, else now and then."""
        fold = self.fold
        if fold.moving or not self._unsaved or not (now >= self._save_at or fold.strategy.bases):
            return []
        fold.saved = fold.made
        return [Save(fold.made, fold.digest, fold.model, fold.state, fold.strategy.bases)]

    def saved(self, event: Saved, now: float) -> Effects:
        """A snapshot is there; the next is due after a while."""
        self._save_at = now + self._settings.snapshot_every_s
        most = round(self._settings.storage.journal_gb * 1e9)
        return [*([] if event.state is None else [NoteState(event.version, event.state)]), Bound(most)]

    @property
    def _unsaved(self) -> bool:
        return self.fold.saved < self.fold.made

    def _reason_to_close(self, present: set[str] | None, enrolled: Collection[str], now: float) -> str | None:
        if self._oldest is None:
            return None
        self._oldest = min(self._oldest, now)  # the journal's time may be from a clock that ran ahead
        strategy, rule = self.fold.strategy, self._aggregation
        contributors = {one.site for one in self.fold.buffer}
        places = len(contributors) if strategy.worth.one_place else len(self.fold.buffer)
        if places >= strategy.places_wanted(len(enrolled)):
            return "every site has contributed" if strategy.rounds and not strategy.quorum else "buffer full"
        if present and present <= contributors and not strategy.rounds:
            return "every present site has contributed"
        if rule.deadline_s is not None and now >= self._begun + rule.deadline_s:
            return "the deadline has passed"
        if now >= self._oldest + rule.max_wait_s:
            return "max_wait has passed"
        return None

    def _checked(self, hello: Hello) -> str | None:
        """The hello's statistics as JSON; WireError if they cannot be added to the others'."""
        if not hello.statistics:
            return None
        features = len(FeatureStatistics.from_lists(hello.statistics).count)
        others = [len(json.loads(one)[0]) for one in self._hellos.values() if one]
        if others and features != others[0]:
            raise WireError(f"It has statistics of {features} features where other sites have {others[0]}.")
        return json.dumps(hello.statistics)
