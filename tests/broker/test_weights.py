"""The layout and its vector are two views of the same weights; a model file is whole or not there."""

import hashlib
import os
import struct
from pathlib import Path
from typing import NoReturn

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from broker.errors import StorageError, UsageError, WireError
from broker.weights import FileVector, Layout, Tensor, load_model, map_model, model_digest, save_model

WEIGHTS = {
    "weight": np.array([[1.0, 2.0], [3.0, 4.0]], dtype=np.float32),
    "bias": np.array([5.0, 6.0], dtype=np.float32),
    "scale": np.array(7.0, dtype=np.float32),
}
LAYOUT = Layout((Tensor("bias", (2,)), Tensor("scale", ()), Tensor("weight", (2, 2))))
VECTOR = np.array([5.0, 6.0, 7.0, 1.0, 2.0, 3.0, 4.0], dtype=np.float32)


def test_a_file_is_read_stretch_by_stretch_also_once_it_is_removed(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_model(path, LAYOUT, VECTOR, metadata={"version": "0"})
    vector = FileVector(path)
    path.unlink()
    assert len(vector) == len(VECTOR)
    assert [vector[start : start + 2].tolist() for start in range(0, len(VECTOR), 2)] == [
        VECTOR[start : start + 2].tolist() for start in range(0, len(VECTOR), 2)
    ]
    with pytest.raises(UsageError, match="no model file"):
        FileVector(path)


def test_tensors_lie_in_the_order_of_their_names() -> None:
    assert Layout.of(WEIGHTS) == LAYOUT
    np.testing.assert_array_equal(LAYOUT.flatten(WEIGHTS), VECTOR, strict=True)


def test_digests() -> None:
    text = b'[["bias",[2],"float32"],["scale",[],"float32"],["weight",[2,2],"float32"]]'
    assert LAYOUT.digest == hashlib.sha256(text).digest()
    assert LAYOUT.digest.hex() == "4426b63f8033c08c285c941cd40bfdf258a94515f7cddaa4f300c9058aa1b27b"
    assert (
        model_digest(LAYOUT.digest, VECTOR).hex() == "37cd00dbcabe9a422bac4026bf549297d047ccfb1507621fd9a73845f63dfcc7"
    )
    assert model_digest(LAYOUT.digest, VECTOR) == hashlib.sha256(LAYOUT.digest + struct.pack("<7f", *VECTOR)).digest()
    assert model_digest(LAYOUT.digest, np.repeat(VECTOR, 2)[::2]) == model_digest(LAYOUT.digest, VECTOR)


@given(st.dictionaries(st.text(max_size=5), st.lists(st.integers(1, 3), max_size=3), min_size=1, max_size=5))
def test_flatten_and_unflatten_are_inverse(shapes: dict[str, list[int]]) -> None:
    layout = Layout(tuple(Tensor(name, tuple(shapes[name])) for name in sorted(shapes)))
    vector = np.arange(layout.size, dtype=np.float32)
    weights = layout.unflatten(vector)
    assert Layout.of(weights) == layout
    np.testing.assert_array_equal(layout.flatten(weights), vector, strict=True)


@pytest.mark.parametrize("start", range(8))
@pytest.mark.parametrize("stop", range(8))
def test_a_stretch_of_the_vector_is_gathered_over_the_borders_of_tensors(start: int, stop: int) -> None:
    np.testing.assert_array_equal(LAYOUT.gather(WEIGHTS, start, max(start, stop)), VECTOR[start:stop], strict=True)


def test_tensors_of_nothing_lie_between_others() -> None:
    empty = np.zeros((2, 0), dtype=np.float32)
    weights = {"a": empty, "b": VECTOR[:2], "c": empty, "d": VECTOR[2:]}
    layout = Layout.of(weights)
    assert [layout.gather(weights, start, start + 2).tolist() for start in (0, 1, 2)] == [[5, 6], [6, 7], [7, 1]]


def test_a_gathered_stretch_is_a_copy() -> None:
    weights = {"w": np.zeros(3, dtype=np.float32)}
    Layout.of(weights).gather(weights, 0, 2)[:] = 1.0
    assert weights["w"].tolist() == [0, 0, 0]


def test_unflatten_gives_views() -> None:
    vector = VECTOR.copy()
    LAYOUT.unflatten(vector)["weight"][1, 1] = 9.0
    assert vector[-1] == 9.0


@pytest.mark.parametrize(
    "changed",
    [
        {"bias": np.zeros((2, 1), dtype=np.float32)},
        {"bias": np.zeros(2, dtype=np.float64)},
        {"another": np.zeros(1, dtype=np.float32)},
    ],
    ids=["shape", "dtype", "name"],
)
def test_other_weights_are_not_flattened(changed: dict[str, NDArray[np.float32]]) -> None:
    with pytest.raises(WireError, match="do not have the federation's layout"):
        LAYOUT.flatten(WEIGHTS | changed)


@pytest.mark.parametrize("vector", [VECTOR[:-1], np.zeros(8, dtype=np.float32), VECTOR.reshape(7, 1)])
def test_other_vectors_are_not_unflattened(vector: NDArray[np.float32]) -> None:
    with pytest.raises(WireError, match="cannot fill a layout of 7"):
        LAYOUT.unflatten(vector)


def test_what_cannot_be_shared() -> None:
    with pytest.raises(UsageError, match="'steps' is int64"):
        Layout.of(WEIGHTS | {"steps": np.zeros(1, dtype=np.int64)})
    with pytest.raises(UsageError, match="no tensor to share"):
        Layout.of({})


def test_a_model_file_round_trips(tmp_path: Path) -> None:
    path = tmp_path / "new" / "model.safetensors"
    save_model(path, LAYOUT, VECTOR, metadata={"version": "0"})
    layout, vector = load_model(path)
    assert layout == LAYOUT
    np.testing.assert_array_equal(vector, VECTOR, strict=True)
    assert [one.name for one in path.parent.iterdir()] == ["model.safetensors"]


def test_a_mapped_model_is_the_file_and_what_is_written_to_it_stays_in_memory(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_model(path, LAYOUT, VECTOR, metadata={"version": "12"})
    before = path.read_bytes()
    layout, vector = map_model(path)
    assert layout == LAYOUT
    assert isinstance(vector, np.memmap)
    np.testing.assert_array_equal(vector, VECTOR)
    assert model_digest(layout.digest, vector) == model_digest(LAYOUT.digest, VECTOR)
    vector += 1
    assert path.read_bytes() == before


def test_a_file_whose_tensors_lie_in_another_order_is_read_all_the_same(tmp_path: Path) -> None:
    header = (
        b'{"b":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}'
    )
    path = tmp_path / "model.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header + struct.pack("<2f", 2.0, 1.0))
    for read in (load_model, map_model):
        assert read(path)[1].tolist() == [1.0, 2.0]


@pytest.mark.parametrize("failing", ["fsync", "replace"])
def test_a_failing_save_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str) -> None:
    path = tmp_path / "model.safetensors"
    save_model(path, LAYOUT, VECTOR)
    before = path.read_bytes()

    def full(*_: object) -> NoReturn:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(*{"fsync": (os, "fsync", full), "replace": (Path, "replace", full)}[failing])
    with pytest.raises(StorageError, match="No space left on device"):
        save_model(path, LAYOUT, VECTOR + 1)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_save_is_on_disk_before_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, seen = tmp_path / "model.safetensors", []
    real = os.fsync

    def noted(descriptor: int) -> None:
        seen.append(path.exists())
        real(descriptor)

    monkeypatch.setattr(os, "fsync", noted)
    save_model(path, LAYOUT, VECTOR)
    assert seen == [False, True]  # the file, then its folder


def test_a_save_where_no_folder_can_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="could not be written"):
        save_model(tmp_path / "file" / "model.safetensors", LAYOUT, VECTOR)


def test_a_truncated_file(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_model(path, LAYOUT, VECTOR)
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        for read in (load_model, map_model):
            with pytest.raises(StorageError, match="not a readable safetensors file"):
                read(path)


def test_files_that_are_no_model_of_ours(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="There is no model file"):
        load_model(tmp_path / "absent.safetensors")
    header = b'{"a":{"dtype":"BF16","shape":[1],"data_offsets":[0,2]}}'
    path = tmp_path / "bfloat16.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header + b"\0\0")
    with pytest.raises(UsageError, match=r"Tensor 'a' of .* is BF16, but shared tensors must be float32"):
        load_model(path)
