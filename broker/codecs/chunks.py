"""One chunk to bytes and back: the codec inside, zstd outside, which also carries the checksum.

All functions may be called by several threads at once; each thread keeps its own zstd.
"""

import threading
from collections.abc import Iterable
from functools import lru_cache
from typing import Final

import zstandard

from broker.codecs.choices import codec_named
from broker.codecs.forms import Shape
from broker.codecs.frames import LENGTH, Bytes
from broker.codecs.pieces import CHUNK, Piece, Vector
from broker.codecs.table import CODECS, Parts
from broker.errors import WireError

MAX_WINDOW: Final = 1 << 23
RUNS_HASH_LOG: Final = 8  # so few places to look at that zstd finds runs and nothing else


def _compressor(level: int, runs: bool) -> zstandard.ZstdCompressor:
    if not runs or level != 1:
        return zstandard.ZstdCompressor(level=level, write_checksum=True, write_content_size=True)
    parameters = zstandard.ZstdCompressionParameters.from_level(
        1, hash_log=RUNS_HASH_LOG, write_checksum=1, write_content_size=1
    )
    return zstandard.ZstdCompressor(compression_params=parameters)


class _Zstd(threading.local):
    """The compressors by level, and the decompressor, of one thread: none of them is thread-safe."""

    def __init__(self) -> None:
        self.compressor = lru_cache(maxsize=4)(_compressor)
        self.decompressor = zstandard.ZstdDecompressor(max_window_size=MAX_WINDOW)


_ZSTD: Final = _Zstd()


def threshold(name: str, parts: Iterable[Vector], size: int) -> float | None:
    """For `encode_chunk`: the magnitude that is kept of a vector of `size` coordinates, which comes in parts.

    One cheap pass. None if the codec keeps all coordinates; then nothing is read.
    """
    largest = codec_named(name).largest
    return None if largest is None else largest.threshold(parts, size)


def encode_chunk(name: str, values: Vector, *, level: int = 1, threshold: float | None = None) -> bytes:
    """The chunk of at most CHUNK finite `values`, shape (count,), with its length in front. `level` is zstd's.

    `threshold` is that of the whole vector; without it a codec that keeps the largest keeps those of the chunk.
    """
    assert len(values) <= CHUNK
    codec = codec_named(name)
    if codec.largest is None or threshold is None:
        parts: Parts = codec.pack(values)
    else:
        parts = codec.largest.pack_above(values, threshold)
    return framed(parts, level=level, runs=codec.runs)


def framed(parts: Parts, *, level: int, runs: bool) -> bytes:
    """What was packed as one frame with its length in front; for `runs` see Codec."""
    frame = _compressed([part for part in parts if len(part)], _ZSTD.compressor(level, runs))
    return LENGTH.pack(len(frame)) + frame


def open_frame(name: str, frame: Bytes, shape: int | Shape, number: int) -> Piece:
    """The coordinates in a frame; WireError names chunk `number` if it is damaged, or not what is due.

    `shape` is that of the segment; of a chunk the number of its coordinates will do. Its size is known before anything
    is decompressed. The values may be NaN or infinite if the sender made them so: callers check.
    """
    if name not in CODECS:
        raise WireError(f"There is no codec {name!r} here.")
    codec, matrix = CODECS[name], (1, shape) if isinstance(shape, int) else shape
    packed = _inflate(frame, codec.packed_bytes(matrix), number)
    try:
        return codec.unpack(packed, matrix)
    except WireError as error:
        raise WireError(f"Chunk {number} is not what codec {name} writes: {error}") from error


def _compressed(parts: Parts, compressor: zstandard.ZstdCompressor) -> bytes:
    """One frame; each part begins a block, which has a table of its own."""
    if len(parts) == 1:
        return compressor.compress(parts[0])
    stream = compressor.compressobj(size=sum(map(len, parts)))
    pieces: list[bytes] = []
    for part in parts[:-1]:
        pieces += (stream.compress(part), stream.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK))
    return b"".join([*pieces, stream.compress(parts[-1]), stream.flush()])


def _inflate(frame: Bytes, due: tuple[int, int], number: int) -> bytes:
    least, most = due
    try:
        declared = zstandard.get_frame_parameters(frame).content_size
        if not least <= declared <= most:
            expected = f"{least}" if least == most else f"{least} to {most}"
            raise WireError(f"Chunk {number} declares {declared} bytes where {expected} are due.")
        return _ZSTD.decompressor.decompress(frame, max_output_size=declared, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise WireError(f"Chunk {number} is not one whole zstd frame: {error}.") from error
