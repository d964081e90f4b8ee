"""What is remembered of each site between versions: which update of it was merged last, and how often it comes.

Numbers only. The update itself stays where it is, compressed, in the journal: memory does not grow with the model.
Ages are in versions: while nobody trains nobody ages, so a federation that rests at night forgets no hospital.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Final

GAPS_KEPT: Final = 3
LONGEST: Final = 3  # one long absence makes no new habit: a gap is noted as so many times the usual one at most


@dataclass(frozen=True)
class Contribution:
    """An accepted update as a strategy sees it; `ordinal` is its place in the journal."""

    site: str
    ordinal: int
    staleness: int
    examples: int
    base_version: int


@dataclass(frozen=True)
class Remembered:
    """A site's newest updates: those merged in version `version` (nearly always one).

    `gaps` are the versions from one contribution to the next, the newest last, at most three, each at most three times
    the longest before it.
    """

    site: str
    ordinals: tuple[int, ...]
    examples: int
    version: int
    gaps: tuple[int, ...] = ()

    def usual_gap(self) -> float | None:
        """The longest of the newest gaps; None before there are two contributions."""
        return float(max(self.gaps)) if self.gaps else None


Memory = Mapping[str, Remembered]


def remember(memory: Memory, contributions: Sequence[Contribution], *, version: int) -> dict[str, Remembered]:
    """The memory after `contributions` have been merged in `version`."""
    after = dict(memory)
    for site in dict.fromkeys(one.site for one in contributions):
        own = [one for one in contributions if one.site == site]
        before = memory.get(site)
        gaps = () if before is None else _with_gap(before.gaps, version - before.version)
        after[site] = Remembered(site, tuple(one.ordinal for one in own), own[-1].examples, version, gaps)
    return after


def _with_gap(gaps: tuple[int, ...], gap: int) -> tuple[int, ...]:
    noted = min(gap, LONGEST * max(gaps)) if gaps else gap
    return (*gaps, noted)[-GAPS_KEPT:]


def recalled(rows: Iterable[tuple[str, int, int, int]]) -> dict[str, Remembered]:
    """The memory that follows from all merged updates as (site, version, ordinal, examples), sorted by these."""
    memory: dict[str, Remembered] = {}
    for site, own in groupby(rows, key=lambda row: row[0]):
        for version, merged in groupby(own, key=lambda row: row[1]):
            together = [Contribution(site, ordinal, 0, examples, 0) for _, _, ordinal, examples in merged]
            memory |= remember({site: memory[site]} if site in memory else {}, together, version=version)
    return memory
