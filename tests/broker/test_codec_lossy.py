"""What each lossy codec makes of vectors small enough to reckon by hand, and contents that lie."""

import struct

import numpy as np
import pytest
import zstandard

from broker.codecs import CHUNK, CODECS, Sparse, Vector, decoded, encode, encode_chunk, open_frame, threshold
from broker.errors import WireError

RNG = np.random.default_rng(3)
HUGE = float(np.finfo(np.float32).max)


def floats(*values: float) -> Vector:
    return np.array(values, dtype=np.float32)


def again(codec: str, *values: float) -> list[float]:
    """Encoded and decoded."""
    return list(decoded(codec, encode(codec, floats(*values)), len(values)).tolist())


def opened(codec: str, content: bytes, count: int) -> list[float]:
    frame = zstandard.ZstdCompressor().compress(content)
    return list(open_frame(codec, frame, count, 6).dense().tolist())


def relative_error(codec: str, vector: Vector) -> float:
    error = decoded(codec, encode(codec, vector), len(vector)) - vector
    return float(np.linalg.norm(error) / np.linalg.norm(vector))


def content_of(codec: str, *values: float) -> bytes:
    return zstandard.ZstdDecompressor().decompress(encode_chunk(codec, floats(*values))[4:])


# ---- bf16


def test_bf16_rounds_to_the_nearest_ties_to_even() -> None:
    """Between 1 and 2 its steps are 1/128."""
    found = again("bf16", 1 + 1 / 256, 1 + 3 / 256, 1 + 1.01 / 256, -(1 + 0.99 / 256), 0.0, -0.0)
    assert found == [1.0, 1 + 2 / 128, 1 + 1 / 128, -1.0, 0.0, -0.0]


def test_bf16_does_not_round_up_to_infinity() -> None:
    largest = float(np.uint32(0x7F7F0000).view(np.float32))
    assert again("bf16", HUGE, -HUGE, largest) == [largest, -largest, largest]


# ---- int8, int4


def test_int8_by_hand() -> None:
    """The step is 254 / 127 = 2."""
    assert again("int8", 254.0, -254.0, 2.9, 3.1, 0.0) == [254.0, -254.0, 2.0, 4.0, 0.0]


def test_int8_of_huge_numbers_is_not_clipped() -> None:
    """The largest finite scale is a little less than HUGE / 127: the level is still 127, and its product finite."""
    found = again("int8", HUGE, -HUGE, 0.0)
    assert found[0] == -found[1]
    assert HUGE * 0.99999 < found[0] <= HUGE


def test_int4_by_hand() -> None:
    """The step is 14 / 7 = 2, exact in a bf16; 5 is halfway between levels 2 and 3, and ties go to even."""
    assert again("int4", 14.0, -14.0, 2.9, 3.1, 5.0) == [14.0, -14.0, 2.0, 4.0, 4.0]
    assert content_of("int4", 14.0, -14.0, 2.9, 3.1, 5.0) == bytes([0x00, 0x40, 0x1F, 0xA9, 0x8A])


def test_int4_has_a_scale_for_each_256() -> None:
    vector = np.repeat(floats(7, 0.7, 0.07), [256, 256, 1])
    found = decoded("int4", encode("int4", vector), 513)
    np.testing.assert_allclose(found, vector, rtol=1 / 256)


def test_int4_of_huge_numbers_is_finite() -> None:
    found = again("int4", HUGE, -HUGE, 0.0)
    assert found[0] == -found[1]
    assert HUGE * 0.99 < found[0] <= HUGE


@pytest.mark.parametrize(("codec", "most"), [("bf16", 0.003), ("int8", 0.02), ("int4", 0.13), ("sign", 0.61)])
def test_the_loss_on_a_gaussian(codec: str, most: float) -> None:
    """sqrt(1 - 2 / pi) = 0.603 for the signs; about 0.41 / sqrt(12) = 0.12 for a sixteenth of a peak of 2.9."""
    error = relative_error(codec, RNG.normal(size=100_000).astype(np.float32))
    assert most / 3 < error < most


@pytest.mark.parametrize(("codec", "unit"), [("int8", 2.0**-149), ("int4", 2.0**-133)])
def test_a_scale_too_small_to_divide_by_is_none(codec: str, unit: float) -> None:
    """The scale would be rounded to one unit, and the level to 180 of 127, or 10 of 7."""
    assert again(codec, {"int8": 180, "int4": 10}[codec] * unit, unit, -unit) == [0.0, 0.0, 0.0]


# ---- sign


def test_sign_by_hand() -> None:
    """The mean magnitude of the four is 2; zero counts as positive."""
    assert again("sign", 3.0, -4.0, 0.0, -1.0) == [2.0, -2.0, 2.0, -2.0]
    assert content_of("sign", 3.0, -4.0, 0.0, -1.0) == bytes([0x00, 0x40, 0b1010])


def test_sign_has_a_scale_for_each_1024_and_the_last_is_a_mean_too() -> None:
    vector = np.repeat(floats(4, -0.5, 8), [1024, 1024, 3])
    assert decoded("sign", encode("sign", vector), 2051).tobytes() == vector.tobytes()


def test_sign_of_huge_numbers_is_their_mean() -> None:
    found = again("sign", *[HUGE / 2] * 1500)
    np.testing.assert_allclose(found, [HUGE / 2] * 1500, rtol=1 / 256)


# ---- top5, top1, top0.1


def test_top_sizes_are_steps_of_the_root_of_2_and_the_rest_have_their_mean() -> None:
    """Of 140 coordinates top5 keeps 7; under 64 * 2 ** -3.25 = 6.7 there is no step."""
    vector = np.zeros(140, dtype=np.float32)
    vector[[0, 3, 50, 51, 99, 138, 139]] = floats(64, -44, 31, -8, 6, 2, -1)
    found = decoded("top5", encode("top5", vector), 140)
    assert np.flatnonzero(found).tolist() == [0, 3, 50, 51, 99, 138, 139]
    np.testing.assert_allclose(found[found != 0], floats(64, -45.254834, 32, -8, 3, 3, -3), rtol=1e-6)


@pytest.mark.parametrize(("codec", "gaps"), [("top1", [2, 255, 255, 189]), ("top0.1", [2, 187, 0, 2])])
def test_top_bytes(codec: str, gaps: list[int]) -> None:
    """Entries at 2 and 702: 2 are left out before the first and 699 before the second, 255 + 255 + 189 or 187 + 512."""
    vector = np.zeros(2000, dtype=np.float32)
    vector[[2, 702]] = floats(8, -2)
    content = content_of(codec, *vector)
    assert content == struct.pack("<Iff", 2, 8.0, 0.0) + bytes([0xC0]) + bytes(gaps)


@pytest.mark.parametrize("gap", [0, 1, 254, 255, 256, 509, 510, 511, 65279, 65280, 65281, 200_000])
@pytest.mark.parametrize("codec", ["top5", "top1", "top0.1"])
def test_every_kind_of_gap(codec: str, gap: int) -> None:
    vector = np.zeros(CHUNK, dtype=np.float32)
    vector[[5, 6 + gap, 7 + 2 * gap if gap < 100_000 else CHUNK - 1]] = floats(1, -1, 1)
    assert decoded(codec, encode(codec, vector), CHUNK).tobytes() == vector.tobytes()


@pytest.mark.parametrize(("codec", "kept"), [("top5", 5000), ("top1", 1000), ("top0.1", 100)])
def test_how_many_a_chunk_keeps_by_its_own_threshold(codec: str, kept: int) -> None:
    vector = RNG.normal(size=100_000).astype(np.float32)
    piece = open_frame(codec, encode_chunk(codec, vector)[4:], 100_000, 0)
    assert isinstance(piece, Sparse)
    assert len(piece.indices) == kept
    assert set(piece.indices) == set(np.argsort(-np.abs(vector))[:kept])


def test_one_threshold_for_all_gives_the_entries_to_the_chunk_that_moved() -> None:
    vector = np.concatenate([RNG.normal(size=CHUNK), 100 * RNG.normal(size=CHUNK)]).astype(np.float32)
    found = decoded("top1", encode("top1", vector), 2 * CHUNK)
    kept = [int(np.count_nonzero(part)) for part in (found[:CHUNK], found[CHUNK:])]
    assert kept == [0, round(0.01 * 2 * CHUNK)]


def test_a_threshold_from_parts_is_that_of_the_whole() -> None:
    vector = RNG.normal(size=3_000_000).astype(np.float32)
    whole = threshold("top1", [vector], len(vector))
    assert threshold("top1", [vector[:7], vector[7:1_000_000], vector[1_000_000:]], len(vector)) == whole
    assert whole is not None
    assert abs(np.count_nonzero(np.abs(vector) >= whole) / 30_000 - 1) < 0.05
    assert threshold("top1", [vector[:1000]], 1000) == np.sort(np.abs(vector[:1000]))[-10]
    assert threshold("int8", [], 5) is None


def test_equal_numbers_are_not_all_kept() -> None:
    """Adam's first step moves every coordinate by its learning rate."""
    vector = np.full(CHUNK + 1000, 0.001, dtype=np.float32)
    found = decoded("top1", encode("top1", vector), len(vector))
    assert np.count_nonzero(found) == round(0.01 * CHUNK) + 10


def test_zeros_are_never_kept() -> None:
    vector = np.zeros(1000, dtype=np.float32)
    vector[7] = 1e-40
    piece = open_frame("top5", encode_chunk("top5", vector)[4:], 1000, 0)
    assert isinstance(piece, Sparse)
    assert piece.indices.tolist() == [7]


def test_error_feedback_brings_everything_through() -> None:
    """What top1 leaves out of one vector, sent again and again, is sent in the end."""
    vector = RNG.normal(size=2000).astype(np.float32)
    residual, sent = vector.copy(), np.zeros_like(vector)
    for _ in range(400):
        part = decoded("top1", encode("top1", residual), 2000)
        sent += part
        residual -= part
    assert np.linalg.norm(vector - sent) < 0.02 * np.linalg.norm(vector)


def head(entries: int) -> bytes:
    return struct.pack("<Iff", entries, 1.0, 0.0)


LYING: dict[str, tuple[str, int, bytes, str]] = {
    "more entries than coordinates": ("top1", 3, head(4) + bytes(5), "4 entries of 3"),
    "an entry after the last": ("top1", 3, head(2) + bytes([0, 0, 2]), "an entry at 3 of 3"),
    "an entry far after the last": ("top1", 300, head(1) + bytes([0, 255, 255]) + b"\x00", "an entry at 510 of 300"),
    "fewer gaps": ("top1", 9, head(3) + bytes([0, 0, 1, 1]), "not those of 3 entries"),
    "more gaps": ("top1", 9, head(1) + bytes([0, 1, 1]), "not those of 1 entries"),
    "a gap without an end": ("top1", 300, head(1) + bytes([0, 1, 255]), "not those of 1 entries"),
    "gaps of nothing": ("top1", 9, head(0) + bytes(1), "not those of 0 entries"),
    "sizes alone": ("top1", 9, head(3) + bytes(1), "not those of 3 entries"),
    "wide, without upper parts": ("top0.1", 9, head(2) + bytes([0, 1, 1]), "not those of 2 entries"),
    "wide, an entry after the last": ("top0.1", 600, head(1) + bytes([0, 90, 2]), "an entry at 602 of 600"),
    "no head": ("top1", 9, bytes(11), "declares 11 bytes where 12 to 26 are due"),
    "too long": ("top1", 9, bytes(27), "declares 27 bytes where 12 to 26 are due"),
}


@pytest.mark.parametrize("name", LYING)
def test_a_content_that_lies_is_refused_with_the_number_of_its_chunk(name: str) -> None:
    codec, count, content, reason = LYING[name]
    with pytest.raises(WireError, match=f"^Chunk 6 .*{reason}"):
        opened(codec, content, count)


def test_a_content_may_be_as_short_and_as_long_as_its_codec_says() -> None:
    assert opened("top1", head(0), 9) == [0.0] * 9
    assert opened("top1", head(9) + bytes(5) + bytes(9), 9) == [1.0] * 9
    assert opened("top0.1", head(9) + bytes(5) + bytes(18), 9) == [1.0] * 9


@pytest.mark.parametrize("codec", [name for name in CODECS if CODECS[name].largest])
@pytest.mark.parametrize("scale", [np.inf, np.nan, 3e38])
def test_hostile_sizes_pass_without_a_warning_to_whoever_checks_the_values(codec: str, scale: float) -> None:
    content = struct.pack("<Iff", 2, scale, scale) + bytes([0x70]) + bytes(4 if codec == "top0.1" else 2)
    piece = open_frame(codec, zstandard.ZstdCompressor().compress(content), 2, 0)
    assert not np.isfinite(piece.square_norm())


@pytest.mark.parametrize(("codec", "content"), [("int4", b"\x80\x7f\x99"), ("sign", b"\xc0\x7f\x01")])
def test_hostile_scales_of_two_bytes_do_as_well(codec: str, content: bytes) -> None:
    frame = zstandard.ZstdCompressor().compress(content)
    assert not np.isfinite(open_frame(codec, frame, 2, 0).dense()).any()
    assert not np.isfinite(open_frame(codec, frame, 2, 0).square_norm())
