"""Differences to what sites hold: one end encodes, the other comes to the same bits, and nothing is lost on the way."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from aggregator.downlink import Downlink, Wanted
from aggregator.effects import LosePublished
from aggregator.publications import NOTHING, Published
from aggregator.settings import Aggregation, Folder
from broker.drive import Cancel, Consume, Publish, Tick
from broker.link import Confirmed, Consuming, Delivery, Down
from broker.messages import EVERYONE, Announcement, Peer
from broker.weights import Layout, load_model, model_digest
from site_worker.download import legs_to
from site_worker.models import Held, Leg, ModelMemory
from tests.aggregator.bench import Bench, only, published
from tests.aggregator.conftest import MakeBench

STREAM = "fq.fed.models"
RNG = np.random.default_rng(5)
MODELS = np.cumsum(RNG.normal(size=(6, 500)), axis=0).astype(np.float32)
LAYOUT = Layout.of({"w": MODELS[0]})


def wanted(version: int, base: Published | None, *, codec: str = "int8", key: bool = False) -> Wanted:
    model = MODELS[version]
    return Wanted(version, model_digest(LAYOUT.digest, model), model, base, codec, key, 1.0)


def held(folder: Folder, version: int) -> np.ndarray[Any, Any]:
    return load_model(folder.published(version))[1]


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


def test_what_is_left_out_is_in_the_next_difference(folder: Folder) -> None:
    """However coarse the codec, what sites hold stays as near to the model as one difference leaves it."""
    downlink = Downlink(folder, LAYOUT)
    (row,) = downlink.encode(wanted(0, None))
    for version in range(1, 6):
        (row,) = downlink.encode(wanted(version, row))
        assert (row.version, row.base, row.keyframe) == (version, version - 1, False)
        left_out = np.abs(MODELS[version] - held(folder, version)).max()
        assert left_out < 0.02 < np.abs(MODELS[version] - MODELS[version - 1]).max()
        assert row.digest == model_digest(LAYOUT.digest, held(folder, version)) != wanted(version, None).digest
        assert 0 < row.error < 0.02


@pytest.mark.parametrize(("asked", "codec"), [("int8", "int8"), ("lowrank-15", "lowrank"), ("int8-coarse", "int8")])
def test_sites_come_to_the_same_bits(folder: Folder, asked: str, codec: str) -> None:
    layout = Layout.of({"a": MODELS[0][:480].reshape(20, 24), "b": MODELS[0][480:]})
    downlink, models = Downlink(folder, layout), ModelMemory(layout)
    row, offset = None, 0
    for version in range(4):
        model = MODELS[version]
        rows = downlink.encode(
            Wanted(version, model_digest(layout.digest, model), model, row, asked, version == 2, 1.0)
        )
        assert {one.codec for one in rows} <= {codec, "float32"}
        for row in rows:
            leg = Leg(row.version, row.digest, row.codec, row.payload_bytes, row.parts, offset, row.base_digest)
            for part in range(row.parts):
                models.keep(leg, part, offset, downlink.part(row, part) or b"")
            models.make([leg])
        assert np.array_equal(models.make([]), held(folder, version))


def test_a_keyframe_of_a_version_that_was_published_is_of_what_sites_hold(folder: Folder) -> None:
    downlink = Downlink(folder, LAYOUT)
    (first,) = downlink.encode(wanted(0, None))
    (second,) = downlink.encode(wanted(1, first))
    (key,) = downlink.encode(wanted(1, second, key=True))
    assert (key.keyframe, key.digest) == (True, second.digest)


def test_without_what_sites_hold_the_next_version_is_a_keyframe(folder: Folder) -> None:
    downlink = Downlink(folder, LAYOUT)
    (first,) = downlink.encode(wanted(0, None))
    (second,) = downlink.encode(wanted(1, first))
    folder.published(1).unlink()
    assert downlink.encode(wanted(1, second, key=True)) == []  # never two models of one version
    (third,) = downlink.encode(wanted(2, second))
    assert (third.keyframe, third.digest) == (True, wanted(2, None).digest)


def test_a_lossless_codec_sends_models_whole_and_keeps_nothing(folder: Folder) -> None:
    downlink = Downlink(folder, LAYOUT)
    (first,) = downlink.encode(wanted(0, None, codec="float32"))
    (second,) = downlink.encode(wanted(1, first, codec="float32"))
    assert (second.base, second.digest) == (NOTHING, wanted(1, None).digest)
    assert folder.published_files() == []


def test_files_go_once_they_are_in_the_stream(folder: Folder) -> None:
    downlink = Downlink(folder, LAYOUT)
    (first,) = downlink.encode(wanted(0, None))
    (second,) = downlink.encode(wanted(1, first))
    downlink.clean(first)
    downlink.clean(second)
    assert [path.name for path in folder.publishing.iterdir()] == ["1.safetensors"]
    assert downlink.part(second, 0) is None


# ---- the loop

BIG = RNG.normal(size=64).astype(np.float32)


@pytest.fixture
def bench(make_bench: MakeBench) -> Bench:
    made = make_bench(
        model=BIG, sites=("A",), aggregation=Aggregation(buffer_size=1), model_codec="int8", keyframe_every=3
    )
    made.start()
    return made


class Stream:
    """Takes what is published to the stream, as the broker would, and says so."""

    def __init__(self, bench: Bench) -> None:
        self.bench, self.messages = bench, list[Delivery]()

    def run(self, effects: list[Any]) -> list[Announcement]:
        """Until nothing more is published; the announcements to all."""
        told: list[Announcement] = []
        while effects:
            more: list[Any] = []
            for effect in effects:
                match effect:
                    case Consume(queue="fq.fed.models", offset="next"):
                        more += self.bench.feed(Consuming(STREAM))
                    case Publish(message) if message.routing_key == STREAM:
                        self.messages.append(Delivery(STREAM, message.body, object(), offset=len(self.messages)))
                        more += self.bench.feed(Confirmed(message.token)) + self.bench.feed(self.messages[-1])
                    case Publish(message) if message.routing_key == "round.all":
                        opened = Peer("fed", "aggregator", self.bench.key.public).open(
                            message.body, recipients=frozenset({EVERYONE})
                        )[0]
                        told += [opened] if isinstance(opened, Announcement) else []
            effects = more
        return told


def update(bench: Bench, sequence: int) -> list[Any]:
    return bench.feed(bench.sites["A"].update(sequence, RNG.normal(size=64).astype(np.float32)))


def chain(told: Announcement, held: Held | None = None) -> list[tuple[int, bool]]:
    """The versions of the legs to an announced model, and which of them are keyframes."""
    return [(leg.version, not leg.base_digest) for leg in legs_to(told, held)]


def started(bench: Bench) -> Stream:
    stream = Stream(bench)
    (told,) = stream.run([Consume(STREAM, 1, "next")])
    assert chain(told) == [(0, True)]
    return stream


def test_differences_follow_a_keyframe_and_every_so_often_another(bench: Bench) -> None:
    stream, ways = started(bench), []
    for sequence in range(1, 5):
        told = stream.run(update(bench, sequence))
        assert [one.version for one in told] == [sequence]
        ways.append(chain(told[0]))
    assert ways == [
        [(0, True), (1, False)],
        [(0, True), (1, False), (2, False)],
        [(0, True), (1, False), (2, False), (3, False)],  # its keyframe is on its way
        [(3, True), (4, False)],
    ]
    before = Held(2, bench.loop._rounds.digests[2])
    assert chain(told[0], before) == [(3, False), (4, False)]


def test_what_sites_hold_is_what_updates_name_as_base(bench: Bench) -> None:
    stream = started(bench)
    (told,) = stream.run(update(bench, 1))
    assert told.model_digest != bench.journal.versions()[1].digest
    refused = bench.sites["A"].update(2, BIG, base_version=1, base_digest=bench.journal.versions()[1].digest)
    bench.feed(refused)
    assert bench.version == 1
    bench.feed(bench.sites["A"].update(3, BIG, base_version=1, base_digest=told.model_digest))
    assert bench.version == 2


def test_a_restart_goes_on_with_differences_once_the_stream_is_seen_to_be_there(bench: Bench) -> None:
    stream = started(bench)
    stream.run(update(bench, 1))
    bench.boot()
    bench.feed(Tick())
    bench.link.asked.clear()
    bench.up()
    (probe,) = [one for one in bench.link.asked if isinstance(one, Consume) and one.queue == STREAM]
    assert probe.offset == stream.messages[-1].offset
    (told,) = stream.run(bench.feed(stream.messages[-1]))
    assert chain(told) == [(0, True), (1, False)]
    (told,) = stream.run(update(bench, 2))
    assert chain(told)[-1] == (2, False)


@pytest.mark.parametrize("silent", [True, False])
def test_a_stream_that_was_lost_gets_a_keyframe_of_what_sites_hold(bench: Bench, *, silent: bool) -> None:
    stream = started(bench)
    (before,) = stream.run(update(bench, 1))
    bench.feed(Down("cut"))
    bench.up()
    if silent:
        bench.now += 11
        effects = bench.feed(Tick())
    else:
        effects = bench.feed(Delivery(STREAM, b"something else", object(), offset=0))
    assert Cancel(STREAM) in effects
    assert only(effects, LosePublished)
    stream.run(effects)
    bench.link.asked.clear()
    (told,) = [one for one in published(bench.feed(bench.sites["A"].hello(5))) if one.routing_key == "round.A"]
    opened: Any = Peer("fed", "aggregator", bench.key.public).open(told.body, recipients=frozenset({"A"}))[0]
    assert (chain(opened), opened.model_digest) == ([(1, True)], before.model_digest)


def test_a_restart_goes_on_at_the_part_that_is_missing(make_bench: MakeBench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("broker.messages.PART_BYTES", 100)
    bench = make_bench(model=BIG, sites=("A",))
    bench.start()
    (first,) = [one for one in published(bench.feed(Consuming(STREAM))) if one.routing_key == STREAM]
    bench.feed(Delivery(STREAM, first.body, object(), offset=7))
    bench.feed(Confirmed(first.token))
    bench.boot()
    bench.link.asked.clear()
    bench.up()
    asked = [one for one in only(bench.link.asked, Publish) if one.message.routing_key == STREAM]
    opened: Any = Peer("fed", "aggregator", bench.key.public).open(
        asked[0].message.body, recipients=frozenset({EVERYONE})
    )[0]
    assert (len(asked), opened.part) == (1, 1)
