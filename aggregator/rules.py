"""Which aggregation is in force: the journal says, and a change is an event in it, never a side effect of a restart.

Until the first update is accepted aggregator.toml holds, edited as often as people like. After that the journal's
newest rule holds, whatever the file or the environment says, until `fedqueue aggregator switch` decides otherwise. A
replay makes every version by the rule that made it.
"""

from dataclasses import dataclass
from typing import Any

import msgspec

from aggregator.journal import Journal, RuleRow
from aggregator.opening import rule_of, rule_text
from aggregator.settings import Aggregation


@dataclass(frozen=True)
class Change:
    """One option of a switch."""

    option: str
    before: Any
    after: Any


def rule_in_force(journal: Journal, wanted: Aggregation, *, at: float) -> Aggregation:
    """The aggregation to make versions by; `wanted`, the file's, becomes it while nothing has been accepted."""
    rules = journal.rules()
    if rules and (journal.last_ordinal() or rule_of(rules[-1]) == wanted):
        return rule_of(rules[-1])
    _decide(journal, wanted, at=at)
    return wanted


def switch(journal: Journal, wanted: Aggregation, *, at: float) -> tuple[Change, ...]:
    """Put `wanted` in force for the versions to come; what differs from before, nothing if it was in force."""
    changes = differences(journal, wanted)
    if changes:
        _decide(journal, wanted, at=at)
    return changes


def differences(journal: Journal, wanted: Aggregation) -> tuple[Change, ...]:
    """What `wanted` changes in the aggregation that is in force."""
    before = msgspec.structs.asdict(rule_of(journal.rules()[-1]))
    after = msgspec.structs.asdict(wanted)
    return tuple(Change(name, before[name], after[name]) for name in after if before[name] != after[name])


def _decide(journal: Journal, wanted: Aggregation, *, at: float) -> None:
    journal.begin()
    newest = journal.versions()[-1].version
    journal.add_rule(RuleRow(newest, rule_text(wanted), at))
    journal.commit()
