"""Bright spots in scans: a small convolutional network. Each hospital keeps the normalisation of its own scanner."""

from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, max_pool2d, relu
from torch.utils.data import TensorDataset

from site_worker import Split, Task, auc
from site_worker.examples.generated import scans


class Network(nn.Module):
    """Two convolutions, the strongest response of each, and what they say together."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.last = nn.Conv2d(1, 8, 3), nn.Conv2d(8, 16, 3), nn.Linear(16, 1)
        self.norm1, self.norm2 = nn.BatchNorm2d(8), nn.BatchNorm2d(16)

    def forward(self, x: Tensor) -> Tensor:
        """Scores of shape (rows, 1) for images of shape (rows, 1, height, width)."""
        seen = relu(self.norm2(self.second(max_pool2d(relu(self.norm1(self.first(x))), 2))))
        return self.last(seen.amax(dim=(2, 3)))  # type: ignore[no-any-return]


def task(site: int, rows: int = 400) -> Task:
    """Of one hospital; a fifth of its scans is held out."""
    (x, y), held = scans(site, rows), rows // 5
    split = Split(train=TensorDataset(x[held:], y[held:]), test=TensorDataset(x[:held], y[:held]))
    return Task("scans", Network, lambda _: split, binary_cross_entropy_with_logits, {"auc": auc}, local=("norm*",))
