"""How much the journal may take: beyond that, payloads of old updates go, and a snapshot takes the place of version 0.

The policy. Every row stays: who contributed what, when, how stale, to which version. Of payloads, only those may go
that no version from the *anchor* on needs: the anchor is a version whose snapshot and state are on disk and stay
there. What a strategy still remembers of a site, an absent one too, is kept however old it is. From then on a replay
begins at the anchor, and versions before it can no longer be made.
"""

from aggregator.journal import Journal
from aggregator.memory import recalled
from aggregator.opening import rule_of, snapshots
from aggregator.settings import Folder
from aggregator.state import load_state
from broker.errors import StorageError


def bound_journal(journal: Journal, folder: Folder, *, most_bytes: int) -> None:
    """Within the caller's transaction: remove payloads if all of them take more than `most_bytes` (0: never do).

    The oldest of the snapshots that are kept, version 0's apart, becomes the anchor. Strategies that fold models of
    former versions keep everything.
    """
    if not most_bytes or journal.payload_bytes() <= most_bytes:
        return
    rows = [row for row in snapshots(journal, folder) if row.version > journal.anchor()]
    if any(rule_of(row).build().bases for row in rows):
        return
    for row in rows:
        try:
            state = load_state(folder.state(row.state or b""), row.state)
        except StorageError:
            continue
        sites = recalled(journal.merged_by_site(through=row.through_ordinal)).values()
        needed = {ordinal for site in sites for ordinal in site.ordinals}
        needed |= {source.number for source in state.held if source.kind == "update"}
        journal.remove_payloads(through=row.through_ordinal, but=needed)
        journal.set_anchor(row.version)
        return
