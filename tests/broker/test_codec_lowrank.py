"""lowrank pieces: the same bits however they are cut, and contents that lie."""

import itertools
import struct

import numpy as np
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from broker.codecs import (
    LowRank,
    Piece,
    Sparse,
    Vector,
    open_frame,
)
from broker.codecs.lowrank import LEVEL, MOST_EXPONENT, MOST_RANK
from broker.codecs.scratch import STRIDE
from broker.errors import WireError

RNG = np.random.default_rng(13)
HUGE = float(np.finfo(np.float32).max)


def content(rank: int, scale: float, exponents: list[int], *levels: int) -> bytes:
    return struct.pack("<Hf", rank, scale) + bytes(exponents) + bytes(level % 256 for level in levels)


def opened(content: bytes, shape: tuple[int, int]) -> Piece:
    return open_frame("lowrank", zstandard.ZstdCompressor().compress(content), shape, 6)


def drawn(rank: int, rows: int, columns: int) -> LowRank:
    """A piece of random levels."""
    levels = RNG.integers(-LEVEL, LEVEL + 1, rank * (rows + columns)).tolist()
    exponents = RNG.integers(0, MOST_EXPONENT + 1, rank).tolist()
    piece = opened(content(rank, 1e-3, exponents, *levels), (rows, columns))
    assert isinstance(piece, LowRank)
    return piece


def exactly(piece: LowRank) -> Vector:
    """Its values in whole numbers, of which float32 is not asked."""
    sums = piece.left.astype(np.int64).T @ piece.right.astype(np.int64)
    assert np.abs(sums).max() <= 1 << 24
    whole: Vector = sums.astype(np.float32).reshape(-1) * piece.scale
    return whole[piece.first : piece.first + piece.count]


# ---- pieces


def test_by_hand() -> None:
    """Two components: 2 * (1, 2)(3, 4, 0) and (-1, 1)(1, 0, 15), times a half."""
    piece = opened(content(2, 0.5, [1, 0], 1, 2, -1, 1, 3, 4, 0, 1, 0, 15), (2, 3))
    values = [2.5, 4.0, -7.5, 6.5, 8.0, 7.5]
    assert piece.dense().tolist() == values
    assert piece.square_norm() == sum(value**2 for value in values)
    target = np.full(6, 100, dtype=np.float32)
    piece.add_to(target, 2.0)
    assert target.tolist() == [105.0, 108.0, 85.0, 113.0, 116.0, 115.0]
    assert piece.cut(2, 5).dense().tolist() == values[2:5]


def test_the_largest_numbers_that_may_come_are_still_exact() -> None:
    """The sum is odd and has 24 bits, so every one of them counts."""
    left = np.full((MOST_RANK, MOST_RANK), LEVEL)
    other = np.full((MOST_RANK, MOST_RANK), LEVEL)
    other[0], left[0] = 1, 1
    exponents = [0] + [MOST_EXPONENT] * (MOST_RANK - 1)
    packed = content(MOST_RANK, 1.0, exponents, *left.ravel().tolist(), *other.ravel().tolist())
    expected = (MOST_RANK - 1) * LEVEL**2 * 2**MOST_EXPONENT + 1
    assert expected % 2 == 1
    assert set(opened(packed, (MOST_RANK, MOST_RANK)).dense().tolist()) == {float(expected)}
    assert MOST_RANK * LEVEL**2 * 2**MOST_EXPONENT <= 2**24


@pytest.mark.parametrize(
    ("rank", "rows", "columns"),
    [(1, 1, 1), (1, 1, 200_000), (1, 200_000, 1), (3, 5, 40_000), (7, 40_000, 7), (64, 300, 700), (2, 2, STRIDE + 3)],
)
def test_the_same_bits_however_it_is_cut(rank: int, rows: int, columns: int) -> None:
    piece = drawn(rank, rows, columns)
    whole, target = exactly(piece), RNG.normal(size=rows * columns).astype(np.float32)
    expected = target + whole * np.float32(0.3)
    assert piece.dense().tobytes() == whole.tobytes()
    borders = np.unique([0, *RNG.integers(0, piece.count + 1, 9), piece.count]).tolist()
    for first, last in itertools.pairwise(borders):
        part = piece.cut(first, last)
        assert part.dense().tobytes() == exactly(part).tobytes() == whole[first:last].tobytes()
        part.add_to(target[first:last], 0.3)
    assert target.tobytes() == expected.tobytes()
    squares = sum(piece.cut(*place).square_norm() for place in itertools.pairwise(borders))
    np.testing.assert_allclose([squares, piece.square_norm()], np.sum(whole.astype(np.float64) ** 2), rtol=1e-5)


def test_a_cut_of_a_cut() -> None:
    piece = drawn(4, 30, 50)
    assert piece.cut(20, 1400).cut(7, 900).dense().tobytes() == piece.dense()[27:920].tobytes()
    assert piece.cut(9, 9).dense().tolist() == []


def test_nothing_of_a_matrix_adds_nothing() -> None:
    piece = opened(struct.pack("<H", 0), (3, 4))
    assert isinstance(piece, Sparse)
    assert (piece.dense().tolist(), piece.square_norm()) == ([0.0] * 12, 0.0)


# ---- contents that lie


LYING: dict[str, tuple[bytes, str]] = {
    "more components than rows": (content(3, 1.0, [0] * 3, *[1] * 15), "declares 24 bytes where 2 to 18 are due"),
    "a rank that its bytes are not of": (content(1, 1.0, [0, 0], *[1] * 10), "rank 1 in 18 bytes"),
    "a rank without bytes": (struct.pack("<H", 2), "rank 2 in 2 bytes"),
    "a rank of 65535": (content(65535, 1.0, [0], *[1] * 5), "rank 65535 in 12 bytes"),
    "bytes without a rank": (content(0, 1.0, [0], *[1] * 5), "rank 0 in 12 bytes"),
    "cut short": (content(2, 1.0, [0, 0], *[1] * 9), "rank 2 in 17 bytes"),
    "half a rank": (b"\0", "declares 1 bytes"),
    "an exponent of 9": (content(1, 1.0, [9], *[1] * 5), "an exponent beyond 8"),
    "an exponent of 255": (content(1, 1.0, [255], *[1] * 5), "an exponent beyond 8"),
    "a level of 16": (content(1, 1.0, [0], 1, 1, 16, 1, 1), "a level beyond 15"),
    "a level of -16": (content(1, 1.0, [0], -16, 1, 1, 1, 1), "a level beyond 15"),
    "a level of -128": (content(1, 1.0, [0], 1, 1, 1, 1, -128), "a level beyond 15"),
    "a scale of nan": (content(1, float("nan"), [0], *[1] * 5), "a scale of nan"),
    "a scale of inf": (content(1, float("inf"), [0], *[1] * 5), "a scale of inf"),
    "a negative scale": (content(1, -1.0, [0], *[1] * 5), "a scale of -1"),
    "a scale of 0": (content(1, 0.0, [0], *[1] * 5), "a scale of 0"),
}


@pytest.mark.parametrize("name", LYING)
def test_a_content_that_lies_is_refused_with_the_number_of_its_chunk(name: str) -> None:
    packed, reason = LYING[name]
    with pytest.raises(WireError, match=f"^Chunk 6 .*{reason}"):
        opened(packed, (2, 3))


def test_a_rank_beyond_256_is_refused() -> None:
    shape = (300, 300)
    assert opened(content(256, 1.0, [0] * 256, *[1] * 256 * 600), shape).count == 90_000
    with pytest.raises(WireError, match="declares 156263 bytes where 2 to 153862 are due"):
        opened(content(260, 1.0, [0] * 257, *[1] * 260 * 600), shape)


def test_what_overflows_shows_in_the_norm_without_a_warning() -> None:
    piece = opened(content(1, 3e38, [8], 15, 15, 15, 15, 15), (2, 3))
    assert np.isinf(piece.dense()).all()
    assert not np.isfinite(piece.square_norm())
    target = np.zeros(6, dtype=np.float32)
    piece.add_to(target, 0.0)
    assert np.isnan(target).all()


@given(st.binary(max_size=80), st.integers(1, 6), st.integers(1, 6), st.booleans())
def test_any_content_is_exact_or_refused(packed: bytes, rows: int, columns: int, fits: bool) -> None:
    if fits:  # a rank that the length is of, if there is one
        packed = struct.pack("<H", max(0, len(packed) - 6) // (1 + rows + columns)) + packed[2:]
    try:
        piece = opened(packed, (rows, columns))
    except WireError:
        return
    if isinstance(piece, LowRank):
        with np.errstate(over="ignore"):
            assert piece.dense().tobytes() == exactly(piece).tobytes()
