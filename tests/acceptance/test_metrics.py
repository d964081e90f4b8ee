"""Services with a metrics port answer Prometheus; one whose port is taken goes on without."""

import re
import urllib.request
from functools import partial
from pathlib import Path

import pytest

from deploy.local import SitePlan
from tests.acceptance.federation import Federation
from tests.ports import free_port

pytestmark = pytest.mark.broker


def told(port: int, pattern: str) -> bool:
    """Whether a metric of that port reads so now."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as answer:
            return re.search(f"^{pattern}$", answer.read().decode(), re.MULTILINE) is not None
    except OSError:
        return False


def serve_at(file: Path, port: int) -> None:
    with file.open("a") as settings:
        settings.write(f"\n[metrics]\nport = {port}\n")


def test_aggregator_and_worker_answer_and_a_taken_port_stops_nobody(federation: Federation) -> None:
    aggregator, site = free_port(), free_port()
    federation.prepare(SitePlan("NY", {"site": 0}), SitePlan("KY", {"site": 1}), versions=2)
    serve_at(federation.aggregator.settings_file, aggregator)
    serve_at(federation.site("NY").settings_file, site)
    serve_at(federation.site("KY").settings_file, aggregator)
    federation.start_aggregator()
    federation.eventually("the aggregator answers", partial(told, aggregator, "fedqueue_connected.*"))
    federation.start_site("NY")
    federation.start_site("KY")
    federation.finished()
    for name in ("NY", "KY"):
        labels = f'federation="{federation.name}",site="{name}"'
        accepted = rf"fedqueue_site_updates_accepted_total\{{{labels}\}} [1-9].*"
        federation.eventually(f"updates of {name} are told", partial(told, aggregator, accepted))
    federation.eventually("NY is idle", lambda: told(site, r'fedqueue_worker_state\{site="NY",state="idle"\} 1.0'))
    assert federation.log("KY").count("metrics-silent") == 1
    assert f"127.0.0.1:{aggregator} (Address already in use)" in federation.log("KY")
    assert [federation.stop(name) for name in ("NY", "KY", "aggregator")] == [0, 0, 0]
    assert not told(site, ".*")
