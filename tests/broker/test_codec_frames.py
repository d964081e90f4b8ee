"""Payloads that come in pieces of any length are the payloads that come whole, and each fault names its chunk."""

import itertools
import threading
from collections.abc import Iterator

import numpy as np
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from broker.codecs import (
    CHUNK,
    CODECS,
    Cutter,
    Decoder,
    Form,
    Segment,
    Vector,
    decode,
    decoded,
    encode,
    encode_chunk,
    frames,
)
from broker.codecs.chunks import open_frame
from broker.errors import WireError

RNG = np.random.default_rng(11)
VECTOR: Vector = RNG.normal(size=2 * CHUNK + 5).astype(np.float32)
SHORT: Vector = np.array([1.0, -2.0, 3.0], dtype=np.float32)


def in_pieces(payload: bytes, length: int) -> Iterator[bytes]:
    return (payload[start : start + length] for start in range(0, len(payload), length))


def three_chunks(*lengths: int) -> bytes:
    """Frames of zeros of these lengths: nothing here decompresses them."""
    return b"".join(length.to_bytes(4, "little") + bytes(length) for length in lengths)


def test_a_payload_is_its_chunks() -> None:
    chunks = [encode_chunk("int8", VECTOR[start : start + CHUNK]) for start in (0, CHUNK, 2 * CHUNK)]
    assert b"".join(chunks) == encode("int8", VECTOR)
    found = list(frames(b"".join(chunks), len(VECTOR)))
    assert [(segment.start, segment.count) for segment, _ in found] == [(0, CHUNK), (CHUNK, CHUNK), (2 * CHUNK, 5)]
    assert [bytes(frame) for *_, frame in found] == [chunk[4:] for chunk in chunks]


@pytest.mark.parametrize("length", [1, 2, 3, 4, 5, 7, 24, 25, 1000])
def test_pieces_of_any_length(length: int) -> None:
    payload = three_chunks(7, 0, 12)
    cut = frames(in_pieces(payload, length), 2 * CHUNK + 5)
    found = [(segment.start, segment.count, bytes(frame)) for segment, frame in cut]
    assert found == [(0, CHUNK, bytes(7)), (CHUNK, CHUNK, b""), (2 * CHUNK, 5, bytes(12))]


@given(st.lists(st.integers(0, 31)))
def test_cuts_anywhere(cuts: list[int]) -> None:
    payload, places = three_chunks(7, 0, 12), [0, *sorted(cuts), 31]
    pieces = [payload[start:end] for start, end in itertools.pairwise(places)]
    assert [bytes(frame) for *_, frame in frames(pieces, 2 * CHUNK + 5)] == [bytes(7), b"", bytes(12)]


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("length", [100_000, 1 << 22])
def test_a_pushed_payload_decodes_to_the_same_bits(codec: str, length: int) -> None:
    payload = encode(codec, VECTOR)
    decoder, found = Decoder(codec, len(VECTOR)), np.zeros_like(VECTOR)
    for piece in in_pieces(payload, length):
        for start, part in decoder.feed(piece):
            found[start : start + part.count] = part.dense()
    decoder.finish()
    assert found.tobytes() == decoded(codec, payload, len(VECTOR)).tobytes()


def test_a_frame_comes_as_soon_as_it_is_complete() -> None:
    cutter, payload = Cutter(2 * CHUNK), three_chunks(3, 2)
    assert list(cutter.feed(payload[:6])) == []
    assert [bytes(frame) for *_, frame in cutter.feed(payload[6:7])] == [bytes(3)]
    assert list(cutter.feed(payload[7:])) == [(Segment(1, CHUNK, (1, CHUNK)), bytes(2))]
    cutter.finish()


def test_a_whole_frame_is_not_copied() -> None:
    payload = bytearray(three_chunks(3))
    ((*_, frame),) = frames(payload, 5)
    payload[4] = 9
    assert bytes(frame) == b"\x09\x00\x00"


@pytest.mark.parametrize(
    ("length", "sentence"),
    [
        (0, "ends before chunk 0"),
        (3, "ends within chunk 0"),
        (10, "ends within chunk 0"),
        (11, "ends before chunk 1"),
        (14, "ends within chunk 1"),
        (15, "ends before chunk 2"),
        (30, "ends within chunk 2"),
    ],
)
def test_where_it_ends_too_early(length: int, sentence: str) -> None:
    payload = three_chunks(7, 0, 12)[:length]
    for pieces in (payload, in_pieces(payload, 1)):
        with pytest.raises(WireError, match=sentence):
            list(frames(pieces, 2 * CHUNK + 5))


@pytest.mark.parametrize("length", [1, 31, 33])
def test_bytes_after_the_last_chunk(length: int) -> None:
    with pytest.raises(WireError, match=r"At least [12] bytes follow the last chunk"):
        list(frames(in_pieces(three_chunks(7, 0, 12) + b"ab", length), 2 * CHUNK + 5))
    with pytest.raises(WireError, match="At least 2 bytes follow"):
        list(frames(b"ab", 0))


def test_a_frame_longer_than_its_codec_needs_is_refused_before_it_comes() -> None:
    longest = 4 * 5 + 512
    assert list(frames(longest.to_bytes(4, "little") + bytes(longest), 5))
    for pieces in ((longest + 1).to_bytes(4, "little"), in_pieces((longest + 1).to_bytes(4, "little"), 3)):
        with pytest.raises(WireError, match="Chunk 0 says 533 bytes, more than codec float32 needs"):
            list(frames(pieces, 5))


@pytest.mark.parametrize("codec", CODECS)
def test_a_damaged_chunk_is_named(codec: str) -> None:
    form = Form(((CHUNK,), (CHUNK,), (5,)))
    payload = bytearray(encode(codec, VECTOR, form))
    second = 4 + int.from_bytes(payload[:4], "little")
    payload[second + 4 + int.from_bytes(payload[second : second + 4], "little") // 2] ^= 0x10
    with pytest.raises(WireError, match="Chunk 1 "):
        decoded(codec, bytes(payload), form)
    seen = []
    with pytest.raises(WireError, match="Chunk 1 "):
        seen += [start for start, _ in decode(codec, bytes(payload), form)]
    with pytest.raises(WireError, match="Chunk 1 "):
        seen += [start for start, _ in Decoder(codec, form).feed(bytes(payload))]


@pytest.mark.parametrize(("codec", "packed"), [("float32", 11), ("float32", 13), ("int8", 6), ("int8", 8)])
def test_another_size_is_refused_by_its_number(codec: str, packed: int) -> None:
    frame = zstandard.ZstdCompressor().compress(bytes(packed))
    with pytest.raises(WireError, match=f"Chunk 41 declares {packed} bytes where"):
        open_frame(codec, frame, 3, 41)


def test_unknown_codecs_are_refused_before_anything_comes() -> None:
    with pytest.raises(WireError, match="no codec 'pickle'"):
        Decoder("pickle", 1)
    with pytest.raises(WireError, match="no codec 'pickle'"):
        open_frame("pickle", b"", 1, 0)


@pytest.mark.parametrize("codec", CODECS)
def test_threads_open_and_pack_frames_at_once(codec: str) -> None:
    """Each has its own zstd and scratch: one for all of them would mix their chunks or crash."""
    vectors = [RNG.normal(size=150_000).astype(np.float32) for _ in range(4)]
    chunks = [encode_chunk(codec, vector)[4:] for vector in vectors]
    sums = [open_frame(codec, chunk, 150_000, 0).dense() * np.float32(0.3) + vectors[0] for chunk in chunks]
    right: list[bool] = []

    def open_often(number: int) -> None:
        for _ in range(30):
            target = vectors[0].copy()
            open_frame(codec, chunks[number], 150_000, number).add_to(target, 0.3)
            right.append(target.tobytes() == sums[number].tobytes())
            right.append(encode_chunk(codec, vectors[number])[4:] == chunks[number])

    threads = [threading.Thread(target=open_often, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert right == [True] * 240
