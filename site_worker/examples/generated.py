"""Made-up patients for the examples: no real person, no data set, the same rows for the same site every time.

Each site's rows come from one common truth, seen through that site's own scanner, monitors or manner of writing.
"""

from itertools import chain
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

SIDE: Final = 16
HOURS: Final = 24
SIGNS: Final = ("heart rate", "respiration", "temperature", "mean arterial pressure", "oxygen saturation")
NORMAL: Final = np.array([80.0, 16.0, 37.0, 85.0, 97.0])
SPREAD: Final = np.array([10.0, 2.5, 0.4, 9.0, 1.2])
DRIFT: Final = np.array([1.0, 1.0, 0.7, -1.0, -0.5])  # of a patient who is about to fall ill, in spreads
SEED: Final = 3
COMPLAINTS: Final = (
    ("cough", "lungs", "crackles", "amoxicillin", "oral"),
    ("chest pain", "ecg", "ischaemia", "aspirin", "oral"),
    ("wheeze", "lungs", "rhonchi", "salbutamol", "inhaled"),
    ("dysuria", "urine", "nitrites", "trimethoprim", "oral"),
    ("vomiting", "abdomen", "soft", "ondansetron", "intravenous"),
    ("fever", "blood", "leucocytosis", "paracetamol", "oral"),
)
DAYS: Final = ("two", "three", "five")
HABITS: Final = ("patient reports", "pt c/o", "presents with")
UNKNOWN: Final = -100  # what torch's cross_entropy leaves out
LONGEST_NOTE: Final = 18


def scans(site: int, rows: int) -> tuple[Tensor, Tensor]:
    """Noisy images (rows, 1, 16, 16), half of them with a bright spot, and labels (rows, 1).

    Each site's scanner has a gain and an offset of its own.
    """
    random = np.random.default_rng([SEED, site])
    labels = np.arange(rows) % 2
    down, right = np.mgrid[:SIDE, :SIDE]
    row, column = random.uniform(3, SIDE - 3, size=(2, rows, 1, 1))
    spots = 2.0 * np.exp(-((down - row) ** 2 + (right - column) ** 2) / 4) * labels[:, None, None]
    images = (spots + random.normal(size=spots.shape)) * (0.5 + site) + 5.0 * site
    return _tensor(images[:, None]), _tensor(labels[:, None])


def vitals(site: int, rows: int) -> tuple[Tensor, Tensor]:
    """Hourly vital signs (rows, 24, 5) up to six hours before the moment in question, and labels (rows, 1).

    1 is sepsis at that moment: the signs have been drifting for some ten hours by then, four of which can be seen.
    """
    random = np.random.default_rng([SEED, site, HOURS])
    labels = np.arange(rows) % 2
    own = random.normal(scale=0.7, size=(rows, 1, len(SIGNS)))  # a patient's own normal
    noise = random.normal(scale=0.5, size=(rows, HOURS, len(SIGNS)))
    onset = random.uniform(HOURS - 12, HOURS - 6, size=rows)
    drift = np.maximum(0.0, np.arange(HOURS) - onset[:, None]) * 0.16 * labels[:, None]
    signs = NORMAL + SPREAD * (own + noise + drift[:, :, None] * DRIFT + 0.3 * site)
    return _tensor((signs - NORMAL) / SPREAD), _tensor(labels[:, None])


def notes(site: int, rows: int) -> tuple[Tensor, Tensor]:
    """Admission notes as numbers of words (rows, 17), and of the words that follow them; -100 after a note's end.

    Each site has its way to begin a note.
    """
    random = np.random.default_rng([SEED, site, LONGEST_NOTE])
    texts = [_note(HABITS[site % len(HABITS)], random) for _ in range(rows)]
    numbers = [[WORDS.index(word) for word in text] for text in texts]
    padded = torch.tensor([note + [UNKNOWN] * (LONGEST_NOTE - len(note)) for note in numbers])
    return padded[:, :-1].clamp(min=0), padded[:, 1:]


def _note(habit: str, random: np.random.Generator) -> list[str]:
    complaint, where, finding, drug, route = COMPLAINTS[random.integers(len(COMPLAINTS))]
    days = DAYS[random.integers(len(DAYS))]
    return f"{habit} {complaint} for {days} days . {where} show {finding} . start {drug} {route} .".split()


WORDS: Final = sorted(
    {word for text in (*HABITS, *DAYS, *chain(*COMPLAINTS), "for days . show start") for word in text.split()}
)


def _tensor(array: NDArray[np.generic]) -> Tensor:
    return torch.tensor(array, dtype=torch.float32)
