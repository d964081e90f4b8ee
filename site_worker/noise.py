"""Randomness that follows from a key alone: dropout, augmentation and the order of rows come out the same each time.

torch draws from generators that belong to the process, and a process may train for several sites in several threads.
So whoever draws holds them for that long, sets them by a key such as (site's seed, base version, step), and leaves
them as they were. Nothing of them needs to be kept for a round to be continued.
"""

import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch

_ONE_AT_A_TIME = threading.RLock()


@contextmanager
def drawing(*key: int, device: torch.device | None = None) -> Iterator[None]:
    """Draw from torch's generators, the processor's and the device's, as set by `key`."""
    with _ONE_AT_A_TIME:
        generators = [torch.default_generator]
        if device is not None and device.type == "cuda":
            torch.cuda.init()  # type: ignore[no-untyped-call]
            generators.append(torch.cuda.default_generators[device.index])
        states = [one.get_state() for one in generators]
        try:
            for one in generators:
                one.manual_seed(seed_of(*key))
            yield
        finally:
            for one, state in zip(generators, states, strict=True):
                one.set_state(state)


def reset(*key: int) -> None:
    """Set the processor's generator anew; only while `drawing`."""
    torch.default_generator.manual_seed(seed_of(*key))


def seed_of(*key: int) -> int:
    """64 bits that follow from these numbers and their order."""
    return int.from_bytes(hashlib.blake2b(repr(key).encode(), digest_size=8).digest())
