"""The vocabulary of plans: an announcement carries numbers alone, so an optimizer travels as its place here.

An announcement that asks for no training has no plan; `PAUSED` in its place says that training will be asked for again.
"""

from typing import Final, Literal, get_args

Optimizer = Literal["sgd", "adam"]
OPTIMIZERS: Final[tuple[Optimizer, ...]] = get_args(Optimizer)
PAUSED: Final = "paused"
