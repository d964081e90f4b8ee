"""An exported model as a torch file: a plain dict of tensors, strings and numbers that loads without running code.

`torch.load(file, weights_only=True)` gives `state_dict`, `layout` (name and shape of each tensor), `federation`,
`task`, `version`, `digest`, `sites` and `metrics` (means over the sites). The state holds what the sites share: load it
with `strict=False` into a model that has buffers of its own.
"""

import io
from pathlib import Path
from typing import Any

import msgspec
import torch

from broker.errors import StorageError, UsageError
from broker.files import write_file
from broker.weights import load_model, model_digest, read_metadata


class Card(msgspec.Struct, frozen=True):
    """What is needed of the card in an exported model's metadata; the rest of it is for other readers."""

    federation: str
    task: str
    version: int
    digest: str
    sites: list[dict[str, Any]]
    means: dict[str, float]


def write_torch_file(source: Path, target: Path) -> int:
    """Write the model in `source` to `target`, and return its version; UsageError if it was not exported here."""
    layout, vector = load_model(source)
    card = _card(source)
    if model_digest(layout.digest, vector).hex() != card.digest:
        raise StorageError(f"{source} does not hold the weights that were exported to it: export the model again.")
    content = {
        "state_dict": {name: torch.from_numpy(array.copy()) for name, array in layout.unflatten(vector).items()},
        "layout": [[tensor.name, list(tensor.shape)] for tensor in layout.tensors],
        "federation": card.federation,
        "task": card.task,
        "version": card.version,
        "digest": card.digest,
        "sites": card.sites,
        "metrics": card.means,
    }
    buffer = io.BytesIO()
    torch.save(content, buffer)
    write_file(target, buffer.getvalue())
    return card.version


def _card(source: Path) -> Card:
    try:
        return msgspec.json.decode(read_metadata(source).get("card", ""), type=Card)
    except msgspec.DecodeError as error:
        raise UsageError(f"{source} was not written by 'fedqueue aggregator export'.") from error
