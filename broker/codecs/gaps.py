"""Ascending indices as bytes: how many coordinates are left out before each; 255 means "255, and more to come".

Large entries cluster, so that zstd finds most gaps short. Where entries are rare a gap takes 15 % less with its lower
byte for itself and only the upper part so escaped: that is `wide`.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from broker.codecs.pieces import Indices
from broker.errors import WireError

Bytes8 = NDArray[np.uint8]
_MORE: Final = 255
_WIDE: Final = 256


def gaps_of(indices: Indices, *, wide: bool) -> tuple[bytes, ...]:
    """The gaps before ascending indices: escaped, or if wide their lower bytes and the rest of them escaped."""
    gaps = np.diff(indices, prepend=-1) - 1
    if wide:
        return gaps.astype(np.uint8).tobytes(), _escaped(gaps // _WIDE).tobytes()
    return (_escaped(gaps).tobytes(),)


def indices_of(packed: Bytes8, entries: int, *, wide: bool) -> Indices:
    """`entries` indices from their gaps; WireError if there are fewer or more. They ascend whatever the bytes are."""
    lower, written = (packed[:entries], packed[entries:]) if wide else (None, packed)
    last = written != _MORE
    if np.count_nonzero(last) != entries or (entries and not last[-1]):
        raise WireError(f"its gaps are not those of {entries} entries.")
    if lower is None:
        indices: Indices = np.cumsum(written + last, dtype=np.intp)[last]  # at most 255: the last of a gap is less
    else:
        indices = np.cumsum(written, dtype=np.intp)[last] * _WIDE
        indices += np.cumsum(lower.astype(np.uint16) + 1, dtype=np.intp)
    indices -= 1
    return indices


def _escaped(numbers: Indices) -> Bytes8:
    more = numbers // _MORE
    written = np.full(len(numbers) + int(more.sum()), _MORE, dtype=np.uint8)
    written[np.cumsum(more + 1) - 1] = numbers - more * _MORE
    return written
