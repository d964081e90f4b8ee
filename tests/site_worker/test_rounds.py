"""A site's round: what the codec leaves out is sent later, and a hospital's own bounds hold."""

import hashlib
import threading
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import msgspec
import numpy as np
import pytest
from torch.utils.data import TensorDataset

from broker.codecs import decoded
from broker.identity import PrivateKey
from broker.messages import AGGREGATOR, Announcement, Party, Peer, UpdatePart
from broker.weights import model_digest
from site_worker.rounds import LocalRounds
from site_worker.settings import Bounds, Settings
from site_worker.tasks.synthetic import tiny
from site_worker.tasks.task import Measure, Split
from site_worker.training import Outcome, Plan, RefusedPlan, Trainer, TrainingError, initial_weights
from tests.site_worker.bench import Aggregator
from tests.site_worker.drafts import done

PLAN = [("steps", 3.0), ("batch_size", 8.0), ("learning_rate", 0.5)]


def rounds(**changes: Any) -> LocalRounds:
    return LocalRounds(Settings("A", "m:f", **changes), tiny(), folder=None, clock=lambda: 5.0)


def announcement(local: LocalRounds, model: np.ndarray[Any, np.dtype[np.float32]], **changes: Any) -> Announcement:
    changes = {"plan": PLAN, "layout_digest": local.layout.digest} | changes
    digest = model_digest(local.layout.digest, model)
    return msgspec.structs.replace(Aggregator().announce(7, model=model), model_digest=digest, **changes)


def start(local: LocalRounds) -> np.ndarray[Any, np.dtype[np.float32]]:
    return local.layout.flatten(initial_weights(tiny()))


def zeros() -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.zeros(5, dtype=np.float32)


def test_what_was_sent_and_what_is_left_are_all_that_was_learned(monkeypatch: pytest.MonkeyPatch) -> None:
    learned, honest = list[Any](), Trainer.train

    def noting(self: Trainer, weights: Any, plan: Plan, stopping: threading.Event, **more: Any) -> Outcome:
        outcome = honest(self, weights, plan, stopping, **more)
        learned.append(local.layout.flatten(outcome.weights) - local.layout.flatten(weights))
        return outcome

    monkeypatch.setattr(Trainer, "train", noting)
    local = rounds(codec="int8")
    model, residual, sent = start(local), zeros(), zeros()
    for _ in range(6):
        trained = done(local, announcement(local, model), model, residual=residual)
        assert trained.residual is not None
        delta, residual = decoded("int8", trained.payload, 5), trained.residual
        sent, model = sent + delta, model + delta
    assert np.abs(residual).max() > 0
    assert sent + residual == pytest.approx(np.sum(learned, axis=0), abs=1e-6)


@pytest.mark.parametrize(("asked", "codec"), [("lowrank-20", "lowrank"), ("int8-coarse", "int8")])
def test_an_update_names_the_codec_of_the_wire_and_not_how_it_was_asked_for(asked: str, codec: str) -> None:
    local = rounds(codec="")
    model = start(local)
    trained = done(local, announcement(local, model, codec=asked), model)
    whole = done(local, announcement(local, model, codec="float32"), model)
    assert trained.made.codec == codec
    assert trained.residual is not None
    sent = decoded(codec, trained.payload, local.layout.form)
    assert sent + trained.residual == pytest.approx(decoded("float32", whole.payload, 5), abs=1e-6)
    assert np.abs(sent).max() > 0


def test_a_lossless_codec_leaves_nothing_and_sends_what_was_left_before() -> None:
    local, left = rounds(codec="float32"), np.full(5, 8.0, dtype=np.float32)
    model = start(local)
    plain = done(rounds(codec="float32"), announcement(local, model), model)
    trained = done(local, announcement(local, model), model, residual=left)
    assert (plain.residual, trained.residual) == (None, None)
    difference = decoded("float32", trained.payload, 5) - decoded("float32", plain.payload, 5)
    assert difference == pytest.approx(left, abs=1e-5)


def test_an_update_says_what_it_was_made_from() -> None:
    local = rounds()
    model = start(local)
    asked = announcement(local, model)
    finished = done(local, asked, model)
    made = finished.made
    assert (made.sequence, made.base_version, made.base_digest) == (0, 7, asked.model_digest)
    assert (made.codec, made.steps, made.examples, made.held_out, made.made_at) == ("int8", 3, 48, 16, 5.0)
    assert {name for name, _ in made.metrics} == {"loss", "auc"}
    assert (made.payload_bytes, made.payload_digest) == (
        len(finished.payload), hashlib.sha256(finished.payload).digest()
    )  # fmt: skip


@pytest.mark.parametrize(
    ("bounds", "reason"),
    [
        (Bounds(max_steps=2), "steps 3, this site allows 2"),
        (Bounds(max_batch_size=7), "batch_size 8, this site allows 7"),
        (Bounds(max_learning_rate=0.25), "learning_rate 0.5, this site allows 0.25"),
    ],
)
def test_a_plan_beyond_this_hospitals_bounds_is_not_run(bounds: Bounds, reason: str) -> None:
    local = rounds(bounds=bounds)
    with pytest.raises(TrainingError, match=reason):
        done(local, announcement(local, start(local)), start(local))


def test_a_plan_with_words_of_its_own_is_refused() -> None:
    local = rounds()
    asked = announcement(local, start(local), plan=[*PLAN, ("epochs", 3.0)])
    with pytest.raises(RefusedPlan, match="it may name"):
        done(local, asked, start(local))


def test_a_codec_that_is_not_known_here_is_a_sentence() -> None:
    local = rounds()
    with pytest.raises(TrainingError, match="codec 'brotli'"):
        done(local, announcement(local, start(local), codec="brotli"), start(local))


def test_what_is_not_finite_is_never_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = Trainer.train

    def diverged(self: Trainer, weights: Any, plan: Plan, stopping: threading.Event, **more: Any) -> Outcome:
        outcome = honest(self, weights, plan, stopping, **more)
        return replace(outcome, weights={name: one * np.float32("inf") for name, one in outcome.weights.items()})

    monkeypatch.setattr(Trainer, "train", diverged)
    local = rounds()
    with pytest.raises(TrainingError, match="not finite"):
        done(local, announcement(local, start(local)), start(local))


def test_the_greeting_has_counts_and_sums_and_no_rows() -> None:
    hello = rounds().greeting()
    assert (hello.task, hello.examples, [len(one) for one in hello.statistics]) == ("tiny", 48, [4, 4, 4])


def test_a_start_from_other_statistics_makes_a_new_trainer() -> None:
    local = rounds(codec="float32")
    model = start(local)
    wide = [[1.0] * 4, [0.0] * 4, [100.0] * 4]
    payloads = [done(rounds(codec="float32"), announcement(local, model, statistics=one), model) for one in ([], wide)]
    assert payloads[0].payload != payloads[1].payload
    done(local, announcement(local, model), model)
    again = done(local, announcement(local, model, statistics=wide), model)
    assert again.payload == payloads[1].payload


def test_a_clock_set_back_while_training_gives_no_negative_duration() -> None:
    times = iter([1_000.0 - second for second in range(100)])
    local = LocalRounds(Settings("A", "m:f"), tiny(), folder=None, clock=lambda: next(times))
    made = done(local, announcement(local, start(local)), start(local)).made
    assert 0 <= made.training_s < 60


@pytest.mark.parametrize("names", [["m" * 65], [f"m{number}" for number in range(64)]])  # with the loss, 65
@pytest.mark.parametrize("together", [False, True])
def test_metrics_that_no_update_can_carry_are_the_tasks_mistake(names: list[str], together: bool) -> None:
    apart: Mapping[str, Measure] = {name: lambda _scores, _labels: 1.0 for name in names}
    task = replace(tiny(), metrics={"h": lambda *_: dict.fromkeys(names, 1.0)} if together else apart)
    local = LocalRounds(Settings("A", "m:f"), task, folder=None)
    with pytest.raises(TrainingError, match="at most 64 metrics"):
        done(local, announcement(local, start(local)), start(local))


def test_the_numbers_of_a_metric_travel_under_its_name_up_to_what_an_update_can_carry() -> None:
    task = replace(tiny(), metrics={"h": lambda *_: {str(number): float(number) for number in range(63)}})
    local = LocalRounds(Settings("A", "m:f"), task, folder=None)
    made = done(local, announcement(local, start(local)), start(local)).made
    assert dict(made.metrics) | {"loss": 0.0} == {f"h.{number}": float(number) for number in range(63)} | {"loss": 0.0}


def test_a_site_that_holds_nothing_out_makes_an_update_that_the_wire_takes() -> None:
    split = tiny().split(None)
    assert isinstance(split.test, TensorDataset)
    nothing = TensorDataset(*split.test[:0])
    empty = replace(tiny(), split=lambda _: Split(split.train, nothing), statistics=None)
    local = LocalRounds(Settings("A", "m:f"), empty, folder=None)
    finished = done(local, announcement(local, start(local)), start(local))
    made, payload = finished.made, finished.payload
    assert (made.held_out, made.metrics, made.steps) == (0, (), 3)
    fields = UpdatePart(
        "tiny", bytes(16), 1, made.base_version, made.base_digest, made.examples, made.steps, list(made.metrics),
        made.held_out, made.codec, made.payload_bytes, made.payload_digest, 0, 1, 0, made.made_at, made.training_s,
    )  # fmt: skip
    key = PrivateKey.generate()
    sealed = Party("fed", "A", key).seal(fields, to=AGGREGATOR, body=payload)
    assert Peer("fed", "A", key.public).open(sealed, recipients=frozenset({AGGREGATOR})) == (fields, payload)
