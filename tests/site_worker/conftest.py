"""A site that is closed when its test ends."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.site_worker.bench import Site


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path)
    yield made
    made.outbox.close()
