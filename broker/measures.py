"""What a service tells Prometheus, as values: measures that are declared once, and readings of them.

A service declares its measures in one tuple, which docs/operations.md lists, and makes readings when it is asked;
broker/exposition.py serves them. Names and units are as Prometheus has them: base units, `_total` for what only grows.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

from broker.troubles import Trouble

Kind = Literal["gauge", "counter", "histogram"]


class Metrics(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """Table `[metrics]` of a settings file: where Prometheus may ask; port 0: nowhere."""

    address: str = "127.0.0.1"
    port: Annotated[int, Meta(ge=0, le=65535)] = 0


@dataclass(frozen=True)
class Spread:
    """How often which value came; `below` counts for each bound of a histogram the values that are at most it."""

    below: tuple[tuple[float, int], ...]
    count: int
    total: float

    @classmethod
    def of(cls, counts: Mapping[int, int], bounds: Iterable[int]) -> "Spread":
        """Of values with how often each came."""
        return cls(
            below=tuple((bound, sum(n for value, n in counts.items() if value <= bound)) for bound in bounds),
            count=sum(counts.values()),
            total=sum(value * n for value, n in counts.items()),
        )


@dataclass(frozen=True)
class Measure:
    """A metric that there is: its whole name, the names of its labels in order, and what it means, a sentence."""

    name: str
    kind: Kind
    labels: tuple[str, ...]
    means: str

    def of(self, value: float | Spread, *labels: str) -> "Reading":
        """A reading, with a value for each label; ValueError for more or fewer."""
        if len(labels) != len(self.labels):
            raise ValueError(f"{self.name} has the labels {', '.join(self.labels)}, not {len(labels)}.")
        return Reading(self, labels, value)


@dataclass(frozen=True, slots=True)
class Reading:
    """What a measure is now."""

    measure: Measure
    labels: tuple[str, ...]
    value: float | Spread


TROUBLE_MEANS: Final = "1 for each trouble that there is now; without a site it is the whole federation's."


def trouble_readings(measure: Measure, troubles: Iterable[Trouble], *labels: str) -> Iterable[Reading]:
    """One for each cause and site; several troubles of one cause at one site are one. `labels` come before these."""
    named = {(trouble.cause.name, trouble.site) for trouble in troubles}
    return (measure.of(1, *labels, cause, site) for cause, site in sorted(named))
