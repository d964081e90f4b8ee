"""What must hold after a schedule, each under its own name: a check gives "" or what is wrong.

The truth they are held against is what the simulated sites have put on their disks themselves, not what an outbox
says of it afterwards.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import numpy as np

from aggregator.opening import restore
from deploy.ledger import Books
from tests.federation.actors import LAYOUT, SiteActor
from tests.federation.disk import SimOutbox
from tests.federation.world import World

_TOLERANCE: Final = 1e-5


@dataclass(frozen=True)
class Broken:
    """An invariant that does not hold."""

    invariant: str
    detail: str


def _outbox(site: SiteActor) -> SimOutbox:
    assert site.outbox is not None
    return site.outbox


def _accepted(world: World) -> list[tuple[str, int, bytes]]:
    rows = world.journal.query("SELECT site, sequence, payload_digest FROM updates")
    return [(row["site"], row["sequence"], bytes(row["payload_digest"])) for row in rows]


def _refused(world: World) -> dict[tuple[str, int], str]:
    rows = world.journal.query("SELECT site, sequence, reason FROM refused WHERE sequence IS NOT NULL")
    return {(row["site"], row["sequence"]): row["reason"] for row in rows}


def books(world: World) -> Books:
    """Everything that the sites have stored, by what it is: a number used twice does not make it one update."""
    accepted, refused, made = _accepted(world), _refused(world), dict[tuple[str, bytes, int], bool]()
    of_refused: list[tuple[str, bytes, int]] = []
    for site in world.sites:
        waiting = _outbox(site).waiting()
        rows = {row["sequence"]: bytes(row["payload_digest"]) for row in _outbox(site).rows()}
        for one in site.stored:
            key = (site.name, one.payload_digest, one.sequence)
            in_place = rows.get(one.sequence) == one.payload_digest
            made[key] = in_place and one.sequence in waiting
            if in_place and (site.name, one.sequence) in refused:
                of_refused.append(key)
    return Books(made, tuple((site, digest, sequence) for site, sequence, digest in accepted), tuple(of_refused))


def nothing_lost(world: World) -> str:
    """What a site has stored is in the journal, or still in its outbox."""
    lost = books(world).balance().lost
    return f"{lost} updates" if lost else ""


def nothing_doubled(world: World) -> str:
    """An update has one place in the journal, and every place is in one version."""
    doubled = books(world).balance().doubled
    versions = world.journal.versions()
    counted = all(
        after.updates == after.through_ordinal - before.through_ordinal for before, after in pairwise(versions)
    )
    if doubled or not counted:
        return (
            f"{doubled} updates more than once" if doubled else "a version has another number of updates than it says"
        )
    ghosts = {site for site, _, _ in Counter(_accepted(world)) - Counter(_stored(world))}
    return f"updates that nobody made, of {sorted(ghosts)}" if ghosts else ""


def _stored(world: World) -> list[tuple[str, int, bytes]]:
    return [(site.name, one.sequence, one.payload_digest) for site in world.sites for one in site.stored]


def replay_bit_equal(world: World) -> str:
    """Folding the journal again, and starting from the newest snapshot, give the journaled bits."""
    if not world.replays():
        return "the replay differs"
    _, fold = restore(world.journal, world.folder, world.settings.aggregation)
    return "" if fold.digest == world.journal.versions()[-1].digest else "the restored model differs"


def everything_settled(world: World) -> str:
    """Both sides say the same of every update: accepted, or refused with a reason."""
    accepted, refused = {(site, number): digest for site, number, digest in _accepted(world)}, _refused(world)
    for site in world.sites:
        for row in _outbox(site).rows():
            key, state = (site.name, row["sequence"]), row["state"]
            if state == "waiting":
                return f"{key} still waits"
            if state == "accepted" and accepted.get(key) != row["payload_digest"]:
                return f"{key} is accepted for its site, not for the journal"
            if state == "refused" and (not row["reason"] or refused.get(key) != row["reason"]):
                return f"{key} is refused for its site: {row['reason']}, not for the journal"
    return ""


def queues_bounded(world: World) -> str:
    """At no step was a queue over its limit; in the end no payload is kept."""
    kept = [site.name for site in world.sites if _outbox(site).kept_payloads()]
    return world.overfull or (f"payloads kept by {kept}" if kept else "")


def versions_go_on(world: World) -> str:
    """Once nothing failed any more, new versions came, without a gap, and every site had a share in them."""
    numbers = [row.version for row in world.journal.versions()]
    if numbers != list(range(len(numbers))):
        return f"versions {numbers}"
    if numbers[-1] < world.goal:
        return f"version {numbers[-1]} of {world.goal}"
    return f"without {world.left_behind}" if world.left_behind else ""


def residual_exact(world: World) -> str:
    """The true deltas of the stored updates sum to what their payloads say and the residual keeps."""
    for site in world.sites:
        true, told = np.zeros(LAYOUT.size), _outbox(site).residual(LAYOUT.size).read(0, LAYOUT.size).astype(np.float64)
        for one in site.stored:
            true += site.trained[one.payload_digest]
            told += site.told[one.payload_digest]
        if not np.allclose(true, told, rtol=0, atol=_TOLERANCE * (1 + len(site.stored))):
            return f"{site.name}: true {true}, payloads and residual {told}"
    return ""


CHECKS: Final[dict[str, Callable[[World], str]]] = {
    "nothing lost": nothing_lost,
    "nothing doubled": nothing_doubled,
    "replay bit-equal": replay_bit_equal,
    "every sent update settled": everything_settled,
    "bounded queues": queues_bounded,
    "versions go on": versions_go_on,
    "residual exact": residual_exact,
}
