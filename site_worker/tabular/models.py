"""The models of a declaration: logistic regression, a multilayer perceptron, Cox regression."""

from collections.abc import Callable, Mapping
from typing import Final

from torch import nn

from site_worker.tabular.declaration import Declaration


def model_of(declaration: Declaration, features: int) -> Callable[[], nn.Module]:
    """Makes the model of `features` inputs and one output: log odds, for a cox task log risk."""
    make = _MODELS[declaration.task]
    return lambda: make(declaration, features)


def _logistic(_: Declaration, features: int) -> nn.Module:
    """Zeros, the usual start of a convex problem: nothing random to agree on."""
    return _zeroed(nn.Linear(features, 1))


def _cox(_: Declaration, features: int) -> nn.Module:
    """Without a constant, which the baseline hazard takes up."""
    return _zeroed(nn.Linear(features, 1, bias=False))


def _mlp(declaration: Declaration, features: int) -> nn.Module:
    layers: list[nn.Module] = []
    for width in declaration.model.hidden:
        layers += [nn.Linear(features, width), nn.ReLU()]
        if declaration.model.dropout:
            layers.append(nn.Dropout(declaration.model.dropout))
        features = width
    return nn.Sequential(*layers, nn.Linear(features, 1))


def _zeroed(layer: nn.Linear) -> nn.Module:
    for one in layer.parameters():
        nn.init.zeros_(one)
    return layer


_MODELS: Final[Mapping[str, Callable[[Declaration, int], nn.Module]]] = {
    "logistic": _logistic,
    "mlp": _mlp,
    "cox": _cox,
}
