"""From what was learned to an update, chunk by chunk: difference, error feedback, codec.

Error feedback (Seide et al. 2014; Karimireddy et al. 2019, algorithm 2): what the codec leaves out of this update is
added to the next, so a lossy codec delays information but never drops it. The residual is not tied to a base model.
"""

import math
from collections.abc import Iterable, Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from broker.codecs import CHUNK, CODECS, decode, encode_chunk
from broker.weights import Layout
from site_worker.descent import TrainingError
from site_worker.draft import Draft, Residual

Vector = NDArray[np.float32]


def stretches(size: int) -> Iterator[tuple[int, int]]:
    """(start, stop) of the chunks of `size` coordinates."""
    return ((start, min(start + CHUNK, size)) for start in range(0, size, CHUNK))


def targets(layout: Layout, trained: Mapping[str, Vector], base: Vector, residual: Residual) -> Iterator[Vector]:
    """trained - base + residual, a chunk at a time, to be overwritten at will; TrainingError if one is not finite."""
    layout.require(trained)
    for start, stop in stretches(layout.size):
        target = layout.gather(trained, start, stop)
        target -= base[start:stop]
        target += residual.read(start, stop - start)
        if not np.isfinite(target).all():
            raise TrainingError("The trained weights are not finite; ask the coordinator for a lower learning rate.")
        yield target


def compress(codec: str, chunks: Iterable[Vector], draft: Draft) -> float:
    """Write payload and next residual; the relative error |left out| / |target|, which is 0 if nothing is left out."""
    lossless, of_target, of_error = CODECS[codec].lossless, 0.0, 0.0
    for target in chunks:
        frame = encode_chunk(codec, target)
        draft.add_payload(frame)
        if lossless:
            continue
        of_target += _square(target)
        ((_, piece),) = decode(codec, frame, len(target))
        left_out = np.subtract(target, piece.dense(), out=target)
        of_error += _square(left_out)
        draft.add_residual(left_out)
    return math.sqrt(of_error / of_target) if of_target else 0.0


def _square(values: Vector) -> float:
    return float(np.square(values, dtype=np.float64).sum())
