"""One announced model from a stream in which anything may lie."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from broker.errors import WireError
from broker.identity import PrivateKey
from broker.messages import EVERYONE, Announcement, ModelPart, Party
from site_worker.download import STALLED_S, Download
from tests.site_worker.bench import Aggregator

BIG = np.random.default_rng(4).normal(size=64).astype(np.float32)


@pytest.fixture
def aggregator(monkeypatch: pytest.MonkeyPatch) -> Aggregator:
    monkeypatch.setattr("broker.messages.PART_BYTES", 100)
    return Aggregator()


def announced(aggregator: Aggregator, **changes: Any) -> Announcement:
    return aggregator.announce(3, model=BIG, **changes)


def download(aggregator: Aggregator, **changes: Any) -> Download:
    return Download(announced(aggregator, **changes), aggregator.peer, now=0.0)


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (1, 1, 0, 0, 2)])
def test_parts_in_any_order_make_the_model(aggregator: Aggregator, order: tuple[int, ...]) -> None:
    taking, parts = download(aggregator), aggregator.model(announced(aggregator), model=BIG)
    assert len(parts) == 3
    assert [taking.take(parts[part], now=1.0) for part in order] == [False] * (len(order) - 1) + [True]
    assert np.array_equal(taking.model(), BIG)


def test_everything_else_in_the_stream_is_passed_over(aggregator: Aggregator) -> None:
    taking, announcement = download(aggregator), announced(aggregator)
    forger = Aggregator(Party("fed", "aggregator", PrivateKey.generate()))
    own = aggregator.model(announcement, model=BIG)
    strangers = [
        *forger.model(announcement, model=BIG),
        *aggregator.model(aggregator.announce(2, model=BIG * 2), model=BIG * 2),
        aggregator.sealed(ModelPart(3, announcement.model_digest, 3, 3), "s", to=EVERYONE, body=b"x"),
        aggregator.announced(announcement),
        replace(own[0], body=b"garbage"),
    ]
    assert not any(taking.take(one, now=50.0) for one in strangers)
    assert taking.stalled_at == STALLED_S  # they are no progress
    assert [taking.take(one, now=50.0) for one in own] == [False, False, True]
    assert taking.stalled_at == 50.0 + STALLED_S


def test_a_stream_that_begins_later_has_evicted_the_model(aggregator: Aggregator) -> None:
    parts = aggregator.model(announced(aggregator), model=BIG)
    for offset, evicted in ((102, False), (103, False), (104, True)):
        taking = download(aggregator)
        taking.take(replace(parts[0], offset=offset), now=1.0)
        assert taking.evicted is evicted
    taking = download(aggregator)
    for part in parts:  # only the first message tells where the stream begins
        taking.take(part, now=1.0)
    assert not taking.evicted


def test_a_model_that_is_not_the_announced_one_is_refused(aggregator: Aggregator) -> None:
    announcement = announced(aggregator)
    other = BIG.copy()
    other[0] += 1
    taking = Download(announcement, aggregator.peer, now=0.0)
    for part in aggregator.model(announcement, model=other):
        taking.take(part, now=1.0)
    with pytest.raises(WireError, match="version 3 is not the announced one"):
        taking.model()


@pytest.mark.parametrize(
    "changes", [{"parts": 2}, {"parts": 4}, {"model_bytes": 1 << 30, "parts": 10_737_419}, {"model_bytes": 1}]
)
def test_sizes_that_do_not_fit_are_refused_before_anything_is_fetched(
    aggregator: Aggregator, changes: dict[str, int]
) -> None:
    with pytest.raises(WireError, match="size does not fit"):
        download(aggregator, **changes)


def test_a_codec_that_models_never_have_is_refused(aggregator: Aggregator) -> None:
    with pytest.raises(WireError, match="'int8' cannot be read"):
        download(aggregator, model_codec="int8")
