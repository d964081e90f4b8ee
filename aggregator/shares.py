"""What a site counts for beside the others, before staleness: pure functions of examples, in a literal table."""

from collections.abc import Callable, Mapping
from typing import Final

from broker.errors import UsageError

Share = Callable[[int, Mapping[str, int]], float]
"""(the site's examples, the examples of every site known so far) -> a positive number, not normalised."""


def by_examples() -> Share:
    """n_i, as in FedAvg (McMahan et al. 2017, algorithm 1): every patient counts alike."""
    return lambda examples, _known: float(examples)


def equal() -> Share:
    """1: every site counts alike, whatever it says of its rows."""
    return lambda _examples, _known: 1.0


def capped(max_share: float = 0.5) -> Share:
    """min(n_i, max_share * sum of n over the known sites): no site's rows drown the others'.

    The cap is of the rows that are claimed, so a site that claims too many lifts it for itself; it is against size, not
    against lies (docs/security.md).
    """
    if not 0 < max_share <= 1:
        raise UsageError(f"max_share is {max_share}; choose a number above 0 and at most 1.")
    return lambda examples, known: min(float(examples), max_share * (sum(known.values()) or examples))


SHARES: Final[dict[str, Callable[..., Share]]] = {"examples": by_examples, "equal": equal, "capped": capped}


def share_named(name: str, **options: float) -> Share:
    """The weighting called `name` with its options; UsageError names the choices."""
    if name not in SHARES:
        raise UsageError(f"There is no weighting {name!r}; choose one of {', '.join(SHARES)}.")
    return SHARES[name](**options)
