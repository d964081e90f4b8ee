"""Chunk by chunk into a draft: what was sent and what is left are all that was learned, whatever comes between."""

import math
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from broker.codecs import CHUNK, decoded, encode
from broker.messages import parts_of
from broker.weights import Layout
from site_worker.compression import compress, stretches, targets
from site_worker.draft import NOTHING
from site_worker.outbox import Outbox
from site_worker.training import TrainingError
from tests.site_worker.bench import made
from tests.site_worker.drafts import Slip, kept_in_rows, stored

Vector = NDArray[np.float32]
SIZE = CHUNK + 3
LAYOUT = Layout.of({"a": np.zeros((2, 5), dtype=np.float32), "b": np.zeros(SIZE - 10, dtype=np.float32)})


def floats(*values: float) -> Vector:
    return np.array(values, dtype=np.float32)


def drawn(seed: int) -> Vector:
    return np.random.default_rng(seed).normal(size=SIZE).astype(np.float32)


def test_a_target_is_what_was_learned_and_what_is_owed_in_chunks() -> None:
    trained, base, owed = drawn(0), drawn(1), drawn(2)
    found = list(targets(LAYOUT, LAYOUT.unflatten(trained), base, kept_in_rows(owed, 1000)))
    assert [len(one) for one in found] == [CHUNK, 3]
    assert np.array_equal(np.concatenate(found), trained - base + owed)


@pytest.mark.parametrize("place", [0, SIZE - 1])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_one_number_that_is_none_anywhere_is_found(place: int, value: float) -> None:
    trained, base = drawn(0), drawn(1)
    trained[place] = value
    with pytest.raises(TrainingError, match="not finite"):
        list(targets(LAYOUT, LAYOUT.unflatten(trained), base, NOTHING))


@pytest.mark.parametrize("codec", ["float32", "int8"])
def test_the_payload_is_that_of_the_whole_vector(codec: str) -> None:
    slip, whole = Slip(), drawn(0)
    compress(codec, (whole[start:stop].copy() for start, stop in stretches(SIZE)), slip.draft)
    slip.draft.close()
    payload = slip.written("payloads")
    assert payload == encode(codec, whole)
    left = np.frombuffer(slip.written("residual"), dtype="<f4")
    assert np.array_equal(left, [] if codec == "float32" else whole - decoded(codec, payload, SIZE))


def test_the_error_is_relative_to_what_was_to_be_sent() -> None:
    # A scale of 1: 127 is sent whole, 0.375 not at all.
    assert compress("int8", [floats(127, 0.375)], Slip().draft) == pytest.approx(0.375 / math.hypot(127, 0.375))
    pieces = [floats(127, 0.375), floats(0, 127, 0.375)]
    assert compress("int8", pieces, Slip().draft) == pytest.approx(math.sqrt(2 * 0.375**2 / (2 * (127**2 + 0.375**2))))
    assert compress("int8", [floats(127, 0.375), floats(127)], Slip().draft) == pytest.approx(
        0.375 / math.sqrt(2 * 127**2 + 0.375**2)
    )
    assert compress("float32", [floats(127, 0.375)], Slip().draft) == 0.0
    assert compress("int8", [floats(0, 0)], Slip().draft) == 0.0


def test_what_was_sent_and_is_left_adds_up_over_restarts_other_bases_and_absences(tmp_path: Path) -> None:
    """All numbers are exact in float32: with a peak of 127 the scale is 1, so 3/8 is sent as 0, 1, 0."""
    layout, path = Layout.of({"w": floats(0, 0)}), tmp_path / "outbox.db"
    sent = list[list[float]]()
    for sequence, (version, base) in enumerate([(1, floats(0, 0)), (2, floats(5, -3)), (40, floats(-64, 8))], 1):
        outbox = Outbox(path)  # the process is another each time
        draft = outbox.draft(2)
        learned = {"w": base + floats(127, 0.375)}
        error = compress("int8", targets(layout, learned, base, draft.residual), draft)
        draft.close()
        assert error > 0
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
    compress(
        "float32", targets(Layout.of({"w": floats(0, 0)}), {"w": floats(1, 1)}, floats(0, 0), draft.residual), draft
    )
    draft.close()
    payload = encode("float32", floats(1.25, -7))
    assert draft.payload_bytes == sum(map(len, parts_of(payload)))
    outbox.store(made(2, payload=payload))
    assert outbox.part(2, 0) == payload
    assert outbox.residual(2).read(0, 2).tolist() == [0, 0]
    outbox.close()
