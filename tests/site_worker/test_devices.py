"""Where and how precisely a site computes; what needs CUDA is skipped where there is none."""

import re
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch

from broker.commands import run_cli
from broker.errors import UsageError
from broker.identity import PrivateKey
from broker.settings import write_secret
from site_worker.__main__ import cli
from site_worker.descent import State
from site_worker.devices import Place, place_named
from site_worker.joining import create
from site_worker.model import initial_weights
from site_worker.plan import Plan
from site_worker.settings import Folder
from site_worker.training import Outcome, Stopped, Trainer
from tests.site_worker.drafts import done
from tests.site_worker.practice import After, announcement, outcome, plan, rounds, start, task

CUDA = torch.cuda.is_available()
PLAN = Plan(20, 8, 0.01, "adam", clip_norm=1.0)
HALF = Place(torch.device("cpu"), "fp16")  # no setting gives this place, but it takes the path of CUDA's fp16


def trained(place: Place, **changes: Any) -> Outcome:
    return Trainer(task(), None, seed=0, place=place).train(
        initial_weights(task()), replace(PLAN, **changes), threading.Event()
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('device = "tpu"', "choose auto, cpu, cuda or cuda:N"),
        ('device = "cuda:"', "choose auto, cpu, cuda or cuda:N"),
        ('device = "cuda:one"', "choose auto, cpu, cuda or cuda:N"),
        ('precision = "fp8"', "choose one of float32, bf16, fp16"),
        ("checkpoint_s = 0", "checkpoint_s"),
        ("seed = -1", "seed"),
    ],
)
def test_what_no_machine_has_is_refused_with_the_settings(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "site.toml").write_text(f'site = "A"\ntask = "m:f"\n{text}\n')
    with pytest.raises(UsageError, match=said):
        Folder(tmp_path).settings()


@pytest.mark.skipif(CUDA, reason="this machine has CUDA")
def test_where_there_is_no_cuda_the_processor_is_chosen_and_cuda_refused_at_the_start() -> None:
    assert place_named("auto", "bf16") == Place(torch.device("cpu"), "bf16")
    for device, precision, said in [
        ("cuda", "float32", "Device 'cuda' is not there: torch finds 0 CUDA devices"),
        ("cuda:3", "float32", "Device 'cuda:3' is not there"),
        ("auto", "fp16", "fp16 needs a CUDA device"),
    ]:
        with pytest.raises(UsageError, match=said):
            rounds(None, device=device, precision=precision)


@pytest.mark.skipif(CUDA, reason="this machine has CUDA")
def test_a_worker_without_its_device_ends_with_one_sentence(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    folder = Folder(tmp_path / "ny")
    create(folder, site="NY", task="site_worker.tasks.synthetic:tiny", options={})
    text = folder.settings_file.read_text()
    folder.settings_file.write_text(text.replace('device = "auto"', 'device = "cuda:1"'))
    key = PrivateKey.generate().public.to_text()
    folder.join_file.write_text(f'federation = "f"\nsite = "NY"\ntask = "tiny"\naggregator_key = "{key}"\n')
    write_secret(folder.url_file, "amqp://nobody:nothing@127.0.0.1:1/")
    assert run_cli(cli, ["run", str(folder.path)]) == UsageError.exit_code
    said = capfd.readouterr().err
    assert re.fullmatch(r"error: Device 'cuda:1' is not there: torch finds 0 CUDA devices; .*\n", said)


def test_what_is_no_tensor_is_moved_by_its_own_means() -> None:
    class Pair(NamedTuple):
        image: torch.Tensor
        name: str

    given = {"a": [torch.ones(1), 3], "b": Pair(torch.ones(2), "x"), "c": (torch.ones(1),)}
    moved = Place(torch.device("meta")).moved(given)
    assert (moved["a"][0].device.type, moved["a"][1], type(moved["c"])) == ("meta", 3, tuple)
    assert (moved["b"].image.device.type, moved["b"].name) == ("meta", "x")


def test_fp16_is_for_cuda_alone() -> None:
    with pytest.raises(UsageError, match=r"fp16 needs a CUDA device; set precision to bf16 or float32 in site\.toml"):
        place_named("cpu", "fp16")


@pytest.mark.parametrize("place", [Place(torch.device("cpu"), "bf16"), HALF])
def test_in_mixed_precision_weights_and_metrics_stay_float32(place: Place) -> None:
    plain, mixed = trained(Place(torch.device("cpu"))), trained(place)
    assert {one.dtype for one in mixed.weights.values()} == {np.dtype(np.float32)}
    assert any((plain.weights[name] != mixed.weights[name]).any() for name in plain.weights)
    assert mixed.loss == pytest.approx(plain.loss, rel=0.1)
    numbers = Trainer(task(), None, seed=0, place=place).evaluate(mixed.weights, mixed.own)
    assert set(numbers) == {"rows", "loss", "mae"}


class Noting:
    def __init__(self) -> None:
        self.states = list[State]()

    def due(self) -> bool:
        return False

    def keep(self, state: State) -> None:
        self.states.append(state)


def test_the_gradient_scaler_is_kept_with_a_round() -> None:
    keeper, weights = Noting(), initial_weights(task())
    with pytest.raises(Stopped):
        Trainer(task(), None, seed=0, place=HALF).train(weights, PLAN, After(7), keeper=keeper)
    (kept,) = keeper.states
    assert kept.progress.scaler["scale"] > 1
    assert kept.progress.scaler["_growth_tracker"] > 0
    again = Trainer(task(), None, seed=0, place=HALF).train(weights, PLAN, threading.Event(), kept=kept)
    whole = trained(HALF)
    assert all(np.array_equal(again.weights[name], whole.weights[name]) for name in weights)


def test_a_step_whose_gradients_overflow_in_fp16_is_not_taken() -> None:
    def loss(scores: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return (scores.float() - labels).square().mean() * 1e4  # times the scale, beyond what fp16 holds

    keeper, wild = Noting(), task(loss=loss)
    trainer, weights = Trainer(wild, None, seed=0, place=HALF), initial_weights(wild)
    with pytest.raises(Stopped):
        trainer.train(weights, replace(PLAN, clip_norm=0.0), After(19), keeper=keeper)
    (kept,) = keeper.states
    assert kept.progress.steps == 19
    assert 0 < kept.progress.updates < 19
    assert kept.progress.scaler["scale"] < 65536.0
    assert all(np.isfinite(one.numpy()).all() for one in kept.tensors.values())


@pytest.mark.skipif(not CUDA, reason="needs CUDA")
@pytest.mark.parametrize("precision", ["float32", "bf16", "fp16"])
def test_a_round_on_cuda_is_stopped_and_continued(tmp_path: Path, precision: str) -> None:
    model = start()
    asked = announcement(rounds(None), model, plan=plan(optimizer=1.0, patience=9.0))
    settings: dict[str, Any] = {"device": "cuda", "precision": precision}
    with pytest.raises(Stopped):
        done(rounds(tmp_path, **settings), asked, model, stopping=After(4))
    again = outcome(done(rounds(tmp_path, **settings), asked, None))
    assert again == outcome(done(rounds(None, **settings), asked, model))
