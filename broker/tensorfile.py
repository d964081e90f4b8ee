"""Writing safetensors tensor after tensor, and finding where the tensors of a file lie, so that none is held twice.

The format: eight bytes, the length of a JSON header; the header; then the tensors' bytes without a gap, little-endian.
The safetensors library reads what is written here, and judges every file before anything in its header is used.
"""

import json
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, Final

from safetensors import SafetensorError, safe_open

from broker.errors import StorageError
from broker.files import written_whole

Buffer = bytes | bytearray | memoryview
BITS: Final = {
    "C64": 64, "F64": 64, "I64": 64, "U64": 64, "F32": 32, "I32": 32, "U32": 32, "F16": 16, "BF16": 16, "I16": 16,
    "U16": 16, "I8": 8, "U8": 8, "BOOL": 8, "F8_E4M3": 8, "F8_E5M2": 8,
}  # fmt: skip
_LENGTH: Final = struct.Struct("<Q")
_ALIGNMENT: Final = 8


@dataclass(frozen=True)
class Entry:
    """One tensor to be written: `dtype` as safetensors names it; `buffers` gives its bytes when it is its turn."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    buffers: Callable[[], Iterable[Buffer]]

    @property
    def size(self) -> int:
        """In bytes."""
        return prod(self.shape) * BITS[self.dtype] // 8


@dataclass(frozen=True)
class Place:
    """Where a tensor lies in its file: `offset` counts from the file's first byte."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    offset: int


def serialised(entries: Iterable[Entry], metadata: Mapping[str, str] | None = None) -> Iterator[Buffer]:
    """The bytes of a file, in pieces. Wide numbers come first, so that each tensor is aligned to its numbers."""
    ordered = sorted(entries, key=lambda one: (-BITS[one.dtype], one.name))
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    end = 0
    for one in ordered:
        header[one.name] = {"dtype": one.dtype, "shape": one.shape, "data_offsets": (end, end := end + one.size)}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    yield _LENGTH.pack(len(text)) + text
    for one in ordered:
        due = one.size
        for piece in one.buffers():
            due -= memoryview(piece).nbytes
            yield piece
        assert due == 0, f"tensor {one.name} has {due} bytes too few"


def write_tensors(
    path: Path, entries: Iterable[Entry], metadata: Mapping[str, str] | None = None, *, sync: bool = True
) -> None:
    """Write a file so that after any crash either the whole of it is at `path` or nothing is; StorageError if not.

    Without `sync` only a crash of this process is meant, not one of the machine.
    """
    try:
        with written_whole(path, sync=sync) as temporary, temporary.open("wb") as file:
            for piece in serialised(entries, metadata):
                file.write(piece)
    except OSError as error:
        raise StorageError(f"{path} could not be written: {error}.") from error


def checked(path: Path) -> dict[str, str]:
    """What a file says of itself; StorageError if its header is damaged, or does not fit the file's length."""
    try:
        with safe_open(path, framework="numpy") as file:
            return dict(file.metadata() or {})
    except (OSError, SafetensorError) as error:
        raise StorageError(f"{path} is not a readable safetensors file: {error}.") from error


def places(path: Path) -> list[Place]:
    """Where the tensors of a file lie, in the order of their names; StorageError as from `checked`."""
    checked(path)  # by the library: that offsets, shapes and the file's length fit each other
    try:
        with path.open("rb") as file:
            (length,) = _LENGTH.unpack(file.read(_LENGTH.size))
            header = json.loads(file.read(length))
    except (OSError, ValueError, struct.error) as error:
        raise StorageError(f"{path} is not a readable safetensors file: {error}.") from error
    start = _LENGTH.size + length
    return [
        Place(name, one["dtype"], tuple(one["shape"]), start + one["data_offsets"][0])
        for name, one in sorted(header.items())
        if name != "__metadata__"
    ]
