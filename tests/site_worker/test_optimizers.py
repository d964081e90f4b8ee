"""The optimizers written out here take the steps of torch's own."""

import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import mse_loss
from torch.utils.data import TensorDataset

from site_worker.optimizers import Descender
from site_worker.plan import Plan
from site_worker.tasks.task import Split, Task
from site_worker.training import Trainer

ROOT = Path(__file__).parents[2]
STEPS = 25
X = torch.tensor([[1.0, 0.5], [2.0, -1.0], [-1.0, 0.25], [0.5, 3.0]])
Y = torch.tensor([[2.0], [3.0], [0.5], [0.0]])


def network() -> nn.Module:
    return nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 1))


TORCH: dict[str, tuple[Plan, Callable[[Any], torch.optim.Optimizer]]] = {
    "sgd": (Plan(STEPS, 4, 0.05), lambda ones: torch.optim.SGD(ones, lr=0.05)),
    "momentum": (
        Plan(STEPS, 4, 0.05, weight_decay=0.1, momentum=0.8),
        lambda ones: torch.optim.SGD(ones, lr=0.05, momentum=0.8, weight_decay=0.1),
    ),
    "adam": (
        Plan(STEPS, 4, 0.05, "adam", weight_decay=0.1),
        lambda ones: torch.optim.Adam(ones, lr=0.05, weight_decay=0.1),
    ),
    "adamw": (
        Plan(STEPS, 4, 0.05, "adamw", weight_decay=0.1),
        lambda ones: torch.optim.AdamW(ones, lr=0.05, weight_decay=0.1),
    ),
}


def trained(plan: Plan) -> dict[str, Any]:
    data = TensorDataset(X, Y)
    trainer = Trainer(Task("t", network, lambda _: Split(data, data), mse_loss), None, seed=0)
    return trainer.train(start(), plan, threading.Event()).weights


def start() -> dict[str, Any]:
    torch.manual_seed(3)
    return {name: one.numpy().copy() for name, one in network().state_dict().items()}


def theirs(make: Callable[[Any], torch.optim.Optimizer], *, clip_norm: float = 0.0, rates: Any = None) -> nn.Module:
    model = network()
    model.load_state_dict({name: torch.tensor(one) for name, one in start().items()})
    optimizer = make(model.parameters())
    for step in range(STEPS):
        optimizer.zero_grad()
        mse_loss(model(X), Y).backward()  # type: ignore[no-untyped-call]
        if clip_norm:
            nn.utils.clip_grad_norm_(model.parameters(), clip_norm)
        for group in optimizer.param_groups:
            group["lr"] = rates(step + 1) if rates else group["lr"]
        optimizer.step()
    return model


def assert_same(ours: dict[str, Any], model: nn.Module) -> None:
    for name, one in model.state_dict().items():
        assert ours[name] == pytest.approx(one.numpy(), rel=1e-4, abs=1e-6), name


@pytest.mark.parametrize("name", TORCH)
def test_the_optimizers_are_those_of_torch(name: str) -> None:
    plan, make = TORCH[name]
    assert_same(trained(plan), theirs(make))


def test_a_schedule_and_clipping_are_those_of_torch() -> None:
    plan = Plan(STEPS, 4, 0.2, "adamw", schedule="cosine", warmup_steps=5, clip_norm=0.3)
    assert_same(
        trained(plan), theirs(lambda ones: torch.optim.AdamW(ones, weight_decay=0.0), clip_norm=0.3, rates=plan.rate)
    )


def test_what_an_optimizer_remembers_is_one_tensor_a_parameter() -> None:
    parameters = [nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(3, 1))]
    shapes = {
        name: {slot: [tuple(one.shape) for one in ones] for slot, ones in Descender(parameters, plan).slots.items()}
        for name, (plan, _) in TORCH.items()
    }
    adam = {"mean": [(2,), (3, 1)], "square": [(2,), (3, 1)]}
    assert shapes == {"sgd": {}, "momentum": {"velocity": [(2,), (3, 1)]}, "adam": adam, "adamw": adam}


def test_a_parameter_that_the_loss_does_not_reach_stays_where_it_is() -> None:
    parameters = [nn.Parameter(torch.ones(1)), nn.Parameter(torch.ones(1))]
    optimizer = Descender(parameters, Plan(1, 1, 0.5, "adamw", weight_decay=0.1))
    parameters[0].grad = torch.ones(1)
    optimizer.step()
    assert parameters[0].item() == pytest.approx(0.45)  # 1 * (1 - 0.5 * 0.1), and a first step of the learning rate
    assert parameters[1].item() == 1.0
    assert np.all([slot[1].item() == 0.0 for slot in optimizer.slots.values()])


ROUND = """
import sys
from pathlib import Path
from tests.site_worker.drafts import done
from tests.site_worker.practice import After, announcement, plan, rounds, shuffled, start
from site_worker.training import Stopped
model = start()
asked = announcement(rounds(None), model, plan=plan(optimizer=2.0, schedule=1.0, clip_norm=1.0, patience=2.0))
for stop in (After(4), After(99)):
    try:
        done(rounds(Path(sys.argv[1]), shuffled(), precision="bf16"), asked, model, stopping=stop)
    except Stopped:
        pass
print([name for name in ("torch._dynamo", "torch._inductor", "sympy") if name in sys.modules])
"""


def test_no_round_imports_torchs_compiler_which_would_cost_every_worker_a_second(tmp_path: Path) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", ROUND, str(tmp_path)], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert (ran.stdout, ran.stderr) == ("[]\n", "")
