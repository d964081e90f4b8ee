"""The fault drill: whatever breaks, every place where people look names the same cause, and is green again afterwards.

Over a real broker, with real processes. How long each place takes is written to the file that FEDQUEUE_DRILL names.
"""

import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from broker.troubles import CAUSES
from tests.drill.drills import DRILLS, Drill
from tests.drill.hospitals import Hospitals, hospitals
from tests.drill.places import Named, Places, looks
from tests.prometheus import Prometheus

pytestmark = pytest.mark.broker
PATIENCE_S = 120.0
RUNBOOK = Path(__file__).parents[2] / "docs" / "runbook.md"
TOLD_FOR_A_WHILE = "queue-missing"  # mended by itself within seconds, and told of for a minute
SHOWN: dict[str, dict[str, float]] = {}


@pytest.fixture(scope="module")
def federation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hospitals]:
    with hospitals(tmp_path_factory.mktemp("drill")) as made:
        yield made
    if file := os.environ.get("FEDQUEUE_DRILL"):
        Path(file).write_text(json.dumps(SHOWN, indent=2))


@pytest.fixture(scope="module")
def places(federation: Hospitals, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Callable[[], Named]]]:
    assert federation.node is not None
    assert federation.metrics is not None
    ports = {name: f"127.0.0.1:{port}" for name, port in federation.metrics.items()}
    targets = {
        "fedqueue-aggregator": [ports.pop("aggregator")],
        "fedqueue-site": list(ports.values()),
        "rabbitmq": [f"127.0.0.1:{federation.node.prometheus_port}"],
    }
    with Prometheus.running(tmp_path_factory.mktemp("prometheus"), targets=targets) as prometheus:
        prometheus.until_scraped(within_s=60.0)
        yield looks(Places(federation, prometheus))


@pytest.mark.parametrize("name", DRILLS)
def test_every_place_names_the_cause_and_is_green_again_after_the_remedy(
    federation: Hospitals, places: dict[str, Callable[[], Named]], name: str
) -> None:
    drill = DRILLS[name]
    _until_green(places, but=TOLD_FOR_A_WHILE)
    drill.make(federation)
    SHOWN[name] = _until_named(drill, places)
    drill.mend(federation)
    SHOWN[name]["green again"] = _until_green(places, but=TOLD_FOR_A_WHILE)


def test_in_the_end_nothing_is_left_of_any_fault(places: dict[str, Callable[[], Named]]) -> None:
    _until_green(places)


def test_the_runbook_tells_the_same_remedy_for_every_cause_of_the_drill() -> None:
    runbook = RUNBOOK.read_text()
    for drill in DRILLS.values():
        cause = CAUSES[drill.cause]
        assert f"| `{cause.name}` | {cause.means} | {cause.remedy} |" in runbook


def _until_named(drill: Drill, places: dict[str, Callable[[], Named]]) -> dict[str, float]:
    """Seconds until each place that can see it has named it."""
    began, wanted = time.monotonic(), (drill.cause, drill.site)
    after: dict[str, float] = {}
    last: dict[str, Named] = {}
    while missing := [name for name in places if name not in after]:
        for name in missing:
            last[name] = places[name]()
            if wanted in last[name]:
                after[name] = round(time.monotonic() - began, 1)
        assert time.monotonic() - began < PATIENCE_S, f"{wanted} is named by {list(after)}; the others say {last}"
    return after


def _until_green(places: dict[str, Callable[[], Named]], *, but: str = "") -> float:
    """Seconds until no place asks anybody to act, `but` for one cause."""
    began = time.monotonic()
    while red := {name: wrong for name, look in places.items() if (wrong := _to_act(look(), but))}:
        assert time.monotonic() - began < PATIENCE_S, f"not green again: {red}"
    return round(time.monotonic() - began, 1)


def _to_act(named: Named, but: str) -> Named:
    return {one for one in named if CAUSES[one[0]].act and one[0] != but}
