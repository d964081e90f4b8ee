"""What both sides know of a model: its layout (names, shapes, dtypes) and one flat float32 vector.

Tensors lie in the vector in the order of their names. A model is identified by the SHA-256 of its layout's digest and
its values, so a file, a stream and a memory copy can be compared. Files are safetensors, never pickles.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from math import prod
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load_file, save_file

from broker.errors import StorageError, UsageError, WireError
from broker.files import written_whole

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
    def digest(self) -> bytes:
        """SHA-256 of names, shapes and dtypes as canonical JSON."""
        rows = [[tensor.name, list(tensor.shape), tensor.dtype] for tensor in self.tensors]
        return hashlib.sha256(json.dumps(rows, separators=(",", ":")).encode()).digest()

    def _slices(self) -> Iterator[tuple[Tensor, slice]]:
        start = 0
        for tensor in self.tensors:
            yield tensor, slice(start, start + tensor.size)
            start += tensor.size

    def flatten(self, weights: Mapping[str, NDArray[np.float32]]) -> Vector:
        """`weights` as one vector; WireError if names, shapes or dtypes differ from the layout."""
        given = tuple(Tensor(name, weights[name].shape, str(weights[name].dtype)) for name in sorted(weights))
        if given != self.tensors:
            raise WireError("The weights do not have the federation's layout (names, shapes or dtypes differ).")
        vector = np.empty(self.size, dtype=np.float32)
        for tensor, place in self._slices():
            vector[place] = weights[tensor.name].reshape(-1)
        return vector

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


def save_model(path: Path, layout: Layout, vector: Vector, *, metadata: Mapping[str, str] | None = None) -> None:
    """Write a safetensors file so that after any crash either the whole file is at `path` or nothing is."""
    try:
        with written_whole(path) as temporary:
            save_file(layout.unflatten(vector), temporary, metadata=dict(metadata or {}))
    except (OSError, SafetensorError) as error:
        raise StorageError(f"The model could not be written to {path}: {error}.") from error


def load_model(path: Path) -> tuple[Layout, Vector]:
    """Layout and vector of a safetensors file; UsageError if it is missing, StorageError if it is damaged."""
    if not path.is_file():
        raise UsageError(f"There is no model file {path}; 'fedqueue site init' makes one at a hospital.")
    try:
        weights = load_file(path)
    except (OSError, SafetensorError) as error:
        raise StorageError(f"{path} is not a readable safetensors file: {error}.") from error
    except (TypeError, AttributeError, KeyError) as error:  # how safetensors says that numpy has no such number
        raise UsageError(f"{path} holds bfloat16 or float8, but shared tensors must be float32.") from error
    layout = Layout.of(weights)
    return layout, layout.flatten(weights)


def read_metadata(path: Path) -> dict[str, str]:
    """What a safetensors file says of itself; UsageError if it is missing, StorageError if it is damaged."""
    if not path.is_file():
        raise UsageError(f"There is no model file {path}.")
    try:
        with safe_open(path, framework="numpy") as file:
            return dict(file.metadata() or {})
    except (OSError, SafetensorError) as error:
        raise StorageError(f"{path} is not a readable safetensors file: {error}.") from error
