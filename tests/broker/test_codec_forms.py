"""Where a vector is cut into segments, reckoned by hand."""

import itertools

import pytest

from broker.codecs import CHUNK, Form, segments
from broker.codecs.forms import LARGEST, Segment, matrices, matrix_of
from broker.errors import WireError
from broker.weights import Layout, Tensor

FORM = Form(((3, 4), (5,), (), (0, 7), (2, 3, 4)))


def test_the_size_of_a_form() -> None:
    assert FORM.size == 12 + 5 + 1 + 0 + 24
    assert (Form.of(7), Form.of(FORM)) == (Form(((7,),)), FORM)
    assert Layout((Tensor("a", (2, 3)), Tensor("b", ()))).form == Form(((2, 3), ()))


@pytest.mark.parametrize(
    ("tensor", "matrix"),
    [
        ((), (1, 1)),
        ((9,), (1, 9)),
        ((9, 1), (9, 1)),
        ((2, 3, 4), (6, 4)),  # 10 rows and columns together; (2, 12) would be 14
        ((64, 3, 7, 7), (64, 147)),
        ((1, 77, 768), (77, 768)),
        ((2, 2, 2), (2, 4)),
        ((0, 7), (1, 0)),
    ],
)
def test_a_tensor_as_a_matrix(tensor: tuple[int, ...], matrix: tuple[int, int]) -> None:
    assert matrix_of(tensor) == matrix


def test_segments_are_tensors_without_the_empty_ones() -> None:
    expected = [Segment(0, 0, (3, 4)), Segment(1, 12, (1, 5)), Segment(2, 17, (1, 1)), Segment(3, 18, (6, 4))]
    assert list(matrices(FORM)) == expected
    assert expected[3].end == FORM.size


@pytest.mark.parametrize(
    ("tensor", "shapes"),
    [
        ((5000, 4096), [(4096, 4096), (904, 4096)]),
        ((LARGEST + 1,), [(1, LARGEST), (1, 1)]),
        ((2, LARGEST + 3), [(1, LARGEST), (1, 3)] * 2),
        ((1, LARGEST), [(1, LARGEST)]),
        ((3, LARGEST - 1), [(1, LARGEST - 1)] * 3),
    ],
)
def test_large_tensors_are_cut_by_rows(tensor: tuple[int, ...], shapes: list[tuple[int, int]]) -> None:
    found = list(matrices(Form((tensor,))))
    assert [one.shape for one in found] == shapes
    assert [one.number for one in found] == list(range(len(shapes)))
    assert all(one.end == after.start for one, after in itertools.pairwise(found))


@pytest.mark.parametrize(("first", "number"), [(0, 0), (11, 0), (12, 1), (16, 1), (17, 2), (18, 3), (41, 3)])
def test_matrices_from_the_one_that_holds_a_coordinate(first: int, number: int) -> None:
    assert list(matrices(FORM, first)) == list(matrices(FORM))[number:]


@pytest.mark.parametrize(("first", "number"), [(0, 0), (1, 0), (CHUNK - 1, 0), (CHUNK, 1), (2 * CHUNK, 2)])
def test_chunks_from_the_one_that_holds_a_coordinate(first: int, number: int) -> None:
    chunks = [Segment(0, 0, (1, CHUNK)), Segment(1, CHUNK, (1, CHUNK)), Segment(2, 2 * CHUNK, (1, 5))]
    assert list(segments("int8", Form(((2, CHUNK), (5,))), first)) == chunks[number:]
    assert list(segments("int8", 2 * CHUNK + 5, first)) == chunks[number:]


def test_a_codec_that_is_not_there_has_no_segments() -> None:
    with pytest.raises(WireError, match="no codec 'pickle'"):
        segments("pickle", 5)
