"""SGD, Adam and AdamW, written out, with a state that can be kept and given back.

The first object of `torch.optim` imports torch's compiler: 1.4 s of processor time in every worker at its start, for
some thirty lines. A test holds these to `torch.optim`.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

import torch
from torch import Tensor, nn

from broker.plan import Optimizer
from site_worker.plan import Plan


class Descender:
    """The rule of a plan over some parameters. `rate` is the next step's learning rate.

    `slots` are what the rule remembers, one tensor a parameter under each name; with `updates`, the steps taken so far,
    they are all of its state. `param_groups` and `step` are what torch's GradScaler needs of an optimizer.
    """

    def __init__(self, parameters: list[nn.Parameter], plan: Plan) -> None:
        self.parameters, self.plan = parameters, plan
        self.rate, self.updates = plan.learning_rate, 0
        names, self._rule = _RULES[plan.optimizer]
        self.slots = {name: [torch.zeros_like(one) for one in parameters] for name in names(plan)}

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """All parameters in one group."""
        return [{"params": self.parameters}]

    @torch.no_grad()
    def step(self) -> None:
        """Move the parameters that have a gradient."""
        self.updates += 1
        self._rule(self)


def _gradients(optimizer: Descender, weight_decay: float) -> Iterator[tuple[int, nn.Parameter, Tensor]]:
    """Position, parameter and gradient with weight decay, to be left alone, of the parameters that the loss reached."""
    for position, one in enumerate(optimizer.parameters):
        if one.grad is not None:
            yield position, one, one.grad.add(one, alpha=weight_decay) if weight_decay else one.grad


def _sgd(optimizer: Descender) -> None:
    """Stochastic gradient descent with heavy-ball momentum, as torch.optim.SGD."""
    plan, velocity = optimizer.plan, optimizer.slots.get("velocity")
    for position, one, gradient in _gradients(optimizer, plan.weight_decay):
        moved = velocity[position].mul_(plan.momentum).add_(gradient) if velocity else gradient
        one.sub_(moved, alpha=optimizer.rate)


def _adam(optimizer: Descender) -> None:
    """Adam (Kingma and Ba 2015, algorithm 1) with weight decay in the gradient, as torch.optim.Adam; b1 .9, b2 .999."""
    _adapt(optimizer, optimizer.plan.weight_decay)


def _adamw(optimizer: Descender) -> None:
    """Adam with weight decay apart from the gradient (Loshchilov and Hutter 2019, algorithm 2), as torch's AdamW."""
    for one in optimizer.parameters:
        if one.grad is not None:
            one.mul_(1 - optimizer.rate * optimizer.plan.weight_decay)
    _adapt(optimizer, 0.0)


def _adapt(optimizer: Descender, weight_decay: float) -> None:
    means, squares, taken = optimizer.slots["mean"], optimizer.slots["square"], optimizer.updates
    for position, one, gradient in _gradients(optimizer, weight_decay):
        mean = means[position].lerp_(gradient, 0.1)
        square = squares[position].mul_(0.999).addcmul_(gradient, gradient, value=0.001)
        spread = square.sqrt().div_(math.sqrt(1 - 0.999**taken)).add_(1e-8)
        one.addcdiv_(mean, spread, value=-optimizer.rate / (1 - 0.9**taken))


Names = Callable[[Plan], tuple[str, ...]]
_RULES: Final[Mapping[Optimizer, tuple[Names, Callable[[Descender], None]]]] = {
    "sgd": (lambda plan: ("velocity",) if plan.momentum else (), _sgd),
    "adam": (lambda _: ("mean", "square"), _adam),
    "adamw": (lambda _: ("mean", "square"), _adamw),
}
