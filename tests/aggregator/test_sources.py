"""Payloads whose matrices lie across the borders of stretches: the fold gets each coordinate once, with its bits."""

import itertools
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from aggregator import fold as fold_module
from aggregator.admission import Check, Terms
from aggregator.fold import Fold
from aggregator.memory import Contribution
from aggregator.settings import Aggregation, Limits
from aggregator.sources import Sources
from aggregator.strategies import Source
from aggregator.transfers import Payload
from broker.codecs import Form, Vector, decoded, encode
from broker.errors import RefusedUpdate, StorageError
from tests.aggregator.bench import Sender

FORM = Form(((8, 10), (10,), (30, 20), (3, 4, 5)))
RNG = np.random.default_rng(17)
DELTA = RNG.normal(size=FORM.size).astype(np.float32)
PAYLOAD = encode("lowrank-10", DELTA, FORM)
SENT = decoded("lowrank", PAYLOAD, FORM)


def sources(payload: bytes = PAYLOAD, codec: str = "lowrank") -> Sources:
    def pieces(position: int) -> Iterator[bytes]:
        return (payload[start : start + 100] for start in range(position, len(payload), 100))

    journal: Any = SimpleNamespace(payload=lambda ordinal: {1: Payload(codec, pieces)}[ordinal])
    return Sources(journal, form=FORM, older=lambda version: pytest.fail(f"version {version} is not needed"))


def gathered(found: Sources, *borders: int) -> Vector:
    """All coordinates, each of which must come once, stretch by stretch."""
    total = np.full(FORM.size, np.nan, dtype=np.float32)
    for start, stop in itertools.pairwise(borders):
        for place, opened in found(Source("update", 1), start, stop):
            piece = opened()
            assert start <= place
            assert place + piece.count <= stop
            assert np.isnan(total[place : place + piece.count]).all()
            total[place : place + piece.count] = piece.dense()
    return total


@pytest.mark.parametrize("borders", [[0, 750], [0, 80, 90, 690, 750], [0, 1, 79, 81, 95, 400, 700, 750]])
@pytest.mark.parametrize("codec", ["lowrank", "float32"])
def test_stretches_between_any_borders(borders: list[int], codec: str) -> None:
    """A segment that crosses one is opened for each side; the last case cuts every one of them."""
    payload = PAYLOAD if codec == "lowrank" else encode(codec, SENT)
    assert gathered(sources(payload, codec), *borders).tobytes() == SENT.tobytes()


def test_a_source_is_gone_through_again_from_its_start() -> None:
    found = sources()
    for _ in range(2):
        assert gathered(found, 0, 85, 750).tobytes() == SENT.tobytes()
    found.over()
    assert gathered(found, 0, 750).tobytes() == SENT.tobytes()


def test_a_fold_gives_the_bits_of_the_whole_at_any_length_of_stretch(monkeypatch: pytest.MonkeyPatch) -> None:
    def version(stretch: int) -> bytes:
        monkeypatch.setattr(fold_module, "STRETCH", stretch)
        fold = Fold.at(Aggregation().build(), bytes(32), np.ones(FORM.size, dtype=np.float32), 0, sources(), form=FORM)
        fold.add(Contribution("A", 1, 0, 1, 0))
        fold.step()
        return fold.model.tobytes()

    assert version(1 << 24) == version(50) == version(333) == (np.float32(1) + SENT).tobytes()


def test_damage_names_update_and_chunk() -> None:
    damaged = bytearray(PAYLOAD)
    damaged[len(damaged) - 5] ^= 1
    with pytest.raises(StorageError, match=r"update 1 is damaged \(Chunk 3 "):
        gathered(sources(bytes(damaged)), 0, 750)


def test_an_update_is_checked_by_the_form_of_the_model() -> None:
    update = Sender.named("A", bytes(32), bytes(32)).fields(1, PAYLOAD, codec="lowrank")
    check = Check(update, Terms("t", FORM, {}, Limits(max_norm=100.0), 0))
    for start in range(0, len(PAYLOAD), 64):
        check.feed(PAYLOAD[start : start + 64])
    assert check.finish() == pytest.approx(float(np.linalg.norm(SENT)), rel=1e-5)
    with pytest.raises(RefusedUpdate, match="does not decode: Chunk 0"):
        Check(update, Terms("t", Form(((750,),)), {}, Limits(), 0)).feed(PAYLOAD)
