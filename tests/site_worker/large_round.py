"""A process that does rounds of a large model in a folder, and tells the most memory that each of its steps added.

`python -m tests.site_worker.large_round FOLDER CODEC OPTIMIZER first|again`: a line of JSON, bytes by step. "first"
does two rounds, and stops a third half-way; "again" finishes that. Linux only.
"""

import json
import re
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import msgspec
import torch
from torch import nn
from torch.nn.functional import mse_loss
from torch.utils.data import TensorDataset

from broker.heap import give_back
from broker.messages import Announcement
from broker.weights import Vector, map_model, model_digest, save_model
from site_worker.outbox import Outbox
from site_worker.rounds import LocalRounds
from site_worker.settings import Settings
from site_worker.tasks.task import Split, Task
from site_worker.training import Stopped
from tests.site_worker.bench import Aggregator
from tests.site_worker.practice import After, plan

WIDTH, DEPTH = 2048, 6
PARAMETERS: Final = WIDTH * WIDTH * DEPTH + WIDTH


def network() -> nn.Module:
    layers = [nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(DEPTH)]
    return nn.Sequential(*layers, nn.Linear(WIDTH, 1, bias=False))


def task() -> Task:
    rows = TensorDataset(torch.ones(4, WIDTH), torch.zeros(4, 1))
    return Task("large", network, lambda _: Split(rows, rows), mse_loss)


def status(name: str) -> int:
    found = re.search(rf"{name}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) * 1024


class Steps:
    """What each step added at its peak to what there was before it, and what it left behind."""

    def __init__(self) -> None:
        self.told: dict[str, int] = {}

    def take(self, name: str, step: Callable[[], Any]) -> Any:
        Path("/proc/self/clear_refs").write_text("5")  # the peak is what there is now
        before = status("VmRSS")
        result = step()
        self.told[name] = status("VmHWM") - before
        give_back()
        self.told[f"after {name}"] = status("VmRSS") - before
        return result


def asked(local: LocalRounds, base: Vector, version: int, optimizer: float) -> Announcement:
    return msgspec.structs.replace(
        Aggregator().announce(version),
        task="large",
        model_digest=model_digest(local.layout.digest, base),
        layout_digest=local.layout.digest,
        plan=plan(steps=2.0, learning_rate=1e-4, optimizer=optimizer),
    )


def main(folder: Path, codec: str, optimizer: float, *, first: bool) -> None:
    torch.set_num_threads(1)
    steps, settings = Steps(), Settings("A", "m:f", codec=codec, checkpoint_s=1e9)
    local = steps.take("start", lambda: LocalRounds(settings, task(), folder=folder))
    steps.take("greeting", local.greeting)
    outbox, file = Outbox(folder / "outbox.db"), folder / "model.safetensors"
    if first:
        steps.take("save", lambda: save_model(file, local.layout, local.layout.flatten(local._model.weights())))
    base = map_model(file)[1]
    base.sum()  # its pages count from now on
    for version in (1, 2) if first else ():
        draft = outbox.draft(local.layout.size)
        announced = asked(local, base, version, optimizer)
        trained = steps.take(f"round {version}", lambda: local.run(announced, base, draft, threading.Event()))  # noqa: B023
        steps.take(f"store {version}", lambda: outbox.store(trained.made.numbered(version)))  # noqa: B023
    last = asked(local, base, 3, optimizer)

    def stop() -> None:
        try:
            local.run(last, base, outbox.draft(local.layout.size), After(1))
        except Stopped:
            return

    def go_on() -> None:
        local.run(last, None, outbox.draft(local.layout.size), threading.Event())

    steps.take("stop" if first else "go on", stop if first else go_on)
    outbox.close()
    sys.stdout.write(json.dumps(steps.told))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], float(sys.argv[3]), first=sys.argv[4] == "first")
