"""What encoders make of matrices at a ratio that is asked for, and what settings may ask for."""

import tracemalloc
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.codecs import (
    CHOICES,
    Form,
    LowRank,
    Sparse,
    Vector,
    chosen,
    decode,
    decoded,
    encode,
    encoder,
    max_payload_bytes,
    segments,
)
from broker.errors import UsageError, WireError

RNG = np.random.default_rng(13)
HUGE = float(np.finfo(np.float32).max)


def error(vector: Vector, codec: str, form: Form) -> float:
    """What is left of the energy."""
    left = vector - decoded(chosen(codec).name, encode(codec, vector, form), form)
    return float(np.vdot(left, left) / np.vdot(vector, vector))


def low_rank(rows: int, columns: int, rank: int) -> Vector:
    product = RNG.normal(size=(rows, rank)) @ RNG.normal(size=(rank, columns))
    return product.astype(np.float32).reshape(-1)


@pytest.mark.parametrize(("rows", "columns"), [(200, 300), (300, 200), (40, 2000)])
def test_a_matrix_of_a_low_rank_is_held_but_for_rounding(rows: int, columns: int) -> None:
    """Steps of .4 leave .4 ** 2 / 12 = 1.3 % on each side, and a little more where they are the nearest power of 2."""
    form = Form(((rows, columns),))
    assert error(low_rank(rows, columns, 3), "lowrank-20", form) < 0.035


def test_what_rounding_leaves_of_one_side_the_other_takes_up() -> None:
    """Without solving anew for it a third as much again would be left, of 64 rows of very different size."""
    form = Form(((64, 300),))
    vector = (RNG.normal(size=(64, 300)) * np.exp(RNG.normal(size=(64, 1)))).astype(np.float32).reshape(-1)
    assert error(vector, "lowrank-10", form) < 0.023


def test_rounding_up_does_not_overflow() -> None:
    """Three are 2.59 steps, so three steps, which are more than there is; then all are taken down."""
    vector = np.array([HUGE, -HUGE, HUGE, 0.85 * HUGE], dtype=np.float32)
    found = decoded("lowrank", encode("lowrank", vector), 4)
    np.testing.assert_allclose(found, vector, rtol=0.25)


def test_a_matrix_and_its_transpose_are_one_problem() -> None:
    vector = low_rank(100, 160, 4)
    other = np.ascontiguousarray(vector.reshape(100, 160).T).reshape(-1)
    one, two = error(vector, "lowrank-20", Form(((100, 160),))), error(other, "lowrank-20", Form(((160, 100),)))
    np.testing.assert_allclose(one, two, rtol=0.2)


def test_it_comes_near_to_the_best_of_its_rank() -> None:
    """A slow spectrum: the exact decomposition is held against what is sent at as many components."""
    form, size = Form(((300, 400),)), np.arange(1, 301) ** -0.7
    left, right = (np.linalg.qr(RNG.normal(size=(many, 300)))[0] for many in (300, 400))
    vector = ((left * size) @ right.T).astype(np.float32).reshape(-1)
    ((_, piece),) = decode("lowrank", encode("lowrank-30", vector, form), form)
    assert isinstance(piece, LowRank)
    best = float((size[len(piece.left) :] ** 2).sum() / (size**2).sum())
    assert best < error(vector, "lowrank-30", form) < best + 0.04


@pytest.mark.parametrize("ratio", [10, 30, 100, 300])
def test_the_ratio_is_kept(ratio: int) -> None:
    form = Form(((512, 768), (512,), (700, 300), (300,)))
    vector = RNG.normal(size=form.size).astype(np.float32)
    found = vector.nbytes / len(encode(f"lowrank-{ratio}", vector, form))
    assert ratio * 0.97 < found < ratio * 1.15


def test_the_budget_goes_to_the_tensor_that_moved() -> None:
    form = Form(((200, 200), (200, 200), (200,)))
    vector = RNG.normal(size=form.size).astype(np.float32)
    vector[40_000:80_000] *= 100
    pieces = dict(decode("lowrank", encode("lowrank-50", vector, form), form))
    assert [type(pieces[start]) for start in (0, 40_000, 80_000)] == [Sparse, LowRank, Sparse]


def test_what_is_over_the_budget_goes_alone_when_it_is_best() -> None:
    """Steps of 3.4 bits make 100,000 coordinates ten times smaller, and a hundred times was asked for."""
    vector = RNG.normal(size=100_000).astype(np.float32)
    form = Form(((50_000,), (50_000,)))
    assert 0.5 < error(vector, "lowrank", form) < 0.55


def test_error_feedback_brings_everything_through() -> None:
    form = Form(((60, 80), (80,), (2, 3, 5, 7)))
    vector = RNG.normal(size=form.size).astype(np.float32)
    residual, sent = vector.copy(), np.zeros_like(vector)
    for _ in range(60):
        part = decoded("lowrank", encode("lowrank-15", residual, form), form)
        sent += part
        residual -= part
    assert np.linalg.norm(vector - sent) < 0.02 * np.linalg.norm(vector)


def test_an_encoder_knows_what_it_has_caught() -> None:
    form = Form(((90, 120), (120,)))
    vector = RNG.normal(size=form.size).astype(np.float32)
    writer = encoder("lowrank-20", form)
    places = [(one, slice(one.start, one.end)) for one in writer.segments()]
    for segment, place in places:
        writer.look(segment, vector[place])
    payload = b"".join(writer.encode(segment, vector[place]) for segment, place in places)
    left = vector - decoded("lowrank", payload, form)
    np.testing.assert_allclose(writer.caught() or 0, 1 - np.vdot(left, left) / np.vdot(vector, vector), rtol=1e-4)
    assert payload == encode("lowrank-20", vector, form)
    assert encoder("int8", form).caught() is None


def test_looking_takes_little_memory() -> None:
    """Twenty matrices of 1 MB at a ratio of 100: what is kept of them is a part of one."""
    form = Form(((512, 512),) * 20)
    vector = RNG.normal(size=form.size).astype(np.float32)
    writer = encoder("lowrank", form)
    places = [(one, vector[one.start : one.end]) for one in writer.segments()]
    tracemalloc.start()
    try:
        for segment, values in places:
            writer.look(segment, values)
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held < 12 * vector.nbytes / 100


SHAPES = st.lists(st.lists(st.integers(0, 7), max_size=4).map(tuple), min_size=1, max_size=4)
KINDS = st.sampled_from(["normal", "zeros", "huge", "tiny", "denormal", "one entry", "mixed"])


def of_kind(kind: str, size: int, seed: int = 0) -> Vector:
    random = np.random.default_rng(seed)
    scale = {"zeros": 0.0, "huge": HUGE / 10, "tiny": 1e-30, "denormal": 1e-41}.get(kind, 1.0)
    vector = np.clip(random.normal(size=size) * scale, -HUGE, HUGE).astype(np.float32)
    if kind == "one entry":
        vector[1:] = 0
    if kind == "mixed":
        vector *= 10.0 ** random.integers(-20, 15, size)
    return vector


@given(SHAPES, KINDS, st.sampled_from(["lowrank", "lowrank-10", "lowrank-10000"]), st.integers(0, 99))
def test_any_form_of_any_numbers(shapes: list[Any], kind: str, codec: str, seed: int) -> None:
    """No warning, nothing that is not finite, no more energy than there was, within the bound."""
    form = Form(tuple(shapes))
    vector = of_kind(kind, form.size, seed)
    payload = encode(codec, vector, form)
    found = decoded("lowrank", payload, form).astype(np.float64)
    assert len(payload) <= max_payload_bytes("lowrank", form)
    assert np.isfinite(found).all()
    wide = vector.astype(np.float64)
    assert np.linalg.norm(wide - found) <= np.linalg.norm(wide) * 1.0001 + 1e-34


@pytest.mark.parametrize("shape", [(3, 4), (1, 7), (7, 1), (1, 1)])
@pytest.mark.parametrize("kind", ["huge", "tiny", "normal"])
def test_small_matrices_are_held_in_full(shape: tuple[int, int], kind: str) -> None:
    form = Form((shape,))
    vector = of_kind(kind, form.size)
    found = decoded("lowrank", encode("lowrank", vector, form), form).astype(np.float64)
    wide = vector.astype(np.float64)
    assert np.linalg.norm(wide - found) < 0.4 * np.linalg.norm(wide)


def test_numbers_of_any_memory_order() -> None:
    form = Form(((50, 60),))
    vector = RNG.normal(size=6000).astype(np.float32)[::-2]
    assert encode("lowrank", vector, form) == encode("lowrank", vector.copy(), form)


# ---- names


def test_what_settings_may_ask_for() -> None:
    assert (chosen("lowrank").name, chosen("lowrank").ratio) == ("lowrank", 100)
    assert (chosen("lowrank-330").name, chosen("lowrank-330").ratio) == ("lowrank", 330)
    assert chosen("int8-coarse").name == "int8"
    assert [chosen(f"lowrank-{ratio}").ratio for ratio in (10, 10_000)] == [10, 10_000]


@pytest.mark.parametrize(
    "name", ["lowrank-", "lowrank-9", "lowrank-10001", "lowrank-010", "lowrank-1e3", "lowrank-99999", "lowrank-100\n"]
)
def test_ratios_that_there_are_not(name: str) -> None:
    with pytest.raises(UsageError, match=r"int8-coarse, or lowrank-10 to lowrank-10000\."):
        chosen(name)


def test_the_wire_knows_no_ratio() -> None:
    with pytest.raises(WireError, match="no codec 'lowrank-330'"):
        segments("lowrank-330", 5)


def test_int8_coarse_is_nearly_lossless_at_ten_times() -> None:
    """Steps of half the root mean square leave .5 ** 2 / 12 = 2.1 % of the energy."""
    vector = RNG.normal(size=100_000).astype(np.float32)
    payload = encode("int8-coarse", vector)
    left = vector - decoded("int8", payload, len(vector))
    assert 9.5 < vector.nbytes / len(payload) < 11
    np.testing.assert_allclose(np.vdot(left, left) / np.vdot(vector, vector), 0.25 / 12, rtol=0.03)


def test_int8_coarse_by_hand() -> None:
    """The root mean square of 1, 7, 5, 5 is 5, so a step is 2.5; where a peak is beyond 127 steps it sets the step."""
    again = decoded("int8", encode("int8-coarse", np.array([1, -7, 5, -5], dtype=np.float32)), 4)
    assert again.tolist() == [0.0, -7.5, 5.0, -5.0]
    peak = np.zeros(4096, dtype=np.float32)
    peak[7] = 127.0
    assert decoded("int8", encode("int8-coarse", peak), 4096).tobytes() == peak.tobytes()


@pytest.mark.parametrize("value", [HUGE, 1e-45, 1e-30])
def test_int8_coarse_of_odd_sizes_is_finite(value: float) -> None:
    vector = np.array([value, -value, 0.0], dtype=np.float32)
    found = decoded("int8", encode("int8-coarse", vector), 3)
    assert np.isfinite(found).all()
    np.testing.assert_allclose(found, vector, rtol=0.35, atol=2e-36)


def test_every_choice_is_of_a_codec_that_decodes() -> None:
    vector = RNG.normal(size=1000).astype(np.float32)
    for name, choice in CHOICES.items():
        assert decoded(choice.name, encode(name, vector), 1000).shape == (1000,)
