"""The codecs by name. What a frame holds is the codec's own affair; its length lies in a range known beforehand."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from broker.codecs import factors, levels, lowrank, nibbles, signs
from broker.codecs.forms import Form, Segment, Shape, chunks, matrices
from broker.codecs.largest import Largest
from broker.codecs.pieces import Piece, Vector
from broker.codecs.planes import halve, shuffle, unshuffle, widen

Parts = Sequence[bytes | memoryview]


@dataclass(frozen=True)
class Codec:
    """How one segment is packed before zstd; `packed_bytes(shape)` are the least and the most that it can take.

    `pack` takes finite numbers and gives parts that differ in kind, so that zstd codes each by its own table; they
    hold until the thread packs the next. `unpack` is given all of them as one, within `packed_bytes`, and raises
    WireError, without naming the segment, if it is still wrong. All are pure, and threads may share them.

    `runs` says that zstd's first level need look for nothing but runs: other matches would be chance, which takes time
    and even bytes. `largest` is how to choose by one threshold for a whole vector, where only the largest are kept.
    `pooled` says that what is kept of a matrix depends on all the others: see encoders.py; `pack` is then for a vector
    by itself.
    """

    pack: Callable[[Vector], Parts]
    unpack: Callable[[bytes, Shape], Piece]
    packed_bytes: Callable[[Shape], tuple[int, int]]
    segments: Callable[[int | Form, int], Iterator[Segment]] = chunks
    lossless: bool = False
    runs: bool = False
    largest: Largest | None = None
    pooled: bool = False


def _flat(unpack: Callable[[bytes, int], Piece]) -> Callable[[bytes, Shape], Piece]:
    return lambda packed, shape: unpack(packed, shape[0] * shape[1])


def _exactly(packed_bytes: Callable[[int], int]) -> Callable[[Shape], tuple[int, int]]:
    return lambda shape: (packed_bytes(shape[0] * shape[1]),) * 2


def _keeping(largest: Largest) -> Codec:
    return Codec(
        largest.pack,
        _flat(largest.unpack),
        lambda shape: largest.packed_bytes(shape[0] * shape[1]),
        runs=True,
        largest=largest,
    )


CODECS: Final[dict[str, Codec]] = {
    "float32": Codec(shuffle, _flat(unshuffle), _exactly(lambda count: 4 * count), lossless=True, runs=True),
    "bf16": Codec(halve, _flat(widen), _exactly(lambda count: 2 * count), runs=True),
    "int8": Codec(levels.quantise, _flat(levels.dequantise), _exactly(levels.packed_bytes)),
    "int4": Codec(nibbles.quantise, _flat(nibbles.dequantise), _exactly(nibbles.packed_bytes)),
    "sign": Codec(signs.binarise, _flat(signs.scale_signs), _exactly(signs.packed_bytes)),
    "top5": _keeping(Largest(0.05)),
    "top1": _keeping(Largest(0.01)),
    "top0.1": _keeping(Largest(0.001, wide=True)),
    "lowrank": Codec(factors.row, lowrank.unpack, lowrank.packed_bytes, matrices, runs=True, pooled=True),
}
