"""Folders of hospitals' files as a test needs them; the rows are drawn, no patient is behind them."""

import csv
import math
import random
from pathlib import Path

COLUMNS = """
[columns.age]
role = "number"

[columns.sex]
role = "category"
categories = ["F", "M"]

[run]
versions = 3
"""
LOGISTIC = f"""\
name = "heart"
task = "logistic"

[label]
column = "died"
positive = ["yes"]
negative = ["no"]

[plan]
steps = 10
{COLUMNS}"""
COX = f"""\
name = "heart"
task = "cox"

[label]
time = "days"
event = "died"
positive = ["yes"]

[plan]
steps = 10
learning_rate = 0.05
{COLUMNS}"""
OWN = '''"""Two numbers and whether the first is the larger."""

import numpy as np
import torch
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits
from torch.utils.data import TensorDataset

from site_worker import Split, Task, auc


def task(site: int) -> Task:
    x = np.random.default_rng(site).normal(size=(40, 2)).astype(np.float32)
    y = (x[:, :1] > x[:, 1:]).astype(np.float32)
    rows = TensorDataset(torch.tensor(x), torch.tensor(y))
    split = Split(torch.utils.data.Subset(rows, range(30)), torch.utils.data.Subset(rows, range(30, 40)))
    return Task("larger", lambda: nn.Linear(2, 1), lambda _: split, binary_cross_entropy_with_logits, {"auc": auc})
'''


def write_site(folder: Path, site: str, rows: int, *, seed: int, age: str | None = None) -> None:
    """A file in which the old die more often and sooner; `age` stands in the last row's place of it."""
    drawn = random.Random(seed)
    with (folder / f"{site}.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["age", "sex", "days", "died"])
        for number in range(rows):
            years = drawn.gauss(60, 10)
            dies = drawn.random() < 1 / (1 + math.exp(-0.15 * (years - 60)))
            last = number == rows - 1 and age is not None
            cells = [age if last else f"{years:.1f}", drawn.choice("FM"), f"{drawn.expovariate(years / 60):.3f}"]
            writer.writerow([*cells, "yes" if dies else "no"])


def heart(folder: Path, declaration: str = LOGISTIC) -> Path:
    """Two hospitals, one of a single patient, and one whose file has a mistake in row 21."""
    folder.mkdir(exist_ok=True)
    (folder / "federation.toml").write_text(declaration)
    write_site(folder, "north", 80, seed=1)
    write_site(folder, "south", 60, seed=2)
    write_site(folder, "tiny", 1, seed=3)
    write_site(folder, "wrong", 20, seed=4, age="sixty")
    return folder


def own(folder: Path) -> Path:
    """Two hospitals of an own model, described in one file."""
    folder.mkdir(exist_ok=True)
    (folder / "model.py").write_text(OWN)
    (folder / "federation.toml").write_text(
        'name = "own"\ntask = "model.py:task"\n[plan]\nsteps = 10\n[run]\nversions = 3\n'
        "[sites.a]\nsite = 1\n[sites.b]\nsite = 2\n"
    )
    return folder
