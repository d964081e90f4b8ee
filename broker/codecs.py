"""How a vector of float32 becomes bytes: a literal table of codecs, each applied chunk by chunk under zstd.

A payload is a run of chunks of `CHUNK` coordinates (the last one shorter). Each chunk is a little-endian uint32, the
length of what follows, and one zstd frame that declares its content size and carries a checksum. What a frame holds
is the codec's own affair, but its length follows from the number of coordinates alone, so a receiver knows every size
before it decompresses anything: a frame that declares another size is refused unread.

docs/wire-format.md has the byte-level description; tests/golden holds payloads that must decode for ever.
"""

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
import zstandard
from numpy.typing import NDArray

from broker.errors import UsageError, WireError

Vector = NDArray[np.float32]
CHUNK: Final = 1 << 18
BLOCK: Final = 4096
MAX_WINDOW: Final = 1 << 23
_LENGTH: Final = struct.Struct("<I")
_LARGEST_SCALE: Final = np.nextafter(np.finfo(np.float32).max / np.float32(127), np.float32(0))  # 127 of it are finite


@dataclass(frozen=True)
class Codec:
    """How one chunk is packed before zstd; `packed_bytes(count)` is exact."""

    pack: Callable[[Vector], bytes]
    unpack: Callable[[bytes, int], Vector]
    packed_bytes: Callable[[int], int]
    lossless: bool = False


def _shuffle(values: Vector) -> bytes:
    """All first bytes, then all second bytes, ...: exponents become a run that zstd can shorten."""
    planes: bytes = np.ascontiguousarray(values, dtype="<f4").view(np.uint8).reshape(-1, 4).T.tobytes()
    return planes


def _unshuffle(packed: bytes, count: int) -> Vector:
    planes = np.frombuffer(packed, dtype=np.uint8).reshape(4, count)
    return planes.T.copy().view("<f4").reshape(count).astype(np.float32, copy=False)


def _blocks(count: int) -> int:
    return -(-count // BLOCK)


def _quantise(values: Vector) -> bytes:
    """One float32 scale for each block of 4096 (peak / 127), then one int8 for each coordinate."""
    padded = np.zeros(_blocks(len(values)) * BLOCK, dtype=np.float32)
    padded[: len(values)] = values
    rows = padded.reshape(-1, BLOCK)
    scales = np.minimum(np.maximum(rows.max(axis=1), -rows.min(axis=1)) / np.float32(127), _LARGEST_SCALE)
    scales[scales < np.finfo(np.float32).tiny] = 0  # not exact to divide by; error feedback keeps what is left
    np.divide(rows, scales[:, None], out=rows, where=scales[:, None] > 0)
    levels = np.clip(np.rint(rows, out=rows), -127, 127, out=rows).astype(np.int8)
    levels[scales == 0] = 0
    packed: bytes = scales.astype("<f4").tobytes() + levels.reshape(-1)[: len(values)].tobytes()
    return packed


def _dequantise(packed: bytes, count: int) -> Vector:
    scales = np.frombuffer(packed, dtype="<f4", count=_blocks(count))
    levels = np.frombuffer(packed, dtype=np.int8, offset=4 * len(scales))
    values = levels.astype(np.float32)
    whole = count // BLOCK * BLOCK
    with np.errstate(over="ignore", invalid="ignore"):  # a hostile scale is found by the receiver's own limits
        values[:whole].reshape(-1, BLOCK)[:] *= scales[: whole // BLOCK, None]
        if whole < count:
            values[whole:] *= scales[-1]
    return values


CODECS: Final[dict[str, Codec]] = {
    "float32": Codec(_shuffle, _unshuffle, lambda count: 4 * count, lossless=True),
    "int8": Codec(_quantise, _dequantise, lambda count: count + 4 * _blocks(count)),
}


def codec_named(name: str) -> Codec:
    """The codec called `name`; UsageError names the choices."""
    if name not in CODECS:
        raise UsageError(f"There is no codec {name!r}; choose one of {', '.join(CODECS)}.")
    return CODECS[name]


def encode(name: str, vector: Vector, *, level: int = 1) -> bytes:
    """The payload of a finite `vector`, shape (n,). `level` is zstd's."""
    codec = codec_named(name)
    compressor = zstandard.ZstdCompressor(level=level, write_checksum=True, write_content_size=True)
    pieces: list[bytes] = []
    for start in range(0, len(vector), CHUNK):
        frame = compressor.compress(codec.pack(vector[start : start + CHUNK]))
        pieces += (_LENGTH.pack(len(frame)), frame)
    return b"".join(pieces)


def decode(name: str, payload: bytes, size: int) -> Iterator[tuple[int, Vector]]:
    """Chunks (start, values) of a payload of `size` coordinates, in order; WireError names the chunk that is wrong.

    The values may be NaN or infinite if the sender made them so: callers check. Memory is one chunk.
    """
    if name not in CODECS:
        raise WireError(f"There is no codec {name!r} here.")
    codec, view, position = CODECS[name], memoryview(payload), 0
    decompressor = zstandard.ZstdDecompressor(max_window_size=MAX_WINDOW)
    for start in range(0, size, CHUNK):
        count = min(CHUNK, size - start)
        frame = _next_frame(view[position:], start // CHUNK)
        yield start, codec.unpack(_inflate(decompressor, frame, codec.packed_bytes(count), start // CHUNK), count)
        position += _LENGTH.size + len(frame)
    if position != len(view):
        raise WireError(f"{len(view) - position} bytes follow the last chunk of the payload.")


def decoded(name: str, payload: bytes, size: int) -> Vector:
    """The whole vector of a payload."""
    vector = np.empty(size, dtype=np.float32)
    for start, values in decode(name, payload, size):
        vector[start : start + len(values)] = values
    return vector


def max_payload_bytes(name: str, size: int) -> int:
    """No honest payload of `size` coordinates is longer: zstd never adds more than this to what it cannot shorten."""
    codec = CODECS[name]
    chunks = [min(CHUNK, size - start) for start in range(0, size, CHUNK)]
    return sum(_LENGTH.size + packed + packed // 128 + 512 for packed in map(codec.packed_bytes, chunks))


def _next_frame(view: memoryview, chunk: int) -> memoryview:
    if len(view) < _LENGTH.size:
        raise WireError(f"The payload ends before chunk {chunk}.")
    (length,) = _LENGTH.unpack_from(view)
    if length > len(view) - _LENGTH.size:
        raise WireError(f"Chunk {chunk} says {length} bytes, but {len(view) - _LENGTH.size} are left.")
    return view[_LENGTH.size : _LENGTH.size + length]


def _inflate(decompressor: zstandard.ZstdDecompressor, frame: memoryview, expected: int, chunk: int) -> bytes:
    try:
        declared = zstandard.get_frame_parameters(frame)
        if declared.content_size != expected:
            raise WireError(f"Chunk {chunk} declares {declared.content_size} bytes where {expected} are due.")
        return decompressor.decompress(frame, max_output_size=expected, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise WireError(f"Chunk {chunk} is not one whole zstd frame: {error}.") from error
