"""What is kept of a round is whole or not used: damaged and foreign files are put aside, and the round begins anew."""

import logging
import random
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from torch import nn

from broker.errors import StorageError
from broker.messages import Announcement
from broker.weights import Layout, map_model, save_model
from site_worker.checkpoint import Asked, RoundKeeper
from site_worker.descent import Progress, State
from site_worker.training import Stopped, TrainingError
from tests.site_worker.drafts import done
from tests.site_worker.practice import (
    After,
    Vector,
    announcement,
    noisy,
    outcome,
    plan,
    rounds,
    start,
    task,
    undisturbed,
)

FILES = ("announcement.json", "base.safetensors", "state.safetensors")


@pytest.fixture
def model() -> Vector:
    return start()


@pytest.fixture
def asked(model: Vector) -> Announcement:
    return announcement(rounds(None), model, plan=plan(optimizer=1.0))


@pytest.fixture
def kept(tmp_path: Path, asked: Announcement, model: Vector) -> Path:
    """A site's folder with a round stopped before step 5."""
    with pytest.raises(Stopped):
        done(rounds(tmp_path), asked, model, stopping=After(4))
    return tmp_path


def steps_taken(folder: Path, asked: Announcement, model: Vector | None, **settings: Any) -> tuple[int, Any]:
    """How many steps were left to take, and what came of the round."""
    losses = list[int]()

    def loss(scores: Any, labels: Any) -> Any:
        losses.append(1)
        return task().loss(scores, labels)

    trained = done(rounds(folder, task(loss=loss), **settings), asked, model)
    return len(losses), outcome(trained)


def test_the_files_are_the_announced_and_what_safetensors_reads(kept: Path) -> None:
    assert sorted(path.name for path in (kept / "round").iterdir()) == sorted(FILES)


def corrupted(file: Path, how: str) -> None:
    data = file.read_bytes()
    random.seed(how)
    match how:
        case "empty":
            file.write_bytes(b"")
        case "cut":
            file.write_bytes(data[: len(data) // 2])
        case "text":
            file.write_bytes(b"not what it should be " * 20)
        case _:
            at = random.randrange(len(data))
            file.write_bytes(data[:at] + bytes([data[at] ^ (1 << random.randrange(8))]) + data[at + 1 :])


@pytest.mark.parametrize("how", ["empty", "cut", "text", *(f"bit {number}" for number in range(12))])
@pytest.mark.parametrize("name", FILES)
def test_a_damaged_file_costs_the_steps_and_nothing_else(
    kept: Path, asked: Announcement, name: str, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    corrupted(kept / "round" / name, how)
    assert rounds(kept).unfinished() in (None, asked)  # never another one
    _, came = steps_taken(kept, asked, start())
    assert came == undisturbed(asked, start())
    assert len([one for one in caplog.records if one.levelno >= logging.WARNING]) == 1
    assert f"round-aside folder={kept / 'round.aside'} reason=" in caplog.text
    assert (kept / "round.aside" / name).is_file()


def in_file(path: Path, model: Vector) -> Vector:
    """A model as a download leaves it: in a file, mapped."""
    save_model(path, rounds(None).layout, model)
    return map_model(path)[1]


def test_a_model_that_lies_in_a_file_is_kept_as_another_name_of_it(
    tmp_path: Path, asked: Announcement, model: Vector
) -> None:
    file = tmp_path / "7.safetensors"
    with pytest.raises(Stopped):
        done(rounds(tmp_path), asked, in_file(file, model), stopping=After(4))
    assert file.samefile(tmp_path / "round" / "base.safetensors")
    file.unlink()
    assert steps_taken(tmp_path, asked, None) == (5, undisturbed(asked, model))


@pytest.mark.parametrize("how", ["raw", "other layout", "no link", "gone"])
def test_a_model_whose_file_cannot_be_kept_is_copied(
    tmp_path: Path, asked: Announcement, model: Vector, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "7.safetensors"
    base = in_file(file, model)
    match how:
        case "raw":
            model.tofile(tmp_path / "raw")
            base = np.memmap(tmp_path / "raw", dtype=np.float32, mode="c")
        case "other layout":
            save_model(file, Layout.of({"w": model}), model)
        case "no link":
            monkeypatch.setattr(Path, "hardlink_to", failing)
        case "gone":
            file.unlink()
    with pytest.raises(Stopped):
        done(rounds(tmp_path), asked, base, stopping=After(4))
    assert (tmp_path / "round" / "base.safetensors").stat().st_nlink == 1
    assert steps_taken(tmp_path, asked, None) == (5, undisturbed(asked, model))


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_no_kept_round(kept: Path, asked: Announcement, model: Vector, name: str) -> None:
    (kept / "round" / name).unlink()
    assert rounds(kept).unfinished() is None
    assert steps_taken(kept, asked, model) == (10, undisturbed(asked, model))  # nine steps and the evaluation


def test_without_its_state_the_kept_model_is_still_begun_from(kept: Path, asked: Announcement, model: Vector) -> None:
    corrupted(kept / "round" / "state.safetensors", "cut")
    assert steps_taken(kept, asked, None) == (10, undisturbed(asked, model))


def test_without_its_model_nothing_can_be_continued(kept: Path, asked: Announcement, model: Vector) -> None:
    corrupted(kept / "round" / "base.safetensors", "cut")
    with pytest.raises(TrainingError, match="fetch its model again"):
        done(rounds(kept), asked, None)
    assert rounds(kept).unfinished() is None


@pytest.mark.parametrize(
    "changes",
    [
        {"version": 8},
        {"plan": plan(optimizer=1.0, steps=8.0)},
        {"plan": plan()},
        {"codec": "int8"},
        {"statistics": [[1.0], [0.0], [1.0]]},
    ],
)
def test_a_round_of_another_announcement_is_put_aside(
    kept: Path, asked: Announcement, model: Vector, changes: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    other = msgspec.structs.replace(asked, **changes)
    _, came = steps_taken(kept, other, model)
    assert came == undisturbed(other, model)
    assert f"its {next(iter(changes))} is not that of version" in caplog.text


@pytest.mark.parametrize("settings", [{"seed": 5}, {"precision": "bf16"}])
def test_a_round_under_other_settings_is_put_aside(
    kept: Path, asked: Announcement, model: Vector, settings: dict[str, Any]
) -> None:
    assert steps_taken(kept, asked, model, **settings) == (10, undisturbed(asked, model, **settings))


def test_a_round_of_another_model_is_put_aside(kept: Path, caplog: pytest.LogCaptureFixture) -> None:
    wider = task(model=lambda: nn.Sequential(nn.Linear(3, 9), nn.BatchNorm1d(9), nn.Linear(9, 1)))
    assert rounds(kept, wider).unfinished() is None
    assert "it is of another task or model" in caplog.text


def test_a_state_of_another_network_with_the_same_layout_is_put_aside(
    kept: Path, asked: Announcement, model: Vector, caplog: pytest.LogCaptureFixture
) -> None:
    class Counting(nn.Sequential):
        def __init__(self) -> None:
            super().__init__(*noisy())
            self.register_buffer("seen", torch.zeros(1, dtype=torch.int64))

    trained = done(rounds(kept, task(model=Counting)), asked, model)
    assert trained.made.steps == 9
    assert "its tensors are not those of this task and plan" in caplog.text


def test_a_round_that_left_the_numbers_is_not_continued(kept: Path, asked: Announcement, model: Vector) -> None:
    with pytest.raises(TrainingError, match="at step 5"):
        done(rounds(kept, task(loss=lambda scores, _: scores.mean() * float("nan"))), asked, model)
    assert rounds(kept).unfinished() is None


def test_a_second_one_put_aside_takes_the_place_of_the_first(kept: Path, asked: Announcement, model: Vector) -> None:
    for version in (8, 9):
        other = msgspec.structs.replace(asked, version=version)
        with pytest.raises(Stopped):
            done(rounds(kept), other, model, stopping=After(1))
    assert sorted(path.name for path in kept.iterdir()) == ["round", "round.aside"]
    found = msgspec.json.decode((kept / "round.aside" / "announcement.json").read_bytes(), type=Asked)
    assert found.announcement.version == 8


def failing(*_: Any, **__: Any) -> Any:
    raise OSError(28, "No space left on device")


def test_a_full_disk_is_logged_once_and_training_goes_on(
    tmp_path: Path,
    asked: Announcement,
    model: Vector,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr("site_worker.checkpoint.written_whole", failing)
    monkeypatch.setattr("broker.tensorfile.written_whole", failing)
    trained = done(rounds(tmp_path, checkpoint_s=1e-9), asked, model)
    assert outcome(trained) == undisturbed(asked, model)
    (said,) = [one.getMessage() for one in caplog.records if one.levelno >= logging.WARNING]
    assert said.startswith("round-unkept reason=")
    assert said.endswith('announcement.json could not be written: No space left on device."')
    with pytest.raises(Stopped):
        done(rounds(tmp_path), asked, model, stopping=After(2))


def test_a_disk_that_fills_up_leaves_what_was_kept_before(
    kept: Path, asked: Announcement, model: Vector, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as full:
        full.setattr("broker.tensorfile.written_whole", failing)
        with pytest.raises(Stopped):
            done(rounds(kept), asked, None, stopping=After(2))
    assert steps_taken(kept, asked, None) == (5, undisturbed(asked, model))


def test_a_state_is_due_when_its_time_has_passed(monkeypatch: pytest.MonkeyPatch) -> None:
    now, written = [10.0], list[State]()
    monkeypatch.setattr("site_worker.checkpoint.time.monotonic", lambda: now[0])
    keeper, state = RoundKeeper(written.append, every_s=60.0), State(Progress(), {})
    seen = list[bool]()
    for at in (11.0, 69.0, 70.0):
        now[0] = at
        seen.append(keeper.due())
    keeper.keep(state)
    assert (seen, keeper.due(), written) == ([False, False, True], False, [state])


def test_a_disk_that_has_room_again_is_used_again() -> None:
    full, written = [True, True, False], list[State]()

    def write(state: State) -> None:
        if full.pop(0):
            raise StorageError("full")
        written.append(state)

    keeper, state = RoundKeeper(write, every_s=60.0), State(Progress(), {})
    for _ in range(3):
        keeper.keep(state)
    assert written == [state]
