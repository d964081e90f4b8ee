"""A site's model: the network of its task on this machine's device, and which of its tensors travel.

    travel    trainable parameters and floating-point buffers, unless a pattern of `Task.local` names them; as float32
    stay      what a pattern names (normalisation layers, heads; FedBN, Li et al. 2021), and buffers of other dtypes,
              such as batch counters: kept from round to round, also over restarts
    fixed     frozen parameters (requires_grad False when the model is made): `Task.model` must make the same of them
              at every site and every time, for they are neither sent nor kept

So the running mean of a frozen normalisation layer does travel: it is a buffer. Name it in `local` to keep it.
"""

from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from broker.errors import UsageError
from site_worker.devices import PROCESSOR, Place
from site_worker.noise import drawing
from site_worker.tasks.source import telling
from site_worker.tasks.task import Task
from site_worker.tensors import Tensors, copies, fill

Weights = Mapping[str, NDArray[np.float32]]
INITIAL_SEED: Final = 0


class SiteModel:
    """See the module's docstring. A new one has the same values every time, also where they are drawn."""

    def __init__(self, task: Task, place: Place = PROCESSOR, *, seed: int = INITIAL_SEED) -> None:
        self.task, self.place = task, place
        with drawing(seed), telling(task.source):
            network = task.model()
            if not isinstance(network, nn.Module):
                raise UsageError(f"Task {task.name!r} must make an nn.Module as model, not a {type(network).__name__}.")
            self.network = network.to(place.device)
            if isinstance(task.loss, nn.Module):
                task.loss.to(place.device)
        self._shared, self._own = _divided(self.network, task)
        self._fresh = copies(self._named(self._own))

    @property
    def parameters(self) -> list[nn.Parameter]:
        """What training moves: local ones too."""
        return [one for one in self.network.parameters() if one.requires_grad]

    def travelling(self) -> list[nn.Parameter]:
        """What training moves of what travels; a parameter that has several names is here once."""
        shared = set(self._shared)
        named = self.network.named_parameters(remove_duplicate=False)
        return list({id(one): one for name, one in named if name in shared}.values())

    def moving(self) -> dict[str, Tensor]:
        """Everything that a step may change, live: what travels and what stays."""
        return self._named(self._shared + self._own)

    def weights(self) -> dict[str, NDArray[np.float32]]:
        """What travels, as float32: on the processor views of the live model, which change when it does."""
        return {
            name: one.detach().float().cpu().contiguous().numpy() for name, one in self._named(self._shared).items()
        }

    def own(self) -> dict[str, Tensor]:
        """Copies of what stays, as far as it is not as in a new model: a mask that never changes is not kept."""
        live = self._named(self._own)
        return copies({name: one for name, one in live.items() if not torch.equal(one.cpu(), self._fresh[name])})

    def load(self, weights: Weights, own: Tensors) -> None:
        """Take what travels and what stays; of the latter, what is not given or has another shape is as in a new model.

        Nothing that travels is copied but into its place. UsageError if `weights` are those of another model.
        """
        shared = self._named(self._shared)
        odd = sorted(set(shared) ^ set(weights))
        odd += [name for name in shared if name in weights and tuple(shared[name].shape) != weights[name].shape]
        if odd:
            raise UsageError(
                f"The federation's model is not that of task {self.task.name!r}: "
                f"compare tensor {odd[0]!r} with the others."
            )
        fitting = {name: one for name, one in own.items() if name in self._fresh and _alike(one, self._fresh[name])}
        for name, live in shared.items():
            fill(live, weights[name])
        self.put(self._fresh | fitting)

    @torch.no_grad()
    def put(self, values: Tensors) -> None:
        """Overwrite tensors of `moving`."""
        live = self.moving()
        for name, value in values.items():
            live[name].copy_(value)

    def pair(self, batch: Any) -> tuple[Any, Tensor]:
        """x and labels of a batch, on the device; UsageError if it is no such pair."""
        pair = isinstance(batch, list | tuple) and len(batch) == 2 and isinstance(batch[1], Tensor)
        if not pair:
            parts = " and ".join(type(one).__name__ for one in batch) if isinstance(batch, list | tuple) else ""
            raise UsageError(
                f"Task {self.task.name!r} must give rows as (x, y) with y a tensor or number, but a batch of them is "
                f"a {type(batch).__name__}{f' of {parts}' if parts else ''}."
            )
        x, y = self.place.moved(batch)
        return x, y

    def scores(self, x: Any) -> Tensor:
        """What the network says of x."""
        with self.place.autocast():
            scores: Tensor = self.network(x)
        return scores if self.place.precision == "float32" else scores.float()

    def loss(self, pair: tuple[Any, Tensor]) -> Tensor:
        """The task's loss of a batch."""
        with self.place.autocast():
            return self.task.loss(self.network(pair[0]), pair[1])

    def _named(self, names: tuple[str, ...]) -> dict[str, Tensor]:
        state = self.network.state_dict()  # asked each time: cuDNN may move the parameters of a recurrent layer
        return {name: state[name] for name in names}


def initial_weights(task: Task, *, seed: int = INITIAL_SEED) -> dict[str, NDArray[np.float32]]:
    """What a federation starts from: the weights of a new model, the same for the same seed."""
    return SiteModel(task, seed=seed).weights()


def _divided(network: nn.Module, task: Task) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names of what travels and of what stays."""
    state = {name: one for name, one in network.state_dict().items() if isinstance(one, Tensor)}
    for pattern in task.local:
        if not any(fnmatchcase(name, pattern) for name in state):
            some = ", ".join(list(state)[:5])
            raise UsageError(f"Task {task.name!r} keeps {pattern!r} local, but it has no such tensor; some are {some}.")
    fixed = {name for name, one in network.named_parameters(remove_duplicate=False) if not one.requires_grad}
    local = {name for name in state if any(fnmatchcase(name, pattern) for pattern in task.local)}
    local |= {name for name, one in state.items() if not one.is_floating_point()}
    shared = tuple(name for name in state if name not in local | fixed)
    return shared, tuple(name for name in state if name in local - fixed)


def _alike(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and one.dtype == other.dtype
