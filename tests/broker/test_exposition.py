"""Readings over HTTP: what Prometheus gets, and that nothing which goes wrong there reaches the service."""

import socket
import threading
import urllib.request
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from urllib.error import HTTPError, URLError

import pytest

from broker.exposition import MOST_CLIENTS, exposed
from broker.measures import Measure, Metrics, Reading, Spread, trouble_readings
from broker.processes import wait_until
from broker.troubles import CAUSES, Trouble
from tests.ports import free_port

HELD = Measure("fedqueue_held", "gauge", (), "What is held.")
DONE = Measure("fedqueue_done_total", "counter", ("site",), "What was done.")
AGE = Measure("fedqueue_age_versions", "histogram", ("site",), "How old.")
PATIENCE_S = 30.0


def readings() -> Iterable[Reading]:
    yield DONE.of(3, "NY")
    yield AGE.of(Spread.of({0: 2, 4: 1}, (0, 1, 5)), 'a "b" \\ c')
    yield HELD.of(0.5)
    yield DONE.of(4, "KY")


OURS = r"""# HELP fedqueue_done_total What was done.
# TYPE fedqueue_done_total counter
fedqueue_done_total{site="NY"} 3.0
fedqueue_done_total{site="KY"} 4.0
# HELP fedqueue_age_versions How old.
# TYPE fedqueue_age_versions histogram
fedqueue_age_versions_bucket{le="0.0",site="a \"b\" \\ c"} 2.0
fedqueue_age_versions_bucket{le="1.0",site="a \"b\" \\ c"} 2.0
fedqueue_age_versions_bucket{le="5.0",site="a \"b\" \\ c"} 3.0
fedqueue_age_versions_bucket{le="+Inf",site="a \"b\" \\ c"} 3.0
fedqueue_age_versions_count{site="a \"b\" \\ c"} 3.0
fedqueue_age_versions_sum{site="a \"b\" \\ c"} 4.0
# HELP fedqueue_held What is held.
# TYPE fedqueue_held gauge
fedqueue_held 0.5
"""


@pytest.fixture
def metrics() -> Metrics:
    return Metrics(port=free_port())


def got(metrics: Metrics, path: str = "/metrics") -> tuple[int, str]:
    """Status and body of an answer, once somebody listens."""
    found: list[tuple[int, str]] = []

    def asked() -> bool:
        try:
            with urllib.request.urlopen(f"http://{metrics.address}:{metrics.port}{path}", timeout=PATIENCE_S) as answer:
                found.append((answer.status, answer.read().decode()))
        except HTTPError as error:
            with error:
                found.append((error.code, error.read().decode()))
        except (URLError, ConnectionError):
            return False
        return True

    assert wait_until(asked, PATIENCE_S)
    return found[0]


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [one.getMessage() for one in caplog.records if one.levelname == "WARNING"]


def test_readings_are_served_by_measure_with_those_of_the_process(metrics: Metrics) -> None:
    with exposed(metrics, readings):
        status, text = got(metrics)
    assert status == 200
    ours, _, rest = text.partition("# HELP process_")
    assert ours == OURS
    assert "process_cpu_seconds_total " in rest


def test_another_path_is_not_found(metrics: Metrics) -> None:
    with exposed(metrics, readings):
        assert got(metrics, "/")[0] == 404
        assert got(metrics, "/metrics?x=1")[0] == 200


def test_the_port_is_free_again_afterwards(metrics: Metrics) -> None:
    with exposed(metrics, readings):
        got(metrics)
    socket.create_server((metrics.address, metrics.port)).close()


def test_port_0_serves_nothing() -> None:
    before = threading.active_count()
    with exposed(Metrics(), readings):
        assert threading.active_count() == before


def test_a_port_in_use_is_one_warning_and_is_served_once_it_is_free(
    metrics: Metrics, caplog: pytest.LogCaptureFixture
) -> None:
    taken = socket.create_server((metrics.address, metrics.port))
    with exposed(metrics, readings, retry_s=0.01):
        assert wait_until(lambda: bool(warnings(caplog)), PATIENCE_S)
        taken.close()
        assert got(metrics)[0] == 200
    (sentence,) = warnings(caplog)
    assert f"Metrics cannot be served at 127.0.0.1:{metrics.port} (Address already in use): free the port" in sentence


@pytest.mark.parametrize("address", ["192.0.2.1", "no.such.host.invalid", "a\0b", "x" * 80])
def test_an_address_that_is_not_of_this_machine_is_one_warning(address: str, caplog: pytest.LogCaptureFixture) -> None:
    with exposed(Metrics(address, 9748), readings, retry_s=0.01):
        assert wait_until(lambda: bool(warnings(caplog)), PATIENCE_S)
    (sentence,) = warnings(caplog)
    assert "give [metrics] an address of this machine" in sentence


class Failing:
    """Readings that fail while there is a `fault`."""

    fault: Exception | None = None

    def read(self) -> Iterator[Reading]:
        yield HELD.of(1)
        if self.fault:
            raise self.fault


def test_a_fault_while_reading_is_a_failed_scrape_and_one_warning_until_it_works_again(
    metrics: Metrics, caplog: pytest.LogCaptureFixture
) -> None:
    one = Failing()
    with exposed(metrics, one.read):
        one.fault = OSError("the journal is gone")
        assert [got(metrics)[0] for _ in range(3)] == [500, 500, 500]
        assert len(warnings(caplog)) == 1
        assert "Metrics cannot be read: the journal is gone" in warnings(caplog)[0]
        one.fault = None
        assert got(metrics)[0] == 200
        one.fault = OSError("the journal is gone")
        assert got(metrics)[0] == 500
    assert len(warnings(caplog)) == 2


def test_clients_that_say_nothing_keep_out_others_only_while_they_stay(metrics: Metrics) -> None:
    with exposed(metrics, readings), ExitStack() as stack:
        got(metrics)
        silent = [socket.create_connection((metrics.address, metrics.port)) for _ in range(MOST_CLIENTS + 1)]
        for one in silent:
            stack.callback(one.close)
        assert silent[-1].recv(1) == b""  # one too many is hung up on
        for one in silent:
            one.close()
        assert got(metrics)[0] == 200


def test_a_reading_has_a_value_for_each_label() -> None:
    with pytest.raises(ValueError, match="fedqueue_done_total has the labels site, not 2"):
        DONE.of(1, "NY", "x")


def test_troubles_of_one_cause_at_one_site_are_one_series() -> None:
    measure = Measure("fedqueue_trouble", "gauge", ("federation", "cause", "site"), "Wrong.")
    missing, away = CAUSES["queue-missing"], CAUSES["site-away"]
    found = [Trouble(missing, "NY", "rounds"), Trouble(missing, "NY", "receipts"), Trouble(away, "KY")]
    assert [one.labels for one in trouble_readings(measure, found, "trial")] == [
        ("trial", "queue-missing", "NY"),
        ("trial", "site-away", "KY"),
    ]
