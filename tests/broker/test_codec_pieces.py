"""Dense and sparse pieces: the same numbers to the bit, however they are held."""

import numpy as np
import pytest

from broker.codecs import CHUNK, CODECS, Dense, Piece, Sparse, Vector, encode_chunk, open_frame
from broker.codecs.scratch import STRIDE

RNG = np.random.default_rng(5)


def floats(*values: float) -> Vector:
    return np.array(values, dtype=np.float32)


def sparse(count: int, entries: dict[int, float]) -> Sparse:
    return Sparse(np.array(list(entries), dtype=np.intp), floats(*entries.values()), count)


PIECES: dict[str, Piece] = {
    "dense": Dense(floats(1.5, 0.0, -2.0, 0.0)),
    "sparse": sparse(4, {0: 1.5, 2: -2.0}),
}


@pytest.mark.parametrize("name", PIECES)
def test_by_hand(name: str) -> None:
    piece = PIECES[name]
    target = floats(10, 20, 30, 40)
    piece.add_to(target, 0.5)
    assert target.tolist() == [10.75, 20.0, 29.0, 40.0]
    assert piece.dense().tolist() == [1.5, 0.0, -2.0, 0.0]
    assert piece.square_norm() == 6.25
    assert piece.count == 4


@pytest.mark.parametrize("name", PIECES)
def test_what_is_taken_densely_may_be_overwritten(name: str) -> None:
    piece = Dense(floats(1, 2)) if name == "dense" else sparse(2, {1: 2.0})
    vector = piece.dense()
    vector[:] = 7
    assert vector.tolist() == [7.0, 7.0]


@pytest.mark.parametrize("count", [0, 1, STRIDE - 1, STRIDE, STRIDE + 1, 3 * STRIDE + 7])
@pytest.mark.parametrize("factor", [1.0, -1.0, 0.1, 1 / 3, 1e-30, 0.0])
def test_adding_gives_the_bits_of_the_plain_sum(count: int, factor: float) -> None:
    values, target = (RNG.normal(size=count).astype(np.float32) for _ in range(2))
    expected = target + values * np.float32(factor)
    Dense(values).add_to(target, factor)
    assert target.tobytes() == expected.tobytes()


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("count", [1, 255, 1025, STRIDE + 4097, CHUNK])
def test_every_way_of_taking_a_piece_gives_the_same_bits(codec: str, count: int) -> None:
    """Whole, copied, added: also over the edges of strides, blocks and bytes."""
    vector = RNG.normal(size=count).astype(np.float32)
    piece = open_frame(codec, encode_chunk(codec, vector)[4:], count, 0)
    whole, copied, total = piece.dense(), np.full(count, 9, dtype=np.float32), vector.copy()
    piece.copy_to(copied)
    piece.add_to(total, 0.3)
    assert copied.tobytes() == whole.tobytes()
    assert total.tobytes() == (vector + whole * np.float32(0.3)).tobytes()
    assert piece.count == count
    np.testing.assert_allclose(piece.square_norm(), np.sum(whole.astype(np.float64) ** 2), rtol=1e-4)


@pytest.mark.parametrize("factor", [1.0, -1.0, 0.1, 1 / 3])
def test_a_sparse_piece_adds_the_bits_of_its_dense_self(factor: float) -> None:
    indices = np.sort(RNG.choice(10_000, 300, replace=False))
    piece = Sparse(indices, RNG.normal(size=300).astype(np.float32), 10_000)
    target = RNG.normal(size=10_000).astype(np.float32)
    densely = target.copy()
    piece.add_to(target, factor)
    Dense(piece.dense()).add_to(densely, factor)
    assert target.tobytes() == densely.tobytes()


def test_a_part_of_a_larger_vector_is_a_target() -> None:
    target = np.zeros(6, dtype=np.float32)
    Dense(floats(1, 2)).add_to(target[2:4], 1)
    sparse(2, {1: 5.0}).add_to(target[4:], 1)
    assert target.tolist() == [0, 0, 1, 2, 0, 5]


def test_the_values_are_not_changed_by_adding() -> None:
    values = floats(3, 4)
    piece = Dense(values)
    piece.add_to(floats(0, 0), 2)
    assert values.tolist() == [3.0, 4.0]
    assert piece.square_norm() == 25.0


@pytest.mark.parametrize("value", [np.inf, np.nan, 3e38])
def test_what_is_not_finite_shows_in_the_norm_without_a_warning(value: float) -> None:
    for piece in (Dense(floats(1, value)), sparse(5, {3: value})):
        assert not np.isfinite(piece.square_norm())
        target = np.full(piece.count, 3e38, dtype=np.float32)
        piece.add_to(target, 10)
        assert not np.isfinite(target).all()


def test_numpy_is_left_as_it_was() -> None:
    before = np.getbufsize(), np.geterr()
    open_frame("int8", encode_chunk("int8", floats(1, 2))[4:], 2, 0).add_to(floats(0, 0), 1)
    assert (np.getbufsize(), np.geterr()) == before


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize(("first", "last"), [(0, 9), (0, 0), (9, 9), (3, 70_003), (STRIDE, 90_000), (89_999, 90_000)])
def test_a_cut_has_the_bits_of_the_whole(codec: str, first: int, last: int) -> None:
    piece = open_frame(codec, encode_chunk(codec, RNG.normal(size=90_000).astype(np.float32))[4:], 90_000, 0)
    cut = piece.cut(first, last)
    assert cut.count == last - first
    assert cut.dense().tobytes() == piece.dense()[first:last].tobytes()
    assert Dense(piece.dense()).cut(first, last).dense().tobytes() == cut.dense().tobytes()
