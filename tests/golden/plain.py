"""Every codec's content read by docs/wire-format.md section 5 and nothing else: no numpy, no code of ours, one number
at a time. What this makes of a golden payload is what a site in another language would make of it.
"""

import struct
from collections.abc import Callable, Iterator
from functools import partial
from typing import Final

import zstandard

CHUNK: Final = 262_144
POWERS: Final = ("3f800000", "3f3504f3", "3f000000", "3eb504f3", "3e800000", "3e3504f3", "3e000000")


def single(value: float) -> float:
    """Rounded to float32."""
    (rounded,) = struct.unpack("<f", struct.pack("<f", value))
    return float(rounded)


def half(lower: int, upper: int) -> float:
    """A bfloat16 by its two bytes."""
    (value,) = struct.unpack("<f", bytes([0, 0, lower, upper]))
    return float(value)


def payload(codec: str, data: bytes, size: int) -> list[float]:
    """All coordinates of a payload, of a vector that is one tensor of one dimension."""
    if codec == "lowrank":
        return matrices(data, [(1, size)])
    values: list[float] = []
    while len(values) < size:
        (length,) = struct.unpack_from("<I", data)
        content = zstandard.ZstdDecompressor().decompress(data[4 : 4 + length])
        values += READERS[codec](content, min(CHUNK, size - len(values)))
        data = data[4 + length :]
    assert not data
    return values


def matrices(data: bytes, shapes: list[tuple[int, int]]) -> list[float]:
    """All coordinates of a payload of matrices, of 2^24 coordinates at most each."""
    values: list[float] = []
    for rows, columns in shapes:
        (length,) = struct.unpack_from("<I", data)
        values += lowrank(zstandard.ZstdDecompressor().decompress(data[4 : 4 + length]), rows, columns)
        data = data[4 + length :]
    assert not data
    return values


def lowrank(content: bytes, rows: int, columns: int) -> list[float]:
    (rank,) = struct.unpack_from("<H", content)
    if not rank:
        return [0.0] * (rows * columns)
    (scale,) = struct.unpack_from("<f", content, 2)
    exponents, levels = content[6 : 6 + rank], struct.unpack_from(f"<{rank * (rows + columns)}b", content, 6 + rank)
    left, right = levels[: rank * rows], levels[rank * rows :]
    return [
        single(scale * sum(left[j * rows + i] * right[j * columns + k] << exponents[j] for j in range(rank)))
        for i in range(rows)
        for k in range(columns)
    ]


def float32(content: bytes, count: int) -> list[float]:
    planes = [content[number * count : (number + 1) * count] for number in range(4)]
    return [float(struct.unpack("<f", bytes(four))[0]) for four in zip(*planes, strict=True)]


def bf16(content: bytes, count: int) -> list[float]:
    return [half(*two) for two in zip(content[:count], content[count:], strict=True)]


def int8(content: bytes, count: int) -> list[float]:
    blocks = -(-count // 4096)
    scales = struct.unpack_from(f"<{blocks}f", content)
    levels = struct.unpack_from(f"<{count}b", content, 4 * blocks)
    return [single(level * scales[number // 4096]) for number, level in enumerate(levels)]


def nibbles(packed: bytes, count: int) -> list[int]:
    return [packed[number // 2] >> 4 * (number % 2) & 15 for number in range(count)]


def int4(content: bytes, count: int) -> list[float]:
    blocks = -(-count // 256)
    scales = bf16(content[: 2 * blocks], blocks)
    levels = nibbles(content[2 * blocks :], count)
    return [single((level - 8) * scales[number // 256]) for number, level in enumerate(levels)]


def sign(content: bytes, count: int) -> list[float]:
    blocks = -(-count // 1024)
    scales, bits = bf16(content[: 2 * blocks], blocks), content[2 * blocks :]
    return [
        -scales[number // 1024] if bits[number // 8] >> number % 8 & 1 else scales[number // 1024]
        for number in range(count)
    ]


def escaped(packed: bytes) -> Iterator[int]:
    total = 0
    for byte in packed:
        total += byte
        if byte < 255:
            yield total
            total = 0


def top(content: bytes, count: int, *, wide: bool = False) -> list[float]:
    entries, peak, rest = struct.unpack_from("<Iff", content)
    sizes = [*(single(peak * struct.unpack(">f", bytes.fromhex(power))[0]) for power in POWERS), rest]
    found, gaps = nibbles(content[12:], entries), content[12 + (entries + 1) // 2 :]
    lower, upper = (gaps[:entries], list(escaped(gaps[entries:]))) if wide else (bytes(entries), list(escaped(gaps)))
    values, place = [0.0] * count, -1
    for nibble, low, high in zip(found, lower, upper, strict=True):
        place += 1 + low + high * (256 if wide else 1)
        values[place] = -sizes[nibble % 8] if nibble >= 8 else sizes[nibble]
    return values


READERS: Final[dict[str, Callable[[bytes, int], list[float]]]] = {
    "float32": float32,
    "bf16": bf16,
    "int8": int8,
    "int4": int4,
    "sign": sign,
    "top5": top,
    "top1": top,
    "top0.1": partial(top, wide=True),
}
