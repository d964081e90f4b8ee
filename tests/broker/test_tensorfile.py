"""What is written tensor after tensor is what the safetensors library writes and reads."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save

from broker.errors import StorageError
from broker.tensorfile import Buffer, Entry, checked, places, serialised, write_tensors

ARRAYS = {
    "narrow": np.array([True, False, True]),
    "wide": np.array([[1.0, 2.0]]),
    "a": np.array(7.0, dtype=np.float32),
    "none": np.zeros((0, 2), dtype=np.float32),
    "\u00e9": np.array([1, -2], dtype=np.int64),
}
NAMES = {"bool": "BOOL", "float64": "F64", "float32": "F32", "int64": "I64"}


def entries() -> Iterator[Entry]:
    for name, array in ARRAYS.items():
        yield Entry(name, NAMES[str(array.dtype)], array.shape, lambda array=array: [array.tobytes()])  # type: ignore[misc]


def test_every_tensor_comes_back_and_the_metadata_too(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    write_tensors(path, entries(), {"what": "a test"})
    found = load_file(path)
    assert {name: (one.dtype, one.tolist()) for name, one in found.items()} == {
        name: (one.dtype, one.tolist()) for name, one in ARRAYS.items()
    }
    assert checked(path) == {"what": "a test"}


def test_the_bytes_are_those_of_the_library() -> None:
    floats = {name: np.full(3, number, dtype=np.float32) for number, name in enumerate(["b", "a"])}
    ours = [Entry(name, "F32", (3,), lambda one=one: [one.tobytes()]) for name, one in floats.items()]  # type: ignore[misc]
    assert b"".join(bytes(piece) for piece in serialised(ours, {"k": "v"})) == save(floats, {"k": "v"})
    assert b"".join(bytes(piece) for piece in serialised(ours)) == save(floats)


def test_each_tensor_is_asked_for_when_it_is_written_and_in_pieces() -> None:
    asked = list[str]()

    def pieces(name: str) -> Iterator[Buffer]:
        asked.append(name)
        yield from (b"1234", b"5678")

    written = serialised(Entry(name, "F32", (2,), lambda name=name: pieces(name)) for name in "ba")  # type: ignore[misc]
    assert len(next(written)) > 8
    assert not asked
    assert (next(written), asked) == (b"1234", ["a"])
    assert [*written] == [b"5678", b"1234", b"5678"]


def test_each_tensor_is_aligned_to_its_numbers_and_found_by_its_offset(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    write_tensors(path, entries())
    data, found = path.read_bytes(), places(path)
    assert [one.name for one in found] == sorted(ARRAYS)
    for one in found:
        array = ARRAYS[one.name]
        assert one.offset % array.itemsize == 0
        assert data[one.offset : one.offset + array.nbytes] == array.tobytes()


def test_a_tensor_that_gives_too_little_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="tensor a has 4 bytes too few"):
        write_tensors(tmp_path / "x", [Entry("a", "F32", (2,), lambda: [b"1234"])])
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_none_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"\xff" * 20)
    with pytest.raises(StorageError, match="x is not a readable safetensors file"):
        places(tmp_path / "x")
    with pytest.raises(StorageError, match=r"y is not a readable safetensors file"):
        places(tmp_path / "y")
