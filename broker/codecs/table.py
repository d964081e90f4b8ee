"""The codecs by name. What a frame holds is the codec's own affair; its length lies in a range known beforehand."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from broker.codecs.levels import blocks, dequantise, quantise
from broker.codecs.pieces import Piece, Vector
from broker.codecs.planes import shuffle, unshuffle
from broker.errors import UsageError


@dataclass(frozen=True)
class Codec:
    """How one chunk is packed before zstd; `packed_bytes(count)` are the least and the most that it can take.

    `unpack` is given what `packed_bytes` admits and raises WireError, without naming the chunk, if it is still wrong.
    Both are pure and thread-safe. `pack` takes finite numbers.
    """

    pack: Callable[[Vector], bytes]
    unpack: Callable[[bytes, int], Piece]
    packed_bytes: Callable[[int], tuple[int, int]]
    lossless: bool = False


def _exactly(packed_bytes: Callable[[int], int]) -> Callable[[int], tuple[int, int]]:
    return lambda count: (packed_bytes(count), packed_bytes(count))


CODECS: Final[dict[str, Codec]] = {
    "float32": Codec(shuffle, unshuffle, _exactly(lambda count: 4 * count), lossless=True),
    "int8": Codec(quantise, dequantise, _exactly(lambda count: count + 4 * blocks(count))),
}


def codec_named(name: str) -> Codec:
    """The codec called `name`; UsageError names the choices."""
    if name not in CODECS:
        raise UsageError(f"There is no codec {name!r}; choose one of {', '.join(CODECS)}.")
    return CODECS[name]
