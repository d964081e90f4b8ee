"""How near to a vector each codec must come, reckoned here from docs/wire-format.md alone."""

from collections.abc import Callable
from functools import partial
from typing import Final

import numpy as np

from broker.codecs import CHUNK, CODECS, Vector

TINY: Final = np.finfo(np.float32).tiny
LEAST_HALF: Final = 2.0**-133  # the smallest bf16
ROUNDED: Final = 2.0**-8  # a bf16 is that near, as a part of the number


def exactly(found: Vector, vector: Vector) -> None:
    assert found.tobytes() == vector.tobytes()


def rounded(found: Vector, vector: Vector) -> None:
    wide = vector.astype(np.float64)
    assert (np.abs(found - wide) <= np.abs(wide) * ROUNDED + LEAST_HALF).all()


def within_half_a_step(found: Vector, vector: Vector, *, block: int, levels: int, slack: float) -> None:
    for start in range(0, len(vector), block):
        part = vector[start : start + block].astype(np.float64)
        allowed = np.abs(part).max() / levels * 0.5 * (1 + slack) + levels * TINY
        assert np.abs(found[start : start + block] - part).max() <= allowed


def mean_with_its_sign(found: Vector, vector: Vector) -> None:
    for start in range(0, len(vector), 1024):
        part = vector[start : start + 1024].astype(np.float64)
        mean = np.abs(part).mean()
        assert (np.abs(np.abs(found[start : start + 1024]) - mean) <= mean * (ROUNDED + 1e-5) + LEAST_HALF).all()
        assert (np.signbit(found[start : start + 1024]) == (part < 0)).all()


def largest_alone(found: Vector, vector: Vector, *, share: float) -> None:
    """A fourth root of 2 up or down; under the seventh step anything up to there."""
    sizes, kept = np.abs(vector.astype(np.float64)), found != 0
    wanted, chunks = max(1, round(share * len(vector))), -(-len(vector) // CHUNK)
    assert np.count_nonzero(kept) <= wanted + chunks - 1
    if chunks == 1:
        assert int(np.count_nonzero(kept)) >= min(wanted, int(np.count_nonzero(sizes > 100 * TINY)))
    assert float(sizes[~kept].max(initial=0)) <= float(sizes[kept].min(initial=np.inf))
    for start in range(0, len(vector), CHUNK):
        place = slice(start, start + CHUNK)
        mine = kept[place]
        size, got = sizes[place][mine], np.abs(found[place][mine].astype(np.float64))
        peak = size.max(initial=0)
        near = (got <= size * 2**0.25 * 1.001) & (got >= size * 2**-0.25 * 0.999)
        low = (size <= peak * 2**-3.25 * 1.001) & (got <= peak * 2**-3.25 * 1.001)
        assert (near | low | (size < TINY * 100)).all()
        assert (np.signbit(found[place][mine]) == (vector[place][mine] < 0)).all()


def one_row(found: Vector, vector: Vector) -> None:
    """Steps of .4 of the root mean square, at most 15 of them; a unit is a 256th of a step of the half of it."""
    wide = vector.astype(np.float64)
    size = np.sqrt((wide**2).mean()) if len(vector) else 0.0
    if size < 5 * 256 * TINY * 1.001 or size > 1e37:
        assert np.abs(found).max(initial=0) <= 10 * size
        return
    clipped = np.clip(wide, -6 * size, 6 * size)
    assert np.abs(found - clipped).max() <= 0.2 * size * 1.001


NEAR: Final[dict[str, Callable[[Vector, Vector], None]]] = {
    "float32": exactly,
    "bf16": rounded,
    "int8": partial(within_half_a_step, block=4096, levels=127, slack=2e-4),
    "int4": partial(within_half_a_step, block=256, levels=7, slack=ROUNDED + 1e-6),
    "sign": mean_with_its_sign,
    "top5": partial(largest_alone, share=0.05),
    "top1": partial(largest_alone, share=0.01),
    "top0.1": partial(largest_alone, share=0.001),
    "lowrank": one_row,
}
assert set(NEAR) == set(CODECS)


def assert_near(codec: str, found: Vector, vector: Vector) -> None:
    """What `codec` made of `vector` is finite and as near as its description says."""
    assert np.isfinite(found).all()
    NEAR[codec](found, vector)
