"""The dashboard asks for what is there: each of its expressions finds something in a real Prometheus.

That asks an aggregator and a worker on hand-made folders, and the exporter of a real RabbitMQ.
"""

import json
import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import pika
import pytest
import yaml

from aggregator.gauges import Gauges
from broker.exposition import exposed
from broker.measures import Metrics
from broker.node import Node
from broker.troubles import CAUSES, Trouble
from site_worker.gauges import metrics_of
from site_worker.outbox import Outbox
from tests.aggregator.bench import bench, floats
from tests.ports import free_port
from tests.prometheus import ALERTS, Prometheus

FOLDER = Path(__file__).parents[2] / "deploy" / "grafana"
WITHIN_S = 90.0
SITE = "A"
WORDS = {  # of PromQL, besides those that a parenthesis follows
    "by", "on", "group_right", "or", "and", "unless",
}  # fmt: skip


def panels() -> list[dict[str, Any]]:
    return list(json.loads((FOLDER / "dashboard.json").read_text())["panels"])


def expressions() -> list[str]:
    """As Grafana sends them with everything chosen."""
    chosen = {"$federation": ".*", "$site": ".*", "$metric": ".*", "$__rate_interval": "1m"}
    found = [target["expr"] for panel in panels() for target in panel.get("targets", [])]
    for name, value in chosen.items():
        found = [one.replace(name, value) for one in found]
    return found


def alert_expressions() -> list[str]:
    return [rule["expr"] for group in yaml.safe_load(ALERTS.read_text())["groups"] for rule in group["rules"]]


def metric_names(expression: str) -> set[str]:
    """The names of metrics in it."""
    bare = re.sub(r'"[^"]*"', "", expression)  # strings, then matchers, ranges and lists of labels
    bare = re.sub(r"\{[^}]*\}|\[[^]]*\]|\b(by|on|group_right) \([^)]*\)", "", bare)
    return set(re.findall(r"\b[a-z_]\w*\b(?! *\()", bare)) - WORDS


def test_names_of_metrics_are_found_in_expressions() -> None:
    text = '60 * sum by (a) (rate(b_total{c=~"d.e",f="g"}[1m])) or on () up{job="h"} == 0 and time() - max(i)'
    assert metric_names(text) == {"b_total", "up", "i"}


def test_every_panel_says_what_it_shows_and_asks_the_chosen_prometheus() -> None:
    shown = [one for one in panels() if one["type"] != "row"]
    assert len({one["id"] for one in panels()}) == len(panels())
    for panel in shown:
        assert panel["title"]
        assert panel["description"].endswith(".")
        assert [one["datasource"]["uid"] for one in (panel, *panel["targets"])] == ["${datasource}"] * (
            1 + len(panel["targets"])
        )
        assert len({one["refId"] for one in panel["targets"]}) == len(panel["targets"])


def test_panels_do_not_lie_over_each_other() -> None:
    taken = [
        (x, y)
        for panel in panels()
        for place in [panel["gridPos"]]
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]
    assert max(x for x, _ in taken) < 24
    assert all(one != other for one, other in pairwise(sorted(taken)))


def test_what_grafana_is_provisioned_with_fits_the_dashboard_and_the_configuration() -> None:
    (source,) = yaml.safe_load((FOLDER / "provisioning/datasources/prometheus.yaml").read_text())["datasources"]
    (provider,) = yaml.safe_load((FOLDER / "provisioning/dashboards/fedqueue.yaml").read_text())["providers"]
    configured = yaml.safe_load(ALERTS.with_name("prometheus.yml").read_text())["global"]
    assert source["jsonData"]["timeInterval"] == configured["scrape_interval"]
    assert (source["type"], provider["type"]) == ("prometheus", "file")


@contextmanager
def aggregator(path: Path) -> Iterator[int]:
    """The port of one that A has sent two updates to."""
    made = bench(path)
    made.start()
    for sequence in (1, 2):
        made.feed(made.sites[SITE].update(sequence, floats(1, 0, 0, 0)))
    made.close()
    metrics = Metrics(port=free_port())
    gauges = Gauges(made.place, "fed", lambda: [Trouble(CAUSES["site-away"], "B")])
    with exposed(metrics, gauges.read):
        yield metrics.port


@contextmanager
def worker(path: Path) -> Iterator[int]:
    """The port of the worker of A, which has fetched version 1."""
    port = free_port()
    path.mkdir()
    (path / "site.toml").write_text(f'site = "{SITE}"\ntask = "x:y"\n[metrics]\nport = {port}\n')
    outbox = Outbox(path / "outbox.db")
    outbox.note_activity("training", 1, "", at=1.0)
    outbox.close()
    with metrics_of([path]):
        yield port


@pytest.fixture
def prometheus(node: Node, broker_url: str, tmp_path: Path) -> Iterator[Prometheus]:
    with ExitStack() as stack:
        connection = pika.BlockingConnection(pika.URLParameters(broker_url))
        stack.callback(connection.close)
        connection.channel().queue_declare("fq.fed.A.updates", durable=True, arguments={"x-queue-type": "quorum"})
        jobs = {
            "fedqueue-aggregator": stack.enter_context(aggregator(tmp_path / "aggregator")),
            "fedqueue-site": stack.enter_context(worker(tmp_path / "site")),
            "rabbitmq": node.prometheus_port,
            "rabbitmq-queues": node.prometheus_port,
        }
        targets = {job: [f"127.0.0.1:{port}"] for job, port in jobs.items()}
        yield stack.enter_context(Prometheus.running(tmp_path / "prometheus", targets=targets))


def test_every_expression_finds_something_and_asks_for_no_metric_that_nobody_has(prometheus: Prometheus) -> None:
    def empty() -> list[str]:
        return [one for one in expressions() if not prometheus.query(one)]

    prometheus.until("every panel has something", lambda: not empty(), WITHIN_S)
    known = prometheus.metric_names() | {"up"}
    for one in (*expressions(), *alert_expressions()):
        prometheus.query(one)  # fails if it does not parse
        assert metric_names(one)
        assert metric_names(one) <= known
