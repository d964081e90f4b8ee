"""Every metric is in the documents as its service declares it, and named as Prometheus has it."""

from pathlib import Path

import pytest

from aggregator.gauges import MEASURES as AGGREGATORS
from broker.measures import Measure
from site_worker.gauges import MEASURES as WORKERS

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize(
    ("whose", "measures"), [("Of the aggregator:", AGGREGATORS), ("Of a site's worker:", WORKERS)], ids=["a", "w"]
)
def test_the_documents_have_every_metric(whose: str, measures: tuple[Measure, ...]) -> None:
    table = (ROOT / "docs/operations.md").read_text().partition(f"{whose}\n\n")[2].split("\n\n")[0]
    assert table.splitlines()[2:] == [
        f"| `{one.name}` | {one.kind} | {', '.join(one.labels)} | {one.means} |" for one in measures
    ]


@pytest.mark.parametrize("measure", [*AGGREGATORS, *WORKERS], ids=lambda one: str(one.name))
def test_names_end_in_total_for_counters_alone_and_before_that_in_a_base_unit(measure: Measure) -> None:
    assert measure.name.startswith("fedqueue_")
    assert measure.name.endswith("_total") == (measure.kind == "counter")
    assert measure.name.removesuffix("_total").rpartition("_")[2] not in {"s", "ms", "minutes", "mb", "gb", "percent"}
    assert measure.means.endswith(".")
