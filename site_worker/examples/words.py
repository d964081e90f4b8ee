"""The next word of an admission note, as a keyboard suggests it: an LSTM over words, fed by a DataLoader."""

from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

from site_worker import Split, Task, suggested
from site_worker.examples.generated import WORDS, notes


class Network(nn.Module):
    """Words in, scores of every word to follow each of them out."""

    def __init__(self) -> None:
        super().__init__()
        self.look, self.read = nn.Embedding(len(WORDS), 16), nn.LSTM(16, 32, batch_first=True)
        self.say = nn.Linear(32, len(WORDS))

    def forward(self, x: Tensor) -> Tensor:
        """Scores of shape (notes, vocabulary, words), as cross_entropy takes them."""
        return self.say(self.read(self.look(x))[0]).mT  # type: ignore[no-any-return]


def task(site: int, rows: int = 300) -> Task:
    """Of one hospital; a fifth of its notes is held out."""
    (x, y), held = notes(site, rows), rows // 5
    train = DataLoader(TensorDataset(x[held:], y[held:]), batch_size=32, shuffle=True)
    split = Split(train, test=TensorDataset(x[:held], y[:held]))
    return Task("words", Network, lambda _: split, cross_entropy, {"suggested": suggested})
