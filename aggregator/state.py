"""What a strategy keeps besides the model: its vectors, what its kept sum holds, how far each site's update is used.

It is a file beside the version's snapshot, named by its own digest, which the journal holds with the version. Like a
snapshot it only spares the time to fold: without it, an older version is folded forward.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from math import prod
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from aggregator.strategies import Source
from broker.errors import StorageError
from broker.tensorfile import Entry, Place, checked, places, write_tensors

Vector = NDArray[np.float32]
_NUMBERS: Final = "numbers"


@dataclass(frozen=True)
class State:
    """Vectors by name, each of the model's shape (n,); `held` are the terms of the kept sum, `used` is by site.

    The next step changes the vectors in place, so the digest is taken before it, once.
    """

    vectors: Mapping[str, Vector] = field(default_factory=dict)
    held: Mapping[Source, float] = field(default_factory=dict)
    used: Mapping[str, float] = field(default_factory=dict)

    @cached_property
    def digest(self) -> bytes | None:
        """SHA-256 of all of it; None of nothing, as for strategies that keep nothing."""
        if not self.vectors:
            return None
        state = hashlib.sha256(self._numbers().encode())
        for name in sorted(self.vectors):
            state.update(name.encode() + b"\0")
            state.update(np.ascontiguousarray(self.vectors[name], dtype="<f4").data)
        return state.digest()

    def save(self, path: Path) -> None:
        """Write it, as whoever reads it again holds it against its digest."""
        entries = [_entry(name, vector) for name, vector in self.vectors.items()]
        write_tensors(path, entries, {_NUMBERS: self._numbers()}, sync=False)

    def _numbers(self) -> str:
        return json.dumps(
            [[[*source, value] for source, value in sorted(self.held.items())], sorted(self.used.items())]
        )


NOTHING: Final = State()


def _entry(name: str, vector: Vector) -> Entry:
    return Entry(name, "F32", vector.shape, lambda: [np.ascontiguousarray(vector, dtype="<f4").data.cast("B")])


def _read(path: Path, place: Place) -> Vector:
    """One vector, without mapping the file, whose pages would count as ours."""
    return np.fromfile(path, dtype="<f4", count=prod(place.shape), offset=place.offset).astype(np.float32, copy=False)


def load_state(path: Path, digest: bytes | None) -> State:
    """The state with this digest; StorageError if the file is missing, damaged or of another."""
    if digest is None:
        return NOTHING
    try:
        held, used = json.loads(checked(path).get(_NUMBERS, "[[], []]"))
        vectors = {place.name: _read(path, place) for place in places(path)}
    except (StorageError, OSError, ValueError) as error:
        raise StorageError(f"{path} is not a readable state of a strategy: {error}.") from error
    state = State(vectors, {Source(kind, number): value for kind, number, value in held}, dict(used))
    if state.digest != digest:
        raise StorageError(f"{path} is not the state that the journal names.")
    return state
