"""One round's training, step by step; what it is after any step can be taken out, kept, and put back.

A step's batch and noise follow from (site's seed, base version, step), see site_worker/noise.py, and nothing else is
remembered but what `State` holds. So a round that was stopped and continued gives the bits of one that was not.

Early stopping, while a plan has `patience`: a tenth of the training rows is set aside, its mean loss is taken about
twenty times in a round, and once it has not fallen for `patience` times the round ends. The weights that did best there
are the round's.

FedProx (Li et al. 2020, eq. 2), while a plan has `proximal` mu: a step goes down loss + mu/2 |w - base|^2, where the
base is the model that the round began from. The term is added to the gradient itself, once fp16's scale is out of it,
and so before clipping, which bounds the sum, and before weight decay. It pulls what travels, as far as the step's loss
reaches it; never what stays at the site. The losses that are looked at and told are without it.
"""

import math
from dataclasses import dataclass
from typing import Final

import msgspec
import torch
from torch import Tensor, nn

from broker.errors import FedqueueError
from site_worker.batches import Part, batches
from site_worker.model import SiteModel
from site_worker.noise import drawing
from site_worker.optimizers import Descender
from site_worker.plan import Plan
from site_worker.tensors import copies

CHECKS: Final = 20


class TrainingError(FedqueueError):
    """A round cannot be done; the text names what the site can do."""


class ForeignState(FedqueueError):
    """A kept state is not one of this model and plan."""


class Progress(msgspec.Struct, forbid_unknown_fields=True):
    """The numbers of a round half trained: `began` is the step at which the present pass over the rows began."""

    steps: int = 0
    began: int = 1
    loss_sum: float = 0.0
    best_loss: float | None = None
    checks_since_best: int = 0
    updates: int = 0
    scaler: dict[str, int | float] = {}


@dataclass(frozen=True)
class State:
    """All that the rest of a round depends on: tensors model.*, best.*, and optimizer.* by position."""

    progress: Progress
    tensors: dict[str, Tensor]


class Descent:
    """See the module's docstring. `validation` is None where nothing is set aside. `key` is seed and base version.

    The base is what `model` holds when this is made, also of a round that is then put back to where it was.
    """

    def __init__(
        self, model: SiteModel, plan: Plan, train: Part, validation: Part | None, *, key: tuple[int, int]
    ) -> None:
        self._model, self._plan, self._train, self._validation, self._key = model, plan, train, validation, key
        self._optimizer = Descender(model.parameters, plan)
        self._scaler = model.place.scaler()
        self._base = [(one, one.detach().clone()) for one in model.travelling()] if plan.proximal else []
        self._best: dict[str, Tensor] = {}
        self._resume(Progress())

    def _resume(self, progress: Progress) -> None:
        self.progress = progress
        self._batches = batches(
            self._train, self._plan.batch_size, *self._key, began=progress.began, done=progress.steps
        )

    @property
    def over(self) -> bool:
        """Whether the round has taken its steps, or patience is at an end."""
        tired = 0 < self._plan.patience <= self.progress.checks_since_best
        return tired or self.progress.steps >= self._plan.steps

    def step(self) -> None:
        """Take one step, and the validation loss where it is due; TrainingError if it leaves the numbers."""
        progress, optimizer, number = self.progress, self._optimizer, self.progress.steps + 1
        with drawing(*self._key, number, device=self._model.place.device):
            progress.loss_sum += self._slope(number)
        optimizer.rate = self._plan.rate(number)
        if self._plan.clip_norm or self._plan.proximal:
            self._scaler.unscale_(optimizer)  # type: ignore[arg-type]  # it needs step and param_groups alone
        self._pull()
        if self._plan.clip_norm:
            nn.utils.clip_grad_norm_(optimizer.parameters, self._plan.clip_norm)
        self._scaler.step(optimizer)  # type: ignore[arg-type]
        self._scaler.update()
        progress.steps = number
        every = max(1, self._plan.steps // CHECKS)
        if self._validation is not None and (number % every == 0 or number == self._plan.steps):
            self._check(self._validation)

    def _slope(self, number: int) -> float:
        """The loss of the next batch, with gradients."""
        self.progress.began, batch = next(self._batches)
        self._model.network.zero_grad()
        loss = self._model.loss(self._model.pair(batch))
        value = self._finite(float(loss.detach()), "loss", number)
        self._scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        return value

    @torch.no_grad()
    def _pull(self) -> None:
        """Add mu (w - base) to the gradients."""
        for one, base in self._base:
            if one.grad is not None:
                one.grad.add_(one - base, alpha=self._plan.proximal)

    def _check(self, validation: Part) -> None:
        """Note whether the weights of now are the best so far."""
        self._model.network.eval()
        total = 0.0
        with torch.no_grad(), drawing(*self._key, device=self._model.place.device):
            for batch in validation.ordered():
                pair = self._model.pair(batch)
                total += float(self._model.loss(pair)) * len(pair[1])
        self._model.network.train()
        loss = self._finite(total / validation.rows, "validation loss", self.progress.steps)
        if self.progress.best_loss is None or loss < self.progress.best_loss:
            self.progress.best_loss, self.progress.checks_since_best = loss, 0
            self._best = copies(self._model.moving())
        else:
            self.progress.checks_since_best += 1

    def _finite(self, value: float, what: str, number: int) -> float:
        if not math.isfinite(value):
            raise TrainingError(
                f"The {what} of task {self._model.task.name!r} is {value} at step {number}: look for missing or "
                "extreme values in this site's rows, or ask the coordinator for a lower learning rate."
            )
        return value

    def finish(self) -> None:
        """Leave in the model what the round has learned: the best weights where they were looked for."""
        self._model.put(self._best)

    # ---- taking out and putting back

    def state(self) -> State:
        """All of it after the last step, live: the next step changes it."""
        progress = msgspec.structs.replace(
            self.progress, updates=self._optimizer.updates, scaler=self._scaler.state_dict()
        )
        tensors = {f"model.{name}": one for name, one in self._model.moving().items()}
        tensors |= {f"best.{name}": one for name, one in self._best.items()}
        return State(progress, tensors | self._slots())

    def restore(self, state: State) -> None:
        """Go on from a state, and let go of its tensors; ForeignState if it is not one of this model and plan.

        Then nothing has changed.
        """
        moving, slots = self._model.moving(), self._slots()
        expected = {f"model.{name}": one for name, one in moving.items()} | slots
        if state.progress.best_loss is not None:
            expected |= {f"best.{name}": one for name, one in moving.items()}
        if {name: _form(one) for name, one in state.tensors.items()} != {n: _form(one) for n, one in expected.items()}:
            raise ForeignState("its tensors are not those of this task and plan")
        self._model.put(_under("model.", state.tensors))
        self._best = copies(_under("best.", state.tensors))
        for name, one in slots.items():
            one.copy_(state.tensors[name])
        self._optimizer.updates = state.progress.updates
        if state.progress.scaler:
            self._scaler.load_state_dict(state.progress.scaler)
        self._resume(msgspec.structs.replace(state.progress))
        state.tensors.clear()

    def _slots(self) -> dict[str, Tensor]:
        slots = self._optimizer.slots.items()
        return {f"optimizer.{name}.{position}": one for name, ones in slots for position, one in enumerate(ones)}


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): one for name, one in tensors.items() if name.startswith(prefix)}


def _form(one: Tensor) -> tuple[torch.Size, torch.dtype]:
    return one.shape, one.dtype
