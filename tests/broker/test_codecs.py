"""A table of vectors through a table of codecs, and payloads made to hurt."""

import struct
import tracemalloc

import numpy as np
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from broker.codecs import (
    BLOCK,
    CHUNK,
    CODECS,
    Vector,
    codec_named,
    decode,
    decoded,
    encode,
    max_payload_bytes,
    open_frame,
)
from broker.errors import UsageError, WireError
from tests.broker.nearness import assert_near

RNG = np.random.default_rng(7)
HUGE = np.finfo(np.float32).max
VECTORS: dict[str, Vector] = {
    "empty": np.zeros(0, dtype=np.float32),
    "one": np.array([-2.5], dtype=np.float32),
    "one short of a block": RNG.normal(size=BLOCK - 1).astype(np.float32),
    "a block": RNG.normal(size=BLOCK).astype(np.float32),
    "one over a block": RNG.normal(size=BLOCK + 1).astype(np.float32),
    "zeros": np.zeros(5000, dtype=np.float32),
    "negative zeros": np.full(10, -0.0, dtype=np.float32),
    "denormals": np.array([1e-45, -1e-40, 1e-38, 0.0], dtype=np.float32),
    "huge": np.array([1e38, -HUGE, 3.0, HUGE], dtype=np.float32),
    "every third": RNG.normal(size=9000).astype(np.float32)[::3],
    "backwards": RNG.normal(size=5000).astype(np.float32)[::-1],
    "three chunks": RNG.normal(size=2 * CHUNK + 3).astype(np.float32),
}
FINITE = arrays(np.float32, st.integers(0, 300), elements=st.floats(width=32, allow_nan=False, allow_infinity=False))


def chunk(frame: bytes) -> bytes:
    return struct.pack("<I", len(frame)) + frame


def one_gibibyte(declared: bytes) -> bytes:
    """32 KB of run-length blocks that inflate to 1 GiB of zeros (RFC 8878); `declared` starts at the descriptor."""
    headers = (((number == 8191) | 1 << 1 | (1 << 17) << 3).to_bytes(3, "little") for number in range(8192))
    return b"\x28\xb5\x2f\xfd" + declared + b"".join(header + b"\x00" for header in headers)


@pytest.mark.parametrize("name", VECTORS)
@pytest.mark.parametrize("codec", CODECS)
def test_round_trip(codec: str, name: str) -> None:
    vector = VECTORS[name]
    payload = encode(codec, vector)
    found = decoded(codec, payload, len(vector))
    assert found.dtype == np.float32
    assert found.shape == vector.shape
    assert len(payload) <= max_payload_bytes(codec, len(vector))
    assert_near(codec, found, vector)


@given(FINITE, st.sampled_from(sorted(CODECS)))
def test_any_finite_vector(vector: Vector, codec: str) -> None:
    assert_near(codec, decoded(codec, encode(codec, vector), len(vector)), vector)


@pytest.mark.parametrize("size", [1, 255, BLOCK + 1, CHUNK + 1])
@pytest.mark.parametrize("level", [1, 19])
def test_the_bound_holds_for_what_cannot_be_shortened(size: int, level: int) -> None:
    noise = np.frombuffer(RNG.bytes(4 * size), dtype=np.float32)
    finite = np.nan_to_num(noise, nan=1.0, posinf=1.0, neginf=1.0)
    for codec in CODECS:
        assert len(encode(codec, finite, level=level)) <= max_payload_bytes(codec, size)


def test_chunks_come_in_order_with_their_starts() -> None:
    vector = VECTORS["three chunks"]
    starts = [(start, piece.count) for start, piece in decode("float32", encode("float32", vector), len(vector))]
    assert starts == [(0, CHUNK), (CHUNK, CHUNK), (2 * CHUNK, 3)]


@pytest.mark.parametrize("codec", CODECS)
def test_truncated_anywhere(codec: str) -> None:
    payload = encode(codec, VECTORS["one over a block"][:50])
    for length in range(len(payload)):
        with pytest.raises(WireError):
            decoded(codec, payload[:length], 50)


@pytest.mark.parametrize("codec", CODECS)
def test_any_byte_changed_is_refused_or_harmless(codec: str) -> None:
    """Never another exception. zstd's own checksum finds all that changes a value."""
    vector = VECTORS["a block"][:50]
    payload = encode(codec, vector)
    expected = decoded(codec, payload, 50).tobytes()
    for position in range(len(payload)):
        for flip in (0x01, 0x80, 0xFF):
            changed = bytearray(payload)
            changed[position] ^= flip
            try:
                assert decoded(codec, bytes(changed), 50).tobytes() == expected
            except WireError:
                continue


@given(st.binary(max_size=200), st.integers(0, 5000), st.sampled_from(sorted(CODECS)))
def test_any_payload_decodes_or_are_refused(payload: bytes, size: int, codec: str) -> None:
    try:
        decoded(codec, payload, size)
    except WireError:
        return
    assert (payload, size) == (b"", 0)


@given(st.binary(max_size=60), st.integers(1, 300), st.sampled_from(sorted(CODECS)))
def test_any_content_decodes_or_is_refused(content: bytes, count: int, codec: str) -> None:
    """A frame without a fault, of whatever a site likes to put in it."""
    try:
        piece = open_frame(codec, zstandard.ZstdCompressor().compress(content), count, 0)
    except WireError:
        return
    assert piece.dense().shape == (count,)
    piece.add_to(np.zeros(count, dtype=np.float32), 1.0)


FRAME = zstandard.ZstdCompressor().compress(bytes(8))
HOSTILE = {
    "nothing": b"",
    "bytes after the last chunk": chunk(FRAME) + b"\x00",
    "one chunk more": chunk(FRAME) * 2,
    "two frames in one chunk": chunk(zstandard.ZstdCompressor().compress(bytes(4)) * 2),
    "the right frame and another": chunk(FRAME + FRAME),
    "no content size": chunk(zstandard.ZstdCompressor(write_content_size=False).compress(bytes(8))),
    "shorter than due": chunk(zstandard.ZstdCompressor().compress(bytes(7))),
    "longer than due": chunk(zstandard.ZstdCompressor().compress(bytes(9))),
    "an empty frame": chunk(zstandard.ZstdCompressor().compress(b"")),
    "a skippable frame": chunk(struct.pack("<II", 0x184D2A50, 8) + bytes(8)),
    "chunk length 0": struct.pack("<I", 0) + FRAME,
    "chunk length too small": struct.pack("<I", len(FRAME) - 1) + FRAME,
    "chunk length too large": struct.pack("<I", len(FRAME) + 1) + FRAME,
    "chunk length 4 GiB": b"\xff" * 4 + FRAME,
    "1 GiB, declared": chunk(one_gibibyte(b"\xa0" + struct.pack("<I", 1 << 30))),
    "1 GiB, declared as 8 bytes": chunk(one_gibibyte(b"\xa0" + struct.pack("<I", 8))),
    "1 GiB, undeclared": chunk(one_gibibyte(b"\x00\x50")),
}


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize(("codec", "size"), [("float32", 2), ("bf16", 4), ("int8", 4), ("int4", 12), ("sign", 48)])
def test_hostile_payload_is_refused_in_little_memory(codec: str, size: int, name: str) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(WireError):
            decoded(codec, HOSTILE[name], size)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 16 << 20


def test_the_bomb_is_one() -> None:
    bomb = one_gibibyte(b"\x00\x50")
    assert len(bomb) < 33_000
    with zstandard.ZstdDecompressor().stream_reader(bomb) as reader:
        assert len(reader.read(20 << 20)) == 20 << 20


def test_a_declared_window_of_1_gib_is_not_made() -> None:
    frame = b"\x28\xb5\x2f\xfd\x80\xa0" + struct.pack("<I", 8) + b"\x41\x00\x00" + bytes(8)
    assert decoded("float32", chunk(frame), 2).tolist() == [0.0, 0.0]


def test_hostile_scales_pass_without_a_warning_to_whoever_checks_the_values() -> None:
    packed = np.array([np.inf], dtype="<f4").tobytes() + np.array([0, 1], dtype=np.int8).tobytes()
    assert not np.isfinite(decoded("int8", chunk(zstandard.ZstdCompressor().compress(packed)), 2)).any()


def test_unknown_codecs() -> None:
    with pytest.raises(
        UsageError, match=r"choose one of float32, bf16, int8, int4, sign, top5, top1, top0\.1, lowrank, "
    ):
        codec_named("pickle")
    with pytest.raises(WireError, match="no codec 'pickle'"):
        decoded("pickle", b"", 1)
