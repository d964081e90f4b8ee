"""The same work on many pieces at once: numpy and zstd let go of the interpreter, so threads keep several cores busy.

Only as many pieces are taken from an iterator as are worked on, so that what they hold is never all in memory.
"""

import os
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import chain, islice
from typing import Final, TypeVar

T = TypeVar("T")
THREADS: Final = min(4, os.cpu_count() or 1)
_POOL: Final = ThreadPoolExecutor(THREADS, thread_name_prefix="side")


def each(work: Callable[[T], None], pieces: Iterable[T]) -> None:
    """Do `work` on each piece, in any order; what one of them raises is raised here, once none is under way."""
    waiting = iter(pieces)
    first = list(islice(waiting, 2))
    if THREADS == 1 or len(first) < 2:  # nothing to gain
        for piece in chain(first, waiting):
            work(piece)
        return
    under_way: deque[Future[None]] = deque()
    try:
        for piece in chain(first, waiting):
            under_way.append(_POOL.submit(work, piece))
            if len(under_way) > 2 * THREADS:
                under_way.popleft().result()
    finally:
        errors = [error for one in under_way if (error := one.exception()) is not None]
    if errors:
        raise errors[0]
