"""What a worker tells Prometheus: by outboxes filled by hand; several sites share a port, and none hides another."""

import urllib.request
from pathlib import Path
from typing import Any

import pytest

from broker.folderlock import sole_process
from broker.processes import wait_until
from broker.room import free_bytes
from site_worker.gauges import MEASURES, Gauges, metrics_of
from site_worker.health import troubles
from site_worker.outbox import Outbox, Settled
from site_worker.settings import Folder
from site_worker.status import read_status
from tests.ports import free_port
from tests.site_worker.bench import made
from tests.site_worker.drafts import drafted

Readings = dict[tuple[str, ...], Any]


def site(path: Path, name: str, *, port: int = 0, updates: int = 0) -> Outbox:
    """The outbox of a site that has made `updates`, in a folder of its own below `path`."""
    folder = Folder(path / name)
    folder.path.mkdir()
    folder.settings_file.write_text(f'site = "{name}"\ntask = "x:y"\n[metrics]\nport = {port}\n')
    outbox = Outbox(folder.outbox_file)
    more(outbox, 1, updates)
    return outbox


def more(outbox: Outbox, first: int, last: int) -> None:
    for sequence in range(first, last + 1):
        drafted(outbox)
        outbox.store(made(sequence))


def read(gauges: Gauges) -> Readings:
    found = [((one.measure.name.removeprefix("fedqueue_"), *one.labels), one.value) for one in gauges.read()]
    assert len({name for name, _ in found}) == len(found)
    return dict(found)


def counts(found: Readings) -> tuple[int, int, int]:
    """Waiting, accepted, refused, of site A."""
    names = ("waiting", "accepted_total", "refused_total")
    waiting, accepted, refused = (found[f"worker_updates_{name}", "A"] for name in names)
    return waiting, accepted, refused


def test_state_version_and_updates_of_a_running_worker_are_told(tmp_path: Path) -> None:
    outbox = site(tmp_path, "A", updates=3)
    outbox.settle([Settled(1, "accepted"), Settled(2, "refused", "too large")], at=9.0)
    outbox.note_activity("training", 7, "", at=50.0)
    with sole_process(tmp_path / "A", "A test"):
        found = read(Gauges(Folder(tmp_path / "A")))
    outbox.close()
    free = found.pop(("worker_disk_free_bytes", "A"))
    assert abs(free - free_bytes(tmp_path)) < 1 << 30
    assert found == {
        ("worker_state", "A", "training"): 1, ("worker_state_since_timestamp_seconds", "A"): 50.0,
        ("worker_version", "A"): 7, ("worker_updates_waiting", "A"): 1, ("worker_updates_accepted_total", "A"): 1,
        ("worker_updates_refused_total", "A"): 1, ("trouble", "update-refused", "A"): 1,
    }  # fmt: skip


def test_one_that_does_not_run_is_away(tmp_path: Path) -> None:
    site(tmp_path, "A").close()
    found = read(Gauges(Folder(tmp_path / "A")))
    assert ("trouble", "site-away", "A") in found
    assert ("worker_state", "A", "stopped") in found


def test_updates_are_counted_on_whatever_order_they_are_settled_in(tmp_path: Path) -> None:
    outbox, gauges = site(tmp_path, "A"), Gauges(Folder(tmp_path / "A"))
    assert counts(read(gauges)) == (0, 0, 0)
    more(outbox, 1, 4)
    assert counts(read(gauges)) == (4, 0, 0)
    outbox.settle([Settled(1, "accepted"), Settled(3, "refused", "no")], at=1.0)
    assert counts(read(gauges)) == (2, 1, 1)
    outbox.settle([Settled(2, "accepted")], at=1.0)
    assert counts(read(gauges)) == (1, 2, 1)
    outbox.settle([Settled(4, "accepted")], at=1.0)
    more(outbox, 5, 6)
    for one in (gauges, gauges, Gauges(Folder(tmp_path / "A"))):
        assert counts(read(one)) == (2, 3, 1)
    outbox.close()


def test_what_is_settled_is_counted_only_once(tmp_path: Path) -> None:
    outbox, gauges = site(tmp_path, "A", updates=3), Gauges(Folder(tmp_path / "A"))
    outbox.settle([Settled(1, "accepted"), Settled(2, "accepted")], at=1.0)
    assert counts(read(gauges)) == (1, 2, 0)
    outbox._database.execute("DELETE FROM updates WHERE sequence < 3")  # as nobody does; it shows what is read
    assert counts(read(gauges)) == (1, 2, 0)
    outbox.close()


def test_a_status_that_is_not_counted_has_the_same_troubles(tmp_path: Path) -> None:
    outbox = site(tmp_path, "A", updates=2)
    outbox.settle([Settled(2, "refused", "too large")], at=9.0)
    outbox.close()
    whole, light = (read_status(Folder(tmp_path / "A"), counted=one) for one in (True, False))
    assert troubles(light) == troubles(whole) != []
    assert (whole.waiting, whole.refused, light.waiting, light.refused, light.used_bytes) == (1, 1, 0, 0, 0)


def test_every_measure_is_in_the_table(tmp_path: Path) -> None:
    outbox = site(tmp_path, "A")
    outbox.note_activity("idle", 7, "", at=50.0)
    outbox.close()
    assert {one.measure for one in Gauges(Folder(tmp_path / "A")).read()} == set(MEASURES)


def test_a_site_that_has_not_begun_or_cannot_be_read_is_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert Gauges(Folder(tmp_path / "none")).read() == []
    assert caplog.records == []
    site(tmp_path, "A").close()
    (tmp_path / "A" / "outbox.db").write_bytes(b"not a database" * 1000)
    gauges = Gauges(Folder(tmp_path / "A"))
    assert gauges.read() == gauges.read() == []
    (record,) = caplog.records
    path = tmp_path / "A"
    sentence = f"No metrics of {path}: {path}/outbox.db cannot be read: file is not a database"
    assert record.getMessage() == f'metrics-silent reason="{sentence}"'


def served(port: int) -> str:
    found: list[str] = []

    def asked() -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as answer:
                found.append(answer.read().decode())
        except OSError:
            return False
        return True

    assert wait_until(asked, 30)
    return found[0]


def test_sites_that_name_a_port_share_it_and_others_have_their_own(tmp_path: Path) -> None:
    one, other = free_port(), free_port()
    for name, port in (("A", one), ("B", one), ("C", other), ("D", 0)):
        site(tmp_path, name, port=port).close()
    (tmp_path / "E").mkdir()  # without settings
    with metrics_of([tmp_path / name for name in "ABCDE"]):
        shared, own = served(one), served(other)
    for name, found in (("A", "one"), ("B", "one"), ("C", "other"), ("D", "")):
        line = f'fedqueue_worker_updates_waiting{{site="{name}"}} 0.0'
        assert (line in shared, line in own) == (found == "one", found == "other")
