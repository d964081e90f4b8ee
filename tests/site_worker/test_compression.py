"""Segment by segment into a draft: what was sent and what is left are all that was learned, whatever comes between."""

import math
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from broker.codecs import CHUNK, Form, decoded, encode
from broker.messages import parts_of
from broker.weights import Layout
from site_worker.compression import Compressed, Stretch, compress, learned, left_out
from site_worker.outbox import Outbox
from site_worker.training import TrainingError
from tests.site_worker.bench import made
from tests.site_worker.drafts import Slip, stored

Vector = NDArray[np.float32]
SIZE = CHUNK + 3
LAYOUT = Layout.of({"a": np.zeros((2, 5), dtype=np.float32), "b": np.zeros(SIZE - 10, dtype=np.float32)})


def floats(*values: float) -> Vector:
    return np.array(values, dtype=np.float32)


def drawn(seed: int) -> Vector:
    return np.random.default_rng(seed).normal(size=SIZE).astype(np.float32)


def stretch(*pieces: Vector) -> Stretch:
    whole = np.concatenate(pieces)
    return lambda start, stop: whole[start:stop].copy()


def written(codec: str, *pieces: Vector, slip: Slip | None = None) -> Compressed:
    size = sum(map(len, pieces))
    slip = slip or Slip()
    compressed = compress(codec, stretch(*pieces), Form.of(size), slip.draft)
    slip.draft.close()
    return compressed


def test_what_was_learned_is_trained_less_base_over_the_borders_of_tensors() -> None:
    trained, base = drawn(0), drawn(1)
    read = learned(LAYOUT, LAYOUT.unflatten(trained), base)
    assert np.array_equal(read(7, CHUNK + 2), (trained - base)[7 : CHUNK + 2])


@pytest.mark.parametrize("place", [0, SIZE - 1])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_one_number_that_is_none_anywhere_is_found(place: int, value: float) -> None:
    trained, base = drawn(0), drawn(1)
    trained[place] = value
    with pytest.raises(TrainingError, match="not finite"):
        compress("int8", learned(LAYOUT, LAYOUT.unflatten(trained), base), LAYOUT.form, Slip().draft)


@pytest.mark.parametrize("codec", ["float32", "int8", "top1", "lowrank-50"])
def test_the_payload_is_that_of_the_whole_vector(codec: str) -> None:
    slip, whole, form = Slip(), drawn(0), LAYOUT.form
    compressed = compress(codec, stretch(whole), form, slip.draft)
    slip.draft.close()
    payload = slip.written("payloads")
    assert payload == encode(codec, whole, form)
    left = np.frombuffer(slip.written("residual"), dtype="<f4")
    assert np.array_equal(left, [] if codec == "float32" else whole - decoded(compressed.codec, payload, form))


def test_the_error_is_relative_to_what_was_to_be_sent() -> None:
    # A scale of 1: 127 is sent whole, 0.375 not at all.
    assert written("int8", floats(127, 0.375)).error == pytest.approx(0.375 / math.hypot(127, 0.375))
    assert written("float32", floats(127, 0.375)).error == 0.0
    assert written("int8", floats(0, 0)).error == 0.0
    border = written("int8", np.full(CHUNK, 127, dtype=np.float32), floats(127, 0.375))
    assert border.error == pytest.approx(0.375 / math.sqrt((CHUNK + 1) * 127**2 + 0.375**2))


def test_what_a_choice_would_leave_out_is_relative_to_what_was_learned() -> None:
    assert left_out("int8", stretch(floats(127, 0.375)), Form.of(2)) == pytest.approx(0.375 / math.hypot(127, 0.375))
    assert left_out("float32", stretch(floats(127, 0.375)), Form.of(2)) == 0.0
    assert left_out("int8", stretch(floats(0, 0)), Form.of(2)) == 0.0
    whole, form = drawn(0), LAYOUT.form
    missing = whole - decoded("lowrank", encode("lowrank-50", whole, form), form)
    ratio = float(np.linalg.norm(missing) / np.linalg.norm(whole))
    assert left_out("lowrank-50", stretch(whole), form) == pytest.approx(ratio, rel=1e-5)


def test_the_backlog_counts_rounds_of_learning(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path / "outbox.db")
    stored(outbox, made(1), residual=floats(0, 0.25))
    draft = outbox.draft(2)
    found = compress("int8", stretch(floats(127, 0.125)), Form.of(2), draft)
    assert found.backlog == pytest.approx(0.375 / math.hypot(127, 0.125))
    outbox.close()


def test_what_was_sent_and_is_left_adds_up_over_restarts_other_bases_and_absences(tmp_path: Path) -> None:
    """All numbers are exact in float32: with a peak of 127 the scale is 1, so 3/8 is sent as 0, 1, 0."""
    layout, path = Layout.of({"w": floats(0, 0)}), tmp_path / "outbox.db"
    sent = list[list[float]]()
    for sequence, (version, base) in enumerate([(1, floats(0, 0)), (2, floats(5, -3)), (40, floats(-64, 8))], 1):
        outbox = Outbox(path)  # the process is another each time
        draft = outbox.draft(2)
        delta = learned(layout, {"w": base + floats(127, 0.375)}, base)
        assert compress("int8", delta, layout.form, draft).error > 0
        draft.close()
        update = made(sequence, base=version, payload=encode("int8", floats(127, round(0.375 * sequence))))
        outbox.store(update)
        payload = b"".join(outbox.part(sequence, part) or b"" for part in range(2))
        sent.append(decoded("int8", payload, 2).tolist())
        outbox.close()
    outbox = Outbox(path)
    assert sent == [[127, 0], [127, 1], [127, 0]]
    assert outbox.residual(2).read(0, 2).tolist() == [0, 3 * 0.375 - 1]
    outbox.close()


def test_a_lossless_update_sends_all_that_is_owed(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path / "outbox.db")
    stored(outbox, made(1), residual=floats(0.25, -8))
    draft = outbox.draft(2)
    compress("float32", stretch(floats(1, 1)), Form.of(2), draft)
    draft.close()
    payload = encode("float32", floats(1.25, -7))
    assert draft.payload_bytes == sum(map(len, parts_of(payload)))
    outbox.store(made(2, payload=payload))
    assert outbox.part(2, 0) == payload
    assert outbox.residual(2).read(0, 2).tolist() == [0, 0]
    outbox.close()
