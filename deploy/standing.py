"""A federation between hospitals as its aggregator's folder tells it, for its report. Nothing is written.

Sites' outboxes are elsewhere, so there is no ledger of what was sent. Absences are the broker's word, which the
aggregator asks for while it runs: while it does not run, a site counts as it was seen last.
"""

import sqlite3
from collections.abc import Iterable
from itertools import groupby
from operator import itemgetter

import msgspec

from aggregator.opening import rule_in
from aggregator.settings import Aggregation, Folder
from aggregator.status import Status, read_status
from deploy.events import Events, events_in, reading
from deploy.history import Absence, History, Rule, SiteRow, Standing, leading_metric


def read_standing(folder: Folder, *, now: float) -> History:
    """The history of the federation in `folder` until `now`, or until its last event where it does not run."""
    settings = folder.settings()
    with reading(folder) as journal:
        status = read_status(folder)
        events = events_in(journal, folder)
        presence = [tuple(row) for row in journal.execute("SELECT site, at, present FROM presence ORDER BY site, at")]
        rules = tuple(_rules(journal))
    founded = min((one.at for one in events.published), default=now)
    until = max(now if status.running else _last(events, (at for _, at, _ in presence), founded), founded)
    here = {one.site for one in status.sites if one.state != "removed"}
    return History(
        federation=settings.federation,
        started=founded,
        seconds=until - founded,
        sites=tuple(_rows(status)),
        merged=events.merged,
        published=events.published,
        evaluated=events.evaluated,
        refusals=events.refusals,
        absences=tuple(absences(presence, enrolled=here, until=until)),
        ledger=None,
        table=(),
        metric=leading_metric(events.evaluated[-1].metrics) if events.evaluated else "",
        notes=tuple(_notes(status)),
        sent=events.sent,
        parameters=events.parameters,
        standing=Standing(f"running, {status.link}" if status.running else "not running", rules),
    )


def absences(presence: Iterable[tuple[str, float, int]], *, enrolled: set[str], until: float) -> Iterable[Absence]:
    """From (site, at, present), sorted: each first time that a site was gone to the next that it was there."""
    for site, rows in groupby(presence, key=itemgetter(0)):
        gone: float | None = None
        for _, at, present in rows:
            if present and gone is not None:
                yield Absence(site, gone, at, "")
                gone = None
            elif not present and gone is None:
                gone = at
        if gone is not None:
            yield Absence(site, gone, max(gone, until), "still away" if site in enrolled else "removed since")


def _last(events: Events, seen: Iterable[float], founded: float) -> float:
    """When anything was journaled last."""
    parts = (events.published, events.refusals)
    times = [part[-1].at for part in parts if part]
    times += [events.merged[-1].accepted_at] if events.merged else []
    return max([*times, *seen], default=founded)


def _rows(status: Status) -> Iterable[SiteRow]:
    for one in status.sites:
        yield SiteRow(
            one.site, one.state, one.base, one.staleness, one.accepted, 0, one.refused, codec=one.codec,
            smaller=one.smaller, error=one.error, last_seen=one.last_seen,
        )  # fmt: skip


def _rules(journal: sqlite3.Connection) -> Iterable[Rule]:
    """Every aggregation that was decided on; the one it was founded with was decided before version 1."""
    for row in journal.execute("SELECT version, rule, at FROM rules ORDER BY id"):
        rule = rule_in(row["rule"])
        yield Rule(row["version"] + 1, row["at"], rule.strategy, _words(rule))


def _words(rule: Aggregation) -> str:
    """What differs from the defaults."""
    plain = msgspec.to_builtins(Aggregation())
    chosen = {name: value for name, value in msgspec.to_builtins(rule).items() if value != plain[name]}
    return ", ".join(f"{name} = {value}" for name, value in chosen.items() if name != "strategy")


def _notes(status: Status) -> Iterable[str]:
    if not status.started:
        yield "Not started: version 0 goes out when enough sites have said hello."
    if status.paused:
        yield "Paused: sites are asked for no training."
    if status.switch_pending:
        yield "aggregator.toml names another aggregation than the one in force."
    if status.last_version:
        yield f"Training ends at version {status.last_version}."
    if status.buffered:
        updates = "1 update" if status.buffered == 1 else f"{status.buffered} updates"
        yield f"In the open buffer, for the next version: {updates}."
