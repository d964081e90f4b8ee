"""The vocabulary of plans: an announcement carries numbers alone, so an optimizer travels as its place here."""

from typing import Final, Literal, get_args

Optimizer = Literal["sgd", "adam"]
OPTIMIZERS: Final[tuple[Optimizer, ...]] = get_args(Optimizer)
