"""top5, top1, top0.1: the largest coordinates alone, as the gaps between them and 4-bit logarithms of their size.

A chunk keeps what reaches a threshold. One threshold for the whole vector gives most to the layers that moved most:
of SGD's deltas top1 then leaves .66 (L2, relative), where each chunk with its own hundredth leaves .81 in more bytes.
A size is a step of the square root of 2 under the chunk's peak, and the lowest step stands for all below by their
mean. Finer steps were measured to cost bytes for no less error, steps of 2 to cost error.
"""

import struct
from collections.abc import Iterable
from dataclasses import dataclass
from math import gcd
from typing import Final

import numpy as np
from numpy.typing import NDArray

from broker.codecs.gaps import gaps_of, indices_of
from broker.codecs.pieces import Indices, Sparse, Vector
from broker.codecs.scratch import STRIDE, first_stride, packing_room
from broker.errors import WireError

_HEAD: Final = struct.Struct("<Iff")  # entries, peak, mean of the rest
_STEPS: Final = np.exp2(-np.arange(7) / 2).astype(np.float32)  # of the peak; the eighth is the mean of the rest
_PAIRS: Final = np.stack([np.arange(256) % 16, np.arange(256) // 16], axis=1).reshape(-1)  # the nibbles of each byte
_SAMPLE: Final = 1 << 20
_LEAST: Final = np.finfo(np.float32).smallest_subnormal


class Sample:
    """The magnitudes from which a threshold is found: of a vector of `size` coordinates that comes in parts.

    All up to 2^20 coordinates, beyond that every so many of them, a number that no layer's width divides.
    """

    def __init__(self, size: int) -> None:
        self._step = _step(size)
        self._taken: list[Vector] = [np.zeros(0, dtype=np.float32)]

    def add(self, position: int, part: Vector) -> None:
        """The part that begins at `position`; parts may come in any order."""
        self._taken.append(np.abs(part[-position % self._step :: self._step]))

    def magnitudes(self) -> Vector:
        """All that were taken."""
        return np.concatenate(self._taken)


@dataclass(frozen=True)
class Largest:
    """Keeps about `share` of the coordinates, at least one of a chunk by its own threshold; see gaps.py for `wide`."""

    share: float
    wide: bool = False

    def threshold(self, parts: Iterable[Vector], size: int) -> float:
        """The magnitude that a `share` of `size` finite coordinates reach, which come in parts; see Sample."""
        sample, position = Sample(size), 0
        for part in parts:
            sample.add(position, part)
            position += len(part)
        return self.reached(sample)

    def reached(self, sample: Sample) -> float:
        """The magnitude that a `share` of the sample reaches."""
        magnitudes = sample.magnitudes()
        if not len(magnitudes):
            return 0.0
        place = len(magnitudes) - self._quota(len(magnitudes))
        magnitudes.partition(place)
        return float(magnitudes[place])

    def pack(self, values: Vector) -> tuple[bytes, ...]:
        """The largest of a chunk by its own threshold."""
        return self.pack_above(values, self.threshold([values], len(values)))

    def pack_above(self, values: Vector, threshold: float) -> tuple[bytes, ...]:
        """Head and sizes, then the gaps, of the coordinates that reach the threshold."""
        indices = self._reaching(values, max(np.float32(threshold), _LEAST))
        kept = values[indices]
        sizes = np.abs(kept)
        peak = sizes.max(initial=0)
        steps = _steps_under(peak, sizes)
        rest = sizes[steps == len(_STEPS)]
        head = _HEAD.pack(len(kept), peak, rest.mean(dtype=np.float64) if len(rest) else 0)
        nibbles = np.zeros(len(kept) + len(kept) % 2, dtype=np.uint8)
        nibbles[: len(kept)] = steps | (kept < 0).view(np.uint8) << 3
        return head + (nibbles[::2] | nibbles[1::2] << 4).tobytes(), *gaps_of(indices, wide=self.wide)

    def unpack(self, packed: bytes, count: int) -> Sparse:
        """The entries; WireError if they are not those of `count` coordinates."""
        entries, peak, rest = _HEAD.unpack_from(packed)
        if entries > count:
            raise WireError(f"{entries} entries of {count} coordinates.")
        content = np.frombuffer(packed, dtype=np.uint8, offset=_HEAD.size)
        half = (entries + 1) // 2
        indices = indices_of(content[half:], entries, wide=self.wide)
        if entries and indices[-1] >= count:
            raise WireError(f"an entry at {indices[-1]} of {count} coordinates.")
        return Sparse(indices, _values_of(content[:half], peak, rest)[:entries], count)

    def packed_bytes(self, count: int) -> tuple[int, int]:
        """Of a chunk, the least and the most: no entry, all of them."""
        return _HEAD.size, _HEAD.size + (count + 1) // 2 + (1 + self.wide) * count

    def _quota(self, count: int) -> int:
        return max(1, round(self.share * count))

    def _reaching(self, values: Vector, threshold: np.float32) -> Indices:
        """Where the threshold is reached; of several that just reach it only those that the share has room for."""
        mask = packing_room(len(values)).view(np.bool_)
        for start in range(0, len(values), STRIDE):
            part = values[start : start + STRIDE]
            np.greater_equal(np.abs(part, out=first_stride(len(part))), threshold, out=mask[start : start + len(part)])
        indices = np.flatnonzero(mask)
        over = len(indices) - self._quota(len(values))
        if over > 0:
            ties = np.flatnonzero(np.abs(values[indices]) == threshold)
            indices = np.delete(indices, ties[1:][-over:])
        return indices


def _step(size: int) -> int:
    step = max(1, -(-size // _SAMPLE))
    while gcd(step, 210) > 1:
        step += 1
    return step


def _steps_under(peak: np.float32, sizes: Vector) -> NDArray[np.uint8]:
    with np.errstate(divide="ignore"):  # a size far too small beside the peak
        steps = np.rint(np.log2(sizes / peak) * np.float32(-2))
    lowest: NDArray[np.uint8] = np.minimum(steps, np.float32(len(_STEPS))).astype(np.uint8)
    return lowest


def _values_of(nibbles: NDArray[np.uint8], peak: float, rest: float) -> Vector:
    """Two values for each byte, looked up at once as if they were one number of eight bytes."""
    sizes = np.empty(16, dtype=np.float32)
    np.multiply(_STEPS, np.float32(peak), out=sizes[:7])
    sizes[7] = rest
    np.negative(sizes[:8], out=sizes[8:])
    values: Vector = sizes[_PAIRS].view(np.float64).take(nibbles).view(np.float32)
    return values
