"""What both sides know of a model: its layout (names, shapes, dtypes) and one flat float32 vector.

Tensors lie in the vector in the order of their names. A model is identified by the SHA-256 of its layout's digest and
its values, so a file, a stream and a memory copy can be compared. Files are safetensors, never pickles.
"""

import hashlib
import json
import os
import weakref
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from math import prod
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from broker.codecs import Form
from broker.errors import StorageError, UsageError, WireError
from broker.tensorfile import Buffer, Entry, checked, places, write_tensors

Vector = NDArray[np.float32]


@dataclass(frozen=True)
class Tensor:
    """One named tensor of the layout; `dtype` is always float32 on the wire."""

    name: str
    shape: tuple[int, ...]
    dtype: str = "float32"

    @property
    def size(self) -> int:
        """Number of coordinates."""
        return prod(self.shape)


@dataclass(frozen=True)
class Layout:
    """Which tensors are shared, in the order in which they lie in the vector."""

    tensors: tuple[Tensor, ...]

    @classmethod
    def of(cls, weights: Mapping[str, NDArray[np.generic]]) -> "Layout":
        """The layout of `weights`; UsageError if there is nothing to share or a tensor is not float32."""
        odd = [name for name, array in weights.items() if array.dtype != np.float32]
        if odd:
            raise UsageError(f"Tensor {odd[0]!r} is {weights[odd[0]].dtype}, but shared tensors must be float32.")
        layout = cls(tuple(Tensor(name, tuple(weights[name].shape)) for name in sorted(weights)))
        if not layout.size:
            raise UsageError("The model has no tensor to share.")
        return layout

    @cached_property
    def size(self) -> int:
        """Number of coordinates of the vector."""
        return sum(tensor.size for tensor in self.tensors)

    @cached_property
    def form(self) -> Form:
        """What codecs need to know of it."""
        return Form(tuple(tensor.shape for tensor in self.tensors))

    @cached_property
    def digest(self) -> bytes:
        """SHA-256 of names, shapes and dtypes as canonical JSON."""
        rows = [[tensor.name, list(tensor.shape), tensor.dtype] for tensor in self.tensors]
        return hashlib.sha256(json.dumps(rows, separators=(",", ":")).encode()).digest()

    @cached_property
    def _ends(self) -> list[int]:
        """Where each tensor ends in the vector."""
        return list(accumulate(tensor.size for tensor in self.tensors))

    def _slices(self) -> Iterator[tuple[Tensor, slice]]:
        for tensor, end in zip(self.tensors, self._ends, strict=True):
            yield tensor, slice(end - tensor.size, end)

    def require(self, weights: Mapping[str, NDArray[np.float32]]) -> None:
        """WireError if names, shapes or dtypes of `weights` differ from the layout."""
        given = tuple(Tensor(name, weights[name].shape, str(weights[name].dtype)) for name in sorted(weights))
        if given != self.tensors:
            raise WireError("The weights do not have the federation's layout (names, shapes or dtypes differ).")

    def flatten(self, weights: Mapping[str, NDArray[np.float32]]) -> Vector:
        """`weights` as one vector; WireError if names, shapes or dtypes differ from the layout."""
        self.require(weights)
        return self.gather(weights, 0, self.size)

    def gather(self, weights: Mapping[str, NDArray[np.float32]], start: int, stop: int) -> Vector:
        """A copy of the coordinates from `start` to `stop` of what `flatten` would give; nothing else is copied.

        `weights` must have the layout (`require`), and lie in memory without gaps, or they are copied whole.
        """
        stretch = np.empty(stop - start, dtype=np.float32)
        number = bisect_right(self._ends, start)
        at = start
        while at < stop:
            tensor, end = self.tensors[number], self._ends[number]
            first, last = at - (end - tensor.size), min(stop, end) - (end - tensor.size)
            stretch[at - start : at - start + last - first] = weights[tensor.name].reshape(-1)[first:last]
            at, number = min(stop, end), number + 1
        return stretch

    def unflatten(self, vector: Vector) -> dict[str, NDArray[np.float32]]:
        """Views into `vector`, one a tensor; no copy."""
        if vector.shape != (self.size,):
            raise WireError(f"A vector of {vector.size} coordinates cannot fill a layout of {self.size}.")
        return {tensor.name: vector[place].reshape(tensor.shape) for tensor, place in self._slices()}


def model_digest(layout_digest: bytes, vector: Vector) -> bytes:
    """SHA-256 of the layout's digest followed by the values, little-endian float32."""
    state = hashlib.sha256(layout_digest)
    state.update(np.ascontiguousarray(vector, dtype="<f4").data)
    return state.digest()


def save_model(
    path: Path, layout: Layout, vector: Vector, *, metadata: Mapping[str, str] | None = None, sync: bool = True
) -> None:
    """Write a safetensors file so that after any crash either the whole file is at `path` or nothing is.

    Without `sync` only a crash of this process is meant, not one of the machine.
    """

    def entry(name: str, values: Vector) -> Entry:
        return Entry(name, "F32", values.shape, lambda: [_bytes_of(values)])

    write_tensors(path, (entry(*one) for one in layout.unflatten(vector).items()), metadata, sync=sync)


def save_stretches(
    path: Path, layout: Layout, stretches: Iterable[Vector], *, metadata: Mapping[str, str] | None = None
) -> None:
    """As `save_model`, of a vector that comes in stretches of any length, in order."""
    coming = _Stretches(stretches)

    def entry(tensor: Tensor) -> Entry:
        return Entry(tensor.name, "F32", tensor.shape, lambda: coming.take(tensor.size))

    write_tensors(path, map(entry, layout.tensors), metadata)


class _Stretches:
    """Stretches of a vector, cut anew where tensors end."""

    def __init__(self, stretches: Iterable[Vector]) -> None:
        self._coming = iter(stretches)
        self._left = np.empty(0, dtype=np.float32)

    def take(self, count: int) -> Iterator[Buffer]:
        """The bytes of the next `count` coordinates."""
        while count:
            if not len(self._left):
                self._left = next(self._coming)
            piece, self._left = self._left[:count], self._left[count:]
            count -= len(piece)
            yield _bytes_of(piece)


def load_model(path: Path) -> tuple[Layout, Vector]:
    """Layout and vector of a safetensors file; UsageError if it is missing, StorageError if it is damaged."""
    layout, offsets = _found(path)
    vector = np.empty(layout.size, dtype="<f4")
    try:
        with path.open("rb") as file:
            for name, values in layout.unflatten(vector).items():
                file.seek(offsets[name])
                if file.readinto(_bytes_of(values)) != values.nbytes:
                    raise StorageError(f"{path} became shorter while it was read.")
    except OSError as error:
        raise StorageError(f"{path} cannot be read: {error.strerror}.") from error
    return layout, vector.astype(np.float32, copy=False)


def map_model(path: Path) -> tuple[Layout, Vector]:
    """As `load_model`, but the file is the memory, and stays as it is whatever is written to the vector.

    The file must not be changed while the vector is used; it may be replaced or removed.
    """
    layout, offsets = _found(path)
    first = offsets[layout.tensors[0].name]
    in_order = all(offsets[tensor.name] == first + 4 * place.start for tensor, place in layout._slices())
    if not in_order or first % 4:
        return load_model(path)
    try:
        return layout, np.memmap(path, dtype="<f4", mode="c", offset=first, shape=(layout.size,))
    except OSError as error:
        raise StorageError(f"{path} cannot be read: {error.strerror}.") from error


class FileVector:
    """The vector of a model file, read stretch by stretch: no more of it is in memory than was asked for last.

    UsageError if the file is missing, StorageError if it is damaged, as from `load_model`. Its tensors must lie in the
    layout's order, as `save_model` writes them. It may be replaced or removed meanwhile.
    """

    def __init__(self, path: Path) -> None:
        self.layout, offsets = _found(path)
        self._path, self._first = path, offsets[self.layout.tensors[0].name]
        if any(offsets[tensor.name] != self._first + 4 * place.start for tensor, place in self.layout._slices()):
            raise StorageError(f"{path} was not written by this program.")
        self._file = os.open(path, os.O_RDONLY)
        weakref.finalize(self, os.close, self._file)

    def __len__(self) -> int:
        return self.layout.size

    def __getitem__(self, place: slice) -> Vector:
        """A copy of a stretch."""
        start, stop, _ = place.indices(len(self))
        values = np.empty(stop - start, dtype="<f4")
        if os.preadv(self._file, [_bytes_of(values)], self._first + 4 * start) != values.nbytes:
            raise StorageError(f"{self._path} became shorter while it was read.")
        return values.astype(np.float32, copy=False)


def read_metadata(path: Path) -> dict[str, str]:
    """What a safetensors file says of itself; UsageError if it is missing, StorageError if it is damaged."""
    if not path.is_file():
        raise UsageError(f"There is no model file {path}.")
    return checked(path)


def _found(path: Path) -> tuple[Layout, dict[str, int]]:
    """The layout of a file, and where in it each tensor begins."""
    if not path.is_file():
        raise UsageError(f"There is no model file {path}; 'fedqueue site init' makes one at a hospital.")
    tensors = places(path)
    odd = [one for one in tensors if one.dtype != "F32"]
    if odd:
        raise UsageError(f"Tensor {odd[0].name!r} of {path} is {odd[0].dtype}, but shared tensors must be float32.")
    layout = Layout(tuple(Tensor(one.name, one.shape) for one in tensors))
    if not layout.size:
        raise UsageError(f"{path} has no tensor to share.")
    return layout, {one.name: one.offset for one in tensors}


def _bytes_of(values: Vector) -> Buffer:
    """The bytes of an array without gaps, little-endian."""
    return np.ascontiguousarray(values, dtype="<f4").reshape(-1).view(np.uint8).data
