"""One announced model from a stream in which anything may lie, by a keyframe or by differences."""

from dataclasses import replace
from typing import Any

import msgspec
import numpy as np
import pytest

from broker.codecs import encode
from broker.differences import difference, led_on
from broker.errors import WireError
from broker.identity import PrivateKey
from broker.link import Delivery
from broker.messages import EVERYONE, Announcement, Difference, ModelPart, Party, part_count, parts_of
from broker.weights import Layout, model_digest
from site_worker.download import STALLED_S, Download, legs_to
from site_worker.models import Held, ModelMemory
from tests.site_worker.bench import Aggregator

BIG = np.random.default_rng(4).normal(size=64).astype(np.float32)
LAYOUT = Layout.of({"w": BIG})
KEY, DIFFERENCES = 1, (2, 3)


@pytest.fixture
def aggregator(monkeypatch: pytest.MonkeyPatch) -> Aggregator:
    monkeypatch.setattr("broker.messages.PART_BYTES", 100)
    return Aggregator()


def announced(aggregator: Aggregator, **changes: Any) -> Announcement:
    own = {"model_digest": model_digest(LAYOUT.digest, BIG), "layout_digest": LAYOUT.digest}
    return aggregator.announce(3, model=BIG, **own | changes)


def download(aggregator: Aggregator, models: ModelMemory | None = None, **changes: Any) -> Download:
    return Download(announced(aggregator, **changes), aggregator.peer, models or ModelMemory(LAYOUT), now=0.0)


def take(download: Download, models: ModelMemory, *deliveries: Delivery) -> list[int]:
    """Numbers of the parts that were kept."""
    kept = [part for one in deliveries if (part := download.take(one, now=50.0)) is not None]
    for part in kept:
        models.keep(*part)
    return [number for _, number, _, _ in kept]


class Chain:
    """Version 1 as a keyframe at offset 10, and differences to versions 2 and 3 at 20 and 30."""

    def __init__(self, aggregator: Aggregator) -> None:
        self._aggregator, rng = aggregator, np.random.default_rng(7)
        self.models, self.digests = {KEY: BIG}, {KEY: model_digest(LAYOUT.digest, BIG)}
        self.payloads, self.differences = {KEY: encode("float32", BIG)}, list[Difference]()
        for version in DIFFERENCES:
            base = self.models[version - 1]
            wanted = base + rng.normal(size=64).astype(np.float32) / np.float32(10)
            self.payloads[version] = b"".join(difference("int8", wanted, base))
            self.models[version] = np.concatenate(list(led_on("int8", [self.payloads[version]], base)))
            self.digests[version] = model_digest(LAYOUT.digest, self.models[version])
            self.differences.append(
                Difference(
                    version - 1, self.digests[version - 1], version, self.digests[version], "int8",
                    len(self.payloads[version]), 10 * version,
                )
            )  # fmt: skip

    def announcement(self) -> Announcement:
        payload = self.payloads[KEY]
        return announced(
            self._aggregator, model_digest=self.digests[3], model_bytes=len(payload), parts=part_count(len(payload)),
            offset=10, key_version=KEY, key_digest=self.digests[KEY], differences=self.differences,
        )  # fmt: skip

    def stream(self, version: int) -> list[Delivery]:
        """The parts that lead to a version."""
        base = b"" if version == KEY else self.digests[version - 1]
        bodies = list(parts_of(self.payloads[version]))
        return [
            self._aggregator.sealed(
                ModelPart(version, self.digests[version], part, len(bodies), base), "fq.fed.models", to=EVERYONE,
                body=body, offset=10 * version + part,
            )
            for part, body in enumerate(bodies)
        ]  # fmt: skip


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (1, 1, 0, 0, 2)])
def test_parts_in_any_order_make_the_model(aggregator: Aggregator, order: tuple[int, ...]) -> None:
    models = ModelMemory(LAYOUT)
    taking, parts = download(aggregator, models), aggregator.model(announced(aggregator), model=BIG)
    assert (len(parts), taking.leg) == (3, taking.legs[0])
    take(taking, models, replace(parts[order[0]], offset=103), *(parts[part] for part in order[1:]))
    assert taking.leg is None
    assert np.array_equal(models.make(taking.legs), BIG)
    assert models.held() == Held(3, model_digest(LAYOUT.digest, BIG))


def test_everything_else_in_the_stream_is_passed_over(aggregator: Aggregator) -> None:
    models = ModelMemory(LAYOUT)
    taking, announcement = download(aggregator, models), announced(aggregator)
    forger = Aggregator(Party("fed", "aggregator", PrivateKey.generate()))
    own = aggregator.model(announcement, model=BIG)
    part = ModelPart(3, announcement.model_digest, 0, 3, bytes(32))
    strangers = [
        *forger.model(announcement, model=BIG),
        *aggregator.model(aggregator.announce(2, model=BIG * 2), model=BIG * 2),
        aggregator.sealed(msgspec.structs.replace(part, part=3, base=b""), "s", to=EVERYONE, body=b"x"),
        aggregator.sealed(part, "s", to=EVERYONE, body=b"of a difference that leads here"),
        aggregator.announced(announcement),
        replace(own[0], body=b"garbage"),
    ]
    assert take(taking, models, *strangers) == []
    assert taking.stalled_at == STALLED_S  # they are no progress
    assert take(taking, models, *own) == [0, 1, 2]
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


def test_a_cut_transfer_goes_on_after_the_last_part_that_is_here(aggregator: Aggregator) -> None:
    models = ModelMemory(LAYOUT)
    first, second, third = aggregator.model(announced(aggregator), model=BIG)
    take(download(aggregator, models), models, first, second)
    again = download(aggregator, models)
    assert (again.offset(), str(again.progress)) == (105, f"{100 * 200 // again.progress.total} % of 274 bytes")
    assert take(again, models, third) == [2]
    assert np.array_equal(models.make(again.legs), BIG)


def test_of_a_model_that_was_written_again_only_the_missing_parts_are_kept(aggregator: Aggregator) -> None:
    models = ModelMemory(LAYOUT)
    first, second, _ = aggregator.model(announced(aggregator), model=BIG)
    take(download(aggregator, models), models, first, second)
    again = download(aggregator, models, offset=500)
    assert again.offset() == 500
    parts = aggregator.model(announced(aggregator, offset=500), model=BIG)
    assert take(again, models, *parts) == [2]
    assert not again.evicted
    assert np.array_equal(models.make(again.legs), BIG)


def test_a_gap_where_it_would_go_on_means_that_the_rest_was_evicted(aggregator: Aggregator) -> None:
    models = ModelMemory(LAYOUT)
    first, _, third = aggregator.model(announced(aggregator), model=BIG)
    take(download(aggregator, models), models, first)
    again = download(aggregator, models)
    again.take(third, now=1.0)
    assert again.evicted


def test_a_model_that_is_not_the_announced_one_is_refused_and_thrown_away(aggregator: Aggregator) -> None:
    announcement, models = announced(aggregator), ModelMemory(LAYOUT)
    other = BIG.copy()
    other[0] += 1
    taking = Download(announcement, aggregator.peer, models, now=0.0)
    take(taking, models, *aggregator.model(announcement, model=other))
    with pytest.raises(WireError, match="version 3 is not the announced one"):
        models.make(taking.legs)
    assert (models.held(), models.parts(taking.legs[0])) == (None, {})


@pytest.mark.parametrize(
    "changes", [{"parts": 2}, {"parts": 4}, {"model_bytes": 1 << 30, "parts": 10_737_419}, {"model_bytes": 1}]
)
def test_sizes_that_do_not_fit_are_refused_before_anything_is_fetched(
    aggregator: Aggregator, changes: dict[str, Any]
) -> None:
    with pytest.raises(WireError, match="size does not fit"):
        download(aggregator, **changes)


def test_a_codec_that_models_never_have_is_refused(aggregator: Aggregator) -> None:
    with pytest.raises(WireError, match="'int8' cannot be read"):
        download(aggregator, model_codec="int8")


# ---- differences


def test_a_newcomer_takes_the_keyframe_and_what_follows_to_the_last_bit(aggregator: Aggregator) -> None:
    chain, models = Chain(aggregator), ModelMemory(LAYOUT)
    taking = Download(chain.announcement(), aggregator.peer, models, now=0.0)
    assert [leg.version for leg in taking.legs] == [1, 2, 3]
    for version in (1, 2, 3):
        assert (taking.leg or taking.legs[0]).version == version
        assert taking.offset() == 10 * version
        take(taking, models, *chain.stream(version))
    assert np.array_equal(models.make(taking.legs), chain.models[3])


@pytest.mark.parametrize(("held", "legs"), [(1, [2, 3]), (2, [3]), (3, [])])
def test_a_site_that_holds_a_model_takes_the_differences_after_it(
    aggregator: Aggregator, held: int, legs: list[int]
) -> None:
    chain = Chain(aggregator)
    way = legs_to(chain.announcement(), Held(held, chain.digests[held]))
    assert [leg.version for leg in way] == legs


def test_a_site_that_holds_something_else_begins_with_the_keyframe(aggregator: Aggregator) -> None:
    way = legs_to(Chain(aggregator).announcement(), Held(2, bytes(32)))
    assert [leg.version for leg in way] == [1, 2, 3]


def test_differences_that_cost_more_than_the_keyframe_are_passed_over(aggregator: Aggregator) -> None:
    chain = Chain(aggregator)
    costly = [msgspec.structs.replace(one, payload_bytes=10_000) for one in chain.differences]
    announcement = msgspec.structs.replace(
        chain.announcement(), key_version=0, key_digest=b"", differences=costly, model_digest=chain.digests[3]
    )
    (leg,) = legs_to(announcement, Held(1, chain.digests[1]))
    assert (leg.version, leg.base_digest) == (3, b"")


def test_an_announcement_whose_differences_lead_nowhere_is_refused(aggregator: Aggregator) -> None:
    announcement = msgspec.structs.replace(Chain(aggregator).announcement(), differences=[])
    with pytest.raises(WireError, match="do not lead to it"):
        legs_to(announcement, None)


def test_a_damaged_difference_throws_away_what_it_led_on_from(aggregator: Aggregator) -> None:
    chain, models = Chain(aggregator), ModelMemory(LAYOUT)
    taking = Download(chain.announcement(), aggregator.peer, models, now=0.0)
    take(taking, models, *chain.stream(1), *chain.stream(2))
    models.keep(taking.legs[2], 0, 30, b"junk")
    with pytest.raises(WireError, match="Chunk 0"):
        models.make(taking.legs)
