"""How updates become the next version: pure functions from numbers to coefficients, in a literal table.

A site sends delta_i = trained_i - base_i. A strategy sees no vector: it is told who is in the buffer and what is
remembered of each site, and answers with a coefficient for each update. aggregator/fold.py does the arithmetic, in the
journal's order, so that folding the journal again gives the same bits.

In the formulas x is the model, eta the server rate, S the sites in the buffer, p a site's share (aggregator/shares.py),
s the staleness discount (aggregator/staleness.py), D an update's delta, h_i the newest delta of site i that was merged,
in S that of this buffer, and h'_i the one before it.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from math import ceil
from typing import Final, Literal, NamedTuple

from aggregator.memory import Contribution, Memory, Remembered
from aggregator.optimizers import ServerOptimizer, none
from aggregator.shares import Share
from aggregator.staleness import Discount
from broker.errors import UsageError

LATEST: Final = 1.5
REUSED: Final = 0.25
LEAST: Final = 0.01  # what weighs less is forgotten


class Source(NamedTuple):
    """A vector that the fold can fetch: the delta of an accepted update by its ordinal, or the model of a version."""

    kind: Literal["update", "version"]
    number: int


@dataclass(frozen=True)
class Sum:
    """sum(coefficient * source) / divisor."""

    terms: Mapping[Source, float] = field(default_factory=dict)
    divisor: float = 1.0


@dataclass(frozen=True)
class Direction:
    """`once` moves this version alone; `kept` changes little from one version to the next, so its sum is kept too.

    Their sum is taken at `rate`, a part of the server's. `used` says of each site how far its newest update has moved
    the model by now: 1 is as far as it would alone.
    """

    once: Sum
    kept: Sum = Sum()
    rate: float = 1.0
    used: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Situation:
    """What a strategy may know when `version` is made. `memory` is with this buffer, `former` without it.

    `used` is what the last direction said, {} at first.
    """

    version: int
    buffer: tuple[Contribution, ...]
    memory: Memory
    former: Memory
    used: Mapping[str, float] = field(default_factory=dict)

    @property
    def known(self) -> dict[str, int]:
        """The examples of every site that has contributed."""
        return {site: one.examples for site, one in self.memory.items()}


@dataclass(frozen=True)
class Worth:
    """What an update counts for. `normalised` divides by what the updates count for after their discount.

    With `one_place` the updates of one site in one buffer share its place: their mean counts as one contribution.
    """

    discount: Discount
    share: Share
    normalised: bool = False
    one_place: bool = True

    def places(self, buffer: tuple[Contribution, ...]) -> Iterator[list[Contribution]]:
        """The buffer by places, each with its updates."""
        if not self.one_place:
            yield from ([one] for one in buffer)
            return
        for site in dict.fromkeys(one.site for one in buffer):
            yield [one for one in buffer if one.site == site]


Direct = Callable[[Situation, Worth], Direction]
Weight = Callable[[Remembered, int], float]


@dataclass(frozen=True)
class Strategy:
    """x <- x + server_rate * optimizer(direction); when a version is due: aggregator/rounds.py.

    `buffer_size` is in sites; 0 is a fifth of the enrolled ones, at least two. With `rounds` the aggregator waits for
    every enrolled site instead, or for `quorum` of them. `bases` says that models of older versions are needed, and
    `remembers` that a kept sum is.
    """

    direct: Direct
    worth: Worth
    server_rate: float = 1.0
    buffer_size: int = 0
    rounds: bool = False
    quorum: int = 0
    bases: bool = False
    remembers: bool = False
    optimizer: ServerOptimizer = field(default_factory=none)

    @property
    def keeps(self) -> bool:
        """Whether there are vectors besides the model after a version: aggregator/state.py."""
        return self.remembers or bool(self.optimizer.vectors)

    def places_wanted(self, enrolled: int) -> int:
        """How many places make a version: those of sites are never more than there are."""
        wanted = self.quorum or enrolled if self.rounds else self.buffer_size or max(2, -(-enrolled // 5))
        return min(wanted, max(enrolled, 1)) if self.worth.one_place else wanted


def fedbuff(situation: Situation, worth: Worth) -> Direction:
    """FedBuff (Nguyen et al. 2022, algorithm 1): x += eta sum_S p_i s(tau_i) D_i / sum_S p_i. State: none.

    Use it where no update may have a part in more than one version. It leans towards the sites that come often.
    """
    known = situation.known
    terms: dict[Source, float] = {}
    divisor = 0.0
    for place in worth.places(situation.buffer):
        for one in place:
            share = worth.share(one.examples, known)
            value = share * worth.discount(one.staleness)
            terms[Source("update", one.ordinal)] = value / len(place)
            divisor += (value if worth.normalised else share) / len(place)
    return Direction(Sum(terms, divisor))


def fedavg(situation: Situation, worth: Worth) -> Direction:
    """FedAvg (McMahan et al. 2017, algorithm 1): the sum of `fedbuff`, over all sites or those in time. State: none.

    Use it to compare with: it waits for the slowest site, or leaves out what comes after its deadline.
    """
    return fedbuff(situation, worth)


def fedasync(situation: Situation, worth: Worth) -> Direction:
    """FedAsync on deltas (after Xie et al. 2019): x += eta s(tau) D for every single update. State: none.

    Use it for two or three sites that are much alike; every version is one site's.
    """
    return fedbuff(situation, worth)


def fedasync_mixing(situation: Situation, worth: Worth) -> Direction:
    """FedAsync as published (Xie et al. 2019, algorithm 1): x = (1 - a) x + a (x_base + D), a = eta s(tau).

    State: the models that sites may still train from. For comparison: with a stale base it pulls back what others have
    learned since, which the form on deltas does not.
    """
    terms: dict[Source, float] = {}
    for one in situation.buffer:
        weight = worth.discount(one.staleness) / len(situation.buffer)
        terms[Source("update", one.ordinal)] = weight
        for version, sign in ((one.base_version, 1.0), (situation.version - 1, -1.0)):
            source = Source("version", version)
            terms[source] = terms.get(source, 0.0) + sign * weight
    return Direction(Sum({source: weight for source, weight in terms.items() if weight}))


def ca2fl(situation: Situation, worth: Worth) -> Direction:
    """CA2FL (Wang et al. 2024): x += eta [ sum q_i h'_i + sum_S b_i (h_i - h'_i) ].

    q_i and b_i are shares, over all sites and over S. State: one vector. Use it with eta of about 1/2 where every site
    comes back: one that has left for good pulls for ever.
    """
    return _remembering(situation, worth, lambda _one, _version: 1.0)


def calibrated(situation: Situation, worth: Worth) -> Direction:
    """`ca2fl` in which what is remembered fades: w = (1 + age)^-1/2, its age in versions. State: one vector.

    Every weight changes with every version, so each decodes the newest update of all sites. Slow sites are muted.
    """
    return _remembering(situation, worth, fading)


def patient(situation: Situation, worth: Worth) -> Direction:
    """`ca2fl` in which a site fades once it is later than it usually is, or its update is used up. State: one vector.

    x += eta r [ ... ] with r = mean over the buffer of 1 / (1 + tau): what was computed from an older model is partly
    what the remembered updates have moved already, and in full it would overshoot. The weight of a remembered update is
    `usual` until it is used up: 1 is as far as it would move the model alone (sum of r p / sum of p w over versions),
    and the limit is a quarter of the versions that sites of equal speed have between two of their turns. The same
    update of a site that is away, repeated for many versions, leads a model astray, a small federation's the sooner.

    Slow is not gone: a hospital that comes every thirtieth version speaks in every version, and one that has left
    fades. Use it unless there is a reason for another.
    """
    fresh = [1.0 / (1 + one.staleness) for one in situation.buffer]
    rate = sum(fresh) / len(fresh) if fresh else 1.0
    here = set(_sites(situation.buffer))
    expected = len(situation.memory) / max(len(here), 1)

    def weight(one: Remembered, version: int) -> float:
        if one.version == version:
            return 1.0
        used_up = situation.used.get(one.site, 0.0) >= REUSED * expected
        value = 0.0 if used_up else usual(one, version, expected=expected)
        return value if value >= LEAST else 0.0

    direction, known = _remembering(situation, worth, weight), situation.known
    moved = {
        site: rate * worth.share(one.examples, known) / direction.kept.divisor for site, one in situation.memory.items()
    }
    used = {site: 0.0 if site in here else situation.used.get(site, 0.0) + by for site, by in moved.items()}
    return replace(direction, rate=rate, used=used)


def _remembering(situation: Situation, worth: Worth, weight: Weight) -> Direction:
    """x += eta [ sum_i q_i w_i h_i + sum_S (b_i - q_i) (h_i - w'_i h'_i) ]: the step of CA2FL with weights.

    q_i is p_i over the sum of p w of all remembered sites, b_i is p_i over the sum of S; w'_i is what h'_i has now.
    """
    known = situation.known
    kept: dict[Source, float] = {}
    total = 0.0
    for one in situation.memory.values():
        value = worth.share(one.examples, known) * weight(one, situation.version)
        total += value
        if value:
            kept |= _spread(one, value)
    return Direction(_corrections(situation, worth, weight, total), Sum(kept, total))


def _corrections(situation: Situation, worth: Worth, weight: Callable[[Remembered, int], float], total: float) -> Sum:
    """sum_S (b_i - q_i) (h_i - w'_i h'_i)."""
    known = situation.known
    shares = {site: worth.share(situation.memory[site].examples, known) for site in _sites(situation.buffer)}
    terms: dict[Source, float] = {}
    for site, share in shares.items():
        excess = share / sum(shares.values()) - share / total
        terms |= _spread(situation.memory[site], excess)
        if (before := situation.former.get(site)) is not None:
            terms |= _spread(before, -excess * weight(before, situation.version))
    return Sum({source: value for source, value in terms.items() if value})


def _spread(one: Remembered, value: float) -> dict[Source, float]:
    """The mean of what a site contributed to one version, times `value`."""
    return {Source("update", ordinal): value / len(one.ordinals) for ordinal in one.ordinals}


def _sites(buffer: tuple[Contribution, ...]) -> list[str]:
    return list(dict.fromkeys(one.site for one in buffer))


def fading(one: Remembered, version: int) -> float:
    """(1 + age)^-1/2 of a remembered update, its age in versions."""
    return float((1 + version - one.version) ** -0.5)


def usual(one: Remembered, version: int, *, expected: float) -> float:
    """1 while a site is not later than one and a half of its usual gap, then halved for each such time more.

    `expected` is the gap of a site that has come only once. Few distinct values, so that its sum is cheap to keep.
    """
    late = (version - one.version) / (LATEST * max(one.usual_gap() or expected, 1.0))
    return 0.5 ** min(max(0, ceil(late) - 1), 100)


STRATEGIES: Final[dict[str, Direct]] = {
    "fedavg": fedavg,
    "fedasync": fedasync,
    "fedasync-mixing": fedasync_mixing,
    "fedbuff": fedbuff,
    "ca2fl": ca2fl,
    "calibrated": calibrated,
    "patient": patient,
}


def strategy_named(name: str) -> Direct:
    """The direction of the strategy called `name`; UsageError names the choices."""
    if name not in STRATEGIES:
        raise UsageError(f"There is no strategy {name!r}; choose one of {', '.join(STRATEGIES)}.")
    return STRATEGIES[name]
