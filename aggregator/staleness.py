"""What an update of staleness tau is worth: s(tau), where tau is the versions published since its base.

Every rule gives exactly 1 to a fresh update. Discounts make the model steadier, and mute slow hospitals a second time
(they already arrive rarely): see docs/algorithms.md before choosing a steep one.
"""

from collections.abc import Callable
from typing import Final

from broker.errors import UsageError

Discount = Callable[[int], float]


def constant() -> Discount:
    """Every update counts in full."""
    return lambda _tau: 1.0


def polynomial(power: float = 0.5) -> Discount:
    """FedAsync's polynomial: (1 + tau) ** -power (Xie et al. 2019, section 5.2); FedBuff uses power 0.5."""
    return lambda tau: float((1 + tau) ** -power)


def hinge(slope: float = 10.0, grace: int = 4) -> Discount:
    """FedAsync's hinge: 1 up to tau = grace, then 1 / (slope * (tau - grace) + 1) (Xie et al. 2019, section 5.2)."""
    return lambda tau: 1.0 if tau <= grace else 1.0 / (slope * (tau - grace) + 1.0)


RULES: Final[dict[str, Callable[..., Discount]]] = {"constant": constant, "polynomial": polynomial, "hinge": hinge}


def discount_named(name: str, **options: float) -> Discount:
    """The rule called `name` with its options; UsageError names the choices."""
    if name not in RULES:
        raise UsageError(f"There is no staleness rule {name!r}; choose one of {', '.join(RULES)}.")
    try:
        return RULES[name](**options)
    except TypeError as error:
        raise UsageError(f"Staleness rule {name!r} has no such option: {', '.join(options)}.") from error
