"""Which of a model's tensors travel, which stay at the site, and which nobody moves."""

import re
import threading
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import mse_loss
from torch.utils.data import TensorDataset

from broker.errors import StorageError, UsageError
from site_worker.model import SiteModel, initial_weights
from site_worker.outbox import Outbox
from site_worker.plan import Plan
from site_worker.tasks.synthetic import tiny
from site_worker.tasks.task import Split, Task
from site_worker.tensors import packed, unpacked
from site_worker.training import Outcome, Trainer
from tests.site_worker.drafts import done, stored
from tests.site_worker.practice import announcement, outcome, plan, rounds, start, task

Weights = Mapping[str, NDArray[np.float32]]


class Backbone(nn.Module):
    """A frozen layer, a normalisation layer, a mask and a head."""

    mask: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.frozen = nn.Linear(2, 2).requires_grad_(requires_grad=False)
        self.norm = nn.BatchNorm1d(2)
        self.head = nn.Linear(2, 1)
        self.register_buffer("mask", torch.tensor([True, False]))

    def forward(self, x: Tensor) -> Tensor:
        seen = self.norm(self.frozen(x)) * self.mask
        return self.head(seen)  # type: ignore[no-any-return]


def backbone(*local: str, rows: int = 12) -> Task:
    x = torch.arange(2.0 * rows).reshape(rows, 2).sin()
    data = TensorDataset(x, x.sum(dim=1, keepdim=True))
    return Task("backbone", Backbone, lambda _: Split(data, data), mse_loss, local=local)


def train(given: Task, own: Any = None, *, version: int = 0, steps: int = 5) -> Outcome:
    trainer, plan = Trainer(given, None, seed=0), Plan(steps, 4, 0.1)
    return trainer.train(initial_weights(given), plan, threading.Event(), version=version, own=own)


HEAD = {"head.weight", "head.bias"}
COUNTER = "norm.num_batches_tracked"
NORM = {"norm.weight", "norm.bias", "norm.running_mean", "norm.running_var"}


@pytest.mark.parametrize(
    ("local", "travel", "stay"),
    [
        ((), HEAD | NORM, {COUNTER}),
        (("norm.*",), HEAD, NORM | {COUNTER}),
        (("norm.r*",), HEAD | {"norm.weight", "norm.bias"}, {"norm.running_mean", "norm.running_var", COUNTER}),
        (("head.*", "frozen.weight"), NORM, HEAD | {COUNTER}),
    ],
)
def test_what_travels_and_what_stays(local: tuple[str, ...], travel: set[str], stay: set[str]) -> None:
    trained = train(backbone(*local))
    assert set(trained.weights) == travel == set(initial_weights(backbone(*local)))
    assert set(trained.own) == stay
    assert trained.own[COUNTER].item() == 5


def test_frozen_parameters_and_masks_are_neither_sent_nor_kept_nor_changed() -> None:
    model = SiteModel(backbone())
    before = model.network.state_dict()["frozen.weight"].clone()
    trained = train(backbone())
    assert not {name for name in (*trained.weights, *trained.own) if "frozen" in name or "mask" in name}
    assert torch.equal(SiteModel(backbone()).network.state_dict()["frozen.weight"], before)


@pytest.mark.parametrize("pattern", ["bn*", "Norm.*", "norm"])
def test_a_pattern_that_names_nothing_is_a_mistake(pattern: str) -> None:
    said = f"keeps {pattern!r} local, but it has no such tensor; some are mask, frozen.weight"
    with pytest.raises(UsageError, match=re.escape(said)):
        initial_weights(backbone(pattern))


def test_a_pattern_is_not_a_sequence_of_letters() -> None:
    with pytest.raises(UsageError, match=r"local must be a tuple of patterns, such as \('norm\*',\)"):
        replace(backbone(), local="norm*")  # type: ignore[arg-type]


def test_with_everything_local_there_is_nothing_to_share() -> None:
    with pytest.raises(UsageError, match="no tensor to share"):
        rounds(None, backbone("*"))


def test_what_stays_goes_on_from_where_it_was() -> None:
    first = train(backbone("norm.*"))
    second = train(backbone("norm.*"), first.own, version=1)
    assert second.own[COUNTER].item() == 10
    assert not torch.equal(second.own["norm.weight"], train(backbone("norm.*"), version=1).own["norm.weight"])


def test_evaluation_sees_what_stays() -> None:
    given = backbone("norm.*")
    first = train(given)
    trainer = Trainer(given, None, seed=0)
    mine, anyones = (trainer.evaluate(first.weights, own)["loss"] for own in (first.own, None))
    assert mine != anyones


def test_what_no_longer_fits_is_as_in_a_new_model() -> None:
    kept = train(backbone("norm.*")).own
    odd = kept | {"norm.weight": torch.ones(3), "norm.bias": torch.ones(2, dtype=torch.float64), "gone": torch.ones(1)}
    model, weights = SiteModel(backbone("norm.*")), initial_weights(backbone("norm.*"))
    model.load(weights, odd)
    live = model.moving()
    assert (live["norm.weight"].tolist(), live["norm.bias"].tolist()) == ([1, 1], [0, 0])
    assert torch.equal(live["norm.running_mean"], kept["norm.running_mean"])


def test_a_new_model_is_the_same_for_the_same_seed_and_disturbs_no_other_draws() -> None:
    torch.manual_seed(7)
    expected = torch.rand(1)
    torch.manual_seed(7)
    first, again, other = (initial_weights(tiny(), seed=seed)["weight"] for seed in (0, 0, 1))
    assert torch.equal(torch.rand(1), expected)
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize(
    "weights",
    [
        {"weight": np.zeros((1, 2), np.float32)},
        {},
        {"weight": np.zeros((1, 1), np.float32), "bias": np.zeros(1, np.float32)},
    ],
)
def test_weights_of_another_model_are_refused(weights: Weights) -> None:
    line = replace(backbone(), name="line", model=lambda: nn.Linear(1, 1, bias=False))
    with pytest.raises(UsageError, match=r"task 'line'.*'(weight|bias)'"):
        SiteModel(line).load(weights, {})


def test_tied_tensors_of_any_dtype_can_be_packed_and_come_back() -> None:
    one = {"a": torch.ones(2, dtype=torch.bfloat16), "n": torch.tensor(3), "m": torch.tensor([True])}
    back = unpacked(b"".join(packed(one)))
    assert {name: (tensor.dtype, tensor.tolist()) for name, tensor in back.items()} == {
        "a": (torch.bfloat16, [1, 1]),
        "n": (torch.int64, 3),
        "m": (torch.bool, [True]),
    }
    assert ([*packed({})], unpacked(b"")) == ([], {})
    with pytest.raises(StorageError, match="damaged in its outbox"):
        unpacked(b"".join(packed(one))[:-1])


def test_a_tied_model_trains_and_keeps_its_tie() -> None:
    def tied() -> nn.Module:
        network = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2), nn.Linear(2, 1))
        network[1].weight = network[0].weight
        return network

    weights = train(replace(backbone(), model=tied)).weights
    assert np.array_equal(weights["0.weight"], weights["1.weight"])
    assert not np.array_equal(weights["0.weight"], initial_weights(replace(backbone(), model=tied))["0.weight"])


def test_what_stays_is_stored_with_the_update_and_used_after_a_restart(tmp_path: Path) -> None:
    model, outbox = start(), Outbox(tmp_path / "outbox.db")
    asked = announcement(rounds(None), model)
    after = announcement(rounds(None), model, version=8)
    same_process, restarted = rounds(tmp_path), rounds(tmp_path)
    first = done(same_process, asked, model)
    repeated = outcome(done(restarted, after, model))  # nothing is stored yet
    stored(outbox, first.made.numbered(1), first.payload, local=first.local)
    second = outcome(done(same_process, after, model))
    assert outcome(done(restarted, after, model)) == second
    assert second != repeated
    assert unpacked(first.local)["1.num_batches_tracked"].item() == 9
    outbox.close()


def test_a_task_that_keeps_nothing_stores_nothing() -> None:
    plain = task(model=lambda: nn.Linear(3, 1), local=())
    model = start(plain)
    local = rounds(None, plain)
    asked = announcement(local, model, plan=plan(steps=2.0))
    assert done(local, asked, model).local == b""
