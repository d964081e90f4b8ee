"""The vocabulary of plans: an announcement carries numbers alone, so a word travels as its place here.

Words are only ever added, at the end: their places are what sites of other releases know. An announcement that asks for
no training has no plan; `PAUSED` in its place says that training will be asked for again.
"""

from typing import Final, Literal, get_args

Optimizer = Literal["sgd", "adam", "adamw"]
OPTIMIZERS: Final[tuple[Optimizer, ...]] = get_args(Optimizer)
Schedule = Literal["constant", "cosine", "linear"]
SCHEDULES: Final[tuple[Schedule, ...]] = get_args(Schedule)
PAUSED: Final = "paused"
