"""Sepsis six hours ahead: a recurrent network over the last day's vital signs."""

from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits
from torch.utils.data import TensorDataset

from site_worker import Split, Task, auc
from site_worker.examples.generated import SIGNS, vitals


class Network(nn.Module):
    """A GRU reads hour by hour; what it knows at the end is the warning."""

    def __init__(self) -> None:
        super().__init__()
        self.read, self.warn = nn.GRU(len(SIGNS), 16, batch_first=True), nn.Linear(16, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Scores of shape (rows, 1) for signs of shape (rows, hours, signs)."""
        return self.warn(self.read(x)[0][:, -1])  # type: ignore[no-any-return]


def task(site: int, rows: int = 600) -> Task:
    """Of one hospital; a fifth of its patients is held out."""
    (x, y), held = vitals(site, rows), rows // 5
    split = Split(train=TensorDataset(x[held:], y[held:]), test=TensorDataset(x[:held], y[:held]))
    return Task("sepsis", Network, lambda _: split, binary_cross_entropy_with_logits, {"auc": auc})
