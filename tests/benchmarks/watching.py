"""What watching costs: `python -m tests.benchmarks.watching --sites 100 --updates 200000 --json FILE`.

Two parts. A journal of many sites and updates is read as `fedqueue status` reads it and as a scrape of metrics does,
reckoned in processor time, which other programs on the machine do not change. And a real aggregator with so many
enrolled sites, none of which is there, watches a real broker: processor time of both over a while, with and without
being scraped every 15 s, and how many requests to the broker that makes.
"""

import tempfile
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any, Final

import click
import msgspec
import numpy as np

from aggregator.gauges import Gauges
from aggregator.health import troubles
from aggregator.journal import Journal
from aggregator.settings import Folder, Settings
from aggregator.status import read_status
from broker.exposition import Scrape
from broker.processes import Ports, wait_until
from broker.topology import SiteNames
from tests.benchmarks.stage import FEDERATION, Stage, cpu_s

PRESENCE_S: Final = Settings(FEDERATION, "any").presence_s
CONSOLE_S: Final = Settings(FEDERATION, "any").console_s
SCRAPE_S: Final = 15.0
UPDATE: Final = """
INSERT INTO updates (ordinal, site, incarnation, sequence, base_version, staleness, weight, examples, steps, held_out,
    metrics, norm, codec, payload_digest, made_at, training_s, accepted_at, payload_bytes, payload)
VALUES (?, ?, x'01', ?, ?, ?, 1.0, 100, 50, 20, '{"auc": 0.8}', 1.0, 'int8', x'00', ?, 30.0, ?, 2000, ?)
"""
VERSION: Final = "INSERT INTO versions VALUES (?, x'01', ?, 20, 'buffer', ?, ?, NULL)"


def fill(stage: Stage, *, sites: int, updates: int) -> None:
    """Write a history of `updates` by `sites` into the journal, twenty to a version, newest a moment ago."""
    journal, began = Journal(stage.local.aggregator.journal_file), time.time() - updates
    try:
        rule = journal.versions()[0].rule
        journal.begin()
        database = journal._database
        for ordinal in range(1, updates + 1):
            version, at = ordinal // 20, began + ordinal
            sequence, stale = ordinal // sites + 1, ordinal % 5
            base = max(0, version - stale)
            name = f"site{ordinal % sites}"
            database.execute(UPDATE, (ordinal, name, sequence, base, stale, at - 40, at, bytes(2000)))
            if ordinal % 20 == 0:
                database.execute(VERSION, (version, ordinal, rule, at))
        journal.commit()
    finally:
        journal.close()


def reading(folder: Folder, *, times: int) -> dict[str, Any]:
    """Processor milliseconds of a status, and of the first and a later scrape."""
    scrape = Scrape(Gauges(folder, FEDERATION, lambda: troubles(read_status(folder, counted=False), time.time())).read)
    first = _cpu_ms(scrape.text)
    return {
        "status_ms": median(_cpu_ms(lambda: read_status(folder)) for _ in range(times)),
        "first_scrape_ms": first,
        "scrape_ms": median(_cpu_ms(scrape.text) for _ in range(times)),
        "scrape_bytes": len(scrape.text()),
    }


def _cpu_ms(step: Callable[[], object]) -> float:
    began = time.process_time()
    step()
    return round(1000 * (time.process_time() - began), 2)


def watching(stage: Stage, *, sites: int, seconds: float) -> dict[str, Any]:
    """Processor milliseconds a second of aggregator and broker while nothing else happens, without and with scrapes."""
    port = Ports.free().prometheus
    settings = stage.local.aggregator.settings_file
    settings.write_text(f"{settings.read_text()}\n[metrics]\nport = {port}\n")
    for number in range(sites):
        stage.assign(f"site{number}")
    stage.local.start_aggregator()
    if not wait_until(lambda: read_status(stage.local.aggregator).link == "connected", 60.0):
        raise RuntimeError("The aggregator does not connect; look at its log.")
    time.sleep(2 * PRESENCE_S)
    return {
        "alone": _load(stage, seconds, None),
        "scraped": _load(stage, seconds, f"http://127.0.0.1:{port}/metrics"),
        "requests_per_minute": _requests(sites),
    }


def _load(stage: Stage, seconds: float, url: str | None) -> dict[str, float]:
    pids = {"aggregator": stage.aggregator_pid(), "broker": stage.broker_pid()}
    before, began = {name: cpu_s(pid) for name, pid in pids.items()}, time.monotonic()
    while (passed := time.monotonic() - began) < seconds:
        if url is not None:
            with urllib.request.urlopen(url, timeout=30) as answer:
                answer.read()
        time.sleep(min(SCRAPE_S, seconds - passed))
    return {f"{name}_cpu_ms_per_s": round(1000 * (cpu_s(pid) - before[name]) / passed, 2) for name, pid in pids.items()}


def _requests(sites: int) -> dict[str, float]:
    """One passive declaration for each rounds queue, one more for the receipts queue of whoever is not there."""
    names = [SiteNames(FEDERATION, f"site{number}") for number in range(sites)]
    looks = 60 / PRESENCE_S
    return {"all_present": looks * len(names), "all_away": 2 * looks * len(names), "console": 4 * 60 / CONSOLE_S}


@click.command()
@click.option("--sites", default=100, show_default=True, type=click.IntRange(1))
@click.option("--updates", default=200_000, show_default=True, type=click.IntRange(1))
@click.option("--times", default=9, show_default=True, type=click.IntRange(1), help="Readings for the medians.")
@click.option("--seconds", default=60.0, show_default=True, help="How long the real aggregator is watched, twice.")
@click.option("--json", "json_file", type=click.Path(path_type=Path, dir_okay=False))
def main(*, sites: int, updates: int, times: int, seconds: float, json_file: Path | None) -> None:
    """Reckon what status, metrics and presence cost."""
    figures: dict[str, Any] = {"sites": sites, "updates": updates}
    with tempfile.TemporaryDirectory(prefix="fq-") as folder:
        stage = Stage(Path(folder), np.zeros(1000, dtype=np.float32))
        try:
            stage.set_up(codec="int8", strategy="patient", buffer_size=0, min_sites=sites)
            figures["watching"] = watching(stage, sites=sites, seconds=seconds)
            stage.local.processes.pop("aggregator").terminate()
            fill(stage, sites=sites, updates=updates)
            figures["reading"] = reading(stage.local.aggregator, times=times)
        finally:
            stage.local.close()
    text = msgspec.json.format(msgspec.json.encode(figures)).decode()
    click.echo(text)
    if json_file is not None:
        json_file.write_text(text)


if __name__ == "__main__":
    main()
