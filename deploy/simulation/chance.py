"""Randomness of a simulation: every kind of it has a source of its own, which follows from the seed and its name.

So one more fault, or another strategy, does not move anything else that is drawn.
"""

import random


def source(seed: int, what: str) -> random.Random:
    """The source of one kind of randomness, such as "kills S3"."""
    return random.Random(f"{seed} {what}")  # noqa: S311 - it must be the same every time, not secret
