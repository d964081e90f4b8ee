"""From one published model to the next: how a difference is written, and what it leads to.

Both ends run `led_on` on the same bytes, so they hold the same bits; a digest goes with each model and proves it.
"""

from collections.abc import Iterable, Iterator
from typing import Protocol

from broker.codecs import CHUNK, Bytes, Form, Vector, decode, encode_chunk, encoder

KEYFRAME_CODEC = "float32"


class Stretches(Protocol):
    """A vector in memory, or one that is read from a file stretch by stretch."""

    def __len__(self) -> int: ...

    def __getitem__(self, place: slice, /) -> Vector: ...


def difference(codec: str, model: Vector, held: Stretches, form: Form | None = None) -> Iterator[bytes]:
    """The payload of model - held, shapes (n,), in pieces; `codec` is what settings call it."""
    writer = encoder(codec, len(model) if form is None else form)
    stretches = [(segment, slice(segment.start, segment.end)) for segment in writer.segments()]
    if writer.passes > 1:
        for segment, place in stretches:
            writer.look(segment, model[place] - held[place])
    for segment, place in stretches:
        yield writer.encode(segment, model[place] - held[place])


def keyframe(model: Stretches) -> Iterator[bytes]:
    """The payload of a model in full, in pieces."""
    for start in range(0, len(model), CHUNK):
        yield encode_chunk(KEYFRAME_CODEC, model[start : start + CHUNK])


def led_on(codec: str, pieces: Iterable[Bytes], held: Stretches, form: Form | None = None) -> Iterator[Vector]:
    """What `difference` leads to from `held`, stretch by stretch in order; WireError if the payload is damaged.

    `codec` is its name on the wire.
    """
    for start, piece in decode(codec, pieces, len(held) if form is None else form):
        stretch = held[start : start + piece.count].copy()
        piece.add_to(stretch, 1.0)
        yield stretch


def in_full(pieces: Iterable[Bytes], size: int) -> Iterator[Vector]:
    """The model of a keyframe, stretch by stretch in order; WireError if the payload is damaged."""
    for _start, piece in decode(KEYFRAME_CODEC, pieces, size):
        yield piece.dense()
