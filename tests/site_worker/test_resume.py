"""A round that was stopped or killed at any step and continued gives the bits of one that nothing happened to."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from torch.utils.data import DataLoader, default_collate

from broker.messages import Announcement
from site_worker.checkpoint import KeptRound
from site_worker.outbox import Outbox
from site_worker.tasks.task import Split, Task
from site_worker.training import Stopped, TrainingError
from tests.site_worker.drafts import done, stored
from tests.site_worker.practice import (
    STEPS,
    After,
    Vector,
    announcement,
    outcome,
    plan,
    rounds,
    shuffled,
    start,
    table,
    task,
    undisturbed,
)

ADAM, ADAMW, COSINE, LINEAR = 1.0, 2.0, 1.0, 2.0
PLANS = {
    "sgd": plan(),
    "momentum": plan(momentum=0.9, weight_decay=0.01),
    "adam": plan(optimizer=ADAM),
    "adamw": plan(optimizer=ADAMW, weight_decay=0.1, schedule=COSINE, warmup_steps=3.0),
    "clipped": plan(clip_norm=0.1, schedule=LINEAR),
    "patient": plan(optimizer=ADAM, patience=2.0),
    "proximal": plan(proximal=2.0, momentum=0.9, clip_norm=0.5),
    "impatient": plan(learning_rate=1.0, patience=1.0, momentum=0.9),
}


class Killed(BaseException):
    """The process is gone."""


def interrupted(folder: Path, asked: Announcement, model: Vector, steps: int, make: Callable[[], Task] = task) -> None:
    with pytest.raises(Stopped, match=f"before step {steps + 1} of"):
        done(rounds(folder, make()), asked, model, stopping=After(steps))


@pytest.mark.parametrize("make", [task, shuffled])
@pytest.mark.parametrize("name", PLANS)
def test_stopped_at_any_step_and_continued_it_is_the_same_round(
    tmp_path: Path, name: str, make: Callable[[], Task]
) -> None:
    model = start()
    asked = announcement(rounds(None), model, plan=PLANS[name])
    expected = undisturbed(asked, model, make())
    for steps in range(expected[2]):
        folder = tmp_path / str(steps)
        interrupted(folder, asked, model, steps, make)
        again = rounds(folder, make())
        assert again.unfinished() == asked
        assert outcome(done(again, asked, None)) == expected


@pytest.mark.parametrize("name", ["adamw", "patient"])
def test_stopped_after_every_single_step_it_is_the_same_round(tmp_path: Path, name: str) -> None:
    model = start()
    asked = announcement(rounds(None), model, plan=PLANS[name])
    expected = undisturbed(asked, model)
    interrupted(tmp_path, asked, model, 1)
    for steps in range(2, expected[2]):
        with pytest.raises(Stopped, match=f"before step {steps + 1} "):
            done(rounds(tmp_path), asked, None, stopping=After(1))
    assert outcome(done(rounds(tmp_path), asked, None)) == expected


@pytest.mark.parametrize("writes", [1, 2, 5, STEPS])
def test_killed_it_goes_on_from_what_was_kept_last(
    tmp_path: Path, writes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, left = start(), [writes]
    asked = announcement(rounds(None), model, plan=PLANS["adamw"])
    honest = KeptRound.write

    def dying(self: KeptRound, *given: Any) -> None:
        honest(self, *given)
        left[0] -= 1
        if not left[0]:
            raise Killed

    monkeypatch.setattr(KeptRound, "write", dying)
    with pytest.raises(Killed):
        done(rounds(tmp_path, checkpoint_s=1e-9), asked, model)
    monkeypatch.setattr(KeptRound, "write", honest)
    taken = list[int]()

    def noting(scores: Any, labels: Any) -> Any:
        taken.append(1)
        return task().loss(scores, labels)

    again = rounds(tmp_path, task(loss=noting))
    assert outcome(done(again, asked, None)) == undisturbed(asked, model)
    assert len(taken) == STEPS - writes  # nothing is trained twice, and nothing evaluated again


def test_the_model_given_again_is_not_trained_from_twice(tmp_path: Path) -> None:
    model = start()
    asked = announcement(rounds(None), model)
    interrupted(tmp_path, asked, model, 4)
    elsewhere = announcement(rounds(None), model, offset=999, issued_at=77.0)  # announced again after a restart
    with pytest.raises(Stopped, match="before step 7 of"):
        done(rounds(tmp_path), elsewhere, model, stopping=After(2))


def test_a_round_in_mixed_precision_is_continued_too(tmp_path: Path) -> None:
    model = start()
    asked = announcement(rounds(None), model, plan=PLANS["adam"])
    with pytest.raises(Stopped):
        done(rounds(tmp_path, precision="bf16"), asked, model, stopping=After(4))
    expected = undisturbed(asked, model, precision="bf16")
    assert outcome(done(rounds(tmp_path, precision="bf16"), asked, None)) == expected
    assert expected != undisturbed(asked, model)


def test_a_round_of_many_passes_is_continued_in_the_pass_where_it_stopped(tmp_path: Path) -> None:
    def counting() -> Task:
        loader: DataLoader[Any] = DataLoader(table(8), batch_size=4, collate_fn=collate)
        return task(split=lambda _: Split(loader, table(8)))

    def collate(given: Any) -> Any:
        read.append(1)
        return default_collate(given)

    read, model = list[int](), start()
    asked = announcement(rounds(None), model)
    interrupted(tmp_path, asked, model, 7, counting)  # three passes of two batches, and one batch of the fourth
    read.clear()
    done(rounds(tmp_path, counting()), asked, None)
    assert len(read) == 1 + 2  # that batch once more, then the rest


def test_where_nothing_is_kept_there_is_nothing_to_continue(tmp_path: Path) -> None:
    local, model = rounds(tmp_path), start()
    assert local.unfinished() is None
    local.forget()
    with pytest.raises(TrainingError, match="Nothing of the round of version 7 is kept; fetch its model again"):
        done(local, announcement(local, model), None)


def test_a_short_round_that_is_not_stopped_writes_nothing(tmp_path: Path) -> None:
    local, model = rounds(tmp_path), start()
    done(local, announcement(local, model), model)
    assert list(tmp_path.iterdir()) == []


def test_a_kept_round_whose_update_is_stored_is_obsolete(tmp_path: Path) -> None:
    model = start()
    asked = announcement(rounds(None), model)
    interrupted(tmp_path, asked, model, 4)
    outbox = Outbox(tmp_path / "outbox.db")
    finished = done(rounds(tmp_path), asked, None)
    stored(outbox, finished.made.numbered(1), finished.payload)  # and killed before forget
    again = rounds(tmp_path)
    assert again.unfinished() is None
    assert not (tmp_path / "round").exists()
    outbox.close()


def test_what_was_refused_may_be_trained_and_kept_again(tmp_path: Path) -> None:
    model = start()
    asked = announcement(rounds(None), model)
    outbox = Outbox(tmp_path / "outbox.db")
    refused = done(rounds(tmp_path), asked, model)
    stored(outbox, refused.made.numbered(1), refused.payload)
    outbox._database.execute("UPDATE updates SET state = 'refused'")
    interrupted(tmp_path, asked, model, 2)
    assert rounds(tmp_path).unfinished() == asked
    outbox.close()


def test_what_is_forgotten_is_gone(tmp_path: Path) -> None:
    model = start()
    asked = announcement(rounds(None), model)
    interrupted(tmp_path, asked, model, 4)
    local = rounds(tmp_path)
    local.forget()
    assert local.unfinished() is None
    assert list(tmp_path.iterdir()) == []


def test_time_spent_before_the_stop_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("site_worker.rounds.time.monotonic", lambda: now[0])
    model = start()
    asked = announcement(rounds(None), model)

    def slow(scores: Any, labels: Any) -> Any:
        now[0] += 2.0  # a step, or the evaluation before them
        return task().loss(scores, labels)

    interrupted(tmp_path, asked, model, 4, lambda: task(loss=slow))
    made = done(rounds(tmp_path, task(loss=slow)), asked, None).made
    assert made.training_s == 2.0 * (1 + STEPS)
