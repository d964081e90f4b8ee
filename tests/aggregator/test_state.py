"""What a strategy keeps, on disk: whole, by its digest, or refused."""

from pathlib import Path

import pytest

from aggregator.state import NOTHING, State, load_state
from aggregator.strategies import Source
from broker.errors import StorageError
from tests.aggregator.bench import floats

SOME = State(
    {"kept": floats(1, 2), "moment": floats(0, 3)}, {Source("update", 7): 0.5, Source("update", 9): 2.0}, {"A": 0.1}
)


def test_it_comes_back_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "state.safetensors"
    SOME.save(path)
    again = load_state(path, SOME.digest)
    assert (again.digest, again.held, again.used) == (SOME.digest, SOME.held, {"A": 0.1})
    assert {name: one.tolist() for name, one in again.vectors.items()} == {"kept": [1.0, 2.0], "moment": [0.0, 3.0]}


def test_nothing_has_no_digest_and_no_file(tmp_path: Path) -> None:
    assert NOTHING.digest is None
    assert load_state(tmp_path / "none", None) is NOTHING


def test_every_part_of_it_is_in_the_digest() -> None:
    others = [
        State({"kept": floats(1, 2), "moment": floats(0, 4)}, SOME.held, SOME.used),
        State({"kept": floats(1, 2), "second": floats(0, 3)}, SOME.held, SOME.used),
        State(SOME.vectors, {Source("update", 7): 0.5, Source("update", 9): 2.5}, SOME.used),
        State(SOME.vectors, {Source("update", 8): 0.5, Source("update", 9): 2.0}, SOME.used),
        State(SOME.vectors, SOME.held, {"A": 0.2}),
    ]
    assert len({SOME.digest, *(one.digest for one in others)}) == 6


def test_another_state_or_half_a_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "state.safetensors"
    SOME.save(path)
    with pytest.raises(StorageError, match="not the state that the journal names"):
        load_state(path, bytes(32))
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(StorageError, match="not a readable state"):
        load_state(path, SOME.digest)
    with pytest.raises(StorageError, match="not a readable state"):
        load_state(tmp_path / "missing", SOME.digest)
