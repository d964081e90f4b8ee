"""One hospital's part of the digits, for real site processes: the task a site names with its number in its options.

The split is the one that a simulation with the same seed and alpha draws; the common test rows are nobody's.
"""

from functools import partial

import numpy as np

from deploy.simulation.split import dirichlet
from site_worker.tasks.divided import divided, labels_of
from site_worker.tasks.open_data import digits
from site_worker.tasks.task import Task

HELD_OUT = 0.1
common = partial(digits, seed=0)


def site(number: int, sites: int, alpha: float = 0.5, seed: int = 0) -> Task:
    """The rows of site `number`, from 0, of so many `sites`."""
    whole = common()
    parts = dirichlet(labels_of(whole), sites, np.random.default_rng([seed, 3]), alpha=alpha)
    return divided(whole, parts, held_out=HELD_OUT, seed=seed)[number]
