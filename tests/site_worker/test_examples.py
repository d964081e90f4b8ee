"""The worked examples learn as a federation, and are no longer than a hospital would want to write.

Learning is tested without asynchrony: two sites in turn, fixed seeds, one thread, the mean of their weights.
"""

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import site_worker.examples
from site_worker.examples import images, sepsis, words
from site_worker.plan import Plan
from site_worker.tasks.task import Task, load_task
from site_worker.training import Trainer, initial_weights

LINES = 30
SITES = (0, 1)
EXAMPLES = {
    "images": (images.task, "auc", Plan(20, 32, 0.003, "adam")),
    "sepsis": (sepsis.task, "auc", Plan(20, 32, 0.003, "adam", schedule="cosine", clip_norm=1.0)),
    "words": (words.task, "suggested", Plan(20, 32, 0.01, "adamw", weight_decay=0.01)),
}


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def federated(make: Callable[[int], Task], plan: Plan, rounds: int) -> Iterator[list[dict[str, float]]]:
    """What each site measures of the common model before each round and after the last."""
    tasks = [make(site) for site in SITES]
    sites = [Trainer(task, None, seed=seed) for seed, task in enumerate(tasks)]
    weights = initial_weights(tasks[0])
    own: list[dict[str, torch.Tensor]] = [{} for _ in sites]
    yield [site.evaluate(weights) for site in sites]
    for version in range(rounds):
        outcomes = [
            site.train(weights, plan, threading.Event(), version=version, own=kept)
            for site, kept in zip(sites, own, strict=True)
        ]
        weights = {name: np.mean([one.weights[name] for one in outcomes], axis=0) for name in weights}
        own = [one.own for one in outcomes]
        yield [site.evaluate(weights, kept) for site, kept in zip(sites, own, strict=True)]


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_goes_from_chance_far_beyond_it(name: str) -> None:
    make, metric, plan = EXAMPLES[name]
    first, *_, last = federated(make, plan, rounds=12)
    assert all(one[metric] < 0.7 for one in first)
    assert all(one[metric] > 0.75 for one in last)  # more than .95 where this was written
    assert all(after[metric] > before[metric] + 0.2 for before, after in zip(first, last, strict=True))


def test_scanners_that_differ_need_their_own_normalisation() -> None:
    plan = Plan(50, 32, 0.01, "adam")
    *_, kept = federated(images.task, plan, rounds=4)
    *_, shared = federated(lambda site: replace(images.task(site), local=()), plan, rounds=4)
    assert max(one["loss"] for one in kept) < 1.0
    assert min(one["loss"] for one in shared) > 2.0


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_is_short_and_can_be_named_as_a_file_or_a_module(name: str) -> None:
    file = Path(site_worker.examples.__path__[0]) / f"{name}.py"
    assert len(file.read_text().splitlines()) <= LINES
    named = [load_task(spec, {"site": 1}) for spec in (f"{file}:task", f"site_worker.examples.{name}:task")]
    assert named[0].name == named[1].name
