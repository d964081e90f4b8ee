"""One chunk to bytes and back: the codec inside, zstd outside, which also carries the checksum.

All functions may be called by several threads at once; each thread keeps its own zstd.
"""

import threading
from functools import lru_cache
from typing import Final

import zstandard

from broker.codecs.frames import LENGTH, Bytes
from broker.codecs.pieces import CHUNK, Piece, Vector
from broker.codecs.table import CODECS, codec_named
from broker.errors import WireError

MAX_WINDOW: Final = 1 << 23


class _Zstd(threading.local):
    """The compressors by level, and the decompressor, of one thread: none of them is thread-safe."""

    def __init__(self) -> None:
        self.compressor = lru_cache(maxsize=4)(
            lambda level: zstandard.ZstdCompressor(level=level, write_checksum=True, write_content_size=True)
        )
        self.decompressor = zstandard.ZstdDecompressor(max_window_size=MAX_WINDOW)


_ZSTD: Final = _Zstd()


def encode_chunk(name: str, values: Vector, *, level: int = 1) -> bytes:
    """The chunk of at most CHUNK finite `values`, shape (count,), with its length in front. `level` is zstd's."""
    assert len(values) <= CHUNK
    frame = _ZSTD.compressor(level).compress(codec_named(name).pack(values))
    return LENGTH.pack(len(frame)) + frame


def open_frame(name: str, frame: Bytes, count: int, number: int) -> Piece:
    """The `count` coordinates in a frame; WireError names chunk `number` if it is damaged, or not what is due.

    Its size is known before anything is decompressed. The values may be NaN or infinite if the sender made them so:
    callers check.
    """
    if name not in CODECS:
        raise WireError(f"There is no codec {name!r} here.")
    codec = CODECS[name]
    packed = _inflate(frame, codec.packed_bytes(count), number)
    try:
        return codec.unpack(packed, count)
    except WireError as error:
        raise WireError(f"Chunk {number} is not what codec {name} writes: {error}") from error


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
