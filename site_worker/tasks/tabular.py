"""The task of a hospital with a file of rows, as federation.toml declares it: site_worker.tasks.tabular:tabular.

A declaration and a file make a logistic regression, a multilayer perceptron or a Cox regression. The file is read when
the task is made, so that what is wrong with it is told at once. docs/data.md has the rules.
"""

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch.nn.functional import binary_cross_entropy_with_logits
from torch.utils.data import TensorDataset

from broker.errors import UsageError
from broker.events import event
from broker.statistics import FeatureStatistics
from site_worker.metrics import accuracy, auc, brier, c_index, calibration, risk_histogram
from site_worker.tabular.declaration import Declaration, load_declaration
from site_worker.tabular.features import Features, Rows, held_out
from site_worker.tabular.models import model_of
from site_worker.tabular.survival import partial_likelihood_loss
from site_worker.tabular.table import Table, read_table
from site_worker.tasks.task import Split, Task

log = logging.getLogger(__name__)

Metric = Callable[[Any, Any], Any]
RISK: Final[Mapping[str, Metric]] = {"auc": auc, "accuracy": accuracy, "brier": brier, "calibration": calibration}
SURVIVAL: Final[Mapping[str, Metric]] = {"c_index": c_index}


def tabular(declaration: str, data: str, seed: int = 0) -> Task:
    """The task of one hospital: paths of federation.toml and of its own file. `seed` draws its held-out rows."""
    agreed = _agreed(declaration)
    table = _table(data, agreed)
    chosen = held_out(table.labels[:, -1], agreed.files.held_out, seed)
    train, test = np.flatnonzero(~chosen), np.flatnonzero(chosen)
    features = Features.of(agreed)

    def statistics() -> FeatureStatistics:
        return features.statistics(table, train)

    def split(common: FeatureStatistics | None) -> Split:
        scale = (common or statistics()) if features.numbers else None
        return Split(_tensors(features, table, train, scale), _tensors(features, table, test, scale))

    survival = agreed.task == "cox"
    histograms: Mapping[str, Metric] = {"scores": risk_histogram} if agreed.metrics.histograms else {}
    return Task(
        name=agreed.task_name,
        model=model_of(agreed, features.width),
        split=split,
        loss=partial_likelihood_loss if survival else binary_cross_entropy_with_logits,
        metrics=SURVIVAL if survival else {**RISK, **histograms},
        statistics=statistics if features.numbers else None,
    )


def _agreed(path: str) -> Declaration:
    agreed = load_declaration(Path(path))
    if agreed.own_task is not None:
        raise UsageError(
            f"{path} declares the own task {agreed.task!r}, which is no logistic, mlp or cox; run that one."
        )
    return agreed


def _table(data: str, agreed: Declaration) -> Table:
    path = Path(data)
    if not path.is_file():
        raise UsageError(f"There is no file {path}; name the hospital's own CSV or Parquet file.")
    table = read_table(path, agreed)
    for note in table.notes:
        event(log, "rows", reason=note)
    return table


def _tensors(features: Features, table: Table, rows: Rows, scale: FeatureStatistics | None) -> TensorDataset:
    """Features as float32; labels too, but times as float64: two that differ must not become a tie."""
    x = np.empty((len(rows), features.width), dtype=np.float32)
    features.fill(x, table, rows, scale)
    y = table.labels[rows]
    return TensorDataset(torch.from_numpy(x), torch.from_numpy(y if y.shape[1] > 1 else y.astype(np.float32)))
