"""Benches that are closed when their test ends."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.aggregator.bench import Bench, bench

MakeBench = Callable[..., Bench]


@pytest.fixture
def make_bench(tmp_path: Path) -> Iterator[MakeBench]:
    made: list[Bench] = []

    def make(**changes: Any) -> Bench:
        path = tmp_path / str(len(made))
        made.append(bench(path, **changes))
        return made[-1]

    yield make
    for one in made:
        one.close()
