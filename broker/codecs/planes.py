"""float32, lossless: bytes of a kind together, so that exponents become a run that zstd can shorten."""

import numpy as np

from broker.codecs.pieces import Dense, Vector


def shuffle(values: Vector) -> bytes:
    """All first bytes, then all second bytes, ..."""
    planes: bytes = np.ascontiguousarray(values, dtype="<f4").view(np.uint8).reshape(-1, 4).T.tobytes()
    return planes


def unshuffle(packed: bytes, count: int) -> Dense:
    """What `shuffle` was given, to the bit."""
    planes = np.frombuffer(packed, dtype=np.uint8).reshape(4, count)
    return Dense(planes.T.copy().view("<f4").reshape(count).astype(np.float32, copy=False))
