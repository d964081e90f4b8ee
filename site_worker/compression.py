"""From what was learned to an update, segment by segment: difference, error feedback, codec.

Error feedback (Seide et al. 2014; Karimireddy et al. 2019, algorithm 2): what the codec leaves out of this update is
added to the next, so a lossy codec delays information but never drops it. The residual is not tied to a base model.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from broker.codecs import Form, Segment, chosen, encoder, open_segment, unframed
from broker.weights import Layout
from site_worker.descent import TrainingError
from site_worker.draft import Draft

Vector = NDArray[np.float32]
Stretch = Callable[[int, int], Vector]  # the coordinates from start to stop, to be overwritten at will


def learned(layout: Layout, trained: Mapping[str, Vector], base: Vector) -> Stretch:
    """trained - base, any stretch of it; TrainingError if it is not finite."""
    layout.require(trained)

    def read(start: int, stop: int) -> Vector:
        delta = layout.gather(trained, start, stop)
        delta -= base[start:stop]
        if not np.isfinite(delta).all():
            raise TrainingError("The trained weights are not finite; ask the coordinator for a lower learning rate.")
        return delta

    return read


@dataclass(frozen=True)
class Compressed:
    """How an update was written: by which `choice`, under which name on the wire, and what that leaves out.

    `error` is |left out| / |target|, the target being what was learned and what was left out before; `backlog` is
    |left out| / |learned|, so many rounds' worth wait for the next updates. Both are 0 if nothing is left out.
    """

    choice: str
    codec: str
    error: float
    backlog: float


def compress(choice: str, delta: Stretch, form: Form, draft: Draft) -> Compressed:
    """Write payload and next residual of a round that has learned `delta`; TrainingError if the sum is not finite."""
    codec = chosen(choice)
    writer = encoder(choice, form)
    if writer.passes > 1:
        for segment in writer.segments():
            writer.look(segment, _target(delta(segment.start, segment.end), segment, draft))
    of_delta = of_target = of_error = 0.0
    for segment in writer.segments():
        target = delta(segment.start, segment.end)
        of_delta += _square(target)
        target = _target(target, segment, draft)
        payload = writer.encode(segment, target)
        draft.add_payload(payload)
        if codec.codec.lossless:
            continue
        of_target += _square(target)
        missing = np.subtract(target, open_segment(codec.name, unframed(payload), segment).dense(), out=target)
        of_error += _square(missing)
        draft.add_residual(missing)
    return Compressed(choice, codec.name, _ratio(of_error, of_target), _ratio(of_error, of_delta))


def sizes(names: list[str], delta: Stretch, form: Form) -> dict[str, int]:
    """How many bytes what was learned takes by each choice."""
    return {name: sum(map(len, _payload(name, delta, form))) for name in names}


def left_out(name: str, delta: Stretch, form: Form) -> float:
    """Which part of what was learned a choice would leave out: |left out| / |learned|; 0 of nothing."""
    codec, of_delta, of_error = chosen(name), 0.0, 0.0
    payload = _payload(name, delta, form)
    for segment, piece in zip(codec.codec.segments(form, 0), payload, strict=True):
        target = delta(segment.start, segment.end)
        of_delta += _square(target)
        of_error += _square(target - open_segment(codec.name, unframed(piece), segment).dense())
    return _ratio(of_error, of_delta)


def _payload(name: str, delta: Stretch, form: Form) -> Iterator[bytes]:
    writer = encoder(name, form)
    if writer.passes > 1:
        for segment in writer.segments():
            writer.look(segment, delta(segment.start, segment.end))
    for segment in writer.segments():
        yield writer.encode(segment, delta(segment.start, segment.end))


def _target(delta: Vector, segment: Segment, draft: Draft) -> Vector:
    delta += draft.residual.read(segment.start, segment.count)
    if not np.isfinite(delta).all():
        raise TrainingError("The update and what was left out before it are not finite together.")
    return delta


def _ratio(one: float, other: float) -> float:
    return math.sqrt(one / other) if other else 0.0


def _square(values: Vector) -> float:
    return float(np.square(values, dtype=np.float64).sum())
